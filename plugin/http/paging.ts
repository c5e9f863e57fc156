/** Returns long lists one page at a time. */
import { createHash } from 'node:crypto'
import { HttpProblem } from './http-problems.js'

/** The query parameters that all lists share. */
export interface PageQuery {
  readonly limit?: number
  readonly cursor?: string
}

export interface Page<Item> {
  readonly items: readonly Item[]
  /** Value of `cursor` for the next page; null on the last one. */
  readonly next: string | null
  /** Number of items on all pages together. */
  readonly total: number
}

/** Number of items on a page by default. */
export const usualLimit = 100

/**
 * Returns a page of the items, ordered by their places. A cursor names the last place of its page, so items that are
 * added or removed in between do not move others to a different page.
 *
 * @param list names the list and its filters; a cursor is valid for that list only.
 * @throws HttpProblem 400 when the cursor was not issued for this list.
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
  throw new HttpProblem('invalid-request', 'The cursor was not issued for this list with these filters.')
}

const sealLength = 8

/** A checksum, not a secret: it detects cursors that were truncated, invented, or issued for another list. */
function seal(place: string, list: string): string {
  return createHash('sha256').update(`${list}\n${place}`).digest('base64url').slice(0, sealLength)
}
