/** Tests that what goes through a link arrives as it was sent. */
import t from 'tap'
import type { Store } from '../../plugin/core/store.js'
import { Link } from '../../plugin/testing/link.js'

t.test('a change goes through a link with all that is said of it', async (t) => {
  const given: unknown[] = []
  const change = async (...args: unknown[]) => {
    given.push(...args)
    return { result: 'done', committed: true }
  }
  const link = new Link({ change } as unknown as Store)
  const session = { node: 'a', operation: 2 }
  const work = async (): Promise<string> => 'done'
  const ahead = { leases: { keys: ['l'] }, nodes: true }
  t.same(await link.change(session, work, ahead), { result: 'done', committed: true })
  t.strictSame(given, [session, work, ahead])
})
