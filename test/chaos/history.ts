/**
 * What a campaign leaves behind: one line of JSON for each thing that was seen, in one file.
 *
 * Every process appends for itself, in one write per line, so that what it has written stays when it is killed. Times
 * are milliseconds by the machine's monotonic clock, which all processes share, and which nothing
 * here disturbs: they can be compared as they are.
 */
import { closeSync, openSync, readFileSync, writeSync } from 'node:fs'

/** A lease as it is held: key, token, and the generation of a share (0 for what has none). */
export type HeldTerm = readonly [key: string, token: number, generation: number]

/** One line. `by` names a process: a node's name and its number in the campaign. */
export type Entry =
  | { readonly t: 'campaign'; readonly atMs: number; readonly database: string; readonly seed: number }
  /** A node has joined. */
  | { readonly t: 'joined'; readonly atMs: number; readonly by: string; readonly id: string }
  /** At some instant after `atMs`, and before anything else in this process, it trusted that it holds these. */
  | { readonly t: 'held'; readonly atMs: number; readonly by: string; readonly terms: readonly HeldTerm[] }
  /** Work that asks no clock: what a loop does that never yields. */
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
  /** A process has ended. `asked` says whether somebody had it end; otherwise it did so by itself. */
  | {
      readonly t: 'ended'
      readonly atMs: number
      readonly by: string
      readonly how: string
      readonly asked: boolean
    }
  /** A fault begins; `happened` follows when it is over, with how often it has really happened. */
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
  /** An operator's order was acknowledged, under a reason that no other has. */
  | { readonly t: 'ordered'; readonly atMs: number; readonly what: string; readonly reason: string }
  /** A lossy failover: orders that were acknowledged before may be forgotten. */
  | { readonly t: 'forgot'; readonly atMs: number }
  /** The migrations of a newer version are there; so many leases were held all through them by older ones. */
  | { readonly t: 'migrated'; readonly atMs: number; readonly version: number; readonly wentOn: number }
  /** A node has joined that does not know all migrations the database has. */
  | { readonly t: 'admitted'; readonly atMs: number; readonly by: string }
  /** All faults are over; then, that everything has found its place again, or has not. */
  | { readonly t: 'quiet'; readonly atMs: number }
  | { readonly t: 'settled'; readonly atMs: number; readonly ok: boolean; readonly detail: string }
  /** What the database has in the end: fenced writes in the order it made them, and the reasons of orders. */
  | { readonly t: 'written'; readonly rows: readonly (readonly [key: string, token: number])[] }
  | { readonly t: 'events'; readonly reasons: readonly string[] }

/** Milliseconds by the monotonic clock, the same in all processes of this machine. */
export function monotonicMs(): number {
  return Number(process.hrtime.bigint() / 1_000n) / 1_000
}

/** Appends lines to a file that others append to as well. */
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

/** All entries of a file, in the order they were written. A line cut off by a kill is passed over. */
export function readHistory(path: string): Entry[] {
  return readFileSync(path, 'utf8')
    .split('\n')
    .flatMap((line) => parsed(line) ?? [])
}

function parsed(line: string): Entry | undefined {
  try {
    return JSON.parse(line) as Entry
  } catch {
    return undefined
  }
}
