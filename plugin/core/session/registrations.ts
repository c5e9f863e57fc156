/**
 * Which of this process's workers its node stands for in the database, in one life, and which are still to be registered or
 * taken back. One at a time, so that one that is refused stops no other.
 */
import type { Declaration } from '../changes/changes.js'
import type { Reading } from '../time/clock.js'
import { elapsedMs } from '../time/trust.js'
import type { Runner } from '../work/worker.js'

/** The workers this node stands for and goes on standing for, and one more. */
export interface Registration {
  readonly added: Declaration | undefined
  readonly kept: readonly Declaration[]
}

/** A worker that was hindered is tried again after so long. */
const hinderedRetryMs = 250

export class Registrations {
  readonly #runners: ReadonlyMap<string, Runner>
  #registered: readonly Declaration[] = []
  /** What other nodes contradict, and when they did so last: they may be replaced, or go. */
  readonly #refused = new Map<Declaration, Reading>()
  /** Workers of which a user's transaction fences a lease that would have to be altered, and when that was found. */
  readonly #hindered = new Map<Declaration, Reading>()

  readonly #refusedRetryMs: number

  /**
   * @param runners the workers this process stands for at any moment, by key.
   * @param refusedRetryMs a worker that was refused is tried again after so long.
   */
  constructor(runners: ReadonlyMap<string, Runner>, refusedRetryMs: number) {
    this.#runners = runners
    this.#refusedRetryMs = refusedRetryMs
  }

  /** What this process declares now. */
  get declared(): Declaration[] {
    return [...this.#runners.values()].map((runner) => runner.worker.declaration)
  }

  /** Keys of the workers this node stands for. */
  get keys(): string[] {
    return this.#registered.map(({ key }) => key)
  }

  /** Whether other nodes contradict it, so that this node does not stand for it. */
  refuses(declaration: Declaration): boolean {
    return this.#refused.has(declaration)
  }

  /** This node has joined with these; `keys` are those it stands for. */
  joined(declarations: readonly Declaration[], keys: readonly string[]): void {
    this.#registered = declarations.filter(({ key }) => keys.includes(key))
  }

  /** What differs between what this process declares and what its node stands for; undefined when nothing does. */
  wanted(now: Reading): Registration | undefined {
    const declared = new Set(this.declared)
    const kept = this.#registered.filter((declaration) => declared.has(declaration))
    for (const set of [this.#refused, this.#hindered] as const)
      for (const declaration of set.keys()) if (!declared.has(declaration)) set.delete(declaration)
    const known = new Set(kept)
    const added = [...declared].find((each) => !known.has(each) && this.#waitsForMs(each, now) === 0)
    if (added === undefined && kept.length === this.#registered.length) return undefined
    return { added, kept }
  }

  /** It was carried out, and `keys` are those this node stands for now: the added one is not among them where a fence hinders it. */
  carriedOut({ added, kept }: Registration, keys: readonly string[], now: Reading): void {
    const wanted = added === undefined ? kept : [...kept, added]
    this.#registered = wanted.filter(({ key }) => keys.includes(key))
    if (added === undefined) return
    this.#refused.delete(added)
    if (keys.includes(added.key)) this.#hindered.delete(added)
    else this.#hindered.set(added, now)
  }

  /** Other nodes contradict it. Answers whether they did not before. */
  refused(declaration: Declaration, now: Reading): boolean {
    const isNews = !this.#refused.has(declaration)
    this.#refused.set(declaration, now)
    this.#hindered.delete(declaration)
    return isNews
  }

  /** How long until one that was hindered or refused is to be tried again, in ms; undefined when there is none. */
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
