/**
 * What nodes, clusters, workers and leases may be called, the keys that are made of their names, and how names and other
 * values are shown.
 */
import { CoordinationError } from './errors.js'
import type { Scope } from './store.js'

/**
 * Returns the name if it can be used. `what` says in the error whose name it is.
 *
 * Blanks, slashes, `#` and `%` are excluded because names become parts of keys and URLs. Characters outside ASCII are
 * excluded because databases disagree about which texts with them are equal.
 *
 * @throws CoordinationError `WCO_NAME`
 */
export function checkName(what: string, name: unknown): string {
  if (typeof name === 'string' && namePattern.test(name)) return name
  throw new CoordinationError(
    'WCO_NAME',
    `${what}: expected 1 to 100 of the characters A-Z, a-z, 0-9, ".", "_" and "-", ` +
      `beginning with a letter or digit, got ${shown(name)}${lengthNote(name)}.`,
  )
}

/** Returns the key of a lease or worker: `global/month-close`, or `eu-1/indexing` once per cluster. */
export function leaseKey(scope: Scope, cluster: string, name: string): string {
  return `${scope === 'global' ? globalPrefix : cluster}/${name}`
}

/** Returns the keys that a worker's key or name may mean on a node of this cluster; the preferred one first. */
export function keysMeant(name: string, cluster: string): readonly string[] {
  return [name, leaseKey('cluster', cluster, name), leaseKey('global', cluster, name)]
}

/** Returns the key of one share or partition of a worker: `global/consumer#12`. */
export function slotKey(workerKey: string, slot: number): string {
  return `${workerKey}#${slot}`
}

/**
 * Returns the key that a text stands for, which is the key itself or its form in paths, with `:` for `/` and `~` for
 * `#`: `global:consumer~12`. Does not check that the result is a key.
 */
export function keyFrom(text: string): string {
  return text.replace(':', '/').replace('~', '#')
}

/** Takes the place of the cluster in keys of the `global` scope, so no cluster can have this name. */
export const globalPrefix = 'global'

/**
 * Returns a value as it can stand in a sentence or a log line. Texts are quoted and cut to 40 characters, with
 * everything invisible escaped, because a line break or a right-to-left mark can make a log lie. Numbers and the like
 * are shown as they are; of anything else, only the type.
 */
export function shown(value: unknown): string {
  if (typeof value === 'string') return shownText(value)
  if (Array.isArray(value)) return 'an array'
  if (value === null || value === undefined) return String(value)
  if (typeof value === 'object') return 'an object'
  return ['number', 'boolean', 'bigint'].includes(typeof value) ? String(value) : `a ${typeof value}`
}

/**
 * Returns the known name that is most like the given one; undefined when none is like it. Case and a final `Ms` do
 * not count.
 */
export function nearest(name: string, known: readonly string[]): string | undefined {
  const ranked = known
    .map((candidate) => ({ candidate, distance: editDistance(gist(name), gist(candidate)) }))
    .sort((a, b) => a.distance - b.distance)
  const [best] = ranked
  return best !== undefined && best.distance <= Math.max(1, gist(name).length / 3)
    ? best.candidate
    : undefined
}

const namePattern = /^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/

const shownCharacters = 40

function shownText(text: string): string {
  const characters = Array.from(text.slice(0, 2 * shownCharacters))
  const cut = text.length > 2 * shownCharacters || characters.length > shownCharacters
  const quoted = JSON.stringify(characters.slice(0, shownCharacters).join(''))
  return quoted.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, escaped) + (cut ? '…' : '')
}

function escaped(character: string): string {
  return `\\u{${character.codePointAt(0)?.toString(16)}}`
}

function lengthNote(name: unknown): string {
  return typeof name === 'string' && name.length > 100 ? ` (${name.length} characters)` : ''
}

function gist(name: string): string {
  return name
    .slice(0, 100)
    .toLowerCase()
    .replace(/[^a-z]/g, '')
    .replace(/ms$/, '')
}

/** Returns how many letters must be inserted, deleted or replaced to turn one text into the other. */
function editDistance(from: string, to: string): number {
  let row = Array.from({ length: to.length + 1 }, (_, column) => column)
  for (const [index, letter] of Array.from(from).entries()) {
    const next = [index + 1]
    for (let column = 1; column <= to.length; column++) {
      const replaced = (row[column - 1] ?? 0) + (to[column - 1] === letter ? 0 : 1)
      next[column] = Math.min((row[column] ?? 0) + 1, (next[column - 1] ?? 0) + 1, replaced)
    }
    row = next
  }
  return row[to.length] ?? 0
}
