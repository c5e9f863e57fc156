/**
 * `GET /stream`: server-sent events, for pages that want to see things as they happen.
 *
 * - `snapshot`: everything, as `GET /status` has it; the first thing a new viewer gets.
 * - `event`: something was written to the audit trail, as `GET /events` has it. Its id is its place there.
 * - `change`: there is a new revision, or something else about the whole has changed: only counts, no lists.
 * - `reset`: what was missed cannot be told; a `snapshot` follows.
 *
 * One loop looks at the database about every second, while anybody watches, however many they are: what one viewer
 * costs beyond that is a connection, and, when it comes back after a break, one reading of what it has missed.
 *
 * A viewer that reads too slowly is disconnected, and comes again. So is each that was let in by name, after a
 * minute: then all that decides about access (the application's hooks, its sessions, `authorize`) is asked anew, and
 * nobody goes on watching for longer who may not any more.
 */
import type { ServerResponse } from 'node:http'
import type { FastifyInstance, FastifyReply, FastifyRequest, RouteOptions } from 'fastify'
import type { Status } from '../core/status.js'
import type { EventRow, Snapshot } from '../core/store.js'
import { does } from './access.js'
import type { Dependencies } from './dependencies.js'
import { type EventPlace, eventId, eventPlace, isBefore } from './event-places.js'
import { asDocumented } from './openapi.js'
import { HttpProblem } from './problems.js'
import { query, reads } from './schemas/common.js'

/** What the stream needs. */
export interface StreamDependencies
  extends Pick<Dependencies, 'coordinator' | 'name' | 'source' | 'guard' | 'limits'> {
  readonly bodies: StreamBodies
  /** Only tests are in more of a hurry. */
  readonly pace?: Partial<StreamPace>
}

/** What the events carry: the same as the routes that answer these things one by one. */
export interface StreamBodies {
  snapshot(status: Status, snapshot: Snapshot): object
  event(row: EventRow, snapshot: Snapshot): object
  /** Without lists, and without the time of asking: a `change` is sent when any of this is another. */
  summary(status: Status, snapshot: Snapshot): object
  /** The time of asking. */
  now(snapshot: Snapshot): string
}

/** How fast, and how patient. */
export interface StreamPace {
  /** Between two looks at the database. */
  readonly everyMs: number
  /** A comment is sent after so long without anything else, so that nobody in between thinks the line dead. */
  readonly heartbeatMs: number
  /** A browser whose stream has ended comes again after so long. */
  readonly retryMs: number
  /** Who was let in by name is asked for it again after so long, at the latest. */
  readonly lifeMs: number
  /** Who has not taken what it was sent for so long is disconnected. */
  readonly stuckMs: number
  /** So is who leaves more than this unread. */
  readonly unreadBytes: number
}

const usualPace: StreamPace = {
  everyMs: 1_000,
  heartbeatMs: 15_000,
  retryMs: 2_000,
  lifeMs: 60_000,
  stuckMs: 30_000,
  unreadBytes: 262_144,
}

/** More events than this at once are not told one by one: a `reset` is shorter. */
const mostEvents = 2_000

/** Adds the route, and ends all streams before the application closes: an open one would keep it from closing. */
export function registerStream(scope: FastifyInstance, deps: StreamDependencies): void {
  const pace = { ...usualPace, ...deps.pace }
  const feed = new Feed(deps, pace, (error) =>
    scope.log.warn(
      { err: error },
      'the stream could not be kept up to date; it goes on when the database answers',
    ),
  )
  const seats = new Seats(deps.limits)
  scope.addHook('preClose', async () => feed.close())
  scope.route({
    ...streamRoute(deps.name),
    handler: async (request, reply) => {
      const actor = deps.guard.actorOf(request)
      const leave = seats.take(actor?.id)
      reply.raw.once('close', leave)
      const viewer = new Viewer(reply.raw, pace, actor === undefined ? Number.POSITIVE_INFINITY : pace.lifeMs)
      try {
        const beginning = await feed.admit(viewer, lastEventId(request))
        reply.hijack()
        viewer.open(streamHeaders(request, reply), `retry: ${pace.retryMs}\n\n${beginning}`)
      } catch (error) {
        feed.dismiss(viewer)
        leave()
        throw error
      }
    },
  })
}

