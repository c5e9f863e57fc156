/**
 * Checks what an application passes to a method: a typing error must not become another lease, nor a wait without end.
 */
import { actorLimits, checkText, reasonLimits } from './audit.js'
import type { Instruction } from './changes/operations.js'
import { maxCooldownMs } from './changes/rows.js'
import { CoordinationError } from './errors.js'
import { nearest, shown } from './names.js'
import type { Scope } from './store.js'

/** The longest timer that Node supports. */
const longestTimerMs = 2 ** 31 - 1

/** @throws {CoordinationError} `WCO_OPTIONS` for an unknown option, or when `options` is not an object. */
export function checkOptions(method: string, options: unknown, known: readonly string[]): void {
  if (typeof options !== 'object' || options === null || Array.isArray(options))
    throw wrong(`${method}: expected an object with options, got ${shown(options)}.`)
  const unknown = unknownOptions(options, known)
  if (unknown.length === 0) return
  throw wrong(
    `${method}: ${unknown.join('; ')}; there ${known.length === 1 ? 'is' : 'are'} ${listed(known)}.`,
  )
}

/** Returns the names of options as they can stand in a sentence. */
export function listed(options: readonly string[]): string {
  return options.map((option) => `\`${option}\``).join(', ')
}

/** Returns a phrase for each option that does not exist, with the one that was probably meant. */
export function unknownOptions(options: object, known: readonly string[]): string[] {
  return Object.keys(options)
    .filter((option) => !known.includes(option))
    .map((option) => {
      const near = nearest(option, known)
      const name = /^\w{1,40}$/.test(option) ? `\`${option}\`` : shown(option)
      return `there is no option ${name}${near === undefined ? '' : ` (did you mean \`${near}\`?)`}`
    })
}

/** @throws {CoordinationError} `WCO_OPTIONS` */
export function checkScope(method: string, scope: unknown): Scope {
  if (scope === undefined || scope === 'global') return 'global'
  if (scope === 'cluster') return scope
  throw wrong(`${method}: \`scope\` must be "cluster" or "global", got ${shown(scope)}.`)
}

/** @throws {CoordinationError} `WCO_OPTIONS` */
export function checkTimeout(method: string, timeoutMs: unknown): void {
  if (timeoutMs === undefined || (isNumber(timeoutMs, longestTimerMs) && Number.isInteger(timeoutMs))) return
  throw wrong(
    `${method}: \`timeoutMs\` must be a whole number of milliseconds from 0 to ${longestTimerMs}, got ${shown(timeoutMs)}.`,
  )
}

/** @throws {CoordinationError} `WCO_OPTIONS` */
export function checkSignal(method: string, signal: unknown): void {
  if (signal === undefined || signal instanceof AbortSignal) return
  throw wrong(`${method}: \`signal\` must be an AbortSignal, got ${shown(signal)}.`)
}

/** @throws {CoordinationError} `WCO_OPTIONS` */
export function checkTime(method: string, at: unknown): number {
  const atMs = at instanceof Date ? at.getTime() : Number.NaN
  if (!Number.isNaN(atMs)) return atMs
  const got = at instanceof Date ? 'one that is no time' : shown(at)
  throw wrong(`${method}: the time must be a Date, got ${got}.`)
}

/**
 * A cool-down may have a fraction of a millisecond, as when it is drawn at random.
 *
 * @throws {CoordinationError} `WCO_OPTIONS`
 */
export function checkCooldown(method: string, cooldownMs: unknown): void {
  if (isNumber(cooldownMs, maxCooldownMs)) return
  throw wrong(
    `${method}: \`cooldownMs\` must be a number of milliseconds from 0 to ${maxCooldownMs}, got ${shown(cooldownMs)}.`,
  )
}

/**
 * The key of one item of work. Of another type many have one text (`undefined`, `[object Object]`), so that one share
 * would own them all.
 *
 * @throws {CoordinationError} `WCO_OPTIONS`
 */
export function checkItemKey(method: string, key: unknown): void {
  if (typeof key === 'string' || typeof key === 'bigint') return
  if (typeof key === 'number' && !Number.isNaN(key)) return
  throw wrong(`${method}: the key must be a string, a number or a bigint, got ${shown(key)}.`)
}

/**
 * Refuses at once what would fail much later, at the first time of a schedule for instance.
 *
 * @throws {CoordinationError} `WCO_OPTIONS`
 */
export function checkCoordinator(method: string, value: unknown): void {
  if (typeof value === 'object' && value !== null && 'keyOfSingle' in value) return
  throw wrong(
    `${method}: expected a coordinator, got ${shown(value)}. There is no \`app.coordination\` until the registration of ` +
      'the plugin has been awaited.',
  )
}

/** @throws {CoordinationError} `WCO_OPTIONS` */
export function checkApplication(method: string, value: unknown): void {
  if (typeof value === 'object' && value !== null && 'setNotFoundHandler' in value) return
  throw wrong(`${method}: expected a Fastify application, got ${shown(value)}.`)
}

/** @throws {CoordinationError} `WCO_OPTIONS` */
export function checkFunction(method: string, value: unknown): void {
  if (typeof value === 'function') return
  throw wrong(`${method}: the first argument must be a function, got ${shown(value)}.`)
}

/**
 * Returns the actor and the reason, checked, and nothing else: they become part of an event.
 *
 * @throws {CoordinationError} `WCO_OPTIONS`
 */
export function checkInstruction(method: string, by: unknown): Instruction {
  checkOptions(method, by ?? {}, instructionParts)
  return instructionIn(method, by)
}

const instructionParts = ['actor', 'reason']

function instructionIn(method: string, by: unknown): Instruction {
  const { actor, reason } = (by ?? {}) as { readonly actor?: unknown; readonly reason?: unknown }
  return {
    actor: checkText(`${method}: \`actor\``, actorLimits, actor),
    reason: checkText(`${method}: \`reason\``, reasonLimits, reason),
  }
}

/**
 * Checks the actor, the reason, and what the order is about. `known` are the parts that it may have besides those.
 *
 * @throws {CoordinationError} `WCO_OPTIONS`
 */
export function checkOrder(method: string, order: unknown, known: readonly string[]): void {
  checkOptions(method, order ?? {}, ['key', ...known, ...instructionParts])
  instructionIn(method, order)
  const { key, to, immediate, dryRun, revision } = order as Readonly<Record<string, unknown>>
  checkFilled('a key like "global/month-close"', method, '`key`', key)
  if (to !== undefined && to !== null) checkFilled('the id of a node', method, '`to`', to)
  if (revision !== undefined) checkWhole(method, '`revision`', revision)
  for (const [name, value] of Object.entries({ immediate, dryRun }))
    if (value !== undefined && typeof value !== 'boolean')
      throw wrong(`${method}: \`${name}\` must be true or false, got ${shown(value)}.`)
}

/**
 * Checks which events are asked for. A whole event will do as `after`.
 *
 * @throws {CoordinationError} `WCO_OPTIONS`
 */
export function checkEventQuery(method: string, query: unknown): void {
  checkOptions(method, query, ['limit', 'after', 'types', 'subject'])
  const { limit, after, types, subject } = query as Readonly<Record<string, unknown>>
  checkMost(method, '`limit`', limit)
  if (after !== undefined && !isPlace(after))
    throw wrong(
      `${method}: \`after\` must be { revision, position }, two whole numbers of an event, got ${shown(after)}.`,
    )
  if (types !== undefined && !isTexts(types))
    throw wrong(
      `${method}: \`types\` must be a list of event types like "lease.revoked", got ${shown(types)}.`,
    )
  if (subject !== undefined && !isText(subject))
    throw wrong(
      `${method}: \`subject\` must be the key of a lease or worker or the id of a node, got ${shown(subject)}.`,
    )
}

/** @throws {CoordinationError} `WCO_OPTIONS` */
export function checkMost(method: string, what: string, most: unknown): void {
  if (isNumber(most, mostRows) && Number.isInteger(most) && most > 0) return
  throw wrong(`${method}: ${what} must be a whole number from 1 to ${mostRows}, got ${shown(most)}.`)
}

/** More than any database keeps, and a limit that every dialect takes. */
const mostRows = 2 ** 31 - 1

/**
 * The place just before an event has a position that is less by one, so it may be negative. Events of one change are
 * counted in 32 bits.
 */
function isPlace(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false
  const position: unknown = Reflect.get(value, 'position')
  const isPosition = Number.isInteger(position) && Math.abs(Number(position)) <= mostRows
  return isPosition && Number.isSafeInteger(Reflect.get(value, 'revision'))
}

function isTexts(value: unknown): boolean {
  return Array.isArray(value) && value.every(isText)
}

/** PostgreSQL has no texts with NUL. It would refuse the question, which is no fault of the database. */
function isText(value: unknown): value is string {
  return typeof value === 'string' && !value.includes('\0')
}

/** @throws {CoordinationError} `WCO_OPTIONS` */
export function checkToken(method: string, token: unknown): void {
  checkWhole(method, '`token`', token)
}

/** @throws {CoordinationError} `WCO_OPTIONS` */
export function checkKey(method: string, key: unknown): void {
  checkFilled('a key like "global/month-close"', method, 'the first argument', key)
}

/** @throws {CoordinationError} `WCO_OPTIONS` */
export function checkNameOrKey(method: string, nameOrKey: unknown, what = 'the first argument'): void {
  checkFilled('a name or a key', method, what, nameOrKey)
}

/** @throws {CoordinationError} `WCO_OPTIONS` */
export function checkNode(method: string, node: unknown): void {
  checkFilled('the id of a node', method, 'the first argument', node)
}

function checkFilled(expected: string, method: string, what: string, text: unknown): void {
  if (isText(text) && text !== '') return
  throw wrong(`${method}: ${what} must be ${expected}, got ${shown(text)}.`)
}

function checkWhole(method: string, what: string, value: unknown): void {
  if (isNumber(value, Number.MAX_SAFE_INTEGER) && Number.isInteger(value)) return
  throw wrong(`${method}: ${what} must be a whole number, got ${shown(value)}.`)
}

function isNumber(value: unknown, most: number): value is number {
  return typeof value === 'number' && value >= 0 && value <= most
}

function wrong(message: string): CoordinationError {
  return new CoordinationError('WCO_OPTIONS', message)
}
