/** Cases: a user's transaction commits only while its lease is still held, and nothing waits for it. */
import assert from 'node:assert/strict'
import { CoordinationError, FencedError, StoreError } from '../../core/errors.js'
import type { Claim, Store } from '../../core/store.js'
import type { ConformanceCase } from './harness.js'
import {
  commit,
  concurrentUsers,
  contents,
  found,
  gate,
  join,
  leaseOf,
  names,
  newLease,
  openChange,
  promise,
  rejectionOf,
  saveLeases,
  times,
  users,
  type World,
  within,
} from './world.js'

export const fenceCases: readonly ConformanceCase[] = [
  promise(
    'a fence holds for the holder with its token, and leaves the rows as they are',
    async (world) => {
      const store = await openHeld(world)
      const before = await contents(store)
      await fenced(world, store, claim)
      await commit(store, (change) => change.updateNode('a', { state: 'draining' }))
      await fenced(world, store, claim)
      const { leases } = await contents(store)
      assert.deepEqual(leases, before.leases)
    },
    users,
  ),

  promise(
    'a fence throws when holder or token differ, or there is no such lease',
    async (world) => {
      const store = await openHeld(world)
      await saveLeases(store, newLease('free', { target: 'a', token: 5 }))
      const before = await contents(store)
      const untrue: Claim[] = [
        { ...claim, node: 'b' },
        { ...claim, token: 4 },
        { ...claim, token: 6 },
        { ...claim, key: 'unknown' },
        { ...claim, key: 'L' },
        { ...claim, key: 'free' },
      ]
      for (const each of untrue) {
        const error = await rejectionOf(fenced(world, store, each))
        assert(
          error instanceof FencedError,
          `expected a FencedError for ${JSON.stringify(each)}, got ${error}`,
        )
        assert.deepEqual([error.code, error.lease, error.token], ['WCO_FENCED', each.key, each.token])
      }
      assert.deepEqual(await contents(store), before)
    },
    users,
  ),

  promise(
    'a fence throws when the lease has been released, taken over or deleted',
    async (world) => {
      const store = await openHeld(world)
      for (const row of [newLease('l', { token: 5 }), newLease('l', { holder: 'b', token: 6 })]) {
        await saveLeases(store, row)
        assert((await rejectionOf(fenced(world, store, claim))) instanceof FencedError)
      }
      await saveLeases(store, heldByA)
      await fenced(world, store, claim)
      await commit(store, (change) => change.deleteLeases(['l']))
      assert((await rejectionOf(fenced(world, store, claim))) instanceof FencedError)
    },
    users,
  ),

  promise(
    'a fence finds lease and node whatever they are called, and alters no statement',
    async (world) => {
      const store = await world.open()
      await join(store, names)
      await saveLeases(
        store,
        ...names.map((name, index) => newLease(name, { holder: name, token: index + 1 })),
      )
      const before = await contents(store)
      for (const [index, name] of names.entries()) {
        await fenced(world, store, { key: name, node: name, token: index + 1 })
        const other = { key: name, node: `${name}!`, token: index + 1 }
        assert((await rejectionOf(fenced(world, store, other))) instanceof FencedError)
      }
      assert.deepEqual(await contents(store), before)
    },
    users,
  ),

  promise(
    'a fence compares tokens of any size exactly',
    async (world) => {
      const store = await openHeld(world)
      for (const token of [2 ** 31, 2 ** 53 - 2]) {
        await saveLeases(store, newLease('l', { holder: 'a', token }))
        await fenced(world, store, { ...claim, token })
        assert(
          (await rejectionOf(fenced(world, store, { ...claim, token: token + 1 }))) instanceof FencedError,
        )
      }
    },
    users,
  ),

  promise(
    'a fence throws when its node is gone, though the lease still names it',
    async (world) => {
      const store = await openHeld(world)
      await commit(store, (change) => change.bury('a'))
      assert.equal((await leaseOf(store, 'l')).holder, 'a')
      assert((await rejectionOf(fenced(world, store, claim))) instanceof FencedError)
    },
    users,
  ),

  promise(
    'a fence throws when the lease is held in another namespace only',
    async (world) => {
      await openHeld(world)
      const other = await world.open({ namespace: `${world.namespace}-too` })
      assert((await rejectionOf(fenced(world, other, claim))) instanceof FencedError)
    },
    users,
  ),

  promise(
    'a fence refuses what is not an open transaction of this database',
    async (world) => {
      const store = await openHeld(world)
      const before = await contents(store)
      const refused = async (target: unknown): Promise<void> => {
        const error = await rejectionOf(fence(store, target, claim))
        assert(error instanceof CoordinationError, `expected a CoordinationError, got ${error}`)
        assert.equal(error.code, 'WCO_FENCE_TARGET')
      }
      for (const target of [undefined, null, 'transaction', 1, {}, [], () => undefined, store])
        await refused(target)
      await world.user.outsideTransaction(refused)
      assert.deepEqual(await contents(store), before)
    },
    users,
  ),

  promise(
    'a handle is refused once its transaction has ended',
    async (world) => {
      const store = await openHeld(world)
      let ended: unknown
      await world.user.transaction(async (handle) => {
        ended = handle
        await fence(store, handle, claim)
      })
      assert((await rejectionOf(fence(store, ended, claim))) instanceof Error)
    },
    users,
  ),

  promise(
    'nobody takes a lease over while a fence holds it, and after that it is free to take',
    async (world) => {
      const store = await openHeld(world)
      const rivals = await world.openMany(2)
      let attempts: Promise<Attempt>[] = []
      await world.user.transaction(async (handle) => {
        await fence(store, handle, claim)
        attempts = rivals.map((rival) => takeOver(rival))
        if (world.harness.capabilities.concurrentTransactions) {
          assert.deepEqual(await within(Promise.all(attempts), 'the rivals are answered'), [
            'fenced',
            'fenced',
          ])
        }
        assert.deepEqual(await heldBy(store), ['a', 5])
        await fence(store, handle, claim)
        assert.deepEqual(await heldBy(store), ['a', 5])
      })
      await within(Promise.all(attempts), 'the rivals are answered')
      await untilTaken(store)
      assert((await rejectionOf(fenced(world, store, claim))) instanceof FencedError)
    },
    users,
  ),

  promise(
    'a fence whose transaction is rolled back holds no longer than that',
    async (world) => {
      const store = await openHeld(world)
      const failure = new Error('of the user')
      const transaction = world.user.transaction(async (handle) => {
        await fence(store, handle, claim)
        throw failure
      })
      assert.equal(await rejectionOf(transaction), failure)
      await untilTaken(store)
    },
    users,
  ),

  promise(
    'a change does not wait for a fence, leaves its row alone, and finds it free after the commit',
    async (world) => {
      const store = await openHeld(world)
      const rival = await world.open()
      await saveLeases(store, newLease('m', { holder: 'a', token: 1 }))
      await world.user.transaction(async (handle) => {
        await fence(store, handle, claim)
        for (const each of [store, rival]) {
          const change = each.change({ node: 'b', operation: each === store ? 2 : 3 }, async (change) => {
            found(change.session)
            const leases = await change.leases({ nodes: ['a'] })
            assert.deepEqual(
              leases.map(({ key, fenced, holder, token }) => [key, fenced, holder, token]),
              [
                ['l', true, 'a', 5],
                ['m', false, 'a', each === store ? 1 : 2],
              ],
            )
            await change.saveLeases([newLease('m', { holder: 'a', token: each === store ? 2 : 3 })])
            await change.tell(new Set(['a']))
          })
          assert.equal((await within(change, 'the change is made')).committed, true)
        }
      })
      await store.change(undefined, async (change) => {
        assert.deepEqual(
          (await change.leases({ nodes: ['a'] })).map(({ key, fenced }) => [key, fenced]),
          [
            ['l', false],
            ['m', false],
          ],
        )
      })
    },
    concurrentUsers,
  ),

  promise(
    'every verb of every store ends in time while a fence holds a lease',
    async (world) => {
      const store = await openHeld(world)
      const hurried = await world.open({ statementTimeoutMs: 300 })
      await world.user.transaction(async (handle) => {
        await fence(store, handle, claim)
        const verbs = [
          hurried.heartbeat('a', 1),
          hurried.view('a'),
          hurried.look(),
          hurried.snapshot(),
          hurried.change({ node: 'b', operation: 2 }, (change) => change.leases({ keys: ['l'] })),
          hurried.prune({ eventsForMs: 0, events: 0, goneNodesForMs: 0 }),
          takeOver(hurried),
        ]
        for (const end of await within(Promise.allSettled<unknown>(verbs), 'all verbs have ended')) {
          if (end.status === 'rejected') assert(end.reason instanceof StoreError, `${end.reason}`)
        }
        assert.deepEqual(await heldBy(store), ['a', 5])
      })
      found(await hurried.heartbeat('a', 2))
    },
    users,
  ),

  promise(
    'heartbeats, reads and the burial of a holder do not wait for its fence',
    async (world) => {
      const store = await openHeld(world)
      await world.user.transaction(async (handle) => {
        await fence(store, handle, claim)
        found(await within(store.heartbeat('a', 1), 'the heartbeat is answered'))
        found(await within(store.view('a'), 'the view is read'))
        await within(Promise.all([store.look(), store.snapshot(), store.news('a')]), 'all is read')
        const { result } = await within(
          store.change(undefined, (change) => change.bury('a', 1)),
          'the holder is buried',
        )
        assert.equal(result, true)
      })
      assert.equal(await store.view('a'), undefined)
    },
    concurrentUsers,
  ),

  promise(
    'what a buried holder has fenced stays its own until the commit, and it gets no new fence',
    async (world) => {
      const store = await openHeld(world)
      await world.user.transaction(async (handle) => {
        await fence(store, handle, claim)
        await commit(store, (change) => change.bury('a'))
        assert.equal(await within(takeOver(store), 'the rival is answered'), 'fenced')
        assert.deepEqual(await heldBy(store), ['a', 5])
        assert((await rejectionOf(fenced(world, store, claim))) instanceof FencedError)
      })
      await untilTaken(store)
    },
    concurrentUsers,
  ),

  promise(
    'several transactions of one holder are fenced at once, and the lease is free after the last',
    async (world) => {
      const store = await openHeld(world)
      const last = gate()
      const entered = gate()
      const long = world.user.transaction(async (handle) => {
        await fence(store, handle, claim)
        entered.open()
        await last.opened
      })
      await within(Promise.race([entered.opened, long]), 'the first fence holds')
      await within(fenced(world, store, claim), 'the second fence holds')
      assert.equal(await takeOver(store), 'fenced')
      last.open()
      await long
      await untilTaken(store)
    },
    concurrentUsers,
  ),

  promise(
    'a fence that meets a take-over under way throws when that commits',
    async (world) => {
      const store = await openHeld(world)
      const takeover = await openChange(store, async (change) => {
        await change.leases({ keys: ['l'] })
        await change.saveLeases([newLease('l', { holder: 'b', token: 6 })])
      })
      const fencing = rejectionOf(fenced(world, store, claim))
      await takeover.end()
      assert((await within(fencing, 'the fence is answered')) instanceof FencedError)
    },
    concurrentUsers,
  ),

  promise(
    'a fence that meets a take-over under way holds when that is undone',
    async (world) => {
      const store = await openHeld(world)
      const takeover = await openChange(store, async (change) => {
        await change.leases({ keys: ['l'] })
        await change.saveLeases([newLease('l', { holder: 'b', token: 6 })])
      })
      const fencing = fenced(world, store, claim)
      await takeover.end(new Error('undone'))
      await within(fencing, 'the fence holds')
    },
    concurrentUsers,
  ),

  promise(
    'fences and take-overs that race never both have the lease',
    async (world) => {
      const store = await openHeld(world)
      const rival = await world.open()
      await times(20, async (round) => {
        await saveLeases(store, heldByA)
        let seen: unknown
        const transaction = world.user.transaction(async (handle) => {
          await fence(store, handle, claim)
          seen = await heldBy(rival)
        })
        const taking = round % 2 ? takeOver(rival) : Promise.resolve().then(() => takeOver(rival))
        const [error] = await within(Promise.all([rejectionOf(transaction), taking]), 'both have ended')
        if (error === undefined) assert.deepEqual(seen, ['a', 5])
        else if (world.harness.capabilities.concurrentTransactions) assert(error instanceof FencedError)
      })
    },
    users,
  ),
]