function streamRoute(name: string): Omit<RouteOptions, 'handler'> {
  return {
    method: 'GET',
    url: '/stream',
    exposeHeadRoute: false,
    config: { ...does('read'), swaggerTransform: asDocumented } as object,
    schema: {
      summary: 'What happens, as server-sent events',
      description:
        '`snapshot` (as GET /status), `event` (as in GET /events; its id is its place), `change` (a new revision, with ' +
        'counts) and `reset` (what was missed cannot be told; a `snapshot` follows). With `Last-Event-ID`, which ' +
        'browsers send by themselves, it goes on after that event.',
      operationId: `${name}Stream`,
      tags: ['coordination'],
      querystring: query({}),
      response: reads(
        {
          200: {
            description: 'A stream without end',
            content: { 'text/event-stream': { schema: { type: 'string' } } },
          },
        },
        'too-many-requests',
        'unavailable',
      ),
    } as object,
  }
}

/**
 * Buffers in between are told to let everything through at once. The connection is used for nothing else, so that a
 * server that closes need not wait for it to go idle. What the application's own hooks have set is kept.
 */
function streamHeaders(
  request: FastifyRequest,
  reply: FastifyReply,
): Record<string, number | string | string[]> {
  const theirs = Object.entries(reply.getHeaders()).filter(([, value]) => value !== undefined)
  return {
    ...(Object.fromEntries(theirs) as Record<string, number | string | string[]>),
    'content-type': 'text/event-stream',
    'cache-control': 'no-cache, no-transform',
    'x-accel-buffering': 'no',
    ...(request.raw.httpVersionMajor === 1 ? { connection: 'close' } : {}),
  }
}

function lastEventId({ headers }: FastifyRequest): string | undefined {
  const id = headers['last-event-id']
  return typeof id === 'string' && id !== '' ? id : undefined
}

/** How many may watch at a time. */
class Seats {
  readonly #limits: Pick<Dependencies['limits'], 'streams' | 'streamsPerActor'>
  readonly #taken = new Map<string | undefined, number>()
  #all = 0

  constructor(limits: Pick<Dependencies['limits'], 'streams' | 'streamsPerActor'>) {
    this.#limits = limits
  }

  /**
   * Answers a function that gives the seat back; harmless when repeated. Where nobody was asked for a name, all
   * viewers together have the seats there are.
   *
   * @throws HttpProblem 429 for one who has too many, 503 when there are none left.
   */
  take(actor: string | undefined): () => void {
    const { streams, streamsPerActor } = this.#limits
    const own = this.#taken.get(actor) ?? 0
    if (actor !== undefined && own >= streamsPerActor)
      throw new HttpProblem(
        'too-many-requests',
        `Each may watch ${streamsPerActor} streams at a time.`,
        comeAgain,
      )
    if (this.#all >= streams)
      throw new HttpProblem('unavailable', `This process serves ${streams} streams at a time.`, comeAgain)
    this.#count(actor, 1)
    let seated = true
    return () => {
      if (seated) this.#count(actor, -1)
      seated = false
    }
  }

  #count(actor: string | undefined, by: number): void {
    const own = (this.#taken.get(actor) ?? 0) + by
    this.#all += by
    if (own === 0) this.#taken.delete(actor)
    else this.#taken.set(actor, own)
  }
}

const comeAgain = { retryAfter: 10 }

/** What all viewers have been told so far. */
interface State {
  readonly snapshot: Snapshot
  readonly status: Status
  /** The last event they were told of: none after it is older than the snapshot. */
  readonly place: EventPlace
  readonly summary: string
}

/** Where nothing has been written yet, or everything has been cleared away. */
const nowhere: EventPlace = { revision: 0, position: 0 }

/** The one loop. */
class Feed {
  readonly #in: StreamDependencies
  readonly #pace: StreamPace
  readonly #failed: (error: unknown) => void
  readonly #viewers = new Set<Viewer>()
  #state: State | undefined
  #look: Promise<State> | undefined
  #failing = false
  #timer: NodeJS.Timeout | undefined
  #closed = false

  constructor(deps: StreamDependencies, pace: StreamPace, failed: (error: unknown) => void) {
    this.#in = deps
    this.#pace = pace
    this.#failed = failed
  }

