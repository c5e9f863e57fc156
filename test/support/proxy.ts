/** A TCP proxy, on loopback by default, that disturbs connections as networks do. */
import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import type { Store } from '../../plugin/core/store.js'
import type { FragileStore } from '../../plugin/testing/conformance/harness.js'
import type { Lifetime } from './databases.js'

/** A way to a server that can be disturbed. */
export interface TcpProxy {
  readonly host: string
  readonly port: number
  readonly toServer: Direction
  readonly toClient: Direction
  readonly connections: number
  /**
   * Breaks all connections at the server's first answer with bytes that match, which are not passed on. Resolves then.
   */
  cutAtAnswer(matches: (bytes: Buffer) => boolean): Promise<void>
  /** Swallows everything in both directions, on present and on new connections, without breaking any. */
  goSilent(): void
  /** Breaks all connections. New ones pass again, undisturbed. */
  cut(): void
  /**
   * Like `cut`, but resets the connections, as a machine does that knows nothing of them. The client notices at once.
   */
  reset(): void
  /** Breaks all connections, and each new one at once, until `cut` or `reset`. */
  refuse(): void
}

/** What happens to the bytes that go in one direction. */
export interface Direction {
  /** How much later they arrive, in ms. */
  delayMs: number
  /** Holds them back until `release`. */
  hold(): void
  /** Lets the held bytes go, and all that come after them. */
  release(): void
  /** Loses them without breaking anything. */
  drop(): void
  /** Replaces one text by another of the same length wherever it occurs, until the connections are cut or reset. */
  swap(text: string, other: string): void
  /** Passes on what `change` returns instead, until the connections are cut or reset. */
  alter(change: (bytes: Buffer) => Buffer): void
}

/** Whether these bytes say that the server has committed. */
export function answersCommit(bytes: Buffer): boolean {
  return bytes.includes('COMMIT\0')
}

const usualPorts: Readonly<Record<string, number>> = { 'postgres:': 5432, 'mysql:': 3306, 'mssql:': 1433 }

/** Puts a proxy in front of a database's server, and returns the URL of the same database through it. */
export async function throughProxy(t: Lifetime, url: string): Promise<{ proxy: TcpProxy; url: string }> {
  const way = new URL(url)
  const port = Number(way.port || usualPorts[way.protocol])
  const proxy = await useProxy(t, { host: way.hostname, port })
  way.hostname = '127.0.0.1'
  way.port = String(proxy.port)
  return { proxy, url: way.href }
}

/** Returns what the conformance suite takes for a store behind a proxy, by the answers of its server to each verb. */
export function fragile(
  store: Store,
  proxy: TcpProxy,
  answersTo: Readonly<Record<'heartbeat' | 'change', (bytes: Buffer) => boolean>>,
): FragileStore {
  return {
    store,
    loseAnswerTo: (verb) => void proxy.cutAtAnswer(answersTo[verb]),
    goSilent: () => proxy.goSilent(),
    cut: () => proxy.cut(),
  }
}

/** Starts a proxy to a server. It ends with the test. */
export async function useProxy(
  t: Lifetime,
  target: { host: string; port: number },
  host = '127.0.0.1',
): Promise<TcpProxy> {
  const clients = new Set<Socket>()
  const toServer = new Way()
  const toClient = new Way()
  let refusing = false
  let isLast: (bytes: Buffer) => boolean = () => false
  let happened: () => void = () => undefined
  const server = createServer((client) => {
    if (refusing) return void client.resetAndDestroy()
    const upstream = connect(target)
    clients.add(client)
    client.once('close', () => clients.delete(client))
    link(client, upstream, (bytes) => toServer.pass(bytes, upstream))
    link(upstream, client, (bytes) => {
      if (!isLast(bytes)) return toClient.pass(bytes, client)
      cut()
      happened()
    })
  }).listen(0, host)
  await once(server, 'listening')
  t.teardown(() => {
    cut()
    server.close()
  })
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('The proxy has no port')
  return {
    host,
    port: address.port,
    toServer,
    toClient,
    get connections() {
      return clients.size
    },
    cutAtAnswer(matches) {
      isLast = matches
      return new Promise((resolve) => {
        happened = resolve
      })
    },
    goSilent() {
      toServer.drop()
      toClient.drop()
    },
    cut,
    reset: () => cut((client) => client.resetAndDestroy()),
    refuse() {
      cut()
      refusing = true
    },
  }

  function cut(end: (client: Socket) => void = (client) => client.destroy()): void {
    refusing = false
    isLast = () => false
    for (const way of [toServer, toClient]) way.clear()
    for (const client of clients) end(client)
  }
}

/** When one side closes, so does the other. */
function link(from: Socket, to: Socket, pass: (bytes: Buffer) => void): void {
  from.setNoDelay(true)
  from.on('data', pass)
  from.on('error', () => to.destroy())
  from.on('close', () => to.destroy())
}

class Way implements Direction {
  delayMs = 0
  #held: (() => void)[] | undefined
  #dropping = false
  #alter: (bytes: Buffer) => Buffer = (bytes) => bytes

  hold(): void {
    this.#held ??= []
  }

  release(): void {
    const held = this.#held ?? []
    this.#held = undefined
    for (const send of held) send()
  }

  drop(): void {
    this.#dropping = true
  }

  swap(text: string, other: string): void {
    if (text.length !== other.length) throw new RangeError('Texts of the same length expected')
    this.alter((bytes) => Buffer.from(bytes.toString('latin1').replaceAll(text, other), 'latin1'))
  }

  alter(change: (bytes: Buffer) => Buffer): void {
    this.#alter = change
  }

  /** Ends all disturbances. Held bytes are lost. */
  clear(): void {
    this.#alter = (bytes) => bytes
    this.delayMs = 0
    this.#held = undefined
    this.#dropping = false
  }

  pass(bytes: Buffer, to: Socket): void {
    if (this.#dropping) return
    const altered = this.#alter(bytes)
    const send = (): void => {
      if (this.#held !== undefined) this.#held.push(send)
      else if (!to.destroyed) to.write(altered)
    }
    if (this.delayMs > 0) setTimeout(send, this.delayMs)
    else send()
  }
}
