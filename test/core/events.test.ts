/**
 * Tests that listeners cannot break the code that emits an event, and that their errors are reported under its name.
 */
import { AsyncLocalStorage } from 'node:async_hooks'
import t from 'tap'
import { Events } from '../../plugin/core/events.js'

/** Returns events, and what was reported about their listeners. */
function useEvents() {
  const reported: string[] = []
  const events = new Events((error, name) => void reported.push(`${name}: ${String(error)}`))
  return { events, reported }
}

t.test('what throws is reported by the name of the event, and the others hear it all the same', async (t) => {
  const { events, reported } = useEvents()
  const heard: string[] = []
  events.on('node.joined', () => {
    throw new Error('no')
  })
  events.on('node.joined', ({ node }) => void heard.push(node))
  events.emit('node.joined', { node: 'n1' })
  t.strictSame(reported, ['node.joined: Error: no'])
  t.strictSame(heard, ['n1'])
})

t.test('one listener of several events is told of, and taken away from, each by itself', async (t) => {
  const { events, reported } = useEvents()
  const listener = ({ node }: { readonly node: string }): void => {
    throw node
  }
  events.on('node.joined', listener)
  events.on('node.left', listener)
  events.once('node.gone', listener)
  events.emit('node.joined', { node: 'n1' })
  events.emit('node.left', { node: 'n2' })
  events.emit('node.gone', { node: 'n3' })
  events.emit('node.gone', { node: 'n4' })
  t.strictSame(reported, ['node.joined: n1', 'node.left: n2', 'node.gone: n3'])
  events.off('node.joined', listener)
  events.emit('node.joined', { node: 'n5' })
  events.emit('node.left', { node: 'n6' })
  t.strictSame(reported.slice(3), ['node.left: n6'])
  events.off('node.left', listener)
  events.off('node.gone', listener)
  events.emit('node.left', { node: 'n7' })
  t.equal(reported.length, 4)
})

t.test('a promise that a listener answers may reject', async (t) => {
  const { events, reported } = useEvents()
  const listener = async ({ node }: { readonly node: string }): Promise<void> => {
    throw node
  }
  events.on('node.joined', listener)
  events.on('node.left', listener)
  events.emit('node.joined', { node: 'n1' })
  events.emit('node.left', { node: 'n2' })
  await Promise.resolve()
  await Promise.resolve()
  t.strictSame(reported, ['node.joined: n1', 'node.left: n2'])
})

t.test('a listener that is registered anew runs in the context of that registration', async (t) => {
  const { events } = useEvents()
  const context = new AsyncLocalStorage<string>()
  const seen: (string | undefined)[] = []
  const listener = (): void => void seen.push(context.getStore())
  context.run('first', () => events.on('node.left', listener))
  events.off('node.left', listener)
  context.run('second', () => events.once('node.left', listener))
  events.emit('node.left', { node: 'n1' })
  context.run('third', () => events.on('node.left', listener))
  events.emit('node.left', { node: 'n1' })
  t.strictSame(seen, ['second', 'third'])
  events.on('node.left', listener)
  events.off('node.left', listener)
  events.off('node.left', listener)
  events.emit('node.left', { node: 'n1' })
  t.equal(seen.length, 2, 'each registration can be taken back')
})

t.test('what a listener brings about is told of when all have heard what came first', async (t) => {
  const { events } = useEvents()
  const heard: string[] = []
  const lease = { key: 'global/report', token: 7, worker: 'global/report' }
  events.on('lease.acquired', () => events.emit('lease.ended', { ...lease, reason: 'stopped' }))
  events.on('lease.acquired', () => void heard.push('acquired'))
  events.on('lease.ended', () => events.emit('lease.released', lease))
  events.on('lease.ended', () => void heard.push('ended'))
  events.on('lease.released', () => void heard.push('released'))
  events.emit('lease.acquired', { ...lease, namedForMs: null, previousToken: null })
  t.strictSame(heard, ['acquired', 'ended', 'released'])
  events.emit('lease.released', lease)
  t.strictSame(heard.slice(3), ['released'])
})
