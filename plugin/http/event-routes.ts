/** The audit trail. */
import type { Dependencies } from './dependencies.js'
import { type EventPlace, eventId, eventPlace, isBefore } from './event-places.js'
import { keyFrom } from './keys.js'
import { usualLimit } from './paging.js'
import { asOf, eventBody } from './presenters.js'
import { HttpProblem } from './problems.js'
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
        const events = await operator.events({
          limit,
          ...(place === undefined ? {} : { after: place }),
          ...(type === undefined ? {} : { types: type.split(',') }),
          ...(subject === undefined ? {} : { subject: keyFrom(subject) }),
        })
        if (place !== undefined) await refuseExpired(place)
        const latest = place === undefined ? (events[0] ?? (await newest())) : (events.at(-1) ?? place)
        const next = latest === undefined ? null : eventId(latest)
        return { ...asOf(snapshot), items: events.map(eventBody), next }
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

  /** So that whoever looks for something that has not happened yet has a place from which to go on. */
  async function newest(): Promise<EventPlace | undefined> {
    const [event] = await operator.events({ limit: 1 })
    return event
  }
}

const beginning: EventPlace = { revision: 0, position: -1 }

function placeAfter(after: string): EventPlace {
  const place = eventPlace(after)
  if (place !== undefined) return place
  throw new HttpProblem('invalid-request', 'querystring/after: must be the `next` of an earlier answer.')
}
