/** The guard inside a user's transaction. */
import { type SQL, sql } from 'drizzle-orm'
import { PgDialect } from 'drizzle-orm/pg-core'
import { CoordinationError, FencedError } from '../../core/errors.js'
import type { Claim } from '../../core/store.js'
import { sqlState } from './failures.js'
import { leases, nodes } from './schema.js'

/** The part of a pg client that is needed. */
interface RawClient {
  query(text: string): Promise<{ rows: { place: string }[] }>
  escapeLiteral(text: string): string
}

/** Where the leases of a store are. */
interface Place {
  readonly namespace: string
  readonly schema: string
}

/**
 * Holds the row of a lease, if the claim is still true, until the transaction ends.
 *
 * The statement is a plain one of the driver's, whatever `transaction` is: an application's Drizzle may be another
 * version than ours, and cannot run what ours has built.
 *
 * @param stillTrue looks at the lease from outside, for when the transaction itself can tell no more.
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
    if (rows[0].place === 'outside') throw wrongTarget('It is not inside a transaction.')
  } catch (error) {
    throw await explained(error, claim, stillTrue)
  }
}

/**
 * Outside of a transaction the row would be let go at once. There a statement is a transaction of its own,
 * and both began at the same instant; inside, BEGIN came earlier. That is so to the microsecond only for a
 * statement without parameters, which reaches the server as a single message.
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

async function explained(
  error: unknown,
  claim: Claim,
  stillTrue: (claim: Claim) => Promise<boolean>,
): Promise<unknown> {
  if (error instanceof CoordinationError) return error
  const state = sqlState(error)
  if (state === undefined) return wrongTarget('Its connection has ended.', error)
  if (state === '42P01' || state === '3F000') {
    return wrongTarget("The coordinator's tables are not there: it is another database.", error)
  }
  // A transaction that keeps to an old snapshot cannot hold a row that has changed since.
  if (state !== '40001' || (await stillTrue(claim))) return error
  const fenced = new FencedError(claim.key, claim.token)
  fenced.cause = error
  return fenced
}

/** The client that a transaction runs on: itself, or what Drizzle keeps in its session. */
function rawClient(transaction: unknown): RawClient {
  if (isClient(transaction)) return transaction
  const inside = property(property(transaction, 'session'), 'client')
  if (isClient(inside)) return inside
  throw wrongTarget('A pool is not a transaction: each of its statements may take another connection.')
}

/** Pools have `query` too, but nothing to escape with. */
function isClient(value: unknown): value is RawClient {
  return (
    typeof property(value, 'query') === 'function' && typeof property(value, 'escapeLiteral') === 'function'
  )
}

function property(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null ? Reflect.get(value, name) : undefined
}

function wrongTarget(why: string, cause?: unknown): CoordinationError {
  return new CoordinationError(
    'WCO_FENCE_TARGET',
    `fence() needs the open transaction that it is to guard: a client of pg between BEGIN and COMMIT, or a ` +
      `transaction of Drizzle on pg. ${why}`,
    cause === undefined ? undefined : { cause },
  )
}
