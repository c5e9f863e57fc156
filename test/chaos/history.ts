/**
 * The history of a campaign: one file, with one line of JSON for each thing that was observed.
 *
 * Every process appends its own lines, each in one write, so lines are kept when the process is killed. Times are
 * milliseconds by the machine's monotonic clock. All processes share it and no fault disturbs it, so times of different
 * processes can be compared.
 */
import { closeSync, openSync, readFileSync, readSync, writeSync } from 'node:fs'
import { StringDecoder } from 'node:string_decoder'

/** A lease that is held: its key, its token, and the generation of a share (0 for other leases). */
export type HeldTerm = readonly [key: string, token: number, generation: number]

/** One line. `by` names a process: the name of its node and its number in the campaign. */
export type Entry =
  | { readonly t: 'campaign'; readonly atMs: number; readonly database: string; readonly seed: number }
  | { readonly t: 'joined'; readonly atMs: number; readonly by: string; readonly id: string }
  /** The process trusted that it holds these terms, at an instant after `atMs` and before its next line. */
  | { readonly t: 'held'; readonly atMs: number; readonly by: string; readonly terms: readonly HeldTerm[] }
  /** Work that asks no clock, as in a loop that never yields. */
  | {
      readonly t: 'unasked'
      readonly atMs: number
      readonly by: string
      readonly key: string
      readonly token: number
    }
  /** A fenced write was acknowledged, or failed with the error of this name. */
  | {
      readonly t: 'wrote'
      readonly atMs: number
      readonly by: string
      readonly key: string
      readonly token: number
      readonly error: string | null
    }
  /** A process has ended. `asked` is false when it ended by itself. */
  | {
      readonly t: 'ended'
      readonly atMs: number
      readonly by: string
      readonly how: string
      readonly asked: boolean
    }
  /** A fault begins. `happened` follows when it is over, with how often it really happened. */
  | { readonly t: 'fault'; readonly atMs: number; readonly kind: string; readonly number: number }
  | {
      readonly t: 'happened'
      readonly atMs: number
      readonly kind: string
      readonly number: number
      readonly times: number
      readonly detail: string
    }
  /** A kind of fault that this machine or database does not allow. */
  | { readonly t: 'not-run'; readonly kind: string; readonly why: string }
  /** An operator's order was acknowledged. Its reason is unique. */
  | { readonly t: 'ordered'; readonly atMs: number; readonly what: string; readonly reason: string }
  /** A promotion: orders that were acknowledged before may be forgotten. */
  | { readonly t: 'forgot'; readonly atMs: number }
  /** The migrations of a newer version are applied. Nodes of older versions held `wentOn` leases throughout. */
  | { readonly t: 'migrated'; readonly atMs: number; readonly version: number; readonly wentOn: number }
  /** A node has joined that does not know all migrations of the database. */
  | { readonly t: 'admitted'; readonly atMs: number; readonly by: string }
  /** All faults are over. `settled` follows: whether everything has found its place again in time. */
  | { readonly t: 'quiet'; readonly atMs: number }
  | { readonly t: 'settled'; readonly atMs: number; readonly ok: boolean; readonly detail: string }
  /**
   * The final contents of the database: fenced writes in the order in which it made them, and the reasons of orders.
   */
  | { readonly t: 'written'; readonly rows: readonly (readonly [key: string, token: number])[] }
  | { readonly t: 'events'; readonly reasons: readonly string[] }

/** Returns milliseconds by the monotonic clock, which is the same in all processes of this machine. */
export function monotonicMs(): number {
  return Number(process.hrtime.bigint() / 1_000n) / 1_000
}

/** Appends lines to a file that other processes append to as well. */
export class History {
  readonly path: string
  readonly #file: number

  constructor(path: string) {
    this.path = path
    this.#file = openSync(path, 'a')
  }

  add(entry: Entry): void {
    writeSync(this.#file, `${JSON.stringify(entry)}\n`)
  }

  close(): void {
    closeSync(this.#file)
  }
}

/**
 * Returns all entries of a file, in the order in which they were written. A line that was cut off by a kill is skipped.
 */
export function readHistory(path: string): Entry[] {
  return readFileSync(path, 'utf8')
    .split('\n')
    .flatMap((line) => parsed(line) ?? [])
}

/** Follows a file while it grows, and parses each line once. */
export class HistoryReader {
  readonly #file: number
  readonly #entries: Entry[] = []
  readonly #chunk = Buffer.alloc(65_536)
  readonly #decoder = new StringDecoder('utf8')
  #unended = ''

  constructor(path: string) {
    this.#file = openSync(path, 'r')
  }

  /** Returns all entries so far, in the order in which they were written. */
  entries(): readonly Entry[] {
    for (;;) {
      const length = readSync(this.#file, this.#chunk)
      if (length === 0) return this.#entries
      const lines = (this.#unended + this.#decoder.write(this.#chunk.subarray(0, length))).split('\n')
      this.#unended = lines.pop() ?? ''
      this.#entries.push(...lines.flatMap((line) => parsed(line) ?? []))
    }
  }

  close(): void {
    closeSync(this.#file)
  }
}

function parsed(line: string): Entry | undefined {
  try {
    return JSON.parse(line) as Entry
  } catch {
    return undefined
  }
}
