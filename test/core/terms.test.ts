import t from 'tap'
import { type Term, termEvents, termsOf } from '../../plugin/core/reports/terms.js'
import type { EventRow } from '../../plugin/core/store.js'
import { World } from '../support/world.js'

const key = 'global/month-close'

t.test('terms are told by what the audit trail has left of them', async (t) => {
  const table: Readonly<Record<string, readonly [events: readonly EventRow[], terms: readonly Term[]]>> = {
    'nothing is known': [[], []],
    'it lasts': [
      [event(1, 'acquired', { token: 7 })],
      [{ holder: 'a', token: 7, fromMs: 1_000, toMs: null, ended: null }],
    ],
    'it was given back': [
      [event(1, 'acquired', { token: 7 }), event(4, 'released', { token: 7, reason: 'stepped-down' })],
      [term(7, 1, 4, { how: 'released', reason: 'stepped-down' })],
    ],
    'it was given back because somebody asked': [
      [
        event(1, 'acquired', { token: 7 }),
        event(3, 'transferred', { token: 7, actor: 'ops', reason: 'to the new rack' }),
        event(4, 'released', { token: 7, reason: 'reassigned' }),
      ],
      [term(7, 1, 4, { how: 'released', reason: 'to the new rack', actor: 'ops' })],
    ],
    'it was asked for, and goes on': [
      [event(1, 'acquired', { token: 7 }), event(3, 'transferred', { token: 7, actor: 'ops', reason: 'x' })],
      [{ holder: 'a', token: 7, fromMs: 1_000, toMs: null, ended: null }],
    ],
    'it was taken away, and acknowledged later': [
      [
        event(1, 'acquired', { token: 7 }),
        event(2, 'revoked', { token: 7, actor: 'ops', reason: 'stuck' }),
        event(3, 'acknowledged', { token: 7 }),
      ],
      [term(7, 1, 2, { how: 'revoked', reason: 'stuck', actor: 'ops', acknowledged: true })],
    ],
    'it was taken away, and its holder never said that it has stopped': [
      [
        event(1, 'acquired', { token: 7 }),
        event(2, 'revoked', { token: 7, actor: 'ops', reason: 'stuck' }),
        event(3, 'acquired', { token: 9, node: 'b' }),
        event(4, 'revoked', { token: 9, node: 'b', actor: 'ops', reason: 'stuck too' }),
        event(5, 'acknowledged', { token: 9, node: 'b' }),
      ],
      [
        {
          ...term(9, 3, 4, { how: 'revoked', reason: 'stuck too', actor: 'ops', acknowledged: true }),
          holder: 'b',
        },
        term(7, 1, 2, { how: 'revoked', reason: 'stuck', actor: 'ops', acknowledged: false }),
      ],
    ],
    'of a term only the last word is left': [[event(3, 'acknowledged', { token: 7 })], []],
    'its holder was gone': [
      [event(1, 'acquired', { token: 7 }), event(2, 'lost', { token: 7 })],
      [term(7, 1, 2, { how: 'lost' })],
    ],
    'its beginning has been cleared away': [
      [event(4, 'released', { token: 7, reason: 'closing' })],
      [{ ...term(7, 1, 4, { how: 'released', reason: 'closing' }), fromMs: null }],
    ],
    'its end was never written, or has been cleared away': [
      [event(1, 'acquired', { token: 7 }), event(6, 'acquired', { token: 9, node: 'b' })],
      [
        { holder: 'b', token: 9, fromMs: 6_000, toMs: null, ended: null },
        {
          holder: 'a',
          token: 7,
          fromMs: 1_000,
          toMs: null,
          ended: { how: 'unknown', reason: null, actor: null, acknowledged: null },
        },
      ],
    ],
    'one ends and the next begins in one change': [
      [
        event(1, 'acquired', { token: 7 }),
        event(2, 'lost', { token: 7, position: 0 }),
        event(2, 'acquired', { token: 8, node: 'b', position: 1 }),
      ],
      [{ holder: 'b', token: 8, fromMs: 2_000, toMs: null, ended: null }, term(7, 1, 2, { how: 'lost' })],
    ],
    'other things happened too': [
      [{ ...event(1, 'acquired', { token: 7 }), type: 'target.passed-over' }, event(2, 'fenced', {})],
      [],
    ],
  }
  for (const [name, [events, terms]] of Object.entries(table)) {
    t.strictSame(termsOf(events), terms, name)
    t.strictSame(termsOf([...events].reverse()), terms, `${name}, newest first`)
  }
})

t.test('the terms of a real lease are those its holders had', async (t) => {
  const world = new World(t)
  const nodes = [await world.node('a'), await world.node('b')] as const
  for (const { coordinator } of nodes) {
    coordinator.worker({
      name: 'month-close',
      kind: 'single',
      scope: 'global',
      cooldownMs: 0,
      run: ({ signal }) =>
        new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true })),
    })
  }
  await world.start(...nodes)
  await world.advance(1_000)
  const { operator } = nodes[0].coordinator
  const by = { actor: 'ops', reason: 'a good one' }
  const latest = async (): Promise<Term[]> =>
    termsOf(await operator.events({ subject: key, types: termEvents, limit: 100 }))
  const order = async () => ({ key, token: (await latest())[0]?.token ?? 0, cooldownMs: 0, ...by })

  await operator.transfer(await order())
  await world.advance(1_000)
  await operator.release(await order())
  await world.advance(1_000)
  const holder = nodes.find(({ coordinator }) => coordinator.isHeld(key))
  if (holder === undefined) throw new Error('nobody holds it')
  world.freeze(holder)
  await world.advance(20_000)

  const terms = await latest()
  t.match(terms, [
    { ended: null, toMs: null, fromMs: Number },
    { holder: holder.coordinator.nodeId, ended: { how: 'lost' } },
    { ended: { how: 'revoked', ...by, acknowledged: true } },
    { ended: { how: 'released', ...by } },
  ])
  for (const [at, { fromMs, token }] of terms.slice(0, -1).entries()) {
    t.ok(token > (terms[at + 1]?.token ?? 0))
    t.ok((fromMs ?? 0) >= (terms[at + 1]?.toMs ?? 0))
  }
})

function event(second: number, what: string, more: Partial<EventRow>): EventRow {
  return {
    revision: second,
    position: 0,
    atMs: second * 1_000,
    type: `lease.${what}`,
    subject: key,
    node: 'a',
    token: null,
    actor: null,
    reason: null,
    detail: null,
    ...more,
  }
}

function term(token: number, from: number, to: number, ended: Partial<Term['ended']>): Term {
  return {
    holder: 'a',
    token,
    fromMs: from * 1_000,
    toMs: to * 1_000,
    ended: { how: 'unknown', reason: null, actor: null, acknowledged: null, ...ended },
  }
}
