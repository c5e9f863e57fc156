/** What nodes, clusters, workers and leases may be called, and the keys made of their names. */
import { CoordinationError } from './errors.js'
import type { Scope } from './store.js'

/**
 * The name if it is usable; `what` says in the error whose name it is. Blanks, slashes, `#` and `%` are left
 * out because names become parts of keys and of URLs, and everything that is not ASCII because
 * databases disagree about which of those texts are equal.
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

/** The key of a lease or worker: `global/month-close`, or `eu-1/indexing` once per cluster. */
export function leaseKey(scope: Scope, cluster: string, name: string): string {
  return `${scope === 'global' ? globalPrefix : cluster}/${name}`
}

/** The keys that a worker may have whose key or name this is, for a node of that cluster; the one that is meant first. */
export function keysMeant(name: string, cluster: string): readonly string[] {
  return [name, leaseKey('cluster', cluster, name), leaseKey('global', cluster, name)]
}

/** The key of one share or partition of a worker: `global/consumer#12`. */
export function slotKey(workerKey: string, slot: number): string {
  return `${workerKey}#${slot}`
}

/**
 * The key that somebody has written, either as it is or as in paths, where `:` stands for `/` and `~` for `#`:
 * `global:consumer~12`. What cannot be a key stays what it is.
 */
export function keyFrom(text: string): string {
  return text.replace(':', '/').replace('~', '#')
}

/** What stands for the cluster in the keys of the `global` scope; so no cluster can be called that. */
export const globalPrefix = 'global'

/**
 * A value as it can stand in a sentence or a log line: texts quoted and cut to 40 characters, with everything
 * invisible escaped (a line break or a right-to-left mark in a log can be made to lie); of other
 * things only their type, unless they are numbers or the like.
 */
export function shown(value: unknown): string {
  if (typeof value === 'string') return shownText(value)
  if (Array.isArray(value)) return 'an array'
  if (value === null || value === undefined) return String(value)
  if (typeof value === 'object') return 'an object'
  return ['number', 'boolean', 'bigint'].includes(typeof value) ? String(value) : `a ${typeof value}`
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
