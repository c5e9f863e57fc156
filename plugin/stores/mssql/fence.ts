/**
 * The fence: the guard inside a user's transaction.
 *
 * It is made of application locks. Like a row's lock, they belong to a transaction and end with it. But they can be
 * shared without a hint, and do not affect statements that read or write rows. A fence shares two of them: the lock
 * of its lease, and the lock of the whole namespace. A change tries to take the latter without waiting. If it gets
 * the lock, there is no fence, and none can be added until the change has ended. If it does not, it tries to take the
 * locks of the leases that it reads, one by one; those that it does not get are fenced.
 *
 * Changes take these locks in a mode that excludes fences but not other changes, because the revision row already
 * orders changes. A server that ends a transaction releases its locks one after another. The next change may
 * therefore still find locks of the previous one, which it must not mistake for fences.
 */
import { createHash } from 'node:crypto'
import { FencedError, StoreError } from '../../core/errors.js'
import type { Claim } from '../../core/store.js'
import { clientInside, FenceTarget, type Place, type Refusal } from '../shared/fencing.js'
import { property } from '../shared/property.js'
import type { Parameters } from './connections.js'
import { driverCode, isRefusal } from './failures.js'
import { claimed } from './queries.js'
import { storedKey } from './schema.js'

const target = new FenceTarget('a Transaction of mssql that has begun, or a transaction of Drizzle on mssql')

/** The part of a driver's transaction that is needed. */
interface RawTransaction {
  request(): {
    input(name: string, value: unknown): unknown
    query(sql: string): Promise<{ recordset?: readonly { readonly place?: string }[] }>
  }
}

/** Returns the name of the lock of a whole namespace. */
export function everything(namespace: string): string {
  return resource(namespace, '')
}

/** A request that tries to lock leases. Each row that it returns has the `place` in `of` of a lease that is fenced. */
interface Locking {
  readonly sql: string
  readonly parameters: Parameters
  readonly of: readonly string[]
}

/** Returns requests that each contain many statements, one for each lock. */
export function locking(namespace: string, keys: readonly string[]): Locking[] {
  const requests: Locking[] = []
  for (let from = 0; from < keys.length; from += locksAtOnce) {
    const of = keys.slice(from, from + locksAtOnce)
    const each = of.map(
      (key, place) => `
      exec @got = sp_getapplock @Resource = N'${resource(namespace, key)}', @LockMode = N'IntentExclusive',
        @LockOwner = N'Transaction', @LockTimeout = 0
      if @got < 0 insert into @fenced values (${place})`,
    )
    const sql = `declare @got int
      declare @fenced table ([place] int)
      ${each.join('')}
      select [place] from @fenced`
    requests.push({ sql, parameters: {}, of })
  }
  return requests
}

const locksAtOnce = 100

/**
 * Returns the name of a lock. It is a hash, because such a name has at most 255 characters, and a key may have more.
 */
function resource(namespace: string, key: string): string {
  const digest = createHash('sha256')
    .update(JSON.stringify([namespace, key]))
    .digest('hex')
  return `coordination ${digest}`
}

/**
 * Holds a lease until the transaction ends, if the claim is still true.
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
  const { key, node, token } = claim
  const request = rawTransaction(transaction).request()
  const parameters = {
    namespace: storedKey(place.namespace),
    key: storedKey(key),
    node: storedKey(node),
    // Sent as text, because the driver would treat a large number as a fraction.
    token: String(token),
    everything: everything(place.namespace),
    lease: resource(place.namespace, key),
  }
  for (const [name, value] of Object.entries(parameters)) request.input(name, value)
  try {
    const { recordset } = await request.query(holding(place.schema))
    const found = recordset?.[0]?.place
    if (found === 'outside') throw target.wrong('It is not inside a transaction.')
    if (found === 'busy') throw new StoreError('The fence was kept waiting too long by a change.', 'none')
    if (found !== 'held') throw new FencedError(key, token)
  } catch (error) {
    throw await target.explained(error, refusalIn(error), claim, stillTrue)
  }
}

/**
 * A fence that waits for a lock waits for a change, and reads the row afterwards. A transaction that reads an old
 * snapshot would not see the change. It therefore updates the row without altering it, which the server refuses when
 * the row has changed since the snapshot.
 */
function holding(schema: string): string {
  const at = `[${schema.replaceAll(']', ']]')}].`
  const token = 'cast(@token as bigint)'
  return `
    declare @got int
    if @@trancount = 0 select N'outside' as [place]
    else if object_id(N'${at.replaceAll("'", "''")}coordination_leases') is null
      throw 50208, N'The tables of the coordinator are not there.', 1
    else begin
      exec @got = sp_getapplock @Resource = @everything, @LockMode = N'Shared', @LockOwner = N'Transaction'
      if @got >= 0
        exec @got = sp_getapplock @Resource = @lease, @LockMode = N'Shared', @LockOwner = N'Transaction'
      if @got >= 0 and (select transaction_isolation_level from sys.dm_exec_sessions where session_id = @@spid) > 2
        update ${at}coordination_leases set [revision] = [revision]
        where namespace = @namespace and [key] = @key and [holder] = @node and [token] = ${token}
      if @got < 0 select N'busy' as [place]
      else if ${claimed(at, token)} select N'held' as [place]
      else select N'lost' as [place]
    end`
}

function refusalIn(error: unknown): Refusal | undefined {
  const code = driverCode(error)
  if (!isRefusal(error)) return code !== undefined && notOpen.has(code) ? 'ended' : undefined
  return isTableMissing(error) ? 'elsewhere' : 'outdated'
}

/** The driver's codes for a transaction that has not begun, or has ended. */
const notOpen = new Set(['ENOTBEGUN', 'EABORT', 'ECONNCLOSED', 'EINVALIDSTATE', 'ENOTOPEN'])

function isTableMissing(error: unknown): boolean {
  return property(error, 'number') === 50208
}

/** Returns the transaction itself, or the one in the session of a Drizzle transaction. */
function rawTransaction(transaction: unknown): RawTransaction {
  for (const given of [transaction, clientInside(transaction)]) {
    if (isTransaction(given)) return given
    if (typeof property(given, 'connect') === 'function' || property(given, 'pool') !== undefined) {
      throw target.wrong('A pool is not a transaction: each of its requests may take another connection.')
    }
  }
  throw target.wrong('It is not a transaction.')
}

/** Pools can make requests, too, but cannot commit. */
function isTransaction(value: unknown): value is RawTransaction {
  return ['request', 'commit', 'rollback'].every((name) => typeof property(value, name) === 'function')
}
