/**
 * Which of this process's workers its node is a candidate for, in one life, and which are still to be registered or
 * withdrawn. As many as possible are registered in one change, and one that is refused does not stop the others.
 */
import { type Contradiction, type Declaration, isSameLayout } from '../changes/declarations.js'
import type { Registered, Registration } from '../changes/membership.js'
import { workerNamed } from '../changes/rows.js'
import type { WorkerRow } from '../store.js'
import type { Reading } from '../time/clock.js'
import { elapsedMs } from '../time/trust.js'
import type { Runner } from '../work/worker.js'

/** How long until a hindered worker is tried again. */
const hinderedRetryMs = 250

export class Registrations {
  readonly #runners: ReadonlyMap<string, Runner>
  #registered: readonly Declaration[] = []
  /** Those of them whose rows have another node's schedule although this node leads. */
  #overwritten: readonly Declaration[] = []
  /** The server that was last told all of them at once; undefined where its rows contradict what it was told. */
  #statedUnder: string | undefined
  /** The workers that other nodes contradict, and when they last did. Those nodes may be replaced, or leave. */
  readonly #refused = new Map<Declaration, Reading>()
  /** The workers for which a fenced lease would have to be altered, and when that was last found. */
  readonly #hindered = new Map<Declaration, Reading>()
  readonly #refusedRetryMs: number
  /**
   * How many are registered in one change. A change that exceeds its time limit does nothing, however often it is made;
   * so after a failure it is half as many, and after a success twice as many.
   */
  #addedAtOnce = Number.POSITIVE_INFINITY

  /**
   * @param runners the workers registered in this process at any moment, by key.
   * @param refusedRetryMs how long until a refused worker is tried again.
   */
  constructor(runners: ReadonlyMap<string, Runner>, refusedRetryMs: number) {
    this.#runners = runners
    this.#refusedRetryMs = refusedRetryMs
  }

  get declared(): Declaration[] {
    return [...this.#runners.values()].map((runner) => runner.worker.declaration)
  }

  /** The keys of the workers that this node is a candidate for. */
  get keys(): string[] {
    return this.#registered.map(({ key }) => key)
  }

  /** Returns whether other nodes contradict this worker, so that this node is not a candidate for it. */
  refuses(declaration: Declaration): boolean {
    return this.#refused.has(declaration)
  }

  /** Notes a join with these declarations; `keys` are the workers that this node is a candidate for. */
  joined(declarations: readonly Declaration[], keys: readonly string[], server: string): void {
    this.#statedUnder = server
    this.#registered = declarations.filter(({ key }) => keys.includes(key))
  }

  /**
   * Takes in the rows of the workers that this node is a candidate for. Where one is missing or is of another layout, the
   * database has forgotten the registration, and it is made again. So it is where the row has another node's schedule,
   * but this node leads: its schedule is the one that counts, and people are to see that one. Until then it remains a
   * candidate, or its lease would go to another node.
   *
   * @param leads whether this node holds the lease of a single worker
   */
  follow(rows: readonly WorkerRow[], leads: (worker: string) => boolean): void {
    const standing = this.#registered.filter((declaration) => {
      const row = workerNamed(rows, declaration.key)
      return row !== undefined && isSameLayout(row, declaration)
    })
    this.#overwritten = standing.filter(
      ({ key, schedule }) => leads(key) && workerNamed(rows, key)?.schedule !== schedule,
    )
    if (standing.length === this.#registered.length) return
    this.#registered = standing
    this.#statedUnder = undefined
  }

  /**
   * Returns the next difference between what is declared and what this node is a candidate for; undefined for none.
   * Another server may have forgotten that a worker was registered, or withdrawn, so it is told once more.
   */
  wanted(now: Reading, server: string): Registration | undefined {
    const declared = new Set(this.declared)
    const kept = this.#registered.filter((declaration) => declared.has(declaration))
    for (const set of [this.#refused, this.#hindered] as const)
      for (const declaration of set.keys()) if (!declared.has(declaration)) set.delete(declaration)
    const again = new Set(this.#overwritten)
    const known = new Set(kept.filter((declaration) => !again.has(declaration)))
    const due = [...declared].filter((each) => !known.has(each) && this.#waitsForMs(each, now) === 0)
    const added = due.slice(0, this.#addedAtOnce)
    const isStated = kept.length === this.#registered.length && this.#statedUnder === server
    if (added.length === 0 && isStated) return undefined
    const isDue = new Set(due)
    return { kept: kept.filter((each) => !isDue.has(each)), added, later: due.slice(added.length) }
  }

  /**
   * Notes what became of a registration. A worker that is neither registered nor refused is hindered by a fence. Returns
   * the contradictions that are new.
   */
  carriedOut(
    { added, kept }: Registration,
    { workers, refused }: Registered,
    now: Reading,
    server: string,
  ): Contradiction[] {
    this.#statedUnder = server
    this.#addedAtOnce *= 2
    const keys = new Set(workers)
    const errors = new Map(refused.map((error) => [error.worker, error]))
    this.#registered = [...kept, ...added].filter(({ key }) => keys.has(key))
    const news: Contradiction[] = []
    for (const declaration of added) {
      const error = errors.get(declaration.key)
      if (error !== undefined) {
        if (this.refused(declaration, now)) news.push(error)
        continue
      }
      this.#refused.delete(declaration)
      if (keys.has(declaration.key)) this.#hindered.delete(declaration)
      else this.#hindered.set(declaration, now)
    }
    return news
  }

  /** Notes that a registration failed. */
  failed({ added }: Registration): void {
    if (added.length > 0) this.#addedAtOnce = Math.ceil(added.length / 2)
  }

  /** Notes that a worker was refused, as a rule because other nodes contradict it. Returns whether that is new. */
  refused(declaration: Declaration, now: Reading): boolean {
    const isNews = !this.#refused.has(declaration)
    this.#refused.set(declaration, now)
    this.#hindered.delete(declaration)
    return isNews
  }

  /** Returns how long until a hindered or refused worker is to be tried again, in ms; undefined when there is none. */
  nextInMs(now: Reading): number | undefined {
    const waiting = [...this.#hindered.keys(), ...this.#refused.keys()]
    const left = waiting.map((declaration) => this.#waitsForMs(declaration, now))
    return left.length === 0 ? undefined : Math.min(...left)
  }

  #waitsForMs(declaration: Declaration, now: Reading): number {
    const [refusedAt, hinderedAt] = [this.#refused.get(declaration), this.#hindered.get(declaration)]
    if (refusedAt !== undefined) return Math.max(0, this.#refusedRetryMs - elapsedMs(refusedAt, now))
    return hinderedAt === undefined ? 0 : Math.max(0, hinderedRetryMs - elapsedMs(hinderedAt, now))
  }
}
