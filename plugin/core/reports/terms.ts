/**
 * The terms of one lease, from the audit trail: which node held it, when, and why each term ended. Pure.
 *
 * The audit trail can be pruned at any place, so either end of a term may be missing. What is not known is reported
 * as unknown, never guessed.
 */
import type { EventRow } from '../store.js'

/** The types of the events from which terms are made. Query those whose subject is the lease. */
export const termEvents = [
  'lease.acquired',
  'lease.released',
  'lease.revoked',
  'lease.acknowledged',
  'lease.lost',
  'lease.transferred',
] as const

/** One holder's time with a lease. */
export interface Term {
  /** Session id; null when no remaining event names it. */
  readonly holder: string | null
  readonly token: number
  /** By the database's clock; null when that event has been deleted. */
  readonly fromMs: number | null
  /** By the database's clock; null while the term lasts, or when the event of its end has been deleted. */
  readonly toMs: number | null
  /** Null while the term lasts. */
  readonly ended: TermEnd | null
}

/** How a term ended. */
export interface TermEnd {
  readonly how: /** Its holder gave it back. */
    | 'released'
    /** It was taken away: by an operator, or because its holder did not hand over in time. */
    | 'revoked'
    /** Its holder was gone. */
    | 'lost'
    /** A later term has begun, and no event says how this one ended. */
    | 'unknown'
  /** Why it ended, according to the audit trail. */
  readonly reason: string | null
  /** Who asked for it; null when nobody did. */
  readonly actor: string | null
  /**
   * Whether the holder has said since that it has stopped, where the term was revoked; null where it ended otherwise.
   * Work that ignores its signal goes on without a word. Once the next term has begun, no word is recorded any more.
   */
  readonly acknowledged: boolean | null
}

/**
 * Returns the terms, newest first. The events may come in any order, and may be of other types than
 * {@link termEvents} as well.
 */
export function termsOf(events: readonly EventRow[]): Term[] {
  const inOrder = [...events].sort((a, b) => a.revision - b.revision || a.position - b.position)
  const byToken = new Map<number, EventRow[]>()
  for (const event of inOrder) {
    if (event.token === null || !termEvents.some((type) => type === event.type)) continue
    byToken.set(event.token, [...(byToken.get(event.token) ?? []), event])
  }
  const isTerm = (token: number): boolean =>
    byToken.get(token)?.some(({ type }) => type !== 'lease.acknowledged') ?? false
  const tokens = [...byToken.keys()].filter(isTerm).sort((a, b) => b - a)
  return tokens.map((token, at) => termFrom(token, byToken.get(token) ?? [], at === 0))
}

function termFrom(token: number, events: readonly EventRow[], latest: boolean): Term {
  const began = events.find(({ type }) => type === 'lease.acquired')
  const end = events.find(({ type }) => endings.has(type))
  const holder = (began ?? end ?? events[0])?.node ?? null
  const ended = end === undefined ? (latest ? null : unknownEnd) : endOf(end, events)
  return { holder, token, fromMs: began?.atMs ?? null, toMs: end?.atMs ?? null, ended }
}

const unknownEnd: TermEnd = { how: 'unknown', reason: null, actor: null, acknowledged: null }

const endings: ReadonlyMap<string, TermEnd['how']> = new Map([
  ['lease.released', 'released'],
  ['lease.revoked', 'revoked'],
  ['lease.lost', 'lost'],
])

/** A holder that releases a lease on request gives the plan as its reason. Who asked, and why, is in the request. */
function endOf(end: EventRow, events: readonly EventRow[]): TermEnd {
  const how = endings.get(end.type) ?? 'unknown'
  const request = events.find(({ type }) => type === 'lease.transferred')
  const { reason, actor } = request !== undefined && how === 'released' ? request : end
  const said = events.some(({ type }) => type === 'lease.acknowledged')
  return { how, reason, actor, acknowledged: how === 'revoked' ? said : null }
}
