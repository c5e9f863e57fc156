/**
 * One process in a namespace: the object that an application talks to.
 *
 * A coordinator lives several lives, one after another, when its session is lost (`life.ts`). What the application
 * registered, and work that still goes on, outlive them here. `README.md` beside this file explains how everything fits
 * together.
 */

import { setMaxListeners } from 'node:events'
import { Housekeeping } from './changes/housekeeping.js'
import { changeWithoutSession } from './changes/run-change.js'
import { claimTime } from './changes/times.js'
import { claimedForMs } from './changes/upkeep.js'
import { CoordinationError, StoreError } from './errors.js'
import { type AboutLease, type EventName, Events, type Listener } from './events.js'
import type { Identity } from './identity.js'
import {
  checkFunction,
  checkNameOrKey,
  checkOptions,
  checkScope,
  checkSignal,
  checkTime,
  checkTimeout,
} from './inputs.js'
import { type Log, withFields } from './log.js'
import { checkName, keysMeant, leaseKey } from './names.js'
import { Operator } from './operator.js'
import { Outage } from './outage.js'
import { type CoordinatorState, type Health, healthOf } from './reports/health.js'
import { describe, type Status } from './reports/status.js'
import { giveTimeToSettle, handOver } from './session/hand-over.js'
import { Holdings } from './session/holdings.js'
import { Life } from './session/life.js'
import { KnownServer } from './session/server.js'
import type { Surroundings } from './session/surroundings.js'
import type { Retention, Scope, Store } from './store.js'
import { Stragglers } from './stragglers.js'
import { whenAborted } from './time/abort.js'
import type { Clock, Timer } from './time/clock.js'
import { presentContext } from './time/context.js'
import { deferred, sleep, within } from './time/loop.js'
import { retryPauseMs, type Timing } from './time/timing.js'
import { elapsedMs } from './time/trust.js'
import type { Machine } from './watch/machine.js'
import type { Watchdog } from './watch/watchdog.js'
import { nameOfWorker, type Request, Requests } from './work/acquire.js'
import { surround } from './work/around-passes.js'
import type { Holding, Lease } from './work/lease.js'
import {
  type AroundPass,
  parseWorker,
  Runner,
  type WorkerDefinition,
  type WorkerHandle,
  type WorkerState,
} from './work/worker.js'

/** The settings of a coordinator: its options, with defaults filled in. */
export interface CoordinatorSettings {
  readonly namespace: string
  /** The names of this node and its cluster. */
  readonly identity: Identity
  readonly timing: Timing
  readonly labels: Readonly<Record<string, string>>
  /** The application's version; null when it was not given. */
  readonly version: string | null
  readonly retention: Retention
}

/** What a coordinator may use of its process. */
export interface Equipment {
  /** Finds nodes whose processes have ended. Without it, dead nodes are found by their silence alone. */
  readonly machine?: Machine | undefined
  /** Ends this process when its event loop is blocked for longer than it may act. */
  readonly watchdog?: Watchdog | undefined
}

/** How {@link Coordinator.tryAcquire} requests a lease, and {@link Coordinator.claimTime} a time. */
export interface TryAcquireOptions {
  /** Where the name is unique: `global` (the default), or `cluster` for each cluster by itself. */
  readonly scope?: Scope | undefined
}

/** How {@link Coordinator.acquire} waits for a lease. */
export interface AcquireOptions extends TryAcquireOptions {
  /** Gives up waiting when this signal aborts, with its reason. */
  readonly signal?: AbortSignal | undefined
  /** Gives up after this many ms. Default: waits without limit. */
  readonly timeoutMs?: number | undefined
}

/**
 * A start gives up when it could not join for this many ttls; later lives never give up. By then a database that is
 * just starting is there, and so is this node's turn where hundreds of nodes start at once.
 */
const startTtls = 2

/**
 * This process in a namespace: it runs the workers that are registered here, and holds leases by name.
 *
 * Made by `createCoordinator`, or by the Fastify plugin as `app.coordination`.
 */
