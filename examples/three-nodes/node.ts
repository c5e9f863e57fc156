/**
 * One node: a Fastify application with four workers.
 *
 *     npm run node -- 2
 */
import { setTimeout as sleep } from 'node:timers/promises'
import Fastify from 'fastify'
import workerCoordination, { allowLoopback } from 'fastify-worker-coordination'
import { readableLog } from './log.js'
import { database, exampleNodes, preset, refuse } from './nodes.js'

const { node, cluster, port } =
  exampleNodes.find(({ number }) => String(number) === process.argv[2]) ??
  refuse('Which node? Say 1, 2 or 3: npm run node -- 2')

const app = Fastify({
  logger: { level: 'info', stream: readableLog },
  // Three nodes that start at once must tolerate a database that is slow at first.
  pluginTimeout: 60_000,
  // A slow client must not keep a request open, nor an idle one the closing server.
  requestTimeout: 30_000,
  http: { headersTimeout: 10_000 },
  keepAliveTimeout: 5_000,
})

await app.register(workerCoordination, {
  database,
  identity: { node, cluster },
  preset,
  // For a trial on one machine: every client on this machine may do everything.
  authorize: allowLoopback(),
  // An open dashboard sends about one request per second.
  logLevel: 'warn',
})

// One leader in each cluster.
app.coordination.worker({
  name: 'indexing',
  kind: 'single',
  scope: 'cluster',
  run: ({ signal }) => work(`leads indexing in ${cluster}`, signal),
})

// One leader everywhere.
app.coordination.worker({
  name: 'month-close',
  kind: 'single',
  scope: 'global',
  run: ({ signal }) => work('leads month-close everywhere', signal),
})

// All nodes at the same time, each on its own share of the keys.
app.coordination.worker({
  name: 'data-processor',
  kind: 'coordinated',
  scope: 'global',
  run: ({ assignment, signal }) => work(`processes share ${assignment.index} of ${assignment.count}`, signal),
})

// Eight partitions spread over the nodes, each consumed by one node at a time.
app.coordination.worker({
  name: 'consumer',
  kind: 'partitioned',
  scope: 'global',
  partitions: 8,
  run: ({ partition, signal }) => work(`consumes partition ${partition}`, signal),
})

app.get('/', async () => ({
  node,
  cluster,
  leadsIndexing: app.coordination.isHeld('indexing'),
  tasks: [...tasks],
}))

const tasks = new Set<string>()
let items = 0

/** Runs one pass: processes an item now and then, for as long as this node holds the lease. */
async function work(task: string, signal: AbortSignal): Promise<void> {
  tasks.add(task)
  announce.refresh()
  try {
    for (;;) {
      await sleep(500, undefined, { signal })
      items += 1
    }
  } catch (error) {
    if (!signal.aborted) throw error
  } finally {
    tasks.delete(task)
    announce.refresh()
  }
}

/** Logs what this node does, once a series of changes is over. */
const announce = setTimeout(() => app.log.info(`${node} ${summary()}`), 500)
const report = setInterval(() => app.log.info(`${items} items done; ${node} ${summary()}`), 15_000)

function summary(): string {
  const partitions = [...tasks]
    .filter((task) => task.startsWith('consumes'))
    .map((task) => task.split(' ')[2])
  const others = [...tasks].filter((task) => !task.startsWith('consumes')).sort()
  const consumes = partitions.length === 0 ? [] : [`consumes partitions ${partitions.sort().join(' ')}`]
  return [...others, ...consumes].join(', ') || 'does nothing'
}

app.addHook('onClose', async () => {
  clearTimeout(announce)
  clearInterval(report)
})

// The application decides when its process ends. The plugin hands over when the application closes.
for (const occasion of ['SIGINT', 'SIGTERM', 'disconnect']) process.on(occasion, () => void app.close())
// The channel to the supervisor must not keep this process alive.
process.channel?.unref()

try {
  await app.listen({ port, host: '127.0.0.1' })
  app.log.info(
    `${node} is up in cluster ${cluster}, pid ${process.pid}: http://127.0.0.1:${port}/coordination/ui/`,
  )
} catch (error) {
  app.log.error({ err: error }, `${node} could not start`)
  process.exitCode = 1
  await app.close()
}
