/** One open stream: what is written to it, and when it ends. */
import type { ServerResponse } from 'node:http'

/** How fast, and how patient. */
export interface StreamPace {
  /** Between two looks at the database. */
  readonly everyMs: number
  /** A comment is sent after so long without anything else, so that nobody in between thinks the line dead. */
  readonly heartbeatMs: number
  /** A browser whose stream has ended comes again after so long. */
  readonly retryMs: number
  /** Who was let in by name is asked for it again after so long, at the latest. */
  readonly lifeMs: number
  /** Who has not taken what it was sent for so long is disconnected. */
  readonly stuckMs: number
  /** So is who leaves more than this unread. */
  readonly unreadBytes: number
}

export const usualPace: StreamPace = {
  everyMs: 1_000,
  heartbeatMs: 15_000,
  retryMs: 2_000,
  lifeMs: 60_000,
  stuckMs: 30_000,
  unreadBytes: 262_144,
}

export class Viewer {
  readonly #raw: ServerResponse
  readonly #pace: StreamPace
  readonly #endAtMs: number
  /** What is kept back until it is opened. */
  #kept: string[] | undefined = []
  #sentAtMs = performance.now()
  /** When everything it was sent had left this process. */
  #takenAtMs = performance.now()

  /** Lives a little shorter by chance, so that those who came together do not come again together. */
  constructor(raw: ServerResponse, pace: StreamPace, lifeMs: number) {
    this.#raw = raw
    this.#pace = pace
    this.#endAtMs = performance.now() + lifeMs * (0.8 + 0.2 * Math.random())
    // Who goes away in the middle of a write is no news: `close` says it.
    raw.on('error', () => undefined)
  }

  /** Calls back once when the stream has ended, also when it already has. */
  whenGone(call: () => void): void {
    if (this.#raw.destroyed || this.#raw.closed) call()
    else this.#raw.once('close', call)
  }

  open(headers: Record<string, number | string | string[]>, beginning: string): void {
    const kept = this.#kept ?? []
    this.#kept = undefined
    // Long silence is what a stream is like: the application's limit for idle connections is not for it.
    this.#raw.socket?.setTimeout(0)
    this.#raw.writeHead(200, headers)
    this.#write([beginning, ...kept].join(''))
  }

  send(frames: string): void {
    if (this.#kept !== undefined) this.#kept.push(frames)
    else if (this.#raw.writableLength > this.#pace.unreadBytes) this.#raw.destroy()
    else this.#write(frames)
  }

  /** To be called about every second. */
  attend(): void {
    if (this.#kept !== undefined) return
    const nowMs = performance.now()
    if (this.#raw.writableLength === 0) this.#takenAtMs = nowMs
    if (nowMs - this.#takenAtMs > this.#pace.stuckMs) this.#raw.destroy()
    else if (nowMs >= this.#endAtMs) this.end()
    else if (nowMs - this.#sentAtMs >= this.#pace.heartbeatMs) this.#write(':\n\n')
  }

  /** Nobody waits for long for one who does not take the last of it. */
  end(): void {
    if (this.#kept !== undefined) return void this.#raw.destroy()
    this.#raw.end()
    const impatience = setTimeout(() => this.#raw.destroy(), 1_000)
    this.#raw.once('close', () => clearTimeout(impatience))
  }

  #write(text: string): void {
    this.#sentAtMs = performance.now()
    if (!this.#raw.destroyed && !this.#raw.writableEnded) this.#raw.write(text)
  }
}
