/** The fence: the guard inside a user's transaction. */
import { type SQL, sql } from 'drizzle-orm'
import { PgDialect } from 'drizzle-orm/pg-core'
import { FencedError } from '../../core/errors.js'
import { shown } from '../../core/names.js'
import type { Claim } from '../../core/store.js'
import { clientInside, FenceTarget, type Place, type Refusal } from '../shared/fencing.js'
import { property } from '../shared/property.js'
import { sqlState } from './failures.js'
import { leases, nodes } from './schema.js'

/** The part of a pg client that is needed. */
interface RawClient {
  query(text: string): Promise<{ rows: { place: string }[] }>
  escapeLiteral(text: string): string
}

const target = new FenceTarget('a client of pg between BEGIN and COMMIT, or a transaction of Drizzle on pg')

/**
 * Holds the row of a lease until the transaction ends, if the claim is still true.
 *
 * @param stillTrue checks the claim from outside, for when the transaction itself can no longer tell.
 * @throws FencedError when the claim is no longer true; CoordinationError `WCO_FENCE_TARGET` when `transaction` is
 *   not an open transaction on this database.
 */
export async function fence(
  transaction: unknown,
  claim: Claim,
  place: Place,
  stillTrue: (claim: Claim) => Promise<boolean>,
): Promise<void> {
  const client = rawClient(transaction)
  try {
    const { rows } = await client.query(holding(claim, place, client))
    if (rows[0] === undefined) throw new FencedError(claim.key, claim.token)
    if (rows[0].place === 'outside') throw target.wrong('It is not inside a transaction.')
  } catch (error) {
    throw await target.explained(error, refusalIn(error), claim, stillTrue)
  }
}

/**
 * Returns the statement that holds the row and tells whether it runs inside a transaction. Outside of one, the row
 * would be released at once. There, a statement is its own transaction, and both begin at the same instant; inside,
 * BEGIN came earlier. The two times are equal to the microsecond only for a statement without parameters, which
 * reaches the server as a single message.
 */
function holding({ key, node, token }: Claim, { namespace, schema }: Place, client: RawClient): string {
  const at = sql.identifier(schema)
  const literal = (value: string | number): SQL => sql.raw(client.escapeLiteral(String(value)))
  const statement = sql`
    select case when now() = statement_timestamp() then 'outside' else 'inside' end as place
    from ${at}.${leases} as l
    where l.namespace = ${literal(namespace)} and l.key = ${literal(key)}
      and l.holder = ${literal(node)} and l.token = ${literal(token)}::bigint
      and exists (select from ${at}.${nodes} as n
        where n.namespace = l.namespace and n.id = l.holder and n.state <> 'gone')
    for share of l`
  return new PgDialect().sqlToQuery(statement).sql
}

function refusalIn(error: unknown): Refusal | undefined {
  const state = sqlState(error)
  if (state === undefined) return 'ended'
  if (state === '42P01' || state === '3F000') return 'elsewhere'
  return state === '40001' ? 'outdated' : undefined
}

/**
 * Returns the client that a transaction runs on: the transaction itself, or the client in the session of a Drizzle
 * transaction.
 */
function rawClient(transaction: unknown): RawClient {
  if (isClient(transaction)) return transaction
  const inside = clientInside(transaction)
  if (isClient(inside)) return inside
  if (typeof property(inside ?? transaction, 'query') !== 'function')
    throw target.wrong(`It is ${shown(transaction)}.`)
  throw target.wrong('A pool is not a transaction: each of its statements may take another connection.')
}

/** Pools have `query` too, but no `escapeLiteral`. */
function isClient(value: unknown): value is RawClient {
  return (
    typeof property(value, 'query') === 'function' && typeof property(value, 'escapeLiteral') === 'function'
  )
}
