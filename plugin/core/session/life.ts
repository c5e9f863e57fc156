/**
 * One life of this node in a namespace, from its join until it leaves or its session is found lost.
 *
 * The heartbeat runs by itself (`session.ts`). Everything else happens in turns, one at a time: read the view if there
 * is news, compare it with what this process is doing (`holdings.ts`, `agenda.ts`), put the difference into one change
 * (`wishes.ts`), and repeat until no wish is left.
 */

import { Contradiction, type Declaration, type OtherSchedule } from '../changes/declarations.js'
import { aheadOfLeave, join, leave, type Registration, register } from '../changes/membership.js'
import { closingReason, drain } from '../changes/operations.js'
import type { Held } from '../changes/rules.js'
import { type ChangeOutcome, mostServers, runChange, severalServers } from '../changes/run-change.js'
import { sayTokens, settleServer } from '../changes/server-record.js'
import { type Fired, fire } from '../changes/times.js'
import { aheadOf, settle } from '../changes/wishes.js'
import { StoreError } from '../errors.js'
import type { RequestKind } from '../outage.js'
import type { Ahead, Change, HeartbeatAnswer, OwnView, ServerFacts, SessionKey } from '../store.js'
import type { Reading } from '../time/clock.js'
import { Alarm, deferred, Loop, Turnstile } from '../time/loop.js'
import { retryPauseMs } from '../time/timing.js'
import { type Agenda, Agendas, isEmpty } from './agenda.js'
import type { Circumstances } from './holdings.js'
import { NewsPoll } from './news-poll.js'
import { Portions } from './portions.js'
import { Registrations } from './registrations.js'
import { Sent } from './sent.js'
import { Session } from './session.js'
import type { Surroundings } from './surroundings.js'
import { Watching } from './watching.js'

export class Life {
  readonly #in: Surroundings
  readonly #lost: () => void
  readonly #session: Session
  readonly #watching: Watching
  readonly #turns: Loop
  readonly #turnAlarm: Alarm
  /** Makes reads and changes run one by one, so that none can overtake another and bring back an old state. */
  readonly #turnstile = new Turnstile()
  readonly #agendas: Agendas
  readonly #portions: Portions
  readonly #newsPoll: NewsPoll
  readonly #sent = new Sent()
  #firstJoinSentAt: Reading | undefined
  /**
   * What the first try of the join declared: that try may be the one that was carried out. Differences are registered
   * later.
   */
  #declaredAtJoin: Declaration[] | undefined
  #stopListening: () => void = () => undefined
  #view: OwnView | undefined
  #viewWanted = false
  readonly #registrations: Registrations
  /** Resolves with the next step, or when this life ends. */
  #stepped = deferred()
  #claiming = true
  #resting = false
  #failures = 0
  /** How many steps, or tries to join, in a row have found a server to be recorded. */
  #newServers = 0
  #leaving = false
  /** Whether a change by which this node leaves may have been carried out, although its answer was lost. */
  #mayHaveLeft = false

