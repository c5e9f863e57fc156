/**
 * Which of this process's workers its node is a candidate for, in one life, and which are still to be registered or
 * withdrawn. They are registered one at a time, so that a refused one does not stop the others.
 */
import { type Declaration, isSameLayout } from '../changes/declarations.js'
import { workerNamed } from '../changes/rows.js'
import type { WorkerRow } from '../store.js'
import type { Reading } from '../time/clock.js'
import { elapsedMs } from '../time/trust.js'
import type { Runner } from '../work/worker.js'

/** The workers that this node remains a candidate for, and at most one more. */
export interface Registration {
  readonly added: Declaration | undefined
  readonly kept: readonly Declaration[]
}

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
    const added = [...declared].find((each) => !known.has(each) && this.#waitsForMs(each, now) === 0)
    const isStated = kept.length === this.#registered.length && this.#statedUnder === server
    if (added === undefined && isStated) return undefined
    return { added, kept: kept.filter((declaration) => declaration !== added) }
  }

  /**
   * Notes that a registration was carried out; `keys` are the workers that this node is a candidate for now. The added
   * one is missing where a fence hinders it.
   */
  carriedOut({ added, kept }: Registration, keys: readonly string[], now: Reading, server: string): void {
    this.#statedUnder = server
    const wanted = added === undefined ? kept : [...kept, added]
    this.#registered = wanted.filter(({ key }) => keys.includes(key))
    if (added === undefined) return
    this.#refused.delete(added)
    if (keys.includes(added.key)) this.#hindered.delete(added)
    else this.#hindered.set(added, now)
  }

  /** Notes that other nodes contradict this worker. Returns whether that is new. */
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