const heldByA = newLease('l', { holder: 'a', target: 'a', token: 5 })
const claim: Claim = { key: 'l', node: 'a', token: 5 }

/** Opens a store in whose namespace node `a` holds lease `l` with token 5, and node `b` stands by. */
async function openHeld(world: World): Promise<Store> {
  const store = await world.open()
  await join(store, ['a', 'b'])
  await saveLeases(store, heldByA)
  return store
}

/** Awaits the fence, whether the store is synchronous or not. */
async function fence(store: Store, handle: unknown, claimed: Claim): Promise<void> {
  await store.fence(handle, claimed)
}

/** Runs a user's whole transaction that does nothing but fence. */
async function fenced(world: World, store: Store, claimed: Claim): Promise<void> {
  await world.user.transaction((handle) => fence(store, handle, claimed))
}

type Attempt = 'taken' | 'fenced' | 'too late'

/** Makes `b` the holder, unless the row is fenced, or the database has one writer and that writer is the user. */
async function takeOver(store: Store): Promise<Attempt> {
  try {
    const { result } = await store.change(undefined, async (change) => {
      const lease = found((await change.leases({ keys: ['l'] }))[0])
      if (lease.fenced) return 'fenced'
      await change.saveLeases([{ ...lease, holder: 'b', token: lease.token + 1 }])
      return 'taken'
    })
    return result
  } catch (error) {
    if (error instanceof StoreError) return 'too late'
    throw error
  }
}

/** Retries, because a transaction may hold its rows for a moment after its end has been reported. */
async function untilTaken(store: Store): Promise<void> {
  for (let attempt = 1; attempt <= 100; attempt += 1) if ((await takeOver(store)) === 'taken') return
  assert.fail('the lease is never free to take')
}

async function heldBy(store: Store): Promise<unknown> {
  const { holder, token } = await leaseOf(store, 'l')
  return [holder, token]
}
