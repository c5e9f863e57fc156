/**
 * The Fastify shell: options → coordinator → decorator → hooks → routes.
 *
 * Fastify's lifecycle decides when each step happens. Workers start in `onReady`, because `onListen` never comes
 * where the application is mounted in another server. Handing over begins in `preClose`, because `onClose` comes
 * only once the last kept-alive connection has ended, which may take longer than a minute. It is complete before
 * `onClose` lets anything else be closed. The decorator and hooks belong to the application; the routes live in a
 * scope of their own, so that nothing of theirs leaks into the application.
 */
import type { FastifyInstance } from 'fastify'
import fp from 'fastify-plugin'
import type { Coordinator } from './core/coordinator.js'
import { CoordinationError, StoreError } from './core/errors.js'
import { systemClock } from './core/time/clock.js'
import { sleep, within } from './core/time/loop.js'
import { retryPauseMs } from './core/time/timing.js'
import { routes } from './http/routes.js'
import { openCoordinator } from './open.js'
import { type PluginConfig, readPluginOptions, type WorkerCoordinationOptions } from './options.js'

declare module 'fastify' {
  interface FastifyInstance {
    /** The coordinator of this application, unless `decorateAs` gives it another name. */
    coordination: Coordinator
  }
}

/**
 * Connects to the database, brings its tables up to date, decorates the application with a {@link Coordinator},
 * starts its workers when the application is ready, and hands everything over when it closes.
 *
 * @throws {CoordinationError} `WCO_OPTIONS`, `WCO_DECORATOR_TAKEN`, `WCO_DRIVER_MISSING`, `WCO_STORE`,
 *   `WCO_SCHEMA_NEWER` or `WCO_SCHEMA_PENDING`, each with a sentence that says what to do.
 *
 * @example await app.register(workerCoordination, { database: 'sqlite:coordination.db' })
 */
export const workerCoordination = fp(coordinate, { name: 'fastify-worker-coordination', fastify: '^5.3.0' })

async function coordinate(app: FastifyInstance, options: WorkerCoordinationOptions): Promise<void> {
  const config = await readPluginOptions(options)
  if (app.hasDecorator(config.decorateAs)) throw decoratorTaken(config.decorateAs)
  const coordinator = await openInTime(app, config)
  app.decorate(config.decorateAs, coordinator)
  startAsAsked(app, coordinator, config)
  closeWith(app, coordinator)
  if (config.http) await mount(app, coordinator, config)
}

function mount(app: FastifyInstance, coordinator: Coordinator, config: PluginConfig): PromiseLike<unknown> {
  const { prefix, decorateAs: name, logLevel, authorize, access, allowedOrigins, security, metrics } = config
  return app.register(routes, {
    coordinator,
    name,
    authorize,
    access,
    allowedOrigins,
    security,
    registry: metrics.registry,
    prefix,
    ...(logLevel === undefined ? {} : { logLevel }),
  })
}

/** Starts the coordinator as `autoStart` says, unless the application has started or closed it itself by then. */
function startAsAsked(app: FastifyInstance, coordinator: Coordinator, { autoStart }: PluginConfig): void {
  const ifIdle = async (start: () => Promise<void>): Promise<void> => {
    if (coordinator.state === 'idle') await start()
  }
  if (autoStart === 'ready') app.addHook('onReady', () => ifIdle(() => startInTime(app, coordinator)))
  if (autoStart !== 'listen') return
  const closing = new AbortController()
  app.addHook('preClose', async () => closing.abort())
  app.addHook('onListen', () =>
    ifIdle(async () => {
      const started = startAtLast(app, coordinator, closing.signal)
      await within(systemClock, hookLimitMs(app), started)
    }),
  )
}

/**
 * Starts the coordinator within the time limit. An application that did not come up must not lead, so a start that
 * fails or takes too long is ended for good.
 */
async function startInTime(app: FastifyInstance, coordinator: Coordinator): Promise<void> {
  let latest: unknown
  const note = ({ error }: { readonly error: unknown }): void => {
    latest = error
  }
  coordinator.on('store.failed', note)
  try {
    await inTime(app, 'join', coordinator.start(), () => latest)
  } catch (error) {
    coordinator.close().catch((cause: unknown) => {
      app.log.warn({ err: cause }, 'the coordinator that could not start could not be closed, either')
    })
    throw error
  } finally {
    coordinator.off('store.failed', note)
  }
}

/**
 * Starts the coordinator of a server that listens already. Nothing waits for this start, so nothing could react to
 * its failure: it is tried again until it works or the application closes. Never rejects.
 */
async function startAtLast(
  app: FastifyInstance,
  coordinator: Coordinator,
  closing: AbortSignal,
): Promise<void> {
  const { timing } = coordinator.settings
  for (let attempt = 1; !closing.aborted; attempt++) {
    try {
      return await coordinator.start()
    } catch (error) {
      if (error instanceof CoordinationError && error.code === 'WCO_NOT_RUNNING') return
      app.log.error(
        { err: error },
        'could not start: it is tried again until it works or the application closes',
      )
    }
    await sleep(systemClock, retryPauseMs(timing, attempt, systemClock.random()), closing)
  }
}

/**
 * When passes are slow to settle, `preClose` returns before they have: past its time limit Fastify would report an
 * error, although nothing is wrong. `onClose` has no limit.
 */
function closeWith(app: FastifyInstance, coordinator: Coordinator): void {
  app.addHook('preClose', async () => {
    await within(systemClock, 0.7 * pluginTimeoutMs(app), coordinator.close())
  })
  app.addHook('onClose', () => coordinator.close())
}

/**
 * Opens the coordinator within the time limit. One that opens later is closed again: the application has given up on
 * it.
 */
async function openInTime(app: FastifyInstance, config: PluginConfig): Promise<Coordinator> {
  const opening = openCoordinator(config, app.log)
  try {
    return await inTime(app, 'connect', opening)
  } catch (error) {
    opening.then((coordinator) => coordinator.close()).catch(() => undefined)
    throw error
  }
}

/**
 * Fastify fails when a plugin or hook takes too long, without knowing why. This fails a little earlier, when the
 * reason can still be given.
 */
async function inTime<T>(
  app: FastifyInstance,
  doing: string,
  work: Promise<T>,
  latestError: () => unknown = () => undefined,
): Promise<T> {
  const limitMs = hookLimitMs(app)
  if (await within(systemClock, limitMs, work)) return work
  const cause = latestError()
  throw new StoreError(
    `The database did not let this node ${doing} within ${limitMs} ms. Make sure that it can be reached, is ` +
      "not overloaded and grants the rights it needs; Fastify's option `pluginTimeout` allows for more time.",
    'unknown',
    cause === undefined ? {} : { cause },
  )
}

/** How long a plugin or hook may take, in ms, without Fastify giving up on it. */
function hookLimitMs(app: FastifyInstance): number {
  return 0.9 * pluginTimeoutMs(app)
}

/** 0 means that Fastify waits for ever. */
function pluginTimeoutMs(app: FastifyInstance): number {
  return app.initialConfig.pluginTimeout || Number.POSITIVE_INFINITY
}

function decoratorTaken(name: string): CoordinationError {
  return new CoordinationError(
    'WCO_DECORATOR_TAKEN',
    `This Fastify instance already has a decorator "${name}". Give the coordinator another name with the ` +
      'option `decorateAs`, say `decorateAs: "jobs"`; a second registration also needs a `prefix` of its own.',
  )
}
