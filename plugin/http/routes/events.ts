/** The route that lists the audit trail. */

import { keyFrom, shown } from '../../core/names.js'
import { eventTypes } from '../../core/reports/event-sentences.js'
import type { EventRow } from '../../core/store.js'
import type { Dependencies } from '../dependencies.js'
import { HttpProblem } from '../http-problems.js'
import { usualLimit } from '../paging.js'
import { queryOf, type Route } from '../route.js'
import { listEventsSchema } from '../schemas/events.js'
import type { Typed } from '../schemas/typed.js'
import { type EventPlace, eventId, eventPlace, isBefore } from '../snapshot/event-places.js'
import { asOf, eventBody, nodeNames } from '../snapshot/presenters.js'

interface EventPage {
  readonly events: readonly EventRow[]
  readonly next: EventPlace | null
}

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
        const query = queryOf(request, listEventsSchema)
        const { events, next } = await source.shared(['events', query], () => read(query))
        const snapshot = await source.current()
        const names = nodeNames(snapshot, events)
        const items = events.map((event) => eventBody(event, names))
        return { ...asOf(snapshot), items, next: next && eventId(next) }
      },
    },
  ]

  async function read({
    after,
    type,
    subject,
    limit = usualLimit,
  }: Typed<(typeof listEventsSchema)['querystring']>): Promise<EventPage> {
    const place = after === undefined ? undefined : placeAfter(after)
    const types = type === undefined ? undefined : type.split(',').flatMap(typesFrom)
    const narrowed = types !== undefined || subject !== undefined
    // Read before the events themselves: an event written in between is then among them or after this place.
    const lookedUntil = narrowed ? await newest() : undefined
    const events = await operator.events({
      limit,
      ...(place === undefined ? {} : { after: place }),
      ...(types === undefined ? {} : { types }),
      ...(subject === undefined ? {} : { subject: keyFrom(subject) }),
    })
    if (place !== undefined && eventId(place) !== beginning) await refuseForgotten(place)
    const full = place !== undefined && events.length === limit
    const told = place === undefined ? events[0] : (events.at(-1) ?? place)
    return { events, next: latestOf(told, full ? undefined : lookedUntil) }
  }

  /**
   * Refuses a place whose event no longer exists, because it has been cleared away or the database was restored from an
   * earlier state. The client could then miss later events unnoticed. This is checked after the events have been read,
   * so that a clearing in between is noticed.
   *
   * @throws HttpProblem 410
   */
  async function refuseForgotten(place: EventPlace): Promise<void> {
    const before = { revision: place.revision, position: place.position - 1 }
    const [itself] = await operator.events({ limit: 1, after: before })
    if (itself !== undefined && eventId(itself) === eventId(place)) return
    throw new HttpProblem(
      'cursor-expired',
      'There is no event at that place: it has been cleared away, or the database was restored from before it. ' +
        `Begin again without \`after\`, or with \`after=${beginning}\` for the oldest event that is left.`,
    )
  }

  /**
   * Returns the place of the newest event. A client that filters continues from the place up to which everything has
   * been examined. Otherwise its place would stay behind until its event is cleared away.
   */
  async function newest(): Promise<EventPlace | undefined> {
    const [event] = await operator.events({ limit: 1 })
    return event
  }
}

/** The place before all events. */
const beginning = '0-0'

/** Returns the event types that the text names; `node.` names all types with that prefix. */
function typesFrom(type: string): string[] {
  const known = eventTypes.filter((each) => (type.endsWith('.') ? each.startsWith(type) : each === type))
  if (known.length > 0) return known
  throw new HttpProblem(
    'invalid-request',
    `querystring/type: there are no events of the type ${shown(type)}. There are ${eventTypes.join(', ')}.`,
  )
}

function latestOf(a: EventPlace | undefined, b: EventPlace | undefined): EventPlace | null {
  if (a === undefined || b === undefined) return a ?? b ?? null
  return isBefore(a, b) ? b : a
}

function placeAfter(after: string): EventPlace {
  const place = eventPlace(after)
  if (place !== undefined) return place
  throw new HttpProblem('invalid-request', 'querystring/after: must be the `next` of an earlier answer.')
}
