/**
 * Sentences for people about the events of the audit trail. Who asked for an event, and why, is shown beside them.
 * Pure.
 */
import type { EventRow } from '../store.js'

/** The parts from which sentences are made. */
interface Words {
  /** The node it happened on or to. */
  readonly node: string
  readonly token: number | null
  /** The name of the node that noticed it, or the id of a person. */
  readonly actor: string | null
  readonly reason: string | null
  readonly detail: NonNullable<EventRow['detail']>
  /** The node that should hold it next. */
  readonly to: string | null
}

const sentences = new Map<string, (words: Words) => string>([
  ['lease.acquired', ({ node, token }) => `${node} holds it, with token ${token}.`],
  ['lease.released', ({ node, reason }) => `${node} ${givenBack(reason)}.`],
  ['lease.revoked', ({ node }) => `It was taken away from ${node}.`],
  ['lease.acknowledged', ({ node }) => `${node} has said that it stopped.`],
  ['lease.lost', ({ node }) => `${node} held it and is gone.`],
  ['lease.transferred', ({ node, to }) => `${node} was asked to hand over${to === null ? '' : ` to ${to}`}.`],
  ['node.joined', ({ node }) => `${node} joined.`],
  ['node.left', ({ node }) => `${node} left of its own accord.`],
  ['node.gone', ({ node, actor }) => `${node} is gone${actor === null ? '' : `, as ${actor} found`}.`],
  ['node.draining', ({ node }) => `${node} hands everything over.`],
  ['node.resumed', ({ node }) => `${node} takes work again.`],
  ['node.forgotten', ({ node }) => `${node} was removed from the list.`],
  ['worker.paused', () => 'Nobody runs it any more.'],
  ['worker.resumed', () => 'Nodes may run it again.'],
  ['worker.forgotten', () => 'It was removed from the list.'],
  [
    'worker.rebalanced',
    ({ detail: { moves } }) => `It was planned afresh: ${counted(moves, 'lease')} to move.`,
  ],
  [
    'assignment.changed',
    ({ detail: { moved, generation, count } }) =>
      moved === undefined
        ? `Plan ${generation} has ${counted(count, 'share')}.`
        : `There is a new plan: ${counted(moved, 'partition')} to move.`,
  ],
  ['target.passed-over', ({ node }) => `${node} did not claim it in time.`],
  ['cooldown.shortened', () => 'Its cool-down lay too far ahead, as after a jump of the clock, and was cut.'],
  ['rows.missed', () => 'Somebody had deleted rows of it.'],
  ['server.changed', () => 'It is another server than before, or was restarted or restored.'],
])

/** All types of events that the engine writes. */
export const eventTypes: readonly string[] = [...sentences.keys()]

/**
 * Returns one sentence about an event, in which its subject is "it".
 *
 * @param nameOf returns null for a node that is no longer known; the sentence then has the beginning of its id.
 */
export function eventSentence(
  { type, node, token, actor, reason, detail }: EventRow,
  nameOf: (id: string) => string | null,
): string {
  const named = (id: string): string => nameOf(id) ?? id.slice(0, 8)
  const to = detail?.to
  const sentence = sentences.get(type) ?? (() => `${type}.`)
  return sentence({
    node: node === null ? 'A node' : named(node),
    token,
    actor,
    reason,
    detail: detail ?? {},
    to: typeof to === 'string' ? named(to) : null,
  })
}

/** Says that a holder gave a lease back of its own accord, and why where that is a fault of its own. */
export function givenBack(reason: string | null): string {
  return reason === 'passes-failed' ? 'gave it back: its passes failed' : 'gave it back'
}

function counted(count: unknown, what: string): string {
  return `${count} ${what}${count === 1 ? '' : 's'}`
}
