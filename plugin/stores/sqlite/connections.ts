/**
 * The open database, one user at a time.
 *
 * The driver is synchronous, so two things must never happen. Waiting for another process inside SQLite would stop
 * the whole event loop, heartbeats included. The busy timeout is therefore 0, and a busy file is tried again after a
 * timer. And a change spans several promises between its BEGIN and its COMMIT. Any other use of the same connection
 * by this process must wait for its turn, or it would become part of that change.
 */
import type { Database } from 'better-sqlite3'
import { StoreError } from '../../core/errors.js'
import { isBusy, isUseless, outcomeOf, sqliteError } from './failures.js'
import { pause } from './pause.js'
import type { Open, Source } from './source.js'

/** Hands out the open database, one user at a time, and tries again while another process keeps it busy. */
export class Connection {
  readonly #source: Source
  readonly #timeoutMs: number
  readonly #underWay = new Set<Promise<unknown>>()
  #closing: Promise<void> | undefined

  constructor(source: Source, timeoutMs: number) {
    this.#source = source
    this.#timeoutMs = timeoutMs
  }

  /**
   * Runs `work` alone on the open database. While SQLite reports that it is busy, `work` is run again. `work` must
   * not let such an error escape once it has done anything.
   *
   * @param doing completes the sentence "SQLite could not …".
   * @param ready resolves when `work` may begin.
   * @throws StoreError
   */
  async run<T>(
    doing: string,
    work: (open: Open, deadlineMs: number) => T | Promise<T>,
    ready?: () => Promise<void>,
  ): Promise<T> {
    if (this.#closing) throw new StoreError('The store is closed.', 'none')
    const use = this.#run(doing, work, ready)
    const ended = use.then(ignore, ignore)
    this.#underWay.add(ended)
    ended.then(() => this.#underWay.delete(ended))
    return use
  }

  /** Accepts no more work, and closes the database once the work that was accepted has ended. Harmless when repeated. */
  close(): Promise<void> {
    this.#closing ??= Promise.all(this.#underWay).then(() => this.#source.close())
    return this.#closing
  }

  async #run<T>(
    doing: string,
    work: (open: Open, deadlineMs: number) => T | Promise<T>,
    ready: (() => Promise<void>) | undefined,
  ): Promise<T> {
    const deadlineMs = performance.now() + this.#timeoutMs
    for (let attempt = 0; ; attempt += 1) {
      const done = await this.#source.turns.take(deadlineMs)
      try {
        await ready?.()
        return await work(await this.#source.current(deadlineMs), deadlineMs)
      } catch (error) {
        if (isUseless(error)) this.#source.discard()
        if (!isBusy(error) || performance.now() >= deadlineMs)
          throw sqliteError(doing, outcomeOf(error), error)
      } finally {
        done()
      }
      await pause(attempt, deadlineMs)
    }
  }
}

/**
 * Runs `work` in a transaction that holds the file's one write slot from its start. It may fail as busy before `work`
 * begins, but not later because another connection has written.
 *
 * @param work returns in `commit` whether to keep what it did.
 */
export async function transact<T extends { readonly commit: boolean }>(
  client: Database,
  deadlineMs: number,
  work: () => Promise<T>,
): Promise<T> {
  client.exec('BEGIN IMMEDIATE')
  try {
    const result = await work()
    if (result.commit) await commit(client, deadlineMs)
    return result
  } finally {
    // SQLite may already have rolled back by itself, for example because the disk is full.
    if (client.inTransaction) client.exec('ROLLBACK')
  }
}

/** Outside of WAL mode, readers of the file can delay a COMMIT. The transaction stays open meanwhile. */
async function commit(client: Database, deadlineMs: number): Promise<void> {
  for (let attempt = 0; ; attempt += 1) {
    if (performance.now() >= deadlineMs) throw tooLate()
    try {
      client.exec('COMMIT')
      return
    } catch (error) {
      if (!isBusy(error)) throw error
    }
    await pause(attempt, deadlineMs)
  }
}

export function tooLate(): StoreError {
  return new StoreError('A transaction took longer than statementTimeoutMs and was rolled back.', 'none')
}

function ignore(): void {}
