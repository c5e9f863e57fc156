/**
 * What the audit trail accepts as actor and reason: the same over HTTP and on the command line.
 *
 * The limits are written as in JSON Schema, because the schemas of the routes are made of them.
 */
import { CoordinationError } from './errors.js'
import { shown } from './names.js'

/** The limits of a text. */
export interface TextLimits {
  readonly minLength: number
  readonly maxLength: number
  readonly pattern: string
}

/**
 * Excluded characters: a line break could imitate a further entry, an override of the writing direction could make an
 * entry read differently from what it says (CVE-2021-42574), and not every database can store half a surrogate pair.
 */
const plain = '\\u0000-\\u001f\\u007f-\\u009f\\u2028-\\u202e\\u2066-\\u2069\\ud800-\\udfff'
const plainText = `^[^${plain}]*$`
const moreThanSpaces = `^[^${plain}]*[^\\s${plain}][^${plain}]*$`

/** Limits of the actor: who asked. */
export const actorLimits = { minLength: 1, maxLength: 200, pattern: plainText } as const

/** Limits of the reason: why. */
export const reasonLimits = {
  minLength: 3,
  maxLength: 200,
  pattern: moreThanSpaces,
} as const

/** The reasons that are recorded where none need be given: nothing is taken away there from a node that has it. */
export const usualReasons = { undrain: 'drain withdrawn', resume: 'resumed', forget: 'forgotten' } as const

/** Returns whether a value is a text within these limits. Counts characters, not UTF-16 code units. */
export function isWithin({ minLength, maxLength, pattern }: TextLimits, text: unknown): text is string {
  if (typeof text !== 'string' || text.length > 2 * maxLength) return false
  const { length } = Array.from(text)
  return length >= minLength && length <= maxLength && new RegExp(pattern, 'u').test(text)
}

/**
 * Returns the text if it is within the limits. `what` names it in the error.
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