  /**
   * What a viewer is to be told first. What happens from that moment on it is told as well: the viewer keeps it back
   * until it is opened.
   *
   * @throws StoreError, HttpProblem 503
   */
  async admit(viewer: Viewer, after: string | undefined): Promise<string> {
    let state = (this.#failing ? undefined : this.#known) ?? (await this.#lookOnce())
    const place = after === undefined ? undefined : eventPlace(after)
    if (place !== undefined && isBefore(state.place, place)) state = await this.#lookOnce()
    if (this.#closed) throw new HttpProblem('unavailable', 'This process is closing.', comeAgain)
    this.#viewers.add(viewer)
    this.#timer ??= setInterval(() => this.#tick(), this.#pace.everyMs)
    viewer.whenGone(() => this.dismiss(viewer))
    if (after === undefined) return this.#snapshotFrame(state)
    const missed = place === undefined ? undefined : await this.#missed(place, state.place)
    return missed === undefined
      ? this.#resetFrames(state)
      : [...missed.map((row) => this.#eventFrame(row, state.snapshot)), this.#changeFrame(state)].join('')
  }

  dismiss(viewer: Viewer): void {
    this.#viewers.delete(viewer)
    if (this.#viewers.size > 0) return
    clearInterval(this.#timer)
    this.#timer = undefined
  }

  close(): void {
    this.#closed = true
    for (const viewer of [...this.#viewers]) viewer.end()
  }

  /** What was known when the last viewer left is old by the time the next one comes. */
  get #known(): State | undefined {
    return this.#timer === undefined ? undefined : this.#state
  }

  #tick(): void {
    if (this.#in.coordinator.state === 'closed') {
      this.close()
      return
    }
    for (const viewer of [...this.#viewers]) viewer.attend()
    this.#lookOnce().catch(() => undefined)
  }

  /** Never two at a time: who wants one while one is under way gets that. */
  #lookOnce(): Promise<State> {
    this.#look ??= this.#lookAgain().finally(() => {
      this.#look = undefined
    })
    return this.#look
  }

  async #lookAgain(): Promise<State> {
    try {
      const state = await this.#next(this.#known)
      this.#failing = false
      this.#state = state
      return state
    } catch (error) {
      if (!this.#failing) this.#failed(error)
      this.#failing = true
      throw error
    }
  }

  /** Reads what there is, and tells everybody what is new about it. */
  async #next(before: State | undefined): Promise<State> {
    if (before === undefined) return this.#fresh()
    const { snapshot, status } = await this.#in.source.status()
    const { revision } = snapshot.meta
    if (revision < before.snapshot.meta.revision) return this.#startOver()
    const rows =
      revision === before.snapshot.meta.revision ? [] : await this.#eventsAfter(before.place, revision)
    if (rows === undefined) return this.#startOver()
    const summary = this.#summaryOf(status, snapshot)
    const state: State = { snapshot, status, summary, place: rows.at(-1) ?? before.place }
    const change = summary === before.summary ? '' : this.#changeFrame(state)
    this.#broadcast(rows.map((row) => this.#eventFrame(row, snapshot)).join('') + change)
    return state
  }

  /** The database was restored, or too much has happened to tell it all. */
  async #startOver(): Promise<State> {
    const state = await this.#fresh()
    this.#broadcast(this.#resetFrames(state))
    return state
  }

  /** The place first: so no event that comes after the snapshot is passed over. */
  async #fresh(): Promise<State> {
    const { coordinator, source } = this.#in
    const [latest] = await coordinator.operator.events({ limit: 1 })
    const place = latest ?? nowhere
    const { snapshot } = await source.status()
    if (snapshot.meta.revision < place.revision) source.outdate()
    const current = await source.status()
    return { ...current, place, summary: this.#summaryOf(current.status, current.snapshot) }
  }

  /** Undefined when they are too many. */
  async #eventsAfter(after: EventPlace, untilRevision: number): Promise<EventRow[] | undefined> {
    const rows: EventRow[] = []
    for (let page = 500; page === 500; ) {
      const next = await this.#in.coordinator.operator.events({ after: rows.at(-1) ?? after, limit: 500 })
      page = next.length
      rows.push(...next)
      if (rows.length > mostEvents) return undefined
    }
    return rows.filter((row) => row.revision <= untilRevision)
  }

  /** Undefined when the place is not known any more, or never was. */
  async #missed(place: EventPlace, until: EventPlace): Promise<EventRow[] | undefined> {
    if (eventId(place) === eventId(nowhere)) return undefined
    if (eventId(place) === eventId(until)) return []
    const before = { revision: place.revision, position: place.position - 1 }
    const [itself, ...rows] = (await this.#eventsAfter(before, until.revision)) ?? []
    if (itself === undefined || eventId(itself) !== eventId(place)) return undefined
    return rows.filter((row) => !isBefore(until, row))
  }

  #broadcast(frames: string): void {
    if (frames !== '') for (const viewer of [...this.#viewers]) viewer.send(frames)
  }

  #summaryOf(status: Status, snapshot: Snapshot): string {
    return JSON.stringify(this.#in.bodies.summary(status, snapshot))
  }

  #resetFrames(state: State): string {
    return `${frame('reset', { now: this.#in.bodies.now(state.snapshot) })}${this.#snapshotFrame(state)}`
  }

  #snapshotFrame({ status, snapshot, place }: State): string {
    return frame('snapshot', this.#in.bodies.snapshot(status, snapshot), place)
  }

  #changeFrame({ status, snapshot }: State): string {
    const { bodies } = this.#in
    return frame('change', { now: bodies.now(snapshot), ...bodies.summary(status, snapshot) })
  }

  #eventFrame(row: EventRow, snapshot: Snapshot): string {
    return frame('event', this.#in.bodies.event(row, snapshot), row)
  }
}

/** Without an id the last one stays what it was. JSON has no line breaks of its own. */
function frame(event: string, data: object, place?: EventPlace): string {
  const id = place === undefined ? '' : `id: ${eventId(place)}\n`
  return `event: ${event}\n${id}data: ${JSON.stringify(data)}\n\n`
}

/** One stream. */
class Viewer {
  readonly #raw: ServerResponse
  readonly #pace: StreamPace
  readonly #endAtMs: number
  /** What is kept back until it is opened. */
  #kept: string[] | undefined = []
  #sentAtMs = performance.now()
  /** When everything it was sent had left this process. */
  #takenAtMs = performance.now()

