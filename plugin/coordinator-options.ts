/**
 * The options of a coordinator, with or without Fastify: one table, read once, checked together, frozen.
 *
 * All problems are reported at once, in one error with a line for each. No wrong value is silently replaced by a
 * default, and nothing that may be a secret is repeated.
 */
import { CoordinationError } from './core/errors.js'
import { type Identity, type IdentitySource, resolveIdentity } from './core/identity.js'
import type { Log } from './core/log.js'
import { checkName, nearest, shown } from './core/names.js'
import type { Retention } from './core/store.js'
import { type Preset, presetProblem, resolveTiming, type Timing, timingProblems } from './core/time/timing.js'
import { databaseProblem } from './stores/open.js'

/** The options of `createCoordinator`. Only `database` is required. */
export interface CoordinatorOptions extends TimingOptions {
  /**
   * Where leases are kept: a URL (`postgres://…`, `mysql://…`, `mssql://…`, `sqlite:file.db`), or what the
   * application has opened itself and then also closes itself: a `pg.Pool`, a pool or connection of mysql2, a
   * `ConnectionPool` of mssql, a better-sqlite3 `Database`, or a Drizzle database over one of these.
   */
  database: string | object
  /** Keeps several applications in one database apart. Default `default`. */
  namespace?: string | undefined
  /** The names of this node and of its cluster. Default: from the environment. */
  identity?: IdentitySource | undefined
  /** Texts that are shown with this node, such as its zone; at most 4 096 bytes of JSON. Default: none. */
  labels?: Readonly<Record<string, string>> | undefined
  /** The application's version. Breaks ties when partitions are spread. Default: none. */
  version?: string | undefined
  /** Whether to run pending migrations when opening; otherwise they must have been run by hand. Default `true`. */
  migrate?: boolean | undefined
  /** Whether PostgreSQL is to push hints, instead of polling. Other databases ignore it. Default `true`. */
  push?: boolean | undefined
  /**
   * Whether to declare a node of this machine gone as soon as its process has ended, instead of a ttl later. Works
   * on Linux. Default `true`.
   */
  watchProcesses?: boolean | undefined
  /**
   * Whether to end this process (SIGKILL) when its event loop is blocked beyond the trust window while it holds
   * leases. That includes a process that goes on after it was stopped or suspended for so long. Needs a thread of its
   * own. Default `false`.
   */
  watchdog?: boolean | undefined
  /** How long events are kept, in milliseconds. Default 30 days. */
  keepEventsForMs?: number | undefined
  /** How many events are kept. Default 10 000. */
  keepEvents?: number | undefined
  /** How long nodes that are gone stay listed, in milliseconds. Default 24 hours. */
  keepGoneNodesForMs?: number | undefined
  /** The log of the engine; pino and Fastify's `log` fit. Default: none. */
  log?: Log | undefined
}

/** The durations of {@link Timing}, and a preset from which they start. */
export interface TimingOptions extends Given<Timing> {
  /** `default`, `fast` (takeovers within seconds) or `relaxed` (few statements). */
  preset?: Preset | undefined
}

/** Each value may be left out or be undefined, which is the same. */
type Given<Values> = { [Name in keyof Values]?: Values[Name] | undefined }

/** {@link CoordinatorOptions}, checked and complete. */
export interface CoordinatorConfig {
  readonly database: string | object
  readonly namespace: string
  readonly identity: Identity
  readonly labels: Readonly<Record<string, string>>
  readonly version: string | null
  readonly timing: Timing
  readonly migrate: boolean
  readonly push: boolean
  readonly watchProcesses: boolean
  readonly watchdog: boolean
  readonly retention: Retention
}

/**
 * Returns what is wrong with a value: a sentence that begins with its name, or one for each wrong entry; undefined
 * when nothing is.
 */
export type Check = (name: string, value: unknown) => string | readonly string[] | undefined

/** A row of the table. */
export interface Option {
  /** The value when it is left out; undefined when there is none, or when the environment decides. */
  readonly default: unknown
  readonly unit: 'milliseconds' | 'events' | null
  /** Undefined where it is checked together with others. */
  readonly check: Check | undefined
  /** One sentence for people. */
  readonly about: string
}

const usual = resolveTiming({})
const dayMs = 24 * 3_600_000