  /** @param lost called once when the session turns out to be gone. */
  constructor(surroundings: Surroundings, lost: () => void) {
    const { clock, store, timing } = surroundings
    this.#in = surroundings
    this.#lost = lost
    this.#session = new Session(clock.uuid(), store, clock, timing, {
      answered: (answer, sentAt, receivedAt) => this.#answered(answer, sentAt, receivedAt),
      newsArrived: () => this.#newsArrived(),
      heartbeatFailed: (error) => this.#heartbeatFailed(error),
      trustExpired: () => this.#trustExpired(),
      trustRenewed: () => this.#in.watchdog?.trustFor(this.#session.trustLeftMs),
      trustBegan: () => this.#turns.poke(),
      sessionLost: () => this.#sessionLost(),
    })
    this.#watching = new Watching(surroundings, this.#session, {
      change: (work, done) => this.#inBetween(work, done),
      failed: (error, request) => this.#failed(error, request),
    })
    this.#turns = new Loop(() => this.#turn())
    this.#turnAlarm = new Alarm(clock, () => this.#turns.poke())
    this.#newsPoll = new NewsPoll(this.#session.id, store, clock, timing, {
      read: (news) => this.#polled(news),
      failed: (error) => this.#failed(error, 'news'),
    })
    this.#agendas = new Agendas(surroundings.holdings, timing)
    this.#portions = new Portions(timing)
    this.#registrations = new Registrations(surroundings.runners, timing.ttlMs)
  }

  get id(): string {
    return this.#session.id
  }

  trusted(): boolean {
    return this.#session.trusted()
  }

  get trustLeftMs(): number {
    return this.#session.trustLeftMs
  }

  get firstWatcher(): boolean {
    return this.#view?.watchers[0] === this.id
  }

  /** Whether this node is to hand everything over and take nothing. */
  get draining(): boolean {
    return this.#view?.state === 'draining'
  }

  /** Returns whether other nodes contradict this worker, so that this node is not a candidate for it. */
  refuses(declaration: Declaration): boolean {
    return this.#registrations.refuses(declaration)
  }

  /** Asks for a new comparison, because something has changed in this process. */
  poke(): void {
    this.#turns.poke()
  }

  /**
   * Joins. May be called again after a failure: trust then counts from the first try, because that may be the one that
   * was carried out. A worker that the database does not accept yet is registered later.
   *
   * @param howRefused when other nodes contradict a worker, `'throw'` makes the join fail, as it should while an
   *   application starts, unless those nodes have been silent for their ttl: somebody must join to bury them. With
   *   `'go-on'` this node joins without workers and then registers them, so that a refused one does not stop the others.
   * @param drained whether this process was draining in its previous life.
   * @returns false when this life cannot begin and another one must be tried.
   * @throws StoreError also when each of several tries has found a new server.
   */
  async join(howRefused: 'throw' | 'go-on', drained: boolean): Promise<boolean> {
    const { identity, labels, version, machine, timing, clock } = this.#in
    this.#declaredAtJoin ??= this.#registrations.declared
    const declarations = this.#declaredAtJoin
    const node = {
      id: this.id,
      name: identity.node,
      cluster: identity.cluster,
      labels,
      version,
      machine: machine?.name ?? null,
      process: machine?.process ?? null,
      ttlMs: timing.ttlMs,
    }
    this.#firstJoinSentAt ??= clock.read()
    const by = { actor: identity.node, reason: 'this process was draining when it lost its last session' }
    const joined = await this.#change(this.#session.joinKey, (change) =>
      join(change, node, declarations, drained ? by : undefined),
    ).catch((error: unknown) => {
      if (error instanceof StoreError) throw error
      const goesOn = howRefused === 'go-on' || (error instanceof Contradiction && error.bySilent)
      if (!goesOn || declarations.length === 0) {
        this.#declaredAtJoin = undefined
        throw error
      }
      this.#declaredAtJoin = []
      return undefined
    })
    if (joined === undefined) return this.join(howRefused, drained)
    if (joined.kind === 'new-server') {
      this.#countNewServer()
      return this.join(howRefused, drained)
    }
    this.#newServers = 0
    if (joined.kind !== 'done' || joined.result === 'buried' || joined.view === undefined) return false
    const { workers, otherSchedules, unfinished } = joined.result
    this.#warnOf(otherSchedules)
    this.#agendas.planned([], unfinished)
    this.#registrations.joined(declarations, workers, joined.view.serverIdentity)
    this.#session.joined(joined.view, this.#firstJoinSentAt)
    this.#stopListening = this.#in.store.listen(this.id, () => this.#newsArrived())
    this.#newsPoll.pollWhereNothingIsPushed()
    this.#watching.start()
    this.#adopt(joined.view)
    return true
  }

  /** Makes this node claim nothing new. */
  claimNothing(): void {
    this.#claiming = false
  }

  /** Tells the other nodes that this node hands over, so that no plan names it as target. */
  async drain(): Promise<void> {
    const by = { actor: this.#in.identity.node, reason: closingReason }
    await this.#inTurn((change) => drain(change, this.id, true, by))
  }

  /**
   * Releases everything and leaves, in one change. No turn begins any more. Returns false when this node had been
   * declared gone before.
   */
  async leave(): Promise<boolean> {
    this.#resting = true
    this.#leaving = true
    const ahead = aheadOfLeave(this.id, this.#registrations.keys)
    try {
      const done = await this.#inTurn((change) => leave(change, this.id), ahead)
      return done || this.#mayHaveLeft
    } catch (error) {
      this.#mayHaveLeft ||= !(error instanceof StoreError && error.outcome === 'none')
      throw error
    }
  }

  /** Resolves once no lease that this node has claimed for the worker lacks a handle. A claim may be under way. */
  async whenGivenBack(worker: string): Promise<void> {
    await this.#turnstile.pass(() => Promise.resolve())
    while (!this.#session.over && this.#holdsUnhandled(worker)) await this.#stepped.promise
  }

  #holdsUnhandled(worker: string): boolean {
    const leases = this.#view?.leases ?? []
    return leases.some(
      (lease) =>
        lease.worker === worker && lease.holder === this.id && this.#in.holdings.get(lease.key) === undefined,
    )
  }

  /** Begins no turn until {@link goOn} is called. */
  rest(): void {
    this.#resting = true
  }

  goOn(): void {
    this.#resting = false
    this.#turns.poke()
  }

  /**
   * Records that a schedule has been dealt with up to a time; see {@link fire}. Rejects when the outcome is unknown.
   */
  async fire(held: Held, firedAtMs: number): Promise<Fired> {
    const fired = await this.#inBetween((change) => fire(change, this.id, held, firedAtMs))
    return fired ?? (this.#session.over ? 'lost' : 'not-yet')
  }

  /** Ends heartbeats, turns and timers. Resolves once nothing of this life is under way. */
  async stop(): Promise<void> {
    this.#quieten()
    await this.#turns.stop()
    await this.#turnstile.pass(() => Promise.resolve())
  }

  #quieten(): void {
    this.#session.stop()
    this.#watching.stop()
    this.#stopListening()
    this.#turnAlarm.clear()
    this.#newsPoll.stop()
    this.#tellStepped()
  }

  #tellStepped(): void {
    this.#stepped.resolve()
    this.#stepped = deferred()
  }

  async #turn(): Promise<void> {
    try {
      for (;;) {
        const dueInMs = await this.#turnstile.pass(() => this.#step())
        this.#tellStepped()
        if (this.#newServers === 0) this.#failures = 0
        if (dueInMs === 0) continue
        // A turn that was under way when this life ended must not leave a timer behind.
        if (dueInMs !== undefined && !this.#session.over) this.#turnAlarm.set(dueInMs)
        return
      }
    } catch (error) {
      this.#turnFailed(error)
    }
  }

  /** Takes one step. Returns 0 when there is more to do, else the ms until the next comparison; undefined for never. */
  async #step(): Promise<number | undefined> {
    if (this.#session.over || this.#resting) return undefined
    if (this.#viewWanted || this.#view === undefined) await this.#read()
    if (this.#session.over || this.#view === undefined) return undefined
    const { server, clock } = this.#in
    const graceLeftMs = server.graceLeftMs(clock.read())
    // Every change first records a new server. If another node was quicker, this change does nothing.
    if (server.mustRecord) return this.#recordServer()
    this.#newServers = 0
    if (server.mustSayTokens) return this.#sayTokens()
    const waitedFor = server.recorded
    if (graceLeftMs === 0) return this.#own((change) => settleServer(change, waitedFor))
    this.#registrations.follow(this.#view.workers, (worker) => this.#leads(worker))
    const registration = this.#registrations.wanted(clock.read(), this.#view.serverIdentity)
    if (registration !== undefined) return this.#register(registration)
    this.#answerTries(this.#view)
    const circumstances = this.#circumstances(this.#view)
    this.#in.holdings.follow(circumstances)
    const agenda = this.#agendas.draw(circumstances)
    if (isEmpty(agenda.wishes)) {
      this.#portions.nothingLeft()
      return earliest(agenda.dueInMs, graceLeftMs, this.#registrations.nextInMs(circumstances.now))
    }
    return this.#settle(agenda)
  }

  #recordServer(): Promise<0> {
    this.#countNewServer()
    return this.#own(() => Promise.resolve())
  }

  /**
   * @throws StoreError when one step after the other finds a new server, as where reads and changes reach different
   *   ones. A pause follows, and then it begins anew.
   */
  #countNewServer(): void {
    this.#newServers += 1
    if (this.#newServers < mostServers) return
    this.#newServers = 0
    throw severalServers()
  }

  /**
   * Answers callers that do not wait for a lease, so that an outage or a new server's grace period does not delay them.
   */
  #answerTries({ state }: OwnView): void {
    const { server, requests, outage } = this.#in
    if (state !== 'active' || !server.mayClaim) requests.declineTries()
    else if (!this.trusted())
      requests.rejectTries(
        outage.error ?? new StoreError('This node could not renew its session in time.', 'none'),
      )
  }

  #sayTokens(): Promise<0> {
    const { server, holdings } = this.#in
    return this.#own(
      (change) => sayTokens(change, holdings.highestToken),
      this.#session.nextOperation(),
      (identity) => server.saidTokens(identity),
    )
  }

  #circumstances(view: OwnView): Circumstances {
    const { server, clock, runners, requests } = this.#in
    const mayClaim = this.#claiming && server.mayClaim && view.state === 'active' && this.trusted()
    const now = clock.read()
    return {
      node: this.id,
      view,
      now,
      longestTtlMs: server.longestTtlMs,
      blockWaitMs: server.blockWaitMs,
      mayClaim,
      closing: !this.#claiming,
      runners,
      requests,
      attempts: this.#sent.attempts,
      renounced: this.#sent.renounced,
    }
  }

  async #settle({ wishes: all, dueInMs }: Agenda): Promise<number | undefined> {
    const wishes = this.#portions.next(all, this.#in.clock.read())
    if ('waitMs' in wishes) return earliest(wishes.waitMs, dueInMs)
    const key = this.#session.nextOperation()
    this.#sent.sending(key.operation, wishes, this.#in.server.identity, this.#view)
    const asking = this.#in.requests.asking(wishes.acquire.map((wish) => wish.key))
    await this.#own(
      (change) => settle(change, this.id, wishes),
      key,
      ({ refused, hindered, unfinished }) => {
        this.#agendas.planned(wishes.replan, unfinished)
        for (const name of refused) this.#in.requests.refuse(name)
        this.#in.requests.withdrawn(wishes.withdraw)
        this.#in.requests.answered(asking, hindered)
        // Those that only try have their answers. Who tries next asks for the first time.
        if (asking.some(({ wait }) => !wait)) this.#portions.hurry()
      },
      aheadOf(wishes),
    )
    this.#portions.succeeded()
    return 0
  }

  /** Runs a change of this session and takes in the view it returns. Returns 0: there may be more to do. */
  async #own<T>(
    work: (change: Change) => Promise<T>,
    key: SessionKey = this.#session.nextOperation(),
    done?: (result: T) => void,
    ahead?: Ahead,
  ): Promise<0> {
    await this.#make(work, key, done, ahead)
    return 0
  }

  /**
   * The same, but returns the result: also where this life was over before the answer came. Undefined when the change
   * did nothing.
   */
  async #make<T>(
    work: (change: Change) => Promise<T>,
    key: SessionKey,
    done: (result: T) => void = () => undefined,
    ahead?: Ahead,
  ): Promise<T | undefined> {
    const { credit } = this.#session
    const changed = await this.#change(key, work, ahead)
    const result = changed.kind === 'done' ? changed.result : undefined
    // Too late for a life that has ended meanwhile: nothing may begin, and trust must not be renewed.
    if (this.#session.over) return result
    if (changed.kind === 'no-session') this.#session.lost()
    else if (changed.kind === 'new-server') this.#viewWanted = true
    else if (changed.view === undefined) this.#session.lost()
    else {
      this.#sent.done(key.operation)
      this.#adopt(changed.view)
      this.#in.holdings.follow(this.#circumstances(changed.view))
      this.#session.caughtUp(changed.view, credit)
      done(changed.result)
    }
    return result
  }

  /** Returns whether it was done; otherwise the session is gone. */
  async #inTurn<T>(work: (change: Change) => Promise<T>, ahead?: Ahead): Promise<boolean> {
    return this.#turnstile.pass(async () => {
      for (let attempt = 1; !this.#session.over; attempt++) {
        if (attempt > mostServers) throw severalServers()
        const changed = await this.#change(this.#session.nextOperation(), work, ahead)
        if (changed.kind !== 'new-server') return changed.kind === 'done'
      }
      return false
    })
  }

  async #change<T>(
    key: SessionKey,
    work: (change: Change) => Promise<T>,
    ahead?: Ahead,
  ): Promise<ChangeOutcome<T>> {
    const { store, holdings } = this.#in
    const changed = await runChange(store, key, holdings.highestToken, work, ahead)
    // At least 1: whoever has made a change knows that the namespace was in use, even if it has seen no token.
    if (changed.kind === 'done') holdings.sawToken(Math.max(1, changed.tokenFloor))
    return changed
  }

  async #read(): Promise<void> {
    const { credit } = this.#session
    this.#viewWanted = false
    const view = await this.#in.store.view(this.id)
    if (this.#session.over) return
    if (view === undefined) return this.#session.lost()
    this.#adopt(view)
    // What the view takes away must end before the trust it brings begins.
    this.#in.holdings.follow(this.#circumstances(view))
    this.#session.caughtUp(view, credit)
  }

  #adopt(view: OwnView): void {
    // An operator has let this node take part again, and a fence may have hindered that plan.
    const resumed = this.draining && view.state === 'active'
    if (resumed)
      this.#agendas.planned(
        [],
        view.workers.map(({ key }) => key),
      )
    this.#view = view
    if (resumed) this.#in.requests.askAgain()
    this.#learn(view, this.#in.clock.read())
    this.#watching.setWatchers(view.watchers)
  }

  #learn(facts: ServerFacts, receivedAt: Reading): void {
    if (!this.#in.server.learn(facts, receivedAt)) return
    this.#in.log.warn({ server: facts.serverIdentity }, 'the database server is not the same as before')
    this.#watching.reset()
    this.#viewWanted = true
  }

  #answered(answer: HeartbeatAnswer, sentAt: Reading, receivedAt: Reading): { mustReadAgain: boolean } {
    const latencyMs = receivedAt.monoMs - sentAt.monoMs
    this.#in.outage.answered()
    this.#in.events.emit('heartbeat.answered', { latencyMs, databaseNowMs: answer.nowMs })
    this.#learn(answer, receivedAt)
    this.#newsPoll.pollWhereNothingIsPushed()
    this.#watching.sawWatchers(answer.watchers, sentAt, receivedAt)
    if (this.#in.server.mustRecord) this.#turns.poke()
    // The number of the news is not enough: a server that was set back may have reached the same number again.
    return { mustReadAgain: this.#view?.serverIdentity !== answer.serverIdentity }
  }

  #heartbeatFailed(error: unknown): void {
    this.#in.events.emit('heartbeat.failed', { error })
    this.#failed(error, 'heartbeat')
  }

  #newsArrived(): void {
    this.#viewWanted = true
    this.#portions.hurry()
    this.#watching.noteNews()
    this.#turns.poke()
  }

  #polled(news: number | undefined): void {
    if (news === undefined) this.#session.lost()
    else if (news !== this.#view?.newsRevision) this.#newsArrived()
  }

  #trustExpired(): void {
    this.#in.log.warn(
      { session: this.id },
      'the trust window ended without a good heartbeat: everything held has ended',
    )
    this.#in.events.emit('trust.expired', { node: this.id })
    this.#in.holdings.endAll('trust-expired')
  }

  #sessionLost(): void {
    this.#quieten()
    // A heartbeat beside the change by which this node leaves finds no session, and nothing is lost.
    if (this.#leaving) return
    this.#in.log.warn({ session: this.id }, 'the session was lost: everything held has ended')
    this.#in.events.emit('session.lost', { node: this.id })
    this.#in.holdings.abandon('lost')
    this.#lost()
  }

  /** Makes a change that no turn asks for, between two steps. A turn follows. Returns what {@link #make} returns. */
  async #inBetween<T>(
    work: (change: Change) => Promise<T>,
    done?: (result: T) => void,
  ): Promise<T | undefined> {
    const result = await this.#turnstile.pass(async () =>
      this.#session.over ? undefined : this.#make(work, this.#session.nextOperation(), done),
    )
    this.#turns.poke()
    return result
  }

  async #register(registration: Registration): Promise<0> {
    const { clock } = this.#in
    try {
      await this.#own(
        (change) => register(change, this.id, registration),
        this.#session.nextOperation(),
        (registered) => {
          this.#warnOf(registered.otherSchedules)
          this.#agendas.planned([], registered.unfinished)
          const { serverIdentity = '' } = this.#view ?? {}
          const refused = this.#registrations.carriedOut(
            registration,
            registered,
            clock.read(),
            serverIdentity,
          )
          for (const error of refused) this.#tellRefused(error.worker, error)
        },
      )
    } catch (error) {
      const [first, ...others] = registration.added
      this.#registrations.failed(registration)
      if (error instanceof StoreError || first === undefined) throw error
      // Which of several is to blame shows when fewer are registered at once.
      const isNews = others.length === 0 && this.#registrations.refused(first, clock.read())
      if (isNews) this.#tellRefused(first.key, error)
    }
    return 0
  }

  #tellRefused(worker: string, error: unknown): void {
    this.#in.log.error({ err: error, worker }, 'a worker was refused')
    this.#in.events.emit('worker.refused', { worker, error })
  }

  /** Whether this node holds the lease of a single worker. */
  #leads(worker: string): boolean {
    return this.#view?.leases.some(({ key, holder }) => key === worker && holder === this.id) === true
  }

  /**
   * Warns because each leader acts by its own version's schedule: until all agree, chance decides which one counts. Who
   * leads only declares its schedule again; the others have warned.
   */
  #warnOf(otherSchedules: readonly OtherSchedule[]): void {
    for (const other of otherSchedules)
      if (!this.#leads(other.worker))
        this.#in.log.warn(
          other,
          'a worker is registered here with a different schedule than it was last registered with',
        )
  }

  /** Schedules another try. Only reading the view shows what the failed change may have done. */
  #turnFailed(error: unknown): void {
    if (this.#session.over) return
    this.#viewWanted = true
    this.#portions.failed()
    this.#failures += 1
    this.#failed(error, 'turn')
    this.#in.requests.rejectTries(error)
    this.#turnAlarm.set(retryPauseMs(this.#in.timing, this.#failures, this.#in.clock.random()))
  }

  #failed(error: unknown, request: RequestKind): void {
    this.#in.outage.failed(error, request)
  }
}

function earliest(...dues: readonly (number | undefined)[]): number | undefined {
  const due = Math.min(...dues.map((each) => each ?? Number.POSITIVE_INFINITY))
  return Number.isFinite(due) ? Math.max(1, Math.ceil(due)) : undefined
}
