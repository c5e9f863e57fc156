/**
 * How answers are written: tables for people, JSON for programs.
 */

/** What a command has found out or done. */
export interface Answer {
  /** For programs. */
  readonly json: unknown
  /** For people: lines and tables. */
  readonly text: readonly (string | Table)[]
  /** See {@link exitCodes}. */
  readonly exitCode: number
}

/** Rows under a head; a cell may have a mood, which is shown as a colour. */
export interface Table {
  readonly head: readonly string[]
  readonly rows: readonly (readonly Cell[])[]
}

export type Cell = string | { readonly text: string; readonly mood: Mood }
export type Mood = 'good' | 'bad' | 'doubtful'

/** What the exit codes mean. */
export const exitCodes = {
  done: 0,
  /** The answer is no: nothing was done, a check has failed, or a problem is an error. */
  no: 1,
  /** The command line could not be understood. */
  usage: 2,
  /** The database did not answer, or cannot be used. */
  unreachable: 3,
  /** The answer could not be written, to a full disk for instance. What was asked for may have been done. */
  unwritten: 4,
} as const

const colours: Readonly<Record<Mood, number>> = { good: 32, bad: 31, doubtful: 33 }

/** @param how `coloured` only where a person looks at a terminal */
export function render({ json, text }: Answer, how: { json: boolean; coloured: boolean }): string {
  if (how.json) return `${JSON.stringify(json, undefined, 2).replaceAll(disguising, escaped)}\n`
  const parts = text.map((part) => (typeof part === 'string' ? plain(part) : table(part, how.coloured)))
  return `${parts.join('\n')}\n`
}

function table({ head, rows }: Table, coloured: boolean): string {
  const all: (readonly Cell[])[] = [head, ...rows]
  const widths = head.map((_, column) => Math.max(...all.map((row) => textOf(row[column]).length)))
  return all
    .map((row) =>
      row
        .map((cell, column) => shownCell(cell, widths[column] ?? 0, coloured))
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
}

function shownCell(cell: Cell, width: number, coloured: boolean): string {
  const padded = textOf(cell).padEnd(width)
  if (typeof cell === 'string' || !coloured) return padded
  return `\u001b[${colours[cell.mood]}m${padded}\u001b[0m`
}

function textOf(cell: Cell | undefined): string {
  return plain(typeof cell === 'object' ? cell.text : (cell ?? ''))
}

/**
 * Replaces control characters and overrides of the writing direction, so that nothing that stands in the database can
 * move the cursor, ring the bell, or read differently from what it says.
 */
function plain(text: string): string {
  return text.replaceAll(/\n/g, '\u{fffd}').replaceAll(disguising, '\u{fffd}')
}

/** All but line breaks, which JSON itself escapes within texts. */
const disguising = /(?!\n)[\p{Cc}\u2028-\u202e\u2066-\u2069]/gu

function escaped(character: string): string {
  return `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`
}
