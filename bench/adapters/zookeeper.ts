/** ZooKeeper's recipe for leader election: ephemeral sequential nodes, each of which watches its predecessor. */
import { type Join, keysOf, peer } from './adapter.js'

type Answer<T> = (error: Error | null, answer: T) => void

interface Client {
  once(event: 'connected', listener: () => void): void
  connect(): void
  close(): void
  mkdirp(path: string, done: Answer<string>): void
  create(path: string, data: null, mode: number, done: Answer<string>): void
  getChildren(path: string, done: Answer<string[]>): void
  exists(path: string, watch: () => void, done: Answer<object | null>): void
  remove(path: string, done: Answer<void>): void
}

interface Zookeeper {
  createClient(url: string, options: object): Client
  readonly CreateMode: { readonly EPHEMERAL_SEQUENTIAL: number }
}

export const zookeeper: Join = async (order, node, leads) => {
  const { createClient, CreateMode } = peer<Zookeeper>('node-zookeeper-client')
  const client = createClient(order.url, { sessionTimeout: order.ttlMs })
  const connected = new Promise<void>((resolve) => client.once('connected', resolve))
  client.connect()
  await connected
  const places = new Map<string, string>()
  let closed = false

  const look = async (key: string, place: string): Promise<void> => {
    const folder = `/election/${key}`
    const children = (await asked<string[]>((done) => client.getChildren(folder, done))).sort()
    const before = children[children.indexOf(place) - 1]
    if (before === undefined) return leads(key)
    const again = (): void => void (closed || look(key, place).catch(() => undefined))
    const there = await asked<object | null>((done) => client.exists(`${folder}/${before}`, again, done))
    if (there === null) await look(key, place)
  }
  const campaign = async (key: string): Promise<void> => {
    const folder = `/election/${key}`
    await asked<string>((done) => client.mkdirp(folder, done))
    const path = await asked<string>((done) =>
      client.create(`${folder}/n-`, null, CreateMode.EPHEMERAL_SEQUENTIAL, done),
    )
    places.set(key, path)
    await look(key, path.slice(folder.length + 1))
  }
  for (const key of keysOf(order, node)) await campaign(key)
  return {
    async resign(key) {
      await asked<void>((done) => client.remove(places.get(key) ?? '', done))
    },
    campaign,
    async close() {
      closed = true
      client.close()
    },
  }
}

function asked<T>(ask: (done: Answer<T>) => void): Promise<T> {
  return new Promise((resolve, reject) =>
    ask((error, answer) => (error === null || error === undefined ? resolve(answer) : reject(error))),
  )
}
