/** The connection of the heartbeats, over a driver that says no more than it must. */
import t, { type Test } from 'tap'
import { DedicatedConnection } from '../../plugin/stores/shared/dedicated.js'
import { gate, rejectionOf } from '../../plugin/testing/conformance/world.js'

const limitMs = 30_000

interface Client {
  readonly lost: (error: unknown) => void
}

/** A server that can hang up and be away. */
class Server {
  away = false
  readonly triedAtMs: number[] = []
  readonly #clients: Client[] = []
  #waiting: { readonly times: number; readonly open: () => void } | undefined

  connect(client: Client): Promise<unknown> {
    this.triedAtMs.push(performance.now())
    if (this.#waiting !== undefined && this.triedAtMs.length >= this.#waiting.times) this.#waiting.open()
    if (this.away) return Promise.reject(new Error('connection refused'))
    this.#clients.push(client)
    return Promise.resolve()
  }

  hangUp(): void {
    for (const { lost } of this.#clients.splice(0)) lost(undefined)
  }

  /** Until it has been tried so many times in all. */
  tried(times: number): Promise<void> {
    const { opened, open } = gate()
    this.#waiting = { times, open }
    return opened
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

t.test('a connection that does not come back is tried after ever longer pauses', async (t) => {
  const { server } = await useConnection(t)
  server.away = true
  server.hangUp()
  const tries = 4
  await server.tried(1 + tries)
  const pausesMs = server.triedAtMs.slice(2).map((atMs, index) => atMs - (server.triedAtMs[index + 1] ?? 0))
  // Timers are never early by more than a millisecond; how late they are depends on the machine.
  for (const [index, pauseMs] of pausesMs.entries()) {
    const leastMs = 50 * 2 ** (index + 1)
    t.ok(pauseMs >= leastMs - 1, `${pauseMs} ms, at least ${leastMs}`)
  }
})

async function useConnection(t: Test) {
  const server = new Server()
  const connection = new DedicatedConnection<Client>(
    {
      create: (lost) => ({ lost }),
      connect: (client) => server.connect(client),
      end: async () => undefined,
      destroy: () => undefined,
      isHarmless: () => false,
      isRefusal: () => false,
      advice: () => undefined,
    },
    { setUp: async () => undefined, lost: () => undefined },
    limitMs,
  )
  await connection.open()
  // What waits for a connection holds no process: this does, for as long as the test takes.
  const awake = setInterval(() => undefined, limitMs)
  t.teardown(async () => {
    clearInterval(awake)
    await connection.close()
  })
  return { connection, server }
}
