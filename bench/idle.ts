/**
 * A process with a node in it, or with less: `idle.js [URL load|run [NODE]]`. It reports when it is ready, and its
 * memory when asked.
 */
const [database, what, node = 'idle'] = process.argv.slice(2)
if (database !== undefined) {
  const { createCoordinator } = await import('fastify-worker-coordination/coordinator')
  const coordinator = await createCoordinator({ database, identity: { node, cluster: 'bench' } })
  if (what === 'run') {
    for (let worker = 0; worker < 20; worker++) {
      coordinator.worker({
        name: `worker-${worker}`,
        kind: 'single',
        scope: 'global',
        run: ({ signal }) =>
          new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true })),
      })
    }
    await coordinator.start()
  } else {
    await coordinator.close()
  }
}
process.on('message', () => {
  globalThis.gc?.()
  const { rss, heapUsed } = process.memoryUsage()
  process.send?.({ rssMb: rss / 2 ** 20, heapMb: heapUsed / 2 ** 20 })
})
process.send?.('ready')
