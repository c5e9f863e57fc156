import type { Preset } from 'fastify-worker-coordination'

/** One of the example's three nodes, which form two clusters. */
export interface ExampleNode {
  readonly number: number
  readonly node: string
  readonly cluster: string
  readonly port: number
}

const firstPort = portOf(process.env.PORT ?? '3000')

export const exampleNodes: readonly ExampleNode[] = [
  { number: 1, node: 'node-1', cluster: 'eu-1', port: firstPort },
  { number: 2, node: 'node-2', cluster: 'eu-1', port: firstPort + 1 },
  { number: 3, node: 'node-3', cluster: 'us-1', port: firstPort + 2 },
]

/** Address of the first node's dashboard. Every node has one. */
export const dashboard = `http://localhost:${firstPort}/coordination/ui/`

/** The database that all nodes share. */
export const database = process.env.DATABASE_URL ?? 'sqlite:coordination.db'

/**
 * How fast the nodes learn about each other. A slow or distant database needs `default` or `relaxed`. Babelfish, which
 * stands in for SQL Server in trials, takes seconds for the first statements of each connection, so `default` gives
 * three nodes that start at once more time.
 */
export const preset = presetOf(process.env.PRESET ?? (database.startsWith('mssql:') ? 'default' : 'fast'))

function presetOf(name: string): Preset {
  const known: readonly Preset[] = ['default', 'fast', 'relaxed']
  const preset = known.find((each) => each === name)
  return preset ?? refuse(`PRESET: expected ${known.join(', ')}, got "${name}".`)
}

/** Each node needs a port of its own, so the first one cannot be among the last. */
function portOf(text: string): number {
  const port = Number(text)
  const isPort = Number.isInteger(port) && port >= 1 && port <= 65_533
  return isPort ? port : refuse(`PORT: expected a whole number from 1 to 65533, got "${text}".`)
}

/** Ends this process because it was not started as it should be. */
export function refuse(why: string): never {
  console.error(why)
  process.exit(2)
}