export class Coordinator implements AsyncDisposable {
  /** The settings of this coordinator, defaults included. */
  readonly settings: CoordinatorSettings
  /** What operators may do to the namespace: release by force, drain, pause, and read the audit trail. */
  readonly operator: Operator
  readonly #store: Store
  readonly #clock: Clock
  readonly #log: Log
  readonly #events: Events
  readonly #holdings: Holdings
  readonly #requests = new Requests()
  readonly #runners = new Map<string, Runner>()
  readonly #surroundings: Surroundings
  readonly #watchdog: Watchdog | undefined
  readonly #housekeeping: Housekeeping
  readonly #stragglers: Stragglers
  readonly #closing = new AbortController()
  readonly #whenClosing = deferred()
  readonly #over = new AbortController()
  /** The async context of everything that goes on by itself, whichever call set it in motion. */
  readonly #inContext = presentContext()
  #around: AroundPass[] = []
  #state: CoordinatorState = 'idle'
  #life: Life | undefined
  /** Whether this process was draining when it lost its last session. */
  #drained = false
  #starting: Promise<void> | undefined
  #rejoining: Promise<void> | undefined
  #closed: Promise<void> | undefined
  #storeCloses = false

  /** @internal */
  constructor(
    settings: CoordinatorSettings,
    store: Store,
    clock: Clock,
    log: Log,
    { machine, watchdog }: Equipment = {},
  ) {
    const { identity, timing, labels, version } = settings
    this.settings = settings
    this.#watchdog = watchdog
    this.#store = store
    this.#clock = clock
    this.#log = withFields(log, { node: identity.node, cluster: identity.cluster })
    this.#events = new Events((error, name) =>
      this.#log.error({ err: error, event: name }, 'a listener threw'),
    )
    this.#holdings = new Holdings({
      trusted: () => this.#life?.trusted() ?? false,
      fence: (transaction, claim) => store.fence(transaction, claim),
      changed: () => this.#life?.poke(),
      acquired: (holding) => this.#acquired(holding),
      assigned: (worker, { index, count, generation }) =>
        this.#events.emit('assignment.changed', { worker, index, count, generation }),
      ended: (holding) => this.#ended(holding),
      released: (holding) => this.#events.emit('lease.released', aboutLease(holding)),
    })
    this.operator = new Operator(
      () => this.#openStore(),
      () => this.#holdings.highestToken,
    )
    this.#surroundings = {
      identity,
      timing,
      labels,
      version,
      machine,
      watchdog,
      store,
      clock,
      log: this.#log,
      events: this.#events,
      outage: new Outage(timing, clock, this.#log, this.#events),
      server: new KnownServer(timing),
      holdings: this.#holdings,
      requests: this.#requests,
      runners: this.#runners,
    }
    // All scheduled workers of this node may wait at a time: more than ten listeners are no leak.
    setMaxListeners(0, this.#over.signal)
    this.#stragglers = new Stragglers(timing.marginMs, clock, this.#log)
    this.#housekeeping = new Housekeeping(store, clock, this.#log, settings.retention, {
      isOurs: () => this.#life?.firstWatcher === true,
      nowMs: () => this.#surroundings.server.nowMs(clock.read()),
      highestToken: () => this.#holdings.highestToken,
    })
  }

  /** Where the coordinator is between its start and its close. */
  get state(): CoordinatorState {
    return this.#state
  }

  /** Id of the present session; undefined while this node has not joined. */
  get nodeId(): string | undefined {
    return this.#life?.id
  }

  /**
   * Registers a worker on this node, before or after the start. It runs once this node has joined and is meant to run
   * it. Its passes run in the async context of this call.
   *
   * @throws {CoordinationError} `WCO_OPTIONS` or `WCO_NAME` with everything that is wrong with it,
   *   `WCO_WORKER_CONFLICT` when the name is taken in this process, `WCO_NOT_RUNNING` once the coordinator is closing.
   */
  worker(definition: WorkerDefinition): WorkerHandle {
    if (this.#closing.signal.aborted) throw this.#refusal(': no worker can be registered any more')
    const worker = parseWorker(definition, this.settings.identity, this.settings.timing)
    const { key } = worker.declaration
    if (this.#runners.has(key)) {
      throw new CoordinationError(
        'WCO_WORKER_CONFLICT',
        `The worker "${key}" is already registered in this process.`,
      )
    }
    const calendar = {
      nowMs: () => this.#surroundings.server.nowMs(this.#clock.read()),
      fire: async (holding: Holding, atMs: number) =>
        (await this.#inContext(() => this.#life?.fire(holding, atMs))) ?? 'lost',
      fireFailed: (holding: Holding, error: unknown) =>
        this.#surroundings.outage.failed(error, 'firing', { lease: holding.key }),
      forgone: (holding: Holding, atMs: number) => this.#forgone(holding, atMs),
      over: this.#over.signal,
    }
    const runner = new Runner(worker, this.#clock, this.#log, calendar, {
      failed: (holding, failure) => this.#events.emit('pass.failed', { key: holding.key, ...failure }),
      around: (pass, run) => surround(this.#around, pass, run),
    })
    if (worker.enabled) this.#runners.set(key, runner)
    this.#life?.poke()
    return this.#handle(runner)
  }

  /**
   * Joins the namespace and begins to work. Harmless when repeated. When the coordinator is closed meanwhile, it
   * resolves without having joined.
   *
   * @throws {CoordinationError} `WCO_STORE` when the database did not let it join for two ttls, which may be tried
   *   again; `WCO_WORKER_CONFLICT` when a worker is registered differently by another node; `WCO_NOT_RUNNING` after a
   *   close.
   */
  start(): Promise<void> {
    if (this.#closing.signal.aborted) return Promise.reject(this.#refusal(' and cannot be started again'))
    this.#starting ??= this.#inContext(() => this.#start())
    return this.#starting
  }

  /**
   * Hands everything over, leaves, and closes the store. Signals abort, passes settle (within `drainTimeoutMs`), and
   * leases are released in one change, so that no node has to wait for an expiry. Harmless when repeated, before a
   * start and during one. A pass that closes its coordinator must not wait for that: each would wait for the other
   * until `drainTimeoutMs` has passed.
   */
  close(): Promise<void> {
    this.#closed ??= this.#inContext(() => this.#close())
    return this.#closed
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  /**
   * Waits for a lease by name, and holds it until it is released.
   *
   * @throws {CoordinationError} `WCO_ACQUIRE_TIMEOUT` after `timeoutMs`, with the database's error as its cause where
   *   that has not answered; `WCO_NAME` when the name is not usable, or that of a worker registered here or of a
   *   `single` one registered anywhere; `WCO_OPTIONS` for wrong options; `WCO_NOT_RUNNING` when the coordinator does
   *   not run; the error of the start when it waits for one that fails; or the reason of the signal. With
   *   `timeoutMs: 0` it asks once, as {@link tryAcquire} does, and throws `WCO_ACQUIRE_TIMEOUT` where that returns
   *   undefined.
   */
  async acquire(name: string, options: AcquireOptions = {}): Promise<Lease> {
    checkOptions('acquire', options, ['scope', 'signal', 'timeoutMs'])
    checkSignal('acquire', options.signal)
    checkTimeout('acquire', options.timeoutMs)
    const scope = checkScope('acquire', options.scope)
    options.signal?.throwIfAborted()
    const { timeoutMs } = options
    const request = timeoutMs === 0 ? this.#tryOnce(name, scope) : this.#request(name, scope, true)
    const timer = timeoutMs === 0 ? undefined : this.#timeout(request, timeoutMs)
    const { signal } = options
    const stopListening = signal && whenAborted(signal, () => this.#giveUp(request, signal.reason))
    try {
      const lease = await request.answer.promise
      // Only what would not wait is declined.
      if (lease === undefined) throw this.#tooLate(request, 0)
      return lease
    } catch (error) {
      throw timeoutMs === 0 && error instanceof StoreError ? this.#tooLate(request, timeoutMs, error) : error
    } finally {
      timer?.cancel()
      stopListening?.()
    }
  }

  /**
   * Takes a lease by name if it is free.
   *
   * @returns undefined, which is not an error, when the lease is held (also by another caller in this process) or
   *   another node is next, while this node drains or has yet to join again, and during the grace period after the
   *   database has become another server.
   * @throws {CoordinationError} `WCO_STORE` when the database does not answer; otherwise as {@link acquire}.
   */
  async tryAcquire(name: string, options: TryAcquireOptions = {}): Promise<Lease | undefined> {
    checkOptions('tryAcquire', options, ['scope'])
    return this.#tryOnce(name, checkScope('tryAcquire', options.scope)).answer.promise
  }

  /**
   * Claims a time, and returns whether this caller is the one to act on it.
   *
   * Returns true for the first call on any node with this name and time, and false for all further ones, for every time
   * earlier than a claimed one, and for a time more than a day ahead of the database's clock. The database keeps this
   * across restarts. If the answer to the first call is lost, no call returns true. Returns false for times older than
   * a week plus `keepGoneNodesForMs`: whether they were claimed is no longer known.
   *
   * @throws {CoordinationError} `WCO_NAME` when the name is not usable or a worker's, `WCO_OPTIONS` for wrong options,
   *   `WCO_NOT_RUNNING`, `WCO_STORE`.
   */
  async claimTime(name: string, at: Date, options: TryAcquireOptions = {}): Promise<boolean> {
    checkOptions('claimTime', options, ['scope'])
    const key = this.#leaseKey(name, checkScope('claimTime', options.scope))
    const atMs = checkTime('claimTime', at)
    const highestToken = (): number => this.#holdings.highestToken
    const rememberedForMs = this.settings.retention.goneNodesForMs + claimedForMs
    return changeWithoutSession(this.#store, highestToken, (change) =>
      claimTime(change, key, atMs, rememberedForMs),
    )
  }

  /**
   * Returns whether this node holds a lease right now, of a worker or acquired, by its full key (`global/month-close`)
   * or its name. A name means every lease of that name, in either scope; the key of a worker with several leases means
   * any of them.
   *
   * @throws {CoordinationError} `WCO_OPTIONS` when it is no text.
   */
  isHeld(name: string): boolean {
    checkNameOrKey('isHeld', name)
    const means = (holding: Holding): boolean =>
      [holding.name, holding.key, holding.worker ?? holding.key].includes(name)
    return this.#holdings.all().some((holding) => means(holding) && holding.held)
  }

  /**
   * Returns the key of a single worker registered here, by its key or its name; undefined when there is none. Of two
   * with the same name, this node's cluster's is meant.
   *
   * @throws {CoordinationError} `WCO_OPTIONS` when it is no text.
   */
  keyOfSingle(name: string): string | undefined {
    checkNameOrKey('keyOfSingle', name)
    const isSingle = (key: string): boolean => this.#runners.get(key)?.worker.declaration.kind === 'single'
    return keysMeant(name, this.settings.identity.cluster).find(isSingle)
  }

  /** Returns the health of this node, without a request to the database. */
  health(): Health {
    return healthOf(this.#state, this.#life, this.#holdings.all(), this.#store.statements)
  }

  /**
   * Returns everything in the namespace as of one instant.
   *
   * @throws {CoordinationError} `WCO_STORE` when the database does not answer, `WCO_NOT_RUNNING` after a close.
   */
  async status(): Promise<Status> {
    return describe(await this.#openStore().snapshot(), this.settings, this.nodeId, this.#state)
  }

  /**
   * Wraps every pass of every worker, for instance in a trace or a context. Returns a function that removes the
   * wrapper.
   *
   * @param around receives the pass, and `run`, which it must call once and whose promise it returns or awaits. An
   *   error it throws counts as the pass's own. The pass ends when `run` and `around` have both settled. It fails with
   *   `WCO_OPTIONS` when `run` was not called, or called twice.
   * @throws {CoordinationError} `WCO_OPTIONS` when it is not a function.
   */
  aroundPasses(around: AroundPass): () => void {
    checkFunction('aroundPasses', around)
    // A function of its own, so that the same `around` may be given twice.
    const own: AroundPass = (pass, run) => around(pass, run)
    this.#around.push(own)
    return () => {
      this.#around = this.#around.filter((each) => each !== own)
    }
  }

  /**
   * Calls the listener at each event of this name, synchronously. What it throws is logged and does no harm.
   *
   * @throws {CoordinationError} `WCO_OPTIONS` when there is no such event, or the listener is not a function.
   */
  on<Name extends EventName>(name: Name, listener: Listener<Name>): this {
    this.#events.on(name, listener)
    return this
  }

  /**
   * The same as {@link on}, for the next event only.
   *
   * @throws {CoordinationError} as {@link on}.
   */
  once<Name extends EventName>(name: Name, listener: Listener<Name>): this {
    this.#events.once(name, listener)
    return this
  }

  /**
   * Removes a listener. Harmless when it is not registered.
   *
   * @throws {CoordinationError} as {@link on}.
   */
  off<Name extends EventName>(name: Name, listener: Listener<Name>): this {
    this.#events.off(name, listener)
    return this
  }

  async #start(): Promise<void> {
    this.#state = 'starting'
    try {
      await this.#join(startTtls * this.settings.timing.ttlMs)
    } catch (error) {
      this.#starting = undefined
      if (this.#state === 'starting') this.#state = 'idle'
      this.#requests.rejectAll(error)
      throw error
    }
    if (this.#life === undefined || this.#closing.signal.aborted) return
    this.#state = 'running'
    this.#housekeeping.start(this.#clock.random())
  }

  /** Begins a life. While the database does not answer, tries again: for at most `patienceMs` where that is given. */
  async #join(patienceMs?: number): Promise<void> {
    const begunAt = this.#clock.read()
    const givesUp = (): boolean =>
      patienceMs !== undefined && elapsedMs(begunAt, this.#clock.read()) >= patienceMs
    let life = this.#newLife()
    for (let attempt = 1; !this.#closing.signal.aborted; attempt++) {
      try {
        if (await life.join(patienceMs === undefined ? 'go-on' : 'throw', this.#drained))
          return this.#joined(life)
        life = this.#newLife()
      } catch (error) {
        this.#requests.rejectTries(error)
        if (patienceMs !== undefined && !(error instanceof StoreError)) throw error
        this.#surroundings.outage.failed(error, 'join')
        if (givesUp()) throw error
      }
      const pauseMs = retryPauseMs(this.settings.timing, attempt, this.#clock.random())
      await sleep(this.#clock, pauseMs, this.#closing.signal)
    }
  }

  /** Answers callers that do not wait for a lease, so that they need not wait until this node has joined again. */
  #answerTriesBetweenLives(): void {
    if (this.#life !== undefined || this.#state !== 'running') return
    const { error } = this.#surroundings.outage
    if (error === undefined) this.#requests.declineTries()
    else this.#requests.rejectTries(error)
  }

  #newLife(): Life {
    this.#requests.forgetAsked()
    return new Life(this.#surroundings, () => void this.#inContext(() => this.#rejoin()))
  }

  #joined(life: Life): void {
    this.#life = life
    this.#surroundings.outage.answered()
    this.#log.info({ session: life.id }, 'joined')
    this.#events.emit('node.joined', { node: life.id })
    life.poke()
  }

  /** Begins the next life after a lost session, once the work has settled or was given time to. */
  async #rejoin(): Promise<void> {
    this.#drained = this.#life?.draining ?? this.#drained
    this.#life = undefined
    if (this.#closing.signal.aborted) return
    this.#answerTriesBetweenLives()
    const settled = Promise.race([this.#holdings.whenSettled(), this.#whenClosing.promise])
    this.#rejoining = within(this.#clock, this.settings.timing.handoverTimeoutMs, settled).then(() =>
      this.#join(),
    )
    await this.#rejoining
  }

  async #close(): Promise<void> {
    if (this.#state !== 'idle') this.#state = 'closing'
    this.#closing.abort()
    this.#whenClosing.resolve()
    this.#housekeeping.stop()
    this.#requests.rejectAll(this.#refusal())
    await this.#starting?.catch(() => undefined)
    await this.#rejoining
    this.#state = 'closing'
    const life = this.#life
    if (life !== undefined) await handOver(life, this.#surroundings)
    else await giveTimeToSettle(this.#surroundings)
    this.#storeCloses = true
    try {
      await this.#store.close()
    } finally {
      this.#stragglers.stop()
      this.#watchdog?.stop()
      this.#over.abort()
      this.#life = undefined
      this.#state = 'closed'
    }
  }

  async #stopWorker(runner: Runner): Promise<void> {
    const { key } = runner.worker.declaration
    if (this.#runners.get(key) === runner) this.#runners.delete(key)
    const own = this.#holdings.all().filter((holding) => runner.hasTaken(holding))
    // At once: before the next turn another worker of this name may be registered, and these would go on under
    // that one.
    for (const holding of own) holding.end('stopped')
    this.#life?.poke()
    await Promise.all(own.map((holding) => holding.whenForgotten))
    await this.#life?.whenGivenBack(key)
  }

  #handle(runner: Runner): WorkerHandle {
    const { declaration } = runner.worker
    const { name, key } = declaration
    const stop = (): Promise<void> => this.#stopWorker(runner)
    const state = (): WorkerState => {
      if (runner.busy) return 'working'
      if (this.#closing.signal.aborted || this.#runners.get(key) !== runner) return 'stopped'
      return this.#life?.refuses(declaration) ? 'refused' : 'candidate'
    }
    return {
      name,
      key,
      get state() {
        return state()
      },
      stop,
      [Symbol.asyncDispose]: stop,
    }
  }

  #leaseKey(name: string, scope: Scope): string {
    const key = leaseKey(scope, this.settings.identity.cluster, checkName('lease', name))
    if (this.#state === 'idle') {
      throw notRunning(
        'has not been started: call start() first or, with the Fastify plugin, wait until the application is ' +
          "ready (or listens, with autoStart: 'listen')",
      )
    }
    if (this.#closing.signal.aborted) throw this.#refusal()
    if (this.#runners.has(key)) throw nameOfWorker(key)
    return key
  }

  /** The store, for what needs no session: also before the start, and while this node hands over. */
  #openStore(): Store {
    if (this.#storeCloses) throw this.#refusal()
    return this.#store
  }

  /** Why nothing more can be asked of a coordinator whose `close` has been called. */
  #refusal(consequence = ''): CoordinationError {
    return notRunning(`${this.#state === 'closed' ? 'is closed' : 'is closing'}${consequence}`)
  }

  #request(name: string, scope: Scope, wait: boolean): Request {
    const request = this.#requests.add(this.#leaseKey(name, scope), name, wait)
    this.#life?.poke()
    return request
  }

  /** Asks for a lease without waiting for it. The answer is undefined when it is not to be had now. */
  #tryOnce(name: string, scope: Scope): Request {
    const request = this.#request(name, scope, false)
    if (this.#holdings.get(request.key) !== undefined) this.#requests.answered([request])
    this.#answerTriesBetweenLives()
    return request
  }

  #giveUp(request: Request, error: unknown): void {
    this.#requests.giveUp(request, error)
    this.#life?.poke()
  }

  #timeout(request: Request, timeoutMs: number | undefined): Timer | undefined {
    if (timeoutMs === undefined) return undefined
    return this.#clock.setTimer(timeoutMs, () => this.#giveUp(request, this.#tooLate(request, timeoutMs)))
  }

  #tooLate(request: Request, timeoutMs: number, error = this.#surroundings.outage.error): CoordinationError {
    const when = timeoutMs === 0 ? 'at once' : `within ${timeoutMs} ms`
    const why = error === undefined ? this.#whyNotAcquired(request) : 'the database does not answer'
    return new CoordinationError(
      'WCO_ACQUIRE_TIMEOUT',
      `The lease "${request.key}" could not be acquired ${when}: ${why}.`,
      error === undefined ? {} : { cause: error },
    )
  }

  #whyNotAcquired({ key, wait, asked }: Request): string {
    if (!wait) return 'it is held, another node is next, or this node may not claim at the moment'
    const isTaken = asked === 'yes' || this.#holdings.get(key) !== undefined
    return isTaken
      ? 'it is held, or others are ahead in the queue'
      : 'by then this node had no answer to whether it is free'
  }

  #acquired(holding: Holding): void {
    this.#watchdog?.leaseBegan()
    this.#log.info({ lease: holding.key, token: holding.token }, 'holds a lease')
    const { namedForMs, previousToken } = holding
    this.#events.emit('lease.acquired', { ...aboutLease(holding), namedForMs, previousToken })
  }

  #forgone({ key, token }: Holding, atMs: number): void {
    this.#log.error(
      { lease: key, token, due: new Date(atMs).toISOString() },
      'a scheduled time may be lost: the lease was taken away after the time was recorded, before its pass began',
    )
  }

  #ended(holding: Holding): void {
    this.#watchdog?.leaseEnded()
    this.#stragglers.watch(holding)
    const { key, token, ended: reason = 'lost' } = holding
    this.#log.info({ lease: key, token, reason }, 'a lease has ended')
    this.#events.emit('lease.ended', { ...aboutLease(holding), reason })
  }
}

function aboutLease({ key, token, worker }: Holding): AboutLease {
  return { key, token, worker }
}

function notRunning(how: string): CoordinationError {
  return new CoordinationError('WCO_NOT_RUNNING', `The coordinator ${how}.`)
}
