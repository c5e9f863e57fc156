/**
 * What may stand in the audit trail as who asked and why: the same over HTTP and on the command line.
 *
 * The limits are written as JSON Schema writes them, because the routes' schemas are made of them.
 */
import { CoordinationError } from './errors.js'
import { shown } from './names.js'

/** What is asked of a text. */
export interface TextLimits {
  readonly minLength: number
  readonly maxLength: number
  readonly pattern: string
}

/**
 * A line break could pretend to be a further entry, a mark that turns the direction of writing could make an entry read
 * differently from what it says (CVE-2021-42574), and half a character cannot be stored everywhere.
 */
const plain = '\\u0000-\\u001f\\u007f-\\u009f\\u2028-\\u202e\\u2066-\\u2069\\ud800-\\udfff'
const plainText = `^[^${plain}]*$`
const moreThanSpaces = `^[^${plain}]*[^\\s${plain}][^${plain}]*$`

/** Who asked. */
export const actorLimits = { minLength: 1, maxLength: 200, pattern: plainText } as const

/** Why. */
export const reasonLimits = {
  minLength: 3,
  maxLength: 200,
  pattern: moreThanSpaces,
} as const

/** Whether something is such a text; characters are counted, not halves of them. */
export function isWithin({ minLength, maxLength, pattern }: TextLimits, text: unknown): text is string {
  if (typeof text !== 'string' || text.length > 2 * maxLength) return false
  const { length } = Array.from(text)
  return length >= minLength && length <= maxLength && new RegExp(pattern, 'u').test(text)
}

/**
 * The text, if it is such a one; `what` says in the error which it is.
 *
 * @throws CoordinationError `WCO_OPTIONS`
 */
export function checkText(what: string, limits: TextLimits, text: unknown): string {
  if (isWithin(limits, text)) return text
  const { minLength, maxLength } = limits
  const tooLong = typeof text === 'string' && text.length > maxLength
  throw new CoordinationError(
    'WCO_OPTIONS',
    `${what}: expected ${minLength} to ${maxLength} characters, not only spaces, with no line break or other control ` +
      `character among them, got ${shown(text)}${tooLong ? ` (${Array.from(text).length} characters)` : ''}.`,
  )
}
