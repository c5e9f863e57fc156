/** Tests the log that passes receive: it is called like pino, and every line has the fields of its lease. */
import Fastify from 'fastify'
import t from 'tap'
import { type Log, type PassLog, silentLog, withFields } from '../../plugin/core/log.js'
import { deferred } from '../../plugin/core/time/loop.js'
import type { SingleContext } from '../../plugin/core/work/worker.js'
import { World } from '../support/world.js'
import { failing } from '../support/wrapped-store.js'

const boom = new Error('boom')

/** The ways to call a log that users know from pino, one call each. */
const calls: Readonly<Record<string, (log: PassLog) => void>> = {
  'fields and a text': (log) => log.info({ a: 1 }, 'text'),
  'fields and a text with placeholders': (log) => log.info({ a: 1 }, 'x %s %d', 'y', 2),
  'a text': (log) => log.info('hello world'),
  'a text with placeholders': (log) => log.warn('x %s %s', 'y', 'z'),
  'a placeholder for what is undefined': (log) => log.info('x %s %s', undefined, 'z'),
  'a text with a percent sign': (log) => log.info('100 %'),
  'an error': (log) => log.error(boom),
  'an error and a text': (log) => log.error(boom, 'failed'),
  'an error and a text with placeholders': (log) => log.error(boom, 'failed %s', 'twice'),
  'an error that was caught': (log) => log.error(boom as unknown, 'failed'),
  'an error among fields': (log) => log.error({ err: boom, a: 1 }),
  'an error among fields, and a text': (log) => log.error({ err: boom }, 'failed'),
  'nothing and a text': (log) => log.info(undefined, 'text'),
  'null and a text': (log) => log.info(null, 'text'),
}

/** Returns a logger of Fastify, which is a pino logger, and the lines it has written. */
function pino() {
  const lines: Record<string, unknown>[] = []
  const stream = { write: (line: string) => void lines.push(JSON.parse(line)) }
  return { log: Fastify({ logger: { level: 'debug', stream } }).log, lines }
}

t.test("every call writes what pino's own child would have written", async (t) => {
  for (const [name, call] of Object.entries(calls)) {
    const { log, lines } = pino()
    const fields = { lease: 'global/w', token: 7 }
    call(withFields(withFields(log, { node: 'n1' }), fields))
    call(log.child({ node: 'n1', ...fields }))
    const [ours, theirs] = lines.map(({ time, ...line }) => line)
    t.strictSame(ours, theirs, name)
  }
})

t.test('a log that is not pino is given fields, a text, and what placeholders stand for', async (t) => {
  const given: unknown[][] = []
  const note = (...args: unknown[]) => void given.push(args)
  const log: Log = { debug: note, info: note, warn: note, error: note }
  const own = withFields(log, { lease: 'w' })
  for (const call of Object.values(calls)) call(own)
  own.debug({ a: 1 })
  t.strictSame(given, [
    [{ lease: 'w', a: 1 }, 'text'],
    [{ lease: 'w', a: 1 }, 'x %s %d', 'y', 2],
    [{ lease: 'w' }, 'hello world'],
    [{ lease: 'w' }, 'x %s %s', 'y', 'z'],
    [{ lease: 'w' }, 'x %s %s', undefined, 'z'],
    [{ lease: 'w' }, '100 %'],
    [{ lease: 'w', err: boom }, 'boom'],
    [{ lease: 'w', err: boom }, 'failed'],
    [{ lease: 'w', err: boom }, 'failed %s', 'twice'],
    [{ lease: 'w', err: boom }, 'failed'],
    [{ lease: 'w', err: boom, a: 1 }, 'boom'],
    [{ lease: 'w', err: boom }, 'failed'],
    [{ lease: 'w' }, 'text'],
    [{ lease: 'w' }, 'text'],
    [{ lease: 'w', a: 1 }, ''],
  ])
})

