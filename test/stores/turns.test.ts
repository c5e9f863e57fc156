/** Tests turns: a caller that gives up leaves the line and holds up nobody. */
import t from 'tap'
import { Turns } from '../../plugin/stores/shared/turns.js'
import { rejectionOf } from '../../plugin/testing/conformance/world.js'

const never = Number.POSITIVE_INFINITY

t.test('turns are given one at a time, in the order they were asked for', async (t) => {
  const turns = new Turns()
  const order: string[] = []
  const takes = ['one', 'two', 'three'].map(async (name) => {
    const end = await turns.take(never)
    order.push(`${name} begins`)
    await Promise.resolve()
    order.push(`${name} ends`)
    end()
  })
  await Promise.all(takes)
  t.same(
    order,
    ['one', 'two', 'three'].flatMap((name) => [`${name} begins`, `${name} ends`]),
  )
})

t.test('a turn is not given to whoever has given up waiting for it', async (t) => {
  const turns = new Turns()
  const end = await turns.take(never)
  t.match(await rejectionOf(turns.take(performance.now())), { outcome: 'none' })
  const third = turns.take(never)
  end()
  const endThird = await third
  const fourth = turns.take(never)
  endThird()
  t.type(await fourth, 'function')
})
