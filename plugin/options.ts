/**
 * The options of the Fastify plugin: those of a coordinator, and what Fastify adds. Options that do not need Fastify
 * are in `coordinator-options.ts`, so that applications without Fastify do not even need its types.
 *
 * All problems are reported at once, in one error with a line for each. No wrong value is silently replaced by a
 * default, and nothing that may be a secret is repeated.
 */
import {
  type CoordinatorConfig,
  type CoordinatorOptions,
  expecting,
  expectingList,
  expectingObject,
  isObject,
  oneOf,
  read,
  shared,
  type Table,
  trueUnlessSaid,
} from './coordinator-options.js'
import type { Access, Authorize } from './http/guard/access.js'
import type { MetricsRegistry } from './http/metrics/metrics.js'
import type { Security } from './http/routes.js'

export * from './coordinator-options.js'

/** The options of the Fastify plugin. It writes to the application's own log. */
export interface WorkerCoordinationOptions extends Omit<CoordinatorOptions, 'log'> {
  // `prefix` and `logLevel` are also Fastify's own options of `register`, which does not accept undefined for them.
  // If undefined were allowed here, no variable of this type could be passed to `register` under
  // `exactOptionalPropertyTypes`.
  /** Where the HTTP routes are mounted. Default `/coordination`. */
  prefix?: string
  /** The name of the decorator that holds the coordinator. Default `coordination`. */
  decorateAs?: string | undefined
  /** When workers start: once the application is ready, once it listens, or only by `start()`. Default `ready`. */
  autoStart?: AutoStart | undefined
  /** Whether to mount the HTTP routes. Default `true`. */
  http?: boolean | undefined
  /** Decides who may do what over HTTP. Default: only reading, from the machine itself, outside production. */
  authorize?: Authorize | undefined
  /** What is open over HTTP without asking `authorize`. Default: nothing. */
  access?: Access | undefined
  /**
   * Further origins whose pages may write over HTTP, in browsers that send no `Sec-Fetch-Site`, such as
   * `http://intranet.example`. Default: only its own origin.
   */
  allowedOrigins?: readonly string[] | undefined
  /** Security requirements of the routes in the OpenAPI document, such as `[{ bearer: [] }]`. Default: none. */
  security?: Security | undefined
  /** A registry of the application's own for the metrics, besides the one behind `/metrics`. Default: none. */
  metrics?: MetricsOptions | undefined
  /** Level of the log lines about requests to these routes. Default: the application's. */
  logLevel?: RequestLogLevel
}

/** See {@link WorkerCoordinationOptions.metrics}. */
export interface MetricsOptions {
  /** A `Registry` of prom-client. */
  readonly registry?: MetricsRegistry | undefined
}

/** See {@link WorkerCoordinationOptions.autoStart}. */
export type AutoStart = 'ready' | 'listen' | false

/** Fastify's log levels. */
export type RequestLogLevel = 'fatal' | 'error' | 'warn' | 'info' | 'debug' | 'trace' | 'silent'

/** {@link WorkerCoordinationOptions}, checked and complete. */
export interface PluginConfig extends CoordinatorConfig {
  readonly prefix: string
  readonly decorateAs: string
  readonly autoStart: AutoStart
  readonly http: boolean
  readonly authorize: Authorize | undefined
  readonly access: Access
  readonly allowedOrigins: readonly string[]
  readonly security: Security | undefined
  readonly metrics: MetricsOptions
  readonly logLevel: RequestLogLevel | undefined
}

