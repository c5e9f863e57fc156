/** Tests the real clocks of the machine. */
import { platform, uptime } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { bootMs, systemClock } from '../../plugin/core/time/clock.js'

t.test(
  'the boot-time clock is the one of the system, and goes on',
  { skip: platform() === 'darwin' },
  async (t) => {
    const between = (): number => {
      const before = uptime() * 1_000
      const read = bootMs() ?? Number.NaN
      const after = uptime() * 1_000
      t.ok(before <= read && read <= after, `${before} <= ${read} <= ${after}`)
      return read
    }
    const first = between()
    while (bootMs() === first) await sleep(1)
    t.ok(between() > first)
  },
)

t.test('each reading holds the monotonic and the boot-time clock', async (t) => {
  const before = performance.now()
  const { monoMs, bootMs: sinceBoot } = systemClock.read()
  t.ok(before <= monoMs && monoMs <= performance.now())
  t.ok(sinceBoot > 0)
})

t.test('a timer fires once, unless it is cancelled, and never at once', async (t) => {
  const fired: string[] = []
  systemClock.setTimer(0, () => fired.push('cancelled')).cancel()
  const whenFired = new Promise<void>((resolve) => {
    systemClock.setTimer(0, () => {
      fired.push('fired')
      resolve()
    })
  })
  t.same(fired, [])
  await whenFired
  t.same(fired, ['fired'])
})
