/** Talks to the server: reads, watches the stream, sends changes, and estimates the time by the database's clock. */
import type { Refusal } from './model.js'

/** Address of the HTTP interface. It is relative to the page, so it works under any prefix and behind any proxy. */
const base = '../'

/** Why a request failed. */
export type Failure =
  /** The server did not answer, not in time, or not in the expected form. */
  | 'away'
  /** The server answered that its database does not. */
  | 'database'
  /** The user is not admitted, or no longer. */
  | 'signed-out'
  /** The request was refused; the detail gives the reason. */
  | 'refused'

export class ApiError extends Error {
  constructor(
    readonly failure: Failure,
    readonly status: number,
    detail: string,
    /** Minimum time before a retry. */
    readonly retryAfterMs = 0,
    /** The worker that has the name of a lease that does not exist. */
    readonly worker?: string,
  ) {
    super(detail)
  }
}

export const patienceMs = 8_000

interface Memory {
  readonly tag: string
  readonly body: unknown
}

/** The latest response to each path, for conditional requests. */
const memories = new Map<string, Memory>()

/**
 * Reads a path. The server does not send an unchanged response again; `fresh` is then false and the body is the earlier
 * one.
 */
export async function read<Body>(path: string): Promise<{ body: Body; fresh: boolean }> {
  const memory = memories.get(path)
  const headers: Record<string, string> = { accept: 'application/json' }
  if (memory) headers['if-none-match'] = memory.tag
  const response = await send(path, { headers })
  if (response.status === 304 && memory) return { body: memory.body as Body, fresh: false }
  const body = (await response.json()) as Body & { readonly revision: number }
  // Something in between may have answered instead of the server.
  if (!(body.revision >= 0)) throw new Error()
  const tag = response.headers.get('etag')
  if (memories.size > 20) memories.clear()
  if (tag !== null) memories.set(path, { tag, body })
  return { body, fresh: true }
}

/** @param text the filter: what every listed item contains; empty for all. */
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

/** Sends a change. `match` is the token or revision to which it applies. */
export async function write<Body extends { readonly sentence?: string }>(
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
  if (response.status === 204) return {}
  const answer = (await response.json()) as Body
  // Nor is this the server: it says 202 or 204, or 200 with a sentence.
  if (response.status === 200 && !answer.sentence) throw new Error()
  return answer
}

async function send(path: string, options: RequestInit): Promise<Response> {
  const signal = AbortSignal.timeout(patienceMs)
  const response = await fetch(base + path, {
    cache: 'no-store',
    redirect: 'manual',
    signal,
    ...options,
  }).catch((error: Error) => {
    throw Object.assign(new ApiError('away', 0, error.message), { name: error.name })
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
  // A login page instead of an answer means that the application has signed the user out.
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
  const retryAfterMs = 1_000 * (Number(response.headers.get('retry-after')) || 0)
  return new ApiError(failure, status, detail, retryAfterMs, problem.worker)
}

/**
 * Watches the stream until it ends and calls back when events arrive. They only signal that there is something new to
 * read. This uses `fetch` rather than `EventSource`, so that it is authenticated like every other request.
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
 * Estimates the database's clock, which differs from the clock of this machine. A response was created some time before
 * it arrived, and possibly for another request a little before it was asked for. Each response therefore bounds the
 * difference of the clocks, and the greatest lower bound is the best estimate. When the bounds contradict each other, a
 * clock has jumped.
 */
export class Clock {
  #offsets: number[] = []
  #heardAtMs = 0
  #dateMs = 0
  /** The latest jump: its size, and the `performance.now()` at which it was noticed; 0 for none. */
  #jump = { byMs: 0, atMs: 0 }
  /** How far this browser's own clock is ahead, in ms. */
  aheadMs = 0

  heard(now: string): void {
    const tickMs = performance.now()
    const offsetMs = Date.parse(now) - tickMs
    const byMs = this.#offsets.length === 0 ? 0 : offsetMs - Math.max(...this.#offsets)
    if (Math.abs(byMs) > mostLateMs) {
      // While the machine sleeps, the page's monotonic clock may stand still, but the wall clock runs on.
      const sleptMs = Date.now() - this.#dateMs - (tickMs - this.#heardAtMs)
      if (Math.abs(byMs - sleptMs) > mostLateMs) this.#jump = { byMs, atMs: tickMs }
      this.#offsets = []
    }
    this.#offsets = [...this.#offsets, offsetMs].slice(-10)
    this.#heardAtMs = tickMs
    this.#dateMs = Date.now()
    this.aheadMs = Date.now() - this.nowMs()
  }

  /** How far the clock has jumped in the last 15 minutes, in ms. */
  get jumpMs(): number {
    return performance.now() - this.#jump.atMs < 900_000 ? this.#jump.byMs : 0
  }

  nowMs(): number {
    return performance.now() + Math.max(...this.#offsets)
  }
}

/** Twice the request timeout, so that responses that are only late do not count as jumps. */
const mostLateMs = 2 * patienceMs
