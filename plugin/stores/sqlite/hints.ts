/**
 * Hints between processes that share a file, by watching it.
 *
 * Every commit writes to the file or its `-wal`, which the operating system reports within a fraction of a
 * millisecond. The report comes before the commit is visible, though, and how long before depends on the disk. A
 * process that has news for others therefore touches the `-wal` once more after the commit. For writers that do not,
 * each report leads to a look at once and to a few more soon after. A look costs microseconds: SQLite itself tells
 * whether another connection has committed anything since the last look, and only then is the news of the listening
 * nodes read. A slow tick covers lost reports, and file systems without reports, such as network file systems.
 */
import { type FSWatcher, realpathSync, utimesSync, watch } from 'node:fs'
import { basename, dirname } from 'node:path'
import { Hints as HintsHere } from '../shared/hints.js'

/** When to look after a report, in milliseconds from the report. */
const looksAfterMs = [0, 1, 4, 16]

const tickMs = 1_000

/** The listeners for hints in one process, over one open database. */
export class Hints {
  readonly #here = new HintsHere()
  /** The news for which each listening node was last woken. */
  readonly #seen = new Map<string, number | undefined>()

  /** Calls `wake` at each hint for `node`, until the returned function is called. */
  listen(node: string, wake: () => void): () => void {
    const silence = this.#here.listen(node, wake)
    return () => {
      silence()
      if (!this.#here.isAwaited(node)) this.#seen.delete(node)
    }
  }

  nodes(): string[] {
    return this.#here.nodes()
  }

  /**
   * Called after a change over this very database that had news for these nodes. `maker` is the node that made it, if
   * any.
   */
  told(nodes: Iterable<string>, revision: number, maker: string | undefined): void {
    for (const node of nodes) {
      if (node !== maker) this.#notice(node, revision)
      else if (this.#here.isAwaited(node)) this.#seen.set(node, revision)
    }
  }

  /** Called with the news of all listening nodes, after another connection has committed something. */
  found(news: ReadonlyMap<string, number>): void {
    for (const node of this.nodes()) this.#notice(node, news.get(node))
  }

  #notice(node: string, news: number | undefined): void {
    if (!this.#here.isAwaited(node) || (this.#seen.has(node) && this.#seen.get(node) === news)) return
    this.#seen.set(node, news)
    this.#here.told([node])
  }
}

/** Makes all processes that watch the file look, now that a commit is visible. */
export function announce(path: string): void {
  const now = new Date()
  try {
    utimesSync(`${realpathSync(path)}-wal`, now, now)
  } catch {
    // The file belongs to another user, or there is no `-wal`. The commit itself was reported, and will be seen a
    // little later.
  }
}

/** Turns events of a file into looks. It does not keep the process alive. */
export class FileWatch {
  readonly #path: string
  readonly #look: () => void
  readonly #onWarning: (message: string, error?: unknown) => void
  #watcher: FSWatcher | undefined
  #tick: NodeJS.Timeout | undefined
  #next: NodeJS.Timeout | undefined

  constructor(path: string, look: () => void, onWarning: (message: string, error?: unknown) => void) {
    this.#path = path
    this.#look = look
    this.#onWarning = onWarning
  }

  start(): void {
    if (this.#tick) return
    this.#tick = setInterval(this.#look, tickMs).unref()
    try {
      this.#watch()
    } catch (error) {
      this.#fail(error)
    }
  }

  stop(): void {
    this.#watcher?.close()
    this.#watcher = undefined
    clearInterval(this.#tick)
    this.#tick = undefined
    clearTimeout(this.#next)
  }

  /**
   * Watches the folder, because the `-wal` is created and deleted; the folder of the real file, not that of a link to
   * it.
   */
  #watch(): void {
    const path = realpathSync(this.#path)
    const name = basename(path)
    this.#watcher = watch(dirname(path), { persistent: false }, (_event, changed) => {
      if (changed === null || changed.startsWith(name)) this.#lookSoon(0)
    })
    this.#watcher.on('error', (error) => this.#fail(error))
  }

  #lookSoon(step: number): void {
    clearTimeout(this.#next)
    const afterMs = looksAfterMs[step]
    if (afterMs === undefined) return
    const delayMs = afterMs - (looksAfterMs[step - 1] ?? 0)
    const look = (): void => {
      this.#look()
      this.#lookSoon(step + 1)
    }
    this.#next = setTimeout(look, delayMs).unref()
  }

  #fail(error: unknown): void {
    this.#watcher?.close()
    this.#watcher = undefined
    this.#onWarning(`The database file cannot be watched, so that hints take up to ${tickMs} ms.`, error)
  }
}
