/**
 * The guard inside a user's transaction.
 *
 * It is made of application locks, which belong to a transaction as a row's lock does and end with it, but need no hint to
 * be shared, and are in nobody's way who only reads or writes rows. A fence shares two of them: that of
 * its lease, and that of everything in the namespace. A change tries to get the latter for changes, without waiting. If it
 * does, nobody has a fence, and nobody gets one until the change has ended. If it does not, it tries to get the locks
 * of the leases it reads, one by one; those it does not get are fenced.
 *
 * Changes take these locks in a mode in which they do not exclude each other, only fences: one at a time is what the
 * revision row sees to. A server that ends a transaction lets go of its locks one after another, so that the next change
 * may find those of the last one still there, and would take them for fences.
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

/** The part of a transaction of the driver's that is needed. */
interface RawTransaction {
  request(): {
    input(name: string, value: unknown): unknown
    query(sql: string): Promise<{ recordset?: readonly { readonly place?: string }[] }>
  }
}

/** The name of the lock of everything in a namespace. */
export function everything(namespace: string): string {
  return resource(namespace, '')
}

/** A request that tries to lock leases. Each row it answers is the `place` in `of` of one that is fenced. */
interface Locking {
  readonly sql: string
  readonly parameters: Parameters
  readonly of: readonly string[]
}

/** One statement for each lock, many in one request. */
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

/** Names of locks have at most 255 characters; those of keys may have more. */
function resource(namespace: string, key: string): string {
  const digest = createHash('sha256')
    .update(JSON.stringify([namespace, key]))
    .digest('hex')
  return `coordination ${digest}`
}

/**
 * Holds a lease, if the claim is still true, until the transaction ends.
 *
 * @param stillTrue looks at the lease from outside, for when the transaction itself can tell no more.
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
    // As a text: the driver takes a large number for one with a fraction.
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
 * Whoever waits for a lock waits for a change, and looks at the row after it. A transaction that keeps to an old snapshot
 * would not see what has changed: it has to update the row, in vain, which the server refuses when it has changed since.
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

/** What the driver says of a transaction that has not begun, or has ended. */
const notOpen = new Set(['ENOTBEGUN', 'EABORT', 'ECONNCLOSED', 'EINVALIDSTATE', 'ENOTOPEN'])

function isTableMissing(error: unknown): boolean {
  return property(error, 'number') === 50208
}

/** The transaction itself, or what Drizzle keeps in its session. */
function rawTransaction(transaction: unknown): RawTransaction {
  for (const given of [transaction, clientInside(transaction)]) {
    if (isTransaction(given)) return given
    if (typeof property(given, 'connect') === 'function' || property(given, 'pool') !== undefined) {
      throw target.wrong('A pool is not a transaction: each of its requests may take another connection.')
    }
  }
  throw target.wrong('It is none.')
}

/** Pools make requests, too, but cannot be committed. */
function isTransaction(value: unknown): value is RawTransaction {
  return ['request', 'commit', 'rollback'].every((name) => typeof property(value, name) === 'function')
}