export const shared = {
  database: {
    default: undefined,
    unit: null,
    check: (_name, database) => databaseProblem(database),
    about: 'Where leases are kept.',
  },
  namespace: {
    default: 'default',
    unit: null,
    check: nameProblem,
    about: 'Keeps several applications in one database apart.',
  },
  identity: {
    default: undefined,
    unit: null,
    check: expecting('an object with node and cluster, or a function that returns one', isIdentitySource),
    about: 'The name of this node and of its cluster.',
  },
  labels: {
    default: {},
    unit: null,
    check: checkLabels,
    about: 'Texts that are shown with this node.',
  },
  version: {
    default: null,
    unit: null,
    check: expecting('a printable text of 1 to 100 characters', isVersion),
    about: "The application's version; breaks ties when partitions are spread.",
  },
  preset: {
    default: 'default',
    unit: null,
    check: presetProblem,
    about: 'A named set of durations.',
  },
  ttlMs: {
    ...duration(usual.ttlMs),
    about: 'A node without a new heartbeat for this long is declared gone.',
  },
  heartbeatMs: {
    ...duration(usual.heartbeatMs),
    about: 'How often a session is renewed.',
  },
  statementTimeoutMs: {
    ...duration(usual.statementTimeoutMs),
    about: 'How long one request to the database, or one change, may take.',
  },
  marginMs: {
    ...duration(usual.marginMs),
    about: 'How long before anybody else can start a holder that lost touch stops.',
  },
  claimTimeoutMs: {
    ...duration(usual.claimTimeoutMs),
    about: 'How long a node may take to claim what the plan gave it before it is passed over.',
  },
  handoverTimeoutMs: {
    ...duration(usual.handoverTimeoutMs),
    about: 'How long an old holder may take to hand over before it is revoked.',
  },
  drainTimeoutMs: {
    ...duration(usual.drainTimeoutMs),
    about: 'How long closing waits for passes to settle.',
  },
  pollMs: {
    ...duration(usual.pollMs),
    about: 'How often news is polled where the database cannot push hints.',
  },
  migrate: {
    ...trueUnlessSaid(),
    about: 'Run pending migrations when opening.',
  },
  push: {
    ...trueUnlessSaid(),
    about: 'Let PostgreSQL push hints instead of polling.',
  },
  watchProcesses: {
    ...trueUnlessSaid(),
    about: 'Bury a node of this machine as soon as its process has ended, instead of a ttl later.',
  },
  watchdog: {
    ...oneOf(false, true),
    about: 'End this process when its event loop is blocked beyond the trust window.',
  },
  keepEventsForMs: {
    ...keeping('milliseconds', 30 * dayMs, 3_660 * dayMs),
    about: 'How long events are kept.',
  },
  keepEvents: {
    ...keeping('events', 10_000, 10_000_000),
    about: 'How many events are kept.',
  },
  keepGoneNodesForMs: {
    ...keeping('milliseconds', dayMs, 3_660 * dayMs),
    about: 'How long nodes that are gone stay listed.',
  },
} satisfies Table<Omit<CoordinatorOptions, 'log'>>

/** The table of `createCoordinator`. */
export const coordinatorOptions = {
  ...shared,
  log: {
    default: undefined,
    unit: null,
    check: expecting('an object with the methods debug, info, warn and error', isLog),
    about: 'Where the engine reports.',
  },
} satisfies Table<CoordinatorOptions>

/** A row for each option, and no others. */
export type Table<Options> = { readonly [Name in keyof Required<Options>]: Option }

/**
 * Checks the options of `createCoordinator` and fills in what is missing.
 *
 * @throws CoordinationError `WCO_OPTIONS` with a line for each problem; an error thrown by the application's own
 *   identity function is passed on unchanged.
 */
export async function readCoordinatorOptions(
  given: CoordinatorOptions,
): Promise<CoordinatorConfig & { readonly log: Log | undefined }> {
  const config = await read(given, coordinatorOptions)
  return Object.freeze({ ...config, log: given.log })
}

