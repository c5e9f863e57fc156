/** Tests lists that are returned page by page. */
import t from 'tap'
import { pageOf } from '../../plugin/http/paging.js'

t.test('the last page names no next one, also when it is exactly full', async (t) => {
  const page = (limit: number, cursor?: string) =>
    pageOf(
      ['a', 'b', 'c', 'd'],
      (item) => item,
      'letters',
      cursor === undefined ? { limit } : { limit, cursor },
    )
  const first = page(2)
  t.same(first.items, ['a', 'b'])
  const last = page(2, first.next ?? '')
  t.same(last, { items: ['c', 'd'], next: null, total: 4 })
  t.equal(page(4).next, null)
  t.equal(page(5).next, null)
})