  /** Lives a little shorter by chance, so that those who came together do not come again together. */
  constructor(raw: ServerResponse, pace: StreamPace, lifeMs: number) {
    this.#raw = raw
    this.#pace = pace
    this.#endAtMs = performance.now() + lifeMs * (0.8 + 0.2 * Math.random())
    // Who goes away in the middle of a write is no news: `close` says it.
    raw.on('error', () => undefined)
  }

  /** Calls back once when the stream has ended, also when it already has. */
  whenGone(call: () => void): void {
    if (this.#raw.destroyed || this.#raw.closed) call()
    else this.#raw.once('close', call)
  }

  open(headers: Record<string, number | string | string[]>, beginning: string): void {
    const kept = this.#kept ?? []
    this.#kept = undefined
    // Long silence is what a stream is like: the application's limit for idle connections is not for it.
    this.#raw.socket?.setTimeout(0)
    this.#raw.writeHead(200, headers)
    this.#write([beginning, ...kept].join(''))
  }

  send(frames: string): void {
    if (this.#kept !== undefined) this.#kept.push(frames)
    else if (this.#raw.writableLength > this.#pace.unreadBytes) this.#raw.destroy()
    else this.#write(frames)
  }

  /** To be called about every second. */
  attend(): void {
    if (this.#kept !== undefined) return
    const nowMs = performance.now()
    if (this.#raw.writableLength === 0) this.#takenAtMs = nowMs
    if (nowMs - this.#takenAtMs > this.#pace.stuckMs) this.#raw.destroy()
    else if (nowMs >= this.#endAtMs) this.end()
    else if (nowMs - this.#sentAtMs >= this.#pace.heartbeatMs) this.#write(':\n\n')
  }

  /** Nobody waits for long for one who does not take the last of it. */
  end(): void {
    if (this.#kept !== undefined) return void this.#raw.destroy()
    this.#raw.end()
    const impatience = setTimeout(() => this.#raw.destroy(), 1_000)
    this.#raw.once('close', () => clearTimeout(impatience))
  }

  #write(text: string): void {
    this.#sentAtMs = performance.now()
    if (!this.#raw.destroyed && !this.#raw.writableEnded) this.#raw.write(text)
  }
}
