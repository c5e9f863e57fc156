/** Starts applications with the plugin, over databases of their own. */
import type { IncomingMessage } from 'node:http'
import { request } from 'node:http'
import Fastify, { type FastifyInstance, type LightMyRequestResponse } from 'fastify'
import type { Test } from 'tap'
import workerCoordination, {
  type Authorize,
  type WorkerCoordinationOptions,
  type WorkerDefinition,
} from '../../plugin/index.js'
import { type Lifetime, useSqlite } from '../support/databases.js'

export interface Use {
  readonly app?: FastifyInstance
  /** Default: a new SQLite database. */
  readonly url?: string
  readonly node?: string
  readonly options?: Partial<WorkerCoordinationOptions>
  readonly workers?: readonly WorkerDefinition[]
  /** What the application does before it registers the plugin. */
  readonly before?: (app: FastifyInstance) => unknown
  /** What the application does after it has registered the plugin. */
  readonly after?: (app: FastifyInstance) => unknown
}

/** Every caller is mira and may do everything. */
export const mira: Authorize = () => ({ id: 'mira', display: 'Mira' })

/** Returns an application that is ready. */
export async function useApp(
  t: Lifetime,
  {
    // On a busy machine, opening a database may take longer than Fastify waits by default.
    app = Fastify({ pluginTimeout: 60_000 }),
    url,
    node = 'n1',
    options = { authorize: mira },
    workers = [],
    before = () => undefined,
    after = () => undefined,
  }: Use = {},
): Promise<FastifyInstance> {
  const database = url ?? (await useSqlite(t)).url
  t.teardown(() => app.close())
  await before(app)
  const identity = { node, cluster: 'c1' }
  await app.register(workerCoordination, { database, identity, ...options })
  await after(app)
  for (const worker of workers) app.coordination.worker(worker)
  await app.ready()
  return app
}

/** A pass that ends when its signal aborts. */
export function untilAborted({ signal }: { readonly signal: AbortSignal }): Promise<void> {
  return new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }))
}

/** One worker of each kind. */
export const threeWorkers: readonly WorkerDefinition[] = [
  { name: 'indexing', kind: 'single', scope: 'cluster', run: untilAborted },
  { name: 'data', kind: 'coordinated', scope: 'global', run: untilAborted },
  { name: 'consumer', kind: 'partitioned', scope: 'global', partitions: 12, run: untilAborted },
]

/** Returns a single worker with this key. */
export function single(
  key: string,
  run: (context: { signal: AbortSignal }) => Promise<void>,
): WorkerDefinition {
  return { name: key.replace('global/', ''), kind: 'single', scope: 'global', run }
}

/** Asks for an action, under a tag where it needs one. */
export function post(
  app: FastifyInstance,
  url: string,
  payload?: object,
  tag?: string,
): Promise<LightMyRequestResponse> {
  const headers = tag === undefined ? {} : { 'if-match': tag }
  return app.inject({ method: 'POST', url, headers, ...(payload === undefined ? {} : { payload }) })
}

export async function revisionOf(app: FastifyInstance): Promise<number> {
  return (await app.coordination.status()).revision
}

/** Sets `NODE_ENV` until the test ends. */
export function useEnvironment(t: Lifetime, environment: string): void {
  const before = process.env.NODE_ENV
  t.teardown(() => {
    if (before === undefined) delete process.env.NODE_ENV
    else process.env.NODE_ENV = before
  })
  process.env.NODE_ENV = environment
}

/** Lets no time pass until the test ends for what goes by the monotonic clock, as our limit on writes does. */
export function stopTime(t: Pick<Test, 'intercept'>): void {
  const nowMs = performance.now()
  t.intercept(performance, 'now', { value: () => nowMs })
}

/** Starts to listen and returns the origin of the server. */
export async function listening(app: FastifyInstance): Promise<string> {
  return app.listen({ port: 0, host: '127.0.0.1' })
}

export interface Answer {
  readonly status: number
  readonly headers: IncomingMessage['headers']
  readonly body: string
}

/**
 * Sends a request over a socket with exactly these headers. The body is written after them, or never when undefined.
 */
export function over(
  origin: string,
  { method = 'GET', path = '/', headers = {}, body = '' as string | undefined } = {},
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const sent = request(`${origin}${path}`, { method, headers, agent: false }, (response) => {
      const parts: Buffer[] = []
      response.on('data', (part: Buffer) => parts.push(part))
      response.on('end', () => {
        resolve({
          status: response.statusCode ?? 0,
          headers: response.headers,
          body: Buffer.concat(parts).toString(),
        })
        sent.destroy()
      })
    })
    sent.on('error', reject)
    if (body === undefined) sent.flushHeaders()
    else sent.end(body)
  })
}