/** `given` may have any type at run time: not every caller is compiled against this one. */
export async function read(
  given: Omit<CoordinatorOptions, 'log'>,
  table: Readonly<Record<string, Option>>,
): Promise<CoordinatorConfig> {
  if (!isObject(given)) refuse([`The options: expected an object, got ${shown(given)}.`])
  const problems = [...problemsOfEach(given, table), ...problemsOfTiming(given)]
  const identity = await identityOf(given.identity, problems)
  if (problems.length > 0 || identity === undefined) refuse(problems)
  return {
    database: given.database,
    namespace: given.namespace ?? shared.namespace.default,
    identity,
    labels: Object.freeze({ ...(given.labels ?? shared.labels.default) }),
    version: given.version ?? shared.version.default,
    timing: resolveTiming(timingGiven(given)),
    migrate: given.migrate ?? shared.migrate.default,
    push: given.push ?? shared.push.default,
    watchProcesses: given.watchProcesses ?? shared.watchProcesses.default,
    watchdog: given.watchdog ?? shared.watchdog.default,
    retention: Object.freeze({
      eventsForMs: given.keepEventsForMs ?? shared.keepEventsForMs.default,
      events: given.keepEvents ?? shared.keepEvents.default,
      goneNodesForMs: given.keepGoneNodesForMs ?? shared.keepGoneNodesForMs.default,
    }),
  }
}

function refuse(problems: readonly string[]): never {
  const list = problems.map((problem) => `\n  - ${withoutSecrets(problem)}`).join('')
  throw new CoordinationError('WCO_OPTIONS', `The options cannot be used:${list}`)
}

/**
 * A URL given for another option by mistake may contain a password. Of a quoted URL only the scheme is shown, unless
 * it is an http or https URL that is complete and names nothing but a host and its port.
 */
function withoutSecrets(problem: string): string {
  return problem.replace(/"((?:[^"\\]|\\.)*?):\/\/(?:[^"\\]|\\.)*"…?/g, (url, scheme) =>
    /^"https?:\/\/[A-Za-z0-9.-]+(:\d{1,5})?\/?"$/.test(url) ? url : `"${scheme}://…"`,
  )
}

function problemsOfEach(given: object, table: Readonly<Record<string, Option>>): string[] {
  const values = new Map(Object.entries({ database: undefined, ...given }))
  return [...values].flatMap(([name, value]) => {
    const option = Object.hasOwn(table, name) ? table[name] : undefined
    if (option === undefined) return unknownOption(name, Object.keys(table))
    if (value === undefined && name !== 'database') return []
    return option.check?.(name, value) ?? []
  })
}

function unknownOption(name: string, known: readonly string[]): string {
  const near = nearest(name, known)
  const hint = near === undefined ? '' : ` Did you mean ${shown(near)}?`
  return `${shown(name)}: there is no such option.${hint}`
}

/**
 * A duration that was not given follows from the others. It is out of range only when one of those is, and then that
 * one is named. Where a single duration is wrong, the arithmetic between them says nothing and is not reported.
 */
function problemsOfTiming(given: TimingOptions): string[] {
  const timing = timingGiven(given)
  if (presetProblem('preset', given.preset ?? shared.preset.default) !== undefined) delete timing.preset
  const numbers = Object.fromEntries(
    Object.entries(timing).filter(([name, value]) => name === 'preset' || Number.isFinite(value)),
  )
  const problems = timingProblems({ ...resolveTiming(numbers), ...timing })
  const ofOneGiven = problems.filter(
    ({ options }) => options.length === 1 && options.every((name) => name in timing),
  )
  return (ofOneGiven.length > 0 ? ofOneGiven : problems).map(({ sentence }) => sentence)
}

/** Returns the durations among the options, without those that are undefined. */
function timingGiven(given: TimingOptions): Partial<Timing> & { preset?: Preset } {
  const names = [...Object.keys(usual), 'preset']
  return Object.fromEntries(
    Object.entries(given).filter(([name, value]) => names.includes(name) && value !== undefined),
  )
}

/** An identity function belongs to the application: it is called only when all other options are valid. */
async function identityOf(
  source: IdentitySource | undefined,
  problems: string[],
): Promise<Identity | undefined> {
  const usable = source === undefined || isIdentitySource(source)
  if (!usable || (typeof source === 'function' && problems.length > 0)) return undefined
  try {
    return await resolveIdentity(source)
  } catch (error) {
    if (!(error instanceof CoordinationError)) throw error
    problems.push(error.message)
    return undefined
  }
}

function duration(byDefault: number): Omit<Option, 'default' | 'about'> & { default: number } {
  return { default: byDefault, unit: 'milliseconds', check: undefined }
}

export function trueUnlessSaid(): Omit<Option, 'default' | 'about'> & { default: boolean } {
  return { ...oneOf(true, false), default: true }
}

