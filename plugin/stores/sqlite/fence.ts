/** The fence: the guard inside a user's transaction, on the user's connection, not ours. */
import type { Database, Statement } from 'better-sqlite3'
import { type CoordinationError, FencedError } from '../../core/errors.js'
import type { Claim } from '../../core/store.js'
import { clientInside, FenceTarget } from '../shared/fencing.js'
import { property } from '../shared/property.js'

/** What a fence needs of the user's connection, whichever copy of the driver it comes from. */
type UsersClient = Pick<Database, 'prepare' | 'inTransaction'>

const target = new FenceTarget(
  'a database of better-sqlite3 between BEGIN and COMMIT, or of Drizzle over one',
)

/**
 * An update that changes nothing. It takes the file's write slot, which no other connection gets before the
 * transaction ends.
 */
const hold = `
  update coordination_leases set revision = revision
  where namespace = ? and key = ? and holder = ? and token = ? and exists (
    select 1 from coordination_nodes as node
    where node.namespace = coordination_leases.namespace and node.id = holder and node.state <> 'gone')`

/**
 * Checks the claim, and holds it until the transaction ends. Returns something that need not be awaited; awaiting it
 * checks that the transaction is still open.
 *
 * @param transaction a better-sqlite3 `Database` in a transaction, or Drizzle's database or transaction over it.
 * @throws FencedError when the claim is no longer true; CoordinationError `WCO_FENCE_TARGET` when this is not an open
 *   transaction, or not of a database with our tables; the driver's own error when the file is busy.
 */
export function fence(transaction: unknown, namespace: string, claim: Claim): PromiseLike<void> {
  const client = clientOf(transaction)
  if (client === undefined) throw target.wrong('It is not a database.')
  if (!client.inTransaction) throw target.wrong('It is not inside a transaction.')
  if (holdLease(client, namespace, claim) === 0) throw new FencedError(claim.key, claim.token)
  return new Awaited(client)
}

/**
 * A transaction of this driver is synchronous. Drizzle commits that of an async callback at its first `await`, so what
 * follows would be written without the fence. Checked only when awaited, because in a synchronous callback the
 * transaction has rightly ended by the time at which any promise settles.
 */
class Awaited implements PromiseLike<undefined> {
  readonly #client: UsersClient

  constructor(client: UsersClient) {
    this.#client = client
  }

  // biome-ignore lint/suspicious/noThenProperty: that it is awaited is what it must learn.
  then<Done = undefined, Failed = never>(
    done?: ((value: undefined) => Done | PromiseLike<Done>) | null,
    failed?: ((reason: unknown) => Failed | PromiseLike<Failed>) | null,
  ): PromiseLike<Done | Failed> {
    const checked = this.#client.inTransaction
      ? Promise.resolve(undefined)
      : Promise.reject(overAtFirstAwait())
    return checked.then(done, failed)
  }
}

function overAtFirstAwait(): CoordinationError {
  return target.wrong(
    'The transaction ended at the first `await`: with better-sqlite3 its callback must not be async. Call ' +
      '`lease.fence(tx)` without `await`, or use BEGIN and COMMIT.',
  )
}

function holdLease(client: UsersClient, namespace: string, { key, node, token }: Claim): number {
  try {
    return holdOn(client).run(namespace, key, node, token).changes
  } catch (error) {
    if (error instanceof Error && error.message.startsWith('no such table')) {
      throw target.wrong("The coordinator's tables are not there: it is another database.", error)
    }
    throw error
  }
}

const held = new WeakMap<UsersClient, Statement>()

/** Prepares the statement once for each connection, because preparing it takes five times as long as running it. */
function holdOn(client: UsersClient): Statement {
  const statement = held.get(client) ?? client.prepare(hold)
  held.set(client, statement)
  return statement
}

/** Drizzle's database exposes its client. Drizzle's transaction has it only in its session, in all versions so far. */
function clientOf(transaction: unknown): UsersClient | undefined {
  return [transaction, property(transaction, '$client'), clientInside(transaction)].find(isClient)
}

function isClient(value: unknown): value is UsersClient {
  return (
    typeof property(value, 'prepare') === 'function' && typeof property(value, 'inTransaction') === 'boolean'
  )
}
