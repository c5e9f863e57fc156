/** The fence: the guard inside a user's transaction. */
import type { ResultSetHeader } from 'mysql2'
import { FencedError } from '../../core/errors.js'
import type { Claim } from '../../core/store.js'
import { clientInside, FenceTarget, type Place, type Refusal } from '../shared/fencing.js'
import { property } from '../shared/property.js'
import { errorNumber } from './failures.js'

/** The part of a connection of mysql2 that is needed. */
interface RawClient {
  execute(
    statement: { sql: string; rowsAsArray: boolean },
    values: readonly unknown[],
  ): Promise<[unknown, unknown]>
}

const target = new FenceTarget(
  'a connection of mysql2 between BEGIN and COMMIT, or a transaction of Drizzle on mysql2',
)

/**
 * Holds the row of a lease until the transaction ends, if the claim is still true.
 *
 * @param stillTrue checks lease and node from outside. It does so before the row is locked: a missing row would be
 *   locked as a gap, and changes that insert another row next to it would wait. The node's row is read only from
 *   outside, because a transaction at `serializable` would lock it, and heartbeats would wait.
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
    const [inside, isTrue] = await Promise.all([isInTransaction(client), stillTrue(claim)])
    if (!inside) throw target.wrong('It is not inside a transaction.')
    if (!isTrue || !(await hold(client, claim, place))) throw new FencedError(claim.key, claim.token)
  } catch (error) {
    throw await target.explained(error, refusalIn(error), claim, stillTrue)
  }
}

/**
 * MySQL has no function that tells this, but it sends the state with the answer to any statement without rows. With
 * autocommit off, the first statement begins a transaction.
 */
async function isInTransaction(client: RawClient): Promise<boolean> {
  const [answer] = await client.execute({ sql: 'do 0', rowsAsArray: false }, [])
  const { serverStatus = 0 } = answer as Partial<ResultSetHeader>
  return (serverStatus & inTransaction) !== 0 || (serverStatus & autocommit) === 0
}

const inTransaction = 1
const autocommit = 2

/**
 * Reads and locks the current row, regardless of what the transaction has seen before. Other transactions may share
 * the lock.
 */
async function hold(client: RawClient, { key, node, token }: Claim, place: Place): Promise<boolean> {
  const at = `\`${place.schema.replaceAll('`', '``')}\`.coordination_leases`
  const sql = `select 1 from ${at} where namespace = ${text} and \`key\` = ${text} and holder = ${text}
    and token = cast(? as signed) lock in share mode`
  // Sent as bytes, because the connection may use a character set that lacks some of the characters.
  const values = [place.namespace, key, node].map((value) => Buffer.from(value))
  const [rows] = await client.execute({ sql, rowsAsArray: true }, [...values, String(token)])
  return Array.isArray(rows) && rows.length > 0
}

const text = 'convert(? using utf8mb4)'

function refusalIn(error: unknown): Refusal | undefined {
  const number = errorNumber(error)
  if (number === undefined) return 'ended'
  if (number === noSuchTable || number === noSuchDatabase) return 'elsewhere'
  return number === changedSince ? 'outdated' : undefined
}

const noSuchTable = 1146
const noSuchDatabase = 1049
/** With innodb_snapshot_isolation a transaction cannot hold a row that has changed since its snapshot. */
const changedSince = 1020

/**
 * Returns the client that a transaction runs on: the client in the session of a Drizzle transaction, which itself has
 * `execute` too, or the transaction itself.
 */
function rawClient(transaction: unknown): RawClient {
  const client = clientInside(transaction) ?? transaction
  if (typeof property(client, 'getConnection') === 'function') {
    throw target.wrong('A pool is not a transaction: each of its statements may take another connection.')
  }
  const asked = promising(client)
  if (asked === undefined) throw target.wrong('It is not a connection.')
  return asked
}

/** Returns the connection with promises. A connection with callbacks can be converted to one. */
function promising(client: unknown): RawClient | undefined {
  if (typeof property(client, 'execute') !== 'function') return undefined
  const promise = property(client, 'promise')
  return (typeof promise === 'function' ? promise.call(client) : client) as RawClient
}
