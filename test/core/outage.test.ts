/** Tests what counts as a failure of the database and what does not. */
import t from 'tap'
import { StoreError } from '../../plugin/core/errors.js'
import { Events } from '../../plugin/core/events.js'
import { silentLog } from '../../plugin/core/log.js'
import { Outage } from '../../plugin/core/outage.js'
import { systemClock } from '../../plugin/core/time/clock.js'

t.test('only what the database has failed at is told as its failure; the rest is for the log', async (t) => {
  const lines: string[] = []
  const told: unknown[] = []
  const events = new Events(() => undefined)
  events.on('store.failed', ({ error }) => void told.push(error))
  const log = { ...silentLog, error: (_fields: object, message: string) => void lines.push(message) }
  const outage = new Outage({ heartbeatMs: 1_000 }, systemClock, log, events)
  outage.failed(new RangeError('too large a token'), 'turn')
  t.same(told, [])
  t.same(lines, ['a turn failed'])
  t.equal(outage.error, undefined)
  const error = new StoreError('The database is away.', 'none')
  outage.failed(error, 'turn')
  t.same(told, [error])
  t.same(lines, ['a turn failed'])
  t.equal(outage.error, error)
})
