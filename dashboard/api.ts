/** The server: reading, watching and writing, and what time it is by the database's clock. */
import type { Refusal } from './model.js'

/** Where the interface is, seen from the page: relative, so that any prefix and any proxy in between will do. */
const base = '../'

/** Why there is no answer. */
export type Failure =
  /** Nobody answered, or not in time, or not in our words. */
  | 'away'
  /** The server answered that its database does not. */
  | 'database'
  /** Who asks is not let in, or not any more. */
  | 'signed-out'
  /** Refused for a reason that the detail tells. */
  | 'refused'

export class ApiError extends Error {
  constructor(
    readonly failure: Failure,
    readonly status: number,
    detail: string,
    /** It need not be asked again before. */
    readonly retryAfterMs = 0,
  ) {
    super(detail)
  }
}

export const patienceMs = 8_000

interface Memory {
  readonly tag: string
  readonly body: unknown
}

/** The latest answer of each list that is asked for again and again. */
const memories = new Map<string, Memory>()

/** Reads; what has not changed is not sent again. `fresh` is false when the answer is the one from before. */
export async function read<Body>(path: string): Promise<{ body: Body; fresh: boolean }> {
  const memory = memories.get(path)
  const headers: Record<string, string> = { accept: 'application/json' }
  if (memory) headers['if-none-match'] = memory.tag
  const response = await send(path, { headers })
  if (response.status === 304 && memory) return { body: memory.body as Body, fresh: false }
  const body = (await response.json()) as Body
  const tag = response.headers.get('etag')
  if (memories.size > 20) memories.clear()
  if (tag !== null) memories.set(path, { tag, body })
  return { body, fresh: true }
}

/** @param text what everything that is shown contains; nothing for all. */
export function overviewPath(
  text: string,
  {
    nodes,
    leases,
    assignments,
    problems,
  }: Readonly<Record<'nodes' | 'leases' | 'assignments' | 'problems', number>>,
): string {
  const query = text && `&q=${encodeURIComponent(text.slice(0, 100))}`
  return `overview?nodes=${nodes}&leases=${leases}&assignments=${assignments}&problems=${problems}${query}`
}

/** Alters something; `match` is the token or revision it is about. */
export async function write<Body>(
  method: string,
  path: string,
  body?: object,
  match?: number,
): Promise<Body | Record<string, never>> {
  const headers: Record<string, string> = {}
  if (body) headers['content-type'] = 'application/json'
  if (match !== undefined) headers['if-match'] = `"${match}"`
  const response = await send(path, {
    method,
    headers,
    ...(body && { body: JSON.stringify(body) }),
  })
  return response.status === 204 ? {} : ((await response.json()) as Body)
}

async function send(path: string, options: RequestInit): Promise<Response> {
  const signal = AbortSignal.timeout(patienceMs)
  const response = await fetch(base + path, {
    cache: 'no-store',
    redirect: 'manual',
    signal,
    ...options,
  }).catch((error: Error) => {
    throw new ApiError('away', 0, error.message)
  })
  if (response.status === 304) return response
  const isOurs = /[/+]json/.test(response.headers.get('content-type') ?? '')
  if (response.ok && (isOurs || response.status === 204)) return response
  throw await failureOf(response, isOurs)
}

async function failureOf(response: Response, isOurs: boolean): Promise<ApiError> {
  const { status } = response
  const problem = isOurs ? ((await response.json().catch(() => ({}))) as Partial<Refusal>) : {}
  const detail = problem.detail ?? `The server answered ${status || 'with a redirect'}.`
  // A page for signing in instead of an answer: whoever asks has been signed out by the application.
  const isElsewhere = response.type === 'opaqueredirect' || response.ok
  const why = problem.type?.split(':').at(-1)
  const failure =
    status === 401 || status === 403 || isElsewhere
      ? 'signed-out'
      : why === 'store-unavailable'
        ? 'database'
        : status >= 500 && why !== 'not-installed'
          ? 'away'
          : 'refused'
  return new ApiError(failure, status, detail, 1_000 * (Number(response.headers.get('retry-after')) || 0))
}

/**
 * Watches the stream until it ends, and calls back at each event. It only says that there is something new: what, is
 * read. Fetched rather than by `EventSource`, so that it is signed in as everything else is.
 */
export async function watch(signal: AbortSignal, called: () => void): Promise<void> {
  const response = await fetch(`${base}stream`, { cache: 'no-store', redirect: 'manual', signal })
  if (!response.ok || !response.body) throw new Error(response.statusText)
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader()
  for (let rest = ''; ; ) {
    const { value, done } = await reader.read()
    if (done) return
    rest += value
    if (/^event: (event|change|reset)$/m.test(rest)) called()
    rest = rest.slice(rest.lastIndexOf('\n') + 1)
  }
}

/**
 * The database's clock, which is not that of this machine. An answer was made at some moment before it came, and may
 * have been made for somebody else a little before it was asked for; so each bounds the difference of the clocks, and
 * the greatest of the lower bounds is the best guess. Where the bounds contradict each other, a clock has jumped.
 */
export class Clock {
  #offsets: number[] = []
  #heardAtMs = 0
  #dateMs = 0
  /** By how much it has jumped lately, by the tick of the page at which that was noticed; 0 when it has not. */
  #jump = { byMs: 0, atMs: 0 }
  /** By how much this browser's own clock is ahead. */
  aheadMs = 0

  heard(now: string): void {
    const tickMs = performance.now()
    const offsetMs = Date.parse(now) - tickMs
    const byMs = this.#offsets.length === 0 ? 0 : offsetMs - Math.max(...this.#offsets)
    if (Math.abs(byMs) > mostLateMs) {
      // A machine that slept has missed time on this clock of the page, and not on its own.
      const sleptMs = Date.now() - this.#dateMs - (tickMs - this.#heardAtMs)
      if (Math.abs(byMs - sleptMs) > mostLateMs) this.#jump = { byMs, atMs: tickMs }
      this.#offsets = []
    }
    this.#offsets = [...this.#offsets, offsetMs].slice(-10)
    this.#heardAtMs = tickMs
    this.#dateMs = Date.now()
    this.aheadMs = Date.now() - this.nowMs()
  }

  /** By how much it has jumped in the last quarter of an hour. */
  get jumpMs(): number {
    return performance.now() - this.#jump.atMs < 900_000 ? this.#jump.byMs : 0
  }

  nowMs(): number {
    return performance.now() + Math.max(...this.#offsets)
  }
}

/** Twice the patience: answers that are only late have not jumped. */
const mostLateMs = 2 * patienceMs
