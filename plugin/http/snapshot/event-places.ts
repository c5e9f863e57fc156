/** Places in the audit trail as clients write them: `1207-0` is the number of the change and the position within it. */
import type { EventRow } from '../../core/store.js'

export type EventPlace = Pick<EventRow, 'revision' | 'position'>

/** Returns the id of an event, which is also the place after which a client continues. */
export function eventId({ revision, position }: EventPlace): string {
  return `${revision}-${position}`
}

/** Parses a place; returns undefined for anything that {@link eventId} does not write. */
export function eventPlace(id: string): EventPlace | undefined {
  const [, revision, position] = /^(\d{1,15})-(\d{1,9})$/.exec(id) ?? []
  if (revision === undefined || position === undefined) return undefined
  const place = { revision: Number(revision), position: Number(position) }
  return eventId(place) === id ? place : undefined
}

export function isBefore(a: EventPlace, b: EventPlace): boolean {
  return a.revision < b.revision || (a.revision === b.revision && a.position < b.position)
}
