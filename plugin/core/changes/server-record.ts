/**
 * What is recorded of the database server: which one it is, whether it may have forgotten who holds what, and whether a
 * node has waited until that no longer matters.
 *
 * The record of a server is its identity. Where rows turn out to have been deleted by hand, one or all, nothing else about
 * the server has changed, so the number and the time of the change that found it are added: each doubt is a record of its
 * own, which is waited out by itself. The number alone would not do: where all rows are deleted, it begins anew.
 */
import type { Change } from '../store.js'
import { raisedFloor } from './token.js'

/** Whether the server with this identity is the one on record, doubted or not. */
export function isRecordOf(record: string, identity: string): boolean {
  return record === identity || record.startsWith(`${identity}#`)
}

/**
 * Records a server that is not the one on record.
 *
 * @param highestSeen see {@link runChange}.
 */
export async function recordServer(change: Change, highestSeen: number): Promise<void> {
  const { serverIdentity: from } = change.meta
  const to = change.serverIdentity
  await unsettle(change, from === '', highestSeen)
  await change.record([{ type: 'server.changed', subject: 'database', detail: { from, to } }])
}

/** Doubts the server, because somebody has deleted rows: whoever held what they were of may not know yet. */
export async function doubtServer(change: Change): Promise<void> {
  await unsettle(change, true, 0)
}

/**
 * Records that one node has waited out the grace period, so that the others need not. This applies only to the record
 * for which the node waited: there may be another by now, for which no node has waited.
 */
export async function settleServer(change: Change, waitedFor: string): Promise<void> {
  if (change.meta.identitySettled || change.meta.serverIdentity !== waitedFor) return
  await change.saveMeta({ identitySettled: true })
  await tellEverybody(change)
}

/**
 * Reports the greatest token that a node saw under earlier servers, so that tokens leap above it as well. After
 * several failovers in a row, the last server may have forgotten how far tokens had leapt. Returns the identity of
 * the server under which it was reported.
 */
export async function sayTokens(change: Change, highestSeen: number): Promise<string> {
  const { tokenFloor } = change.meta
  const highestToken = await change.highestToken()
  if (highestSeen > Math.max(tokenFloor, highestToken))
    await change.saveMeta({ tokenFloor: raisedFloor(tokenFloor, highestToken, highestSeen, change.nowMs) })
  return change.serverIdentity
}

/** From this change on nobody claims until a node has waited for a grace period, and all nodes hear of it. */
async function unsettle(change: Change, isDoubt: boolean, highestSeen: number): Promise<void> {
  const { meta, nowMs, revision, serverIdentity } = change
  const tokenFloor = raisedFloor(meta.tokenFloor, await change.highestToken(), highestSeen, nowMs)
  const record = isDoubt ? `${serverIdentity}#${revision}@${nowMs}` : serverIdentity
  await change.saveMeta({
    serverIdentity: record,
    identitySettled: false,
    tokenFloor,
  })
  await tellEverybody(change)
}

async function tellEverybody(change: Change): Promise<void> {
  await change.tell(new Set((await change.nodes()).map((node) => node.id)))
}
