import type { Preset } from 'fastify-worker-coordination'

/** The cast: three nodes in two clusters. */
export interface ExampleNode {
  readonly number: number
  readonly node: string
  readonly cluster: string
  readonly port: number
}

const firstPort = Number(process.env.PORT ?? 3000)

export const exampleNodes: readonly ExampleNode[] = [
  { number: 1, node: 'node-1', cluster: 'eu-1', port: firstPort },
  { number: 2, node: 'node-2', cluster: 'eu-1', port: firstPort + 1 },
  { number: 3, node: 'node-3', cluster: 'us-1', port: firstPort + 2 },
]

/** Every node has the dashboard; this is the first one's. */
export const dashboard = `http://localhost:${firstPort}/coordination/ui/`

/** Where they meet. */
export const database = process.env.DATABASE_URL ?? 'sqlite:coordination.db'

/**
 * How fast they find out about each other; a database that is far or slow wants `default` or `relaxed`. What stands in for
 * SQL Server in trials, Babelfish, takes seconds over the first statements of each connection: three nodes at once get more
 * time from `default`.
 */
export const preset = presetOf(process.env.PRESET ?? (database.startsWith('mssql:') ? 'default' : 'fast'))

function presetOf(name: string): Preset {
  const known: readonly Preset[] = ['default', 'fast', 'relaxed']
  const preset = known.find((each) => each === name)
  if (preset === undefined) throw new Error(`PRESET: expected ${known.join(', ')}, got "${name}".`)
  return preset
}
