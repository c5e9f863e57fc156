/**
 * How a change is entered: for a session that is still alive, under the server that is on record.
 */
import { StoreError } from '../errors.js'
import type { Ahead, Change, Changed, OwnView, SessionKey, Store } from '../store.js'
import { isRecordOf, recordServer } from './server-record.js'

/** What a change returns to the node that made it, in addition to its result. */
export type ChangeOutcome<T> =
  /** The server is not the one on record. It has now been recorded, and nothing else was done. */
  | { readonly kind: 'new-server' }
  /** The session is gone, or has already made a later change. */
  | { readonly kind: 'no-session' }
  | {
      readonly kind: 'done'
      readonly result: T
      readonly view: OwnView | undefined
      /** Tokens up to this one may have been given. The database may forget it. */
      readonly tokenFloor: number
    }

/**
 * Runs one change for a session.
 *
 * A new server identity is recorded before anything else happens under it, by a change that does only that.
 * Acknowledged writes may be missing, so tokens leap ahead of all that may have been given.
 *
 * @param highestSeen the greatest token or floor this process has ever seen. The database may have lost it, and with
 *   it the record of more than one server.
 */
export async function runChange<T>(
  store: Store,
  session: SessionKey | undefined,
  highestSeen: number,
  work: (change: Change) => Promise<T>,
  ahead?: Ahead,
): Promise<ChangeOutcome<T>> {
  const inside = async (change: Change): Promise<ChangeOutcome<T>> => {
    // Whoever has seen a token, or made a change, knows that the namespace was in use: its rows have been wiped, and
    // with them the floor.
    if (change.meta.serverIdentity === '' && highestSeen === 0) {
      await change.saveMeta({ serverIdentity: change.serverIdentity, identitySettled: true })
    } else if (!isRecordOf(change.meta.serverIdentity, change.serverIdentity)) {
      await recordServer(change, highestSeen)
      return { kind: 'new-server' }
    }
    const joining = session !== undefined && session.operation === 1
    if (session !== undefined && !joining && change.session === undefined) return { kind: 'no-session' }
    const result = await work(change)
    const view = session === undefined ? undefined : await change.view(session.node, true)
    return { kind: 'done', result, view, tokenFloor: change.meta.tokenFloor }
  }
  const changed: Changed<ChangeOutcome<T>> = await store.change(session, inside, ahead)
  return changed.result
}

/** How many times in a row a new server may be found before there is a pause. */
export const mostServers = 3

/** Returns the error for an address that leads to several servers in turn. */
export function severalServers(): StoreError {
  return new StoreError(
    `Each of ${mostServers} attempts reached a different database server than the one before it. The address must ` +
      'lead to one server, the one that takes writes.',
    'none',
  )
}

/**
 * Runs a change without a session: for an operator, or on behalf of all nodes. When it finds a new server, it is
 * made again after that server has been recorded.
 *
 * @throws StoreError when the server was a new one each time. The address then leads to several servers in turn.
 *   Further attempts would go on recording each in turn, and raise the floor of the tokens each time.
 */
export async function changeWithoutSession<T>(
  store: Store,
  highestSeen: () => number,
  work: (change: Change) => Promise<T>,
): Promise<T> {
  for (let attempt = 1; attempt <= mostServers; attempt++) {
    const changed = await runChange(store, undefined, highestSeen(), work)
    if (changed.kind === 'done') return changed.result
  }
  throw severalServers()
}
