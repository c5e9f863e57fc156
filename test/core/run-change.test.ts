/** Tests changes without a session that are made while the database becomes another server. */
import t from 'tap'
import { changeWithoutSession, runChange } from '../../plugin/core/changes/run-change.js'
import { StoreError } from '../../plugin/core/errors.js'
import { Operator } from '../../plugin/core/operator.js'
import { commit, metaOf, newWorker, rejectionOf } from '../../plugin/testing/conformance/world.js'
import { MemoryDatabase } from '../../plugin/testing/memory-store.js'

/** Returns a store on a database whose identity is what `identity` returns. */
async function storeOf(identity: () => string) {
  const store = new MemoryDatabase({ identity }).open({ namespace: 'default', statementTimeoutMs: 30_000 })
  await runChange(store, undefined, 0, (change) => change.saveWorkers([newWorker('w')]))
  return store
}

t.test(
  'under a new server a change without a session is made once more, when that is recorded',
  async (t) => {
    let server = 'one'
    const store = await storeOf(() => server)
    server = 'two'
    let done = 0
    const result = await changeWithoutSession(
      store,
      () => 0,
      async (change) => {
        done += 1
        await change.saveMeta({ longestTtlMs: 7 })
        return change.serverIdentity
      },
    )
    t.equal(result, 'two')
    t.equal(done, 1)
    t.match(await metaOf(store), { serverIdentity: 'two', longestTtlMs: 7 })
  },
)

t.test('behind an address of two servers an order is given up, and not tried for ever', async (t) => {
  let changes = 0
  let alternates = false
  const store = await storeOf(() => {
    if (!alternates) return 'one'
    changes += 1
    if (changes > 50) throw new RangeError('it is tried for ever')
    return changes % 2 === 1 ? 'two' : 'one'
  })
  alternates = true
  const floorBefore = (await metaOf(store)).tokenFloor
  changes = 0
  const operator = new Operator(
    () => store,
    () => 0,
  )
  const refused = await rejectionOf(operator.pause('w', { actor: 'ops', reason: 'a good one' }))
  t.type(refused, StoreError)
  t.match(refused, { outcome: 'none', message: /a different database server/ })
  t.equal(changes, 3)
  alternates = false
  t.ok((await metaOf(store)).tokenFloor > floorBefore)
  await commit(store, (change) => change.saveMeta({ longestTtlMs: 1 }))
})
