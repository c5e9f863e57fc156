/** The audit trail. */
import { eventTypes } from '../core/event-sentences.js'
import { keyFrom } from '../core/names.js'
import type { Dependencies } from './dependencies.js'
import { type EventPlace, eventId, eventPlace, isBefore } from './event-places.js'
import { HttpProblem } from './http-problems.js'
import { usualLimit } from './paging.js'
import { asOf, eventBody, nodeNames } from './presenters.js'
import { queryOf, type Route } from './route.js'
import { listEventsSchema } from './schemas/events.js'

export function eventRoutes({ coordinator, source }: Dependencies): Route[] {
  const { operator } = coordinator

  return [
    {
      method: 'GET',
      url: '/events',
      action: 'read',
      id: 'ListEvents',
      schema: listEventsSchema,
      handler: async (request) => {
        const { after, type, subject, limit = usualLimit } = queryOf(request, listEventsSchema)
        const place = after === undefined ? undefined : placeAfter(after)
        const snapshot = await source.current()
        const narrowed = type !== undefined || subject !== undefined
        // Asked before the events themselves: whatever comes in between is among them, or after this place.
        const lookedUntil = narrowed ? await newest() : undefined
        const events = await operator.events({
          limit,
          ...(place === undefined ? {} : { after: place }),
          ...(type === undefined ? {} : { types: type.split(',').flatMap(typesFrom) }),
          ...(subject === undefined ? {} : { subject: keyFrom(subject) }),
        })
        if (place !== undefined) await refuseExpired(place)
        const full = place !== undefined && events.length === limit
        const told = place === undefined ? events[0] : (events.at(-1) ?? place)
        const next = latestOf(told, full ? undefined : lookedUntil)
        const names = nodeNames(snapshot, events)
        const items = events.map((event) => eventBody(event, names))
        return { ...asOf(snapshot), items, next: next && eventId(next) }
      },
    },
  ]

  /** Asked after the events themselves: what is cleared away in between must not go unnoticed. */
  async function refuseExpired(place: EventPlace): Promise<void> {
    const [oldest] = await operator.events({ limit: 1, after: beginning })
    if (oldest !== undefined && !isBefore(place, oldest)) return
    throw new HttpProblem(
      'cursor-expired',
      'Events after that place have been cleared away. Begin again without `after`.',
    )
  }

  /**
   * So that whoever looks for something that has not happened yet goes on from where everything has been looked at.
   * A place that stays behind is cleared away one day with what it is a place in.
   */
  async function newest(): Promise<EventPlace | undefined> {
    const [event] = await operator.events({ limit: 1 })
    return event
  }
}

/** `node.` is all that begins so. It stays among them itself, so that they are never none, which would be all. */
function typesFrom(type: string): string[] {
  return type.endsWith('.') ? [type, ...eventTypes.filter((each) => each.startsWith(type))] : [type]
}

function latestOf(a: EventPlace | undefined, b: EventPlace | undefined): EventPlace | null {
  if (a === undefined || b === undefined) return a ?? b ?? null
  return isBefore(a, b) ? b : a
}

const beginning: EventPlace = { revision: 0, position: -1 }

function placeAfter(after: string): EventPlace {
  const place = eventPlace(after)
  if (place !== undefined) return place
  throw new HttpProblem('invalid-request', 'querystring/after: must be the `next` of an earlier answer.')
}