t.test('a log that throws harms nobody, and gets the line without what it choked on', async (t) => {
  const lines: string[] = []
  // As people write it: it throws for a big integer, and for what contains itself.
  const note = (fields: object, message: string): void =>
    void lines.push(JSON.stringify({ ...fields, message }))
  const own = withFields({ debug: note, info: note, warn: note, error: note }, { lease: 'w', token: 7 })
  own.error({ err: { rows: 10n } }, 'pass failed')
  t.match(lines, [/"lease":"w","token":7,.*"message":"pass failed"/])
  const closed = (): never => {
    throw new Error('the log is closed')
  }
  const rejected = (): Promise<never> => Promise.reject(new Error('the log is closed'))
  let lastLine = ''
  const thrownThenRejected = (_: object, line: string): Promise<never> => {
    if (line === lastLine) return rejected()
    lastLine = line
    return closed()
  }
  for (const end of [closed, rejected, thrownThenRejected]) {
    const broken = withFields({ debug: end, info: end, warn: end, error: end }, {})
    for (const call of Object.values(calls)) t.doesNotThrow(() => call(broken))
  }
})

t.test('work goes on after an error that pino cannot write', async (t) => {
  const { log, lines } = pino()
  const world = new World(t)
  const a = await world.node('a', { log: log as Log })
  class Unreadable extends Error {
    constructor() {
      super('unreadable')
      const get = (): never => {
        throw new Error('the body has been read already')
      }
      Object.defineProperty(this, 'body', { enumerable: true, get })
    }
  }
  let passes = 0
  a.coordinator.worker({
    name: 'report',
    kind: 'single',
    scope: 'global',
    run: () => {
      passes += 1
      if (passes === 1) throw new Unreadable()
    },
  })
  await world.start(a)
  await world.advance(5_000)
  t.ok(passes > 1, `${passes} passes`)
  t.ok(
    lines.some(({ msg }) => msg === 'pass failed'),
    'and the log tells of it',
  )
})

t.test('a pass may log an error alone, and the line says which lease it was', async (t) => {
  const told = deferred<readonly unknown[]>()
  const error = (...args: unknown[]) => told.resolve(args)
  const world = new World(t)
  const a = await world.node('a', { log: { ...silentLog, error } })
  a.coordinator.worker({
    name: 'report',
    kind: 'single',
    scope: 'global',
    everyMs: 60_000,
    run: ({ log }) => log.error(boom),
  })
  await world.start(a)
  await world.advance(1_000)
  t.match(await told.promise, [{ node: 'a', lease: 'global/report', token: Number, err: boom }, 'boom'])
})

t.test('a log that throws at each line does not disturb the node', async (t) => {
  const world = new World(t)
  const broken = (): never => {
    throw new Error('the log is closed')
  }
  const log: Log = { debug: broken, info: broken, warn: broken, error: broken }
  const outage = { on: false }
  const [a, b] = [await world.node('a', { log, wrap: failing(outage) }), await world.node('b')]
  const terms: SingleContext[] = []
  let passes = 0
  a.coordinator.worker({
    name: 'report',
    kind: 'single',
    scope: 'global',
    run: (context: SingleContext) => {
      passes += 1
      if (passes === 1) throw new Error('boom')
      if (terms.at(-1)?.lease !== context.lease) terms.push(context)
      return new Promise<void>((resolve) => {
        context.signal.addEventListener('abort', () => resolve())
      })
    },
  })
  await world.start(a, b)
  await world.advance(3_000)
  t.equal(terms.length, 1, 'work goes on after a pass that failed')
  outage.on = true
  await world.advance(world.timing.ttlMs - 100, 100)
  t.ok(terms[0]?.signal.aborted, 'its signal aborts when trust ends')
  outage.on = false
  await world.advance(world.timing.ttlMs * 2, 100)
  t.equal(terms[0]?.lease.held, false, 'that term has ended for good')
  t.equal(terms.length, 2, 'and another has begun')
  world.freeze(a)
  await world.advance(world.timing.ttlMs * 2, 500)
  world.thaw(a)
  await world.advance(world.timing.ttlMs * 2, 500)
  t.ok(a.history.includes('session.lost'))
  t.equal(terms.length, 3, 'a node whose session was lost joins again')
  t.ok(a.coordinator.isHeld('report'))
})
