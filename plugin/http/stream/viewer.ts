/** One open stream: writes to it and decides when it ends. */
import type { ServerResponse } from 'node:http'

/** Intervals and limits of a stream. */
export interface StreamPace {
  /** Interval between two readings of the database. */
  readonly everyMs: number
  /** Silence after which a comment is sent, so that no intermediary considers the connection dead. */
  readonly heartbeatMs: number
  /** Delay after which a browser reconnects when its stream has ended. */
  readonly retryMs: number
  /** Maximum time until a viewer that was admitted by name is checked again. */
  readonly lifeMs: number
  /** A viewer that has not taken all its data for this long is disconnected. */
  readonly stuckMs: number
  /** A viewer that leaves more than this unread is disconnected. */
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
  /** Frames that are kept back until the stream is opened. */
  #kept: string[] | undefined = []
  #sentAtMs = performance.now()
  /** When all data sent to the viewer had last left this process. */
  #takenAtMs = performance.now()

  /** Shortens the life by a random part, so that viewers that connected together do not reconnect together. */
  constructor(raw: ServerResponse, pace: StreamPace, lifeMs: number) {
    this.#raw = raw
    this.#pace = pace
    this.#endAtMs = performance.now() + lifeMs * (0.8 + 0.2 * Math.random())
    // A viewer that disconnects during a write is not an error; `close` reports it.
    raw.on('error', () => undefined)
  }

  /** Calls back once when the stream has ended, or immediately if it already has. */
  whenGone(call: () => void): void {
    if (isGone(this.#raw)) call()
    else this.#raw.once('close', call)
  }

  open(headers: Record<string, number | string | string[]>, beginning: string): void {
    const kept = this.#kept ?? []
    this.#kept = undefined
    // A stream may be silent for long, so the application's limit for idle connections must not apply to it.
    this.#raw.socket?.setTimeout(0)
    this.#raw.writeHead(200, headers)
    this.#write([beginning, ...kept].join(''))
  }

  send(frames: string): void {
    if (this.#kept !== undefined) this.#kept.push(frames)
    else if (this.#raw.writableLength > this.#pace.unreadBytes) this.#raw.destroy()
    else this.#write(frames)
  }

  /** Enforces the limits. Must be called about once a second. */
  attend(): void {
    if (this.#kept !== undefined) return
    const nowMs = performance.now()
    if (this.#raw.writableLength === 0) this.#takenAtMs = nowMs
    if (nowMs - this.#takenAtMs > this.#pace.stuckMs) this.#raw.destroy()
    else if (nowMs >= this.#endAtMs) this.end()
    else if (nowMs - this.#sentAtMs >= this.#pace.heartbeatMs) this.#write(':\n\n')
  }

  /** Ends the stream. A viewer that does not take the rest within a second is cut off. */
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

/** Returns whether `close` has been emitted already. A response of HTTP/2 says so only by its stream. */
function isGone(raw: ServerResponse & { readonly stream?: { readonly destroyed: boolean } }): boolean {
  return raw.stream?.destroyed ?? (raw.destroyed || raw.closed)
}
