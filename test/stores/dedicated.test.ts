/** Tests the connection for heartbeats, over a driver that reports no more than it must. */
import t, { type Test } from 'tap'
import { DedicatedConnection } from '../../plugin/stores/shared/dedicated.js'
import { gate, rejectionOf } from '../../plugin/testing/conformance/world.js'

const limitMs = 30_000

interface Client {
  readonly lost: (error: unknown) => void
}

/** A server that can hang up and be unreachable. */
class Server {
  away = false
  readonly #clients: Client[] = []

  connect(client: Client): Promise<unknown> {
    if (this.away) return Promise.reject(new Error('connection refused'))
    this.#clients.push(client)
    return Promise.resolve()
  }

  hangUp(): void {
    for (const { lost } of this.#clients.splice(0)) lost(undefined)
  }
}

/** Timers that fire on request. */
class Timers {
  readonly #set = new Set<{ readonly ms: number; readonly fire: () => void }>()
  #wanted: (() => void) | undefined

  after(ms: number, fire: () => void): () => void {
    const timer = { ms, fire }
    this.#set.add(timer)
    this.#wanted?.()
    return () => void this.#set.delete(timer)
  }

  /** Fires the next timer as soon as there is one, and returns its time in ms. */
  async next(): Promise<number> {
    for (;;) {
      const [timer] = this.#set
      if (timer !== undefined) {
        this.#set.delete(timer)
        // No timer fires within the turn of the event loop in which it was set.
        await new Promise(setImmediate)
        timer.fire()
        return timer.ms
      }
      await new Promise<void>((resolve) => {
        this.#wanted = resolve
      })
    }
  }
}

t.test(
  'who waits for an answer is told when the connection ends, though the driver does not tell',
  async (t) => {
    const { connection, server } = await useConnection(t)
    const asked = gate()
    const answer = rejectionOf(
      connection.ask('A heartbeat', () => {
        asked.open()
        return new Promise(() => undefined)
      }),
    )
    await asked.opened
    server.hangUp()
    t.match(await answer, { message: /The server has ended the connection/, outcome: 'unknown' })
  },
)

t.test('a connection that does not come back is tried after ever longer pauses, at most 10 s', async (t) => {
  for (const [chance, pausesMs] of [
    [0, [50, 100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]],
    [0.5, [75, 150, 300, 600, 1_200, 2_400, 4_800, 7_500, 7_500]],
  ] as const) {
    const { server, timers } = await useConnection(t, chance)
    server.away = true
    server.hangUp()
    const begun: number[] = []
    for (const _ of pausesMs) begun.push(await timers.next())
    t.strictSame(begun, pausesMs)
  }
})

t.test('a connection that is back begins with short pauses again', async (t) => {
  const { server, timers, restored } = await useConnection(t)
  server.away = true
  server.hangUp()
  t.strictSame([await timers.next(), await timers.next()], [50, 100])
  server.away = false
  t.equal(await timers.next(), 200)
  await restored
  server.hangUp()
  t.equal(await timers.next(), 50)
})

t.test('why a connection cannot be made is told with what can be done about it', async (t) => {
  const { connection, server } = await useConnection(t, 0, 'The address must lead to the primary.')
  server.away = true
  server.hangUp()
  t.match(await rejectionOf(connection.ask('A heartbeat', async () => undefined)), {
    message: 'A heartbeat failed: connection refused. The address must lead to the primary.',
  })
})

t.test('a pooler that welcomes everybody while its server is away is reported once', async (t) => {
  const { connection, server, timers, lost, back } = await useConnection(t)
  await connection.ask('A heartbeat', async () => undefined)
  for (let times = 1; times <= 3; times++) {
    server.hangUp()
    await timers.next()
    while (back.length < times) await new Promise(setImmediate)
  }
  t.equal(lost.length, 1)
  await connection.ask('A heartbeat', async () => undefined)
  server.hangUp()
  t.equal(lost.length, 2)
})

async function useConnection(t: Test, chance = 0, advice?: string) {
  const server = new Server()
  const timers = new Timers()
  const restored = gate()
  const back: unknown[] = []
  const lost: unknown[] = []
  const connection = new DedicatedConnection<Client>(
    {
      create: (lost) => ({ lost }),
      connect: (client) => server.connect(client),
      end: async () => undefined,
      destroy: () => undefined,
      isHarmless: () => false,
      isRefusal: () => false,
      advice: () => advice,
    },
    {
      setUp: async () => undefined,
      restored: () => {
        back.push(restored.open())
      },
      lost: (error) => void lost.push(error),
    },
    limitMs,
    { random: () => chance, after: (ms, fire) => timers.after(ms, fire) },
  )
  await connection.open()
  // Waiting for a connection keeps no process alive. This timer does, for as long as the test takes.
  const awake = setInterval(() => undefined, limitMs)
  t.teardown(async () => {
    clearInterval(awake)
    await connection.close()
  })
  return { connection, server, timers, lost, back, restored: restored.opened }
}
