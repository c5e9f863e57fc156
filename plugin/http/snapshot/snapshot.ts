/**
 * One reading of the database for all who ask at about the same time.
 *
 * A page that asks every other second, opened by a dozen people, must not cost a dozen readings of everything.
 */
import type { Coordinator } from '../../core/coordinator.js'
import { describe, type Status } from '../../core/reports/status.js'
import type { Snapshot } from '../../core/store.js'
import { Pauses } from './pauses.js'
import { Vacancies } from './vacancies.js'

/** What this node itself knows at once; who asks it is not told of less. */
const ownNews = ['node.joined', 'lease.acquired', 'lease.ended', 'lease.released'] as const

/** A reading that is under way. */
interface Reading {
  readonly answer: Promise<Snapshot>
  outdated: boolean
}

/** How long an answer is good for others who ask. */
const freshForMs = 250

/** What has been read besides, while this was the latest change. */
interface Besides {
  readonly revision: number
  readonly atMs: number
  readonly answers: Map<string, Promise<unknown>>
}

/** Of the audit trail something may be cleared away without a change. */
const unchangedForMs = 1_000

const mostAnswers = 100

const sources = new WeakMap<Coordinator, SnapshotSource>()

/** The one source of a coordinator, for the routes of this interface and all of an application's own that ask who leads. */
export function snapshotSourceOf(coordinator: Coordinator): SnapshotSource {
  const source = sources.get(coordinator) ?? new SnapshotSource(coordinator)
  sources.set(coordinator, source)
  return source
}

export class SnapshotSource {
  readonly #coordinator: Coordinator
  readonly #nowMs: () => number
  readonly #described = new WeakMap<Snapshot, Status>()
  readonly #pauses: Pauses
  readonly #vacancies: Vacancies
  #latest: { readonly snapshot: Snapshot; readonly atMs: number } | undefined
  #reading: Reading | undefined
  #besides: Besides = { revision: -1, atMs: 0, answers: new Map() }

  /** @param nowMs any clock that only goes forwards. */
  constructor(coordinator: Coordinator, nowMs: () => number = () => performance.now()) {
    this.#coordinator = coordinator
    this.#nowMs = nowMs
    this.#pauses = new Pauses(coordinator.operator)
    this.#vacancies = new Vacancies(coordinator.operator)
    for (const event of ownNews) coordinator.on(event, () => this.outdate())
  }

  /**
   * Everything as of one instant, which is at most a moment ago, and never before the last {@link outdate} that came
   * before this was asked. There are never two readings at a time.
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

  /** The same in the words of the interface. */
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
   * What is read of the audit trail: once for all who ask the same, until something has been changed, and for a second
   * at most. So it is never older than {@link current} would be.
   *
   * @throws whatever `read` throws, which is asked again then.
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

  /** Something has been changed from here: who asks from now on sees it. */
  outdate(): void {
    this.#latest = undefined
    if (this.#reading !== undefined) this.#reading.outdated = true
  }

  #read(): Reading {
    const atMs = this.#nowMs()
    const answer = this.#coordinator.operator.snapshot().then(async (snapshot) => {
      await Promise.all([this.#pauses.tell(snapshot), this.#vacancies.tell(snapshot)])
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
