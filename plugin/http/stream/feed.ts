/** Reads what is new once for all viewers of the stream. */
import type { Status } from '../../core/reports/status.js'
import type { EventRow, Snapshot } from '../../core/store.js'
import type { Dependencies } from '../dependencies.js'
import { closing, isNotRunning } from '../http-problems.js'
import { type EventPlace, eventId, eventPlace, isBefore } from '../snapshot/event-places.js'
import type { StreamPace, Viewer } from './viewer.js'

/** The dependencies of the feed. */
export interface FeedDependencies extends Pick<Dependencies, 'coordinator' | 'source'> {
  readonly bodies: StreamBodies
}

/** Builds the data of the server-sent events: the same bodies that the corresponding routes return. */
export interface StreamBodies {
  /** As JSON in one line, and so is an event. */
  snapshot(status: Status, snapshot: Snapshot): string
  event(row: EventRow, snapshot: Snapshot): string
  /** Without lists, and without the time of reading: a `change` is sent whenever this differs from the last one. */
  summary(status: Status, snapshot: Snapshot): object
  /** The time of the reading. */
  now(snapshot: Snapshot): string
}

/** Maximum number of events that are sent one by one. For more, a `reset` is shorter. */
const mostEvents = 2_000

/** What all viewers have been sent so far. */
interface State {
  readonly snapshot: Snapshot
  readonly status: Status
  /** Place of the last event that they were sent. No event after it is older than the snapshot. */
  readonly place: EventPlace
  readonly summary: string
}

/** The place when no event has been written yet or all have been cleared away. */
const nowhere: EventPlace = { revision: 0, position: 0 }

/** The one loop that reads. */
export class Feed {
  readonly #in: FeedDependencies
  readonly #pace: Pick<StreamPace, 'everyMs'>
  readonly #failed: (error: unknown) => void
  readonly #viewers = new Set<Viewer>()
  #state: State | undefined
  #look: Promise<State> | undefined
  #failing = false
  #timer: NodeJS.Timeout | undefined
  #closed = false

  constructor(deps: FeedDependencies, pace: Pick<StreamPace, 'everyMs'>, failed: (error: unknown) => void) {
    this.#in = deps
    this.#pace = pace
    this.#failed = failed
  }

  /**
   * Adds a viewer and returns the frames to send to it first. Later frames are sent to the viewer as well; it keeps
   * them back until it is opened.
   *
   * @throws CoordinationError, HttpProblem 503
   */
  async admit(viewer: Viewer, after: string | undefined): Promise<string> {
    let state = (this.#failing ? undefined : this.#known) ?? (await this.#lookOnce())
    const place = after === undefined ? undefined : eventPlace(after)
    if (place !== undefined && isBefore(state.place, place)) state = await this.#lookOnce()
    if (this.#closed) throw closing()
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

  /** Without a timer there are no viewers, and the state that was known when the last one left is outdated. */
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

  /** Starts a reading or joins the one in progress; two readings never run at the same time. */
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
      if (!this.#failing && !isNotRunning(error)) this.#failed(error)
      this.#failing = true
      throw error
    }
  }

  /** Reads the current state and sends all viewers what is new. */
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

  /** Starts over: the database was restored, or there are too many events to send. */
  async #startOver(): Promise<State> {
    const state = await this.#fresh()
    this.#broadcast(this.#resetFrames(state))
    return state
  }

  /** Reads the place before the snapshot, so that no event after the snapshot is skipped. */
  async #fresh(): Promise<State> {
    const { coordinator, source } = this.#in
    const [latest] = await coordinator.operator.events({ limit: 1 })
    const place = latest ?? nowhere
    const { snapshot } = await source.status()
    if (snapshot.meta.revision < place.revision) source.outdate()
    const current = await source.status()
    return { ...current, place, summary: this.#summaryOf(current.status, current.snapshot) }
  }

  /** Returns undefined when there are too many. */
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

  /** Returns undefined when the place is no longer known or never was. */
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
    return `${frame('reset', JSON.stringify({ now: this.#in.bodies.now(state.snapshot) }))}${this.#snapshotFrame(state)}`
  }

  #snapshotFrame({ status, snapshot, place }: State): string {
    return frame('snapshot', this.#in.bodies.snapshot(status, snapshot), place)
  }

  #changeFrame({ status, snapshot }: State): string {
    const { bodies } = this.#in
    const change = { now: bodies.now(snapshot), ...bodies.summary(status, snapshot) }
    return frame('change', JSON.stringify(change))
  }

  #eventFrame(row: EventRow, snapshot: Snapshot): string {
    return frame('event', this.#in.bodies.event(row, snapshot), row)
  }
}

/** Without an id, the browser keeps the last one. `data` is JSON, which contains no raw line breaks. */
function frame(event: string, data: string, place?: EventPlace): string {
  const id = place === undefined ? '' : `id: ${eventId(place)}\n`
  return `event: ${event}\n${id}data: ${data}\n\n`
}
