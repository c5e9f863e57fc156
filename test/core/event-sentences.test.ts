/** Tests the sentences of the audit trail. */
import t from 'tap'
import { eventSentence, eventTypes } from '../../plugin/core/reports/event-sentences.js'
import type { EventRow } from '../../plugin/core/store.js'

const names: Readonly<Record<string, string>> = { a: 'node-1', b: 'node-2' }

function told(type: string, more: Partial<EventRow> = {}): string {
  const row = { revision: 1, position: 0, atMs: 0, subject: 'global/x', node: 'a', token: 7 }
  return eventSentence(
    { ...row, type, actor: null, reason: null, detail: null, ...more },
    (id) => names[id] ?? null,
  )
}

t.test('everything that the engine writes has a sentence of its own', async (t) => {
  for (const type of eventTypes) {
    t.match(told(type), /^[A-Za-z].*\.$/, type)
    t.notMatch(told(type, { detail: { count: 1, generation: 2, moves: 3 } }), type, 'it is not only its type')
  }
})

t.test('a sentence names who is meant, and counts', async (t) => {
  t.equal(told('lease.acquired'), 'node-1 holds it, with token 7.')
  t.equal(told('lease.released', { reason: 'closing' }), 'node-1 gave it back.')
  t.equal(told('lease.released', { reason: 'passes-failed' }), 'node-1 gave it back: its passes failed.')
  t.equal(told('lease.transferred', { detail: { to: 'b' } }), 'node-1 was asked to hand over to node-2.')
  t.equal(told('lease.transferred', { detail: { to: null } }), 'node-1 was asked to hand over.')
  t.equal(told('node.gone', { actor: 'orders-api-2' }), 'node-1 is gone, as orders-api-2 found.')
  t.equal(told('assignment.changed', { detail: { moved: 1 } }), 'There is a new plan: 1 partition to move.')
  t.equal(told('assignment.changed', { detail: { generation: 3, count: 2 } }), 'Plan 3 has 2 shares.')
  t.equal(told('worker.rebalanced', { detail: { moves: 6 } }), 'It was planned afresh: 6 leases to move.')
})

t.test(
  'who is not known any more is told by the beginning of the id, and what is not known as it is',
  async (t) => {
    t.equal(told('node.left', { node: '4d2c1c3e-0c5e-4ab2' }), '4d2c1c3e left of its own accord.')
    t.equal(told('node.left', { node: null }), 'A node left of its own accord.')
    t.equal(told('moon.risen'), 'moon.risen.')
    t.equal(told('constructor'), 'constructor.')
  },
)