/** Returns the table entries of an option with these values, of which the first is the default. */
export function oneOf<Value extends string | boolean>(
  ...values: readonly [Value, ...Value[]]
): Omit<Option, 'default' | 'about'> & { default: Value } {
  const list = values.map(shown)
  const expected = `${list.slice(0, -1).join(', ')} or ${list.at(-1)}`
  const accepts = (value: unknown): boolean => values.some((known) => known === value)
  return { default: values[0], unit: null, check: expecting(expected, accepts) }
}

function keeping(
  unit: 'milliseconds' | 'events',
  byDefault: number,
  most: number,
): Omit<Option, 'default' | 'about'> & { default: number } {
  const what = unit === 'milliseconds' ? 'a whole number of milliseconds' : 'a whole number'
  const accepts = (value: unknown): boolean => Number.isInteger(value) && within(Number(value), 0, most)
  return { default: byDefault, unit, check: expecting(`${what} from 0 to ${most}`, accepts) }
}

function within(value: number, least: number, most: number): boolean {
  return value >= least && value <= most
}

export function expecting(
  expected: string,
  accepts: (value: unknown) => boolean,
): (name: string, value: unknown) => string | undefined {
  return (name, value) => (accepts(value) ? undefined : `${name}: expected ${expected}, got ${shown(value)}.`)
}

/** Checks each entry of a list by itself, and names the wrong ones. */
export function expectingList(expected: string, ofEntry: Check): Check {
  const isList = expecting(expected, Array.isArray)
  return (name, value) =>
    Array.isArray(value)
      ? problemsOf(value.map((entry, at) => [`${name}[${at}]`, entry, ofEntry]))
      : isList(name, value)
}

/** Checks an object that has these entries and no others; each may be left out. */
export function expectingObject(example: string, ofEntries: Readonly<Record<string, Check>>): Check {
  const isLike = expecting(`an object like ${example}`, isObject)
  const known = Object.keys(ofEntries)
  const isUnknown: Check = (name) => `${name}: there is no such entry; there is ${known.join(' and ')}.`
  return (name, value) => {
    if (!isObject(value)) return isLike(name, value)
    const given = Object.entries(value).filter(([, entry]) => entry !== undefined)
    return problemsOf(
      given.map(([entry, what]) => {
        const check = Object.hasOwn(ofEntries, entry) ? ofEntries[entry] : undefined
        return check === undefined
          ? [`${name}[${shown(entry)}]`, what, isUnknown]
          : [`${name}.${entry}`, what, check]
      }),
    )
  }
}

export function problemsOf(
  entries: readonly (readonly [string, unknown, Check])[],
): readonly string[] | undefined {
  const problems = entries.flatMap(([name, value, check]) => check(name, value) ?? [])
  return problems.length === 0 ? undefined : problems
}

function nameProblem(name: string, value: unknown): string | undefined {
  try {
    checkName(name, value)
    return undefined
  } catch (error) {
    if (error instanceof CoordinationError) return error.message
    throw error
  }
}

export function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function isIdentitySource(value: unknown): boolean {
  return typeof value === 'function' || isObject(value)
}

const expectingTexts = expecting('an object of texts like { zone: "eu-1a" }', isObject)
const expectingPrintable = expecting('a printable text', isPrintable)

function checkLabels(name: string, value: unknown): ReturnType<Check> {
  if (!isObject(value)) return expectingTexts(name, value)
  const labels = Object.entries(value)
  const problems = problemsOf([
    ...labels.map(([label]) => [`${name}: the name of a label`, label, expectingPrintable] as const),
    ...labels.map(([label, text]) => [`${name}[${shown(label)}]`, text, expectingPrintable] as const),
  ])
  const bytes = Buffer.byteLength(JSON.stringify(value))
  return (
    problems ?? (bytes > 4_096 ? `${name}: expected at most 4096 bytes of JSON, got ${bytes}.` : undefined)
  )
}

function isVersion(value: unknown): boolean {
  return isPrintable(value) && within(value.length, 1, 100)
}

/** Databases refuse texts with NUL or a lone surrogate, so a node that has them could never join. */
function isPrintable(value: unknown): value is string {
  return typeof value === 'string' && !/[\p{Cc}\p{Cs}]/u.test(value)
}

function isLog(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false
  const methods: object = value
  return ['debug', 'info', 'warn', 'error'].every(
    (method) => typeof Reflect.get(methods, method) === 'function',
  )
}
