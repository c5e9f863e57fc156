/** Long lists, a page at a time. */
import { createHash } from 'node:crypto'
import { HttpProblem } from './http-problems.js'

/** What the lists have in common in their queries. */
export interface PageQuery {
  readonly limit?: number
  readonly cursor?: string
}

export interface Page<Item> {
  readonly items: readonly Item[]
  /** What to give as `cursor` for the next page; null on the last one. */
  readonly next: string | null
  /** How many there are on all pages together. */
  readonly total: number
}

/** How many there are on a page unless it is said. */
export const usualLimit = 100

/**
 * A page of the items in the order of their places. A cursor names the last place of its page, so what comes or goes
 * in between moves no item from one page to another.
 *
 * @param list names the list and whatever narrows it down: a cursor is good for that list only.
 * @throws HttpProblem 400 when the cursor is not one of ours.
 */
export function pageOf<Item>(
  items: readonly Item[],
  placeOf: (item: Item) => string,
  list: string,
  { limit = usualLimit, cursor }: PageQuery,
): Page<Item> {
  const after = cursor === undefined ? '' : placeIn(cursor, list)
  const placed = items
    .map((item) => ({ item, place: placeOf(item) }))
    .sort((a, b) => (a.place < b.place ? -1 : 1))
  const rest = placed.filter(({ place }) => place > after)
  const page = rest.slice(0, limit)
  const last = page.at(-1)
  const next = last === undefined || page.length === rest.length ? null : cursorAt(last.place, list)
  return { items: page.map(({ item }) => item), next, total: items.length }
}

function cursorAt(place: string, list: string): string {
  return Buffer.from(`${seal(place, list)}${place}`).toString('base64url')
}

function placeIn(cursor: string, list: string): string {
  const text = Buffer.from(cursor, 'base64url').toString()
  const place = text.slice(sealLength)
  if (place !== '' && cursorAt(place, list) === cursor) return place
  throw new HttpProblem(
    'invalid-request',
    'The cursor is not one that this list, narrowed down like this, has given.',
  )
}

const sealLength = 8

/** Nothing secret: it finds cursors that were cut, made up, or come from another list. */
function seal(place: string, list: string): string {
  return createHash('sha256').update(`${list}\n${place}`).digest('base64url').slice(0, sealLength)
}
