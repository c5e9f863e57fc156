/**
 * Reads the database once for all requests that arrive at about the same time.
 *
 * A page that polls every other second and is open in a dozen browsers must not cost a dozen readings of everything.
 */
import type { Coordinator } from '../../core/coordinator.js'
import { describe, type Status } from '../../core/reports/status.js'
import { Trail } from '../../core/reports/trail.js'
import type { Snapshot } from '../../core/store.js'

/** Events of which this node knows at once. A response must not show less than this node knows. */
const ownNews = ['node.joined', 'lease.acquired', 'lease.ended', 'lease.released'] as const

/** A reading in progress. */
interface Reading {
  readonly answer: Promise<Snapshot>
  outdated: boolean
}

/** How long a reading may be reused for other requests. */
const freshForMs = 250

/** Additional reads, valid while this revision is the latest. */
interface Besides {
  readonly revision: number
  readonly atMs: number
  readonly answers: Map<string, Promise<unknown>>
}

/** Events can be cleared away without a change of the revision. */
const unchangedForMs = 1_000

const mostAnswers = 100

const sources = new WeakMap<Coordinator, SnapshotSource>()

/**
 * Returns the one source of a coordinator, shared by the routes of this interface and all uses of {@link leaderOnly}.
 */
export function snapshotSourceOf(coordinator: Coordinator): SnapshotSource {
  const source = sources.get(coordinator) ?? new SnapshotSource(coordinator)
  sources.set(coordinator, source)
  return source
}

export class SnapshotSource {
  readonly #coordinator: Coordinator
  readonly #nowMs: () => number
  readonly #described = new WeakMap<Snapshot, Status>()
  readonly #trail: Trail
  #latest: { readonly snapshot: Snapshot; readonly atMs: number } | undefined
  #reading: Reading | undefined
  #besides: Besides = { revision: -1, atMs: 0, answers: new Map() }

  /** @param nowMs a clock that never goes backwards, in milliseconds. */
  constructor(coordinator: Coordinator, nowMs: () => number = () => performance.now()) {
    this.#coordinator = coordinator
    this.#nowMs = nowMs
    this.#trail = new Trail((query) => coordinator.operator.events(query))
    for (const event of ownNews) coordinator.on(event, () => this.outdate())
  }

  /**
   * Returns everything as of one instant. The reading is at most {@link freshForMs} old, and never older than the last
   * {@link outdate} before this call. Two readings never run at the same time.
   *
   * @throws StoreError
   */
  async current(): Promise<Snapshot> {
    const latest = this.#latest
    if (latest !== undefined && this.#nowMs() - latest.atMs <= freshForMs) return latest.snapshot
    const underWay = this.#reading
    if (underWay === undefined) return this.#read().answer
    if (!underWay.outdated) return underWay.answer
    await underWay.answer.catch(() => undefined)
    return (this.#reading ?? this.#read()).answer
  }

  /** Returns the same reading with its description. */
  async status(): Promise<{ readonly snapshot: Snapshot; readonly status: Status }> {
    const snapshot = await this.current()
    const known = this.#described.get(snapshot)
    if (known !== undefined) return { snapshot, status: known }
    const { settings, nodeId, state } = this.#coordinator
    const status = describe(snapshot, settings, nodeId, state)
    this.#described.set(snapshot, status)
    return { snapshot, status }
  }

  /**
   * Reads from the audit trail once for all callers with the same question. The answer is reused until the revision
   * changes, for a second at most, so it is never older than {@link current} would be.
   *
   * @throws whatever `read` throws; a failed read is not reused.
   */
  async shared<Answer>(question: readonly unknown[], read: () => Promise<Answer>): Promise<Answer> {
    const { revision } = (await this.current()).meta
    const atMs = this.#nowMs()
    const before = this.#besides
    const isOld = before.revision !== revision || atMs - before.atMs > unchangedForMs
    if (isOld || before.answers.size >= mostAnswers) this.#besides = { revision, atMs, answers: new Map() }
    const { answers } = this.#besides
    const name = JSON.stringify(question)
    const known = answers.get(name) as Promise<Answer> | undefined
    if (known !== undefined) return known
    const answer = read()
    answers.set(name, answer)
    answer.catch(() => answers.delete(name))
    return answer
  }

  /** Outdates the reading after a change, so that later callers see the change. */
  outdate(): void {
    this.#latest = undefined
    if (this.#reading !== undefined) this.#reading.outdated = true
  }

  #read(): Reading {
    const atMs = this.#nowMs()
    const answer = this.#coordinator.operator.snapshot().then(async (snapshot) => {
      await this.#trail.tell(snapshot)
      if (!reading.outdated) this.#latest = { snapshot, atMs }
      return snapshot
    })
    const reading: Reading = { answer: answer.finally(() => this.#finished(reading)), outdated: false }
    this.#reading = reading
    return reading
  }

  #finished(reading: object): void {
    if (this.#reading === reading) this.#reading = undefined
  }
}