/** The table of the Fastify plugin. */
export const pluginOptions = {
  ...shared,
  prefix: {
    default: '/coordination',
    unit: null,
    check: expecting(
      'a path like "/coordination", with a slash before each part and none at the end',
      isPath,
    ),
    about: 'Where the HTTP routes are mounted.',
  },
  decorateAs: {
    default: 'coordination',
    unit: null,
    check: expecting('the name of a property, like "coordination"', isPropertyName),
    about: 'The name of the decorator that holds the coordinator.',
  },
  autoStart: {
    ...oneOf<AutoStart>('ready', 'listen', false),
    about: 'When workers start.',
  },
  http: {
    ...trueUnlessSaid(),
    about: 'Mount the HTTP routes.',
  },
  authorize: {
    default: undefined,
    unit: null,
    check: expecting('a function', (value) => typeof value === 'function'),
    about: 'Who may do what over HTTP.',
  },
  access: {
    default: {},
    unit: null,
    check: expectingObject('{ read: "public", allowedHosts: ["coordination.example"] }', {
      read: expecting('"public"', (value) => value === 'public'),
      allowedHosts: expectingList(
        'a list of host names like "coordination.example"',
        expecting('a host name like "coordination.example", in lower case and without a port', isHostName),
      ),
    }),
    about: 'What is open over HTTP without asking authorize.',
  },
  allowedOrigins: {
    default: [],
    unit: null,
    check: expectingList(
      'a list of origins like https://intranet.example',
      expecting(
        'an origin like https://intranet.example, in lower case and with nothing behind the host and its port',
        isOrigin,
      ),
    ),
    about: 'Further origins whose pages may write, in browsers that send no `Sec-Fetch-Site`.',
  },
  security: {
    default: undefined,
    unit: null,
    check: expectingList(
      'a list of objects like { bearer: [] }',
      expecting('an object of lists of texts, like { bearer: [] }', isSecurityRequirement),
    ),
    about: 'Security requirements of the routes in the OpenAPI document.',
  },
  metrics: {
    default: {},
    unit: null,
    check: expectingObject("{ registry }, with a registry of prom-client's", {
      registry: expecting("a registry of prom-client's", isRegistry),
    }),
    about: 'A registry of the application for the metrics.',
  },
  logLevel: {
    ...oneOf('fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'),
    default: undefined,
    about: 'Level of the log lines about requests to these routes.',
  },
} satisfies Table<WorkerCoordinationOptions>

/**
 * Checks the options of the plugin and fills in what is missing.
 *
 * @throws CoordinationError `WCO_OPTIONS` with a line for each problem; an error thrown by the application's own
 *   identity function is passed on unchanged.
 */
export async function readPluginOptions(given: WorkerCoordinationOptions): Promise<PluginConfig> {
  const config = await read(given, pluginOptions)
  return Object.freeze({
    ...config,
    prefix: given.prefix ?? pluginOptions.prefix.default,
    decorateAs: given.decorateAs ?? pluginOptions.decorateAs.default,
    autoStart: given.autoStart ?? pluginOptions.autoStart.default,
    http: given.http ?? pluginOptions.http.default,
    authorize: given.authorize,
    access: Object.freeze({ ...(given.access ?? pluginOptions.access.default) }),
    allowedOrigins: Object.freeze([...(given.allowedOrigins ?? pluginOptions.allowedOrigins.default)]),
    security: given.security,
    metrics: Object.freeze({ ...(given.metrics ?? pluginOptions.metrics.default) }),
    logLevel: given.logLevel,
  })
}

function isPath(value: unknown): boolean {
  return typeof value === 'string' && /^(\/[A-Za-z0-9._~-]+)+$/.test(value)
}

function isPropertyName(value: unknown): boolean {
  return typeof value === 'string' && /^[A-Za-z_$][A-Za-z0-9_$]{0,99}$/.test(value)
}

function isRegistry(value: unknown): boolean {
  if (!isObject(value)) return false
  return ['registerMetric', 'removeSingleMetric'].every(
    (name) => typeof Reflect.get(value, name) === 'function',
  )
}

/** As hosts are compared: without a port, in lower case. */
function isHostName(value: unknown): boolean {
  return typeof value === 'string' && /^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$/.test(value)
}

/** As browsers write origins: in lower case, without a path. */
function isOrigin(value: unknown): boolean {
  return typeof value === 'string' && /^https?:\/\/[a-z0-9[\]:.-]+$/.test(value)
}

function isSecurityRequirement(value: unknown): boolean {
  const isText = (scope: unknown): boolean => typeof scope === 'string'
  return (
    isObject(value) && Object.values(value).every((scopes) => Array.isArray(scopes) && scopes.every(isText))
  )
}
