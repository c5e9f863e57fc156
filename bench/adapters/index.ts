/** All contestants: their adapters, the servers they run on, and the packages they need. */
import { type Start, startEtcd, startPostgres, startRedis, startSqlite, startZookeeper } from '../servers.js'
import { peerNamed, peerVersion, type Stand } from './adapter.js'
import { advisory } from './advisory.js'
import { etcd } from './etcd.js'
import { ours, oursByName } from './ours.js'
import { redisSemaphore, redlock } from './redis.js'
import { seedCluster, seedCoordinated, seedGlobal } from './seed.js'
import { zookeeper } from './zookeeper.js'

export interface Contestant {
  readonly stand: Stand
  readonly server: Start
  /** Packages that only the benches use. */
  readonly needs: readonly string[]
}

const ofPostgres = { server: startPostgres, needs: [] } as const

/** Contestants by the names used in reports. */
export const contestants = {
  'this project, PostgreSQL': { stand: ours, ...ofPostgres },
  'this project, PostgreSQL, by name': { stand: oursByName, ...ofPostgres },
  'this project, SQLite': { stand: ours, server: startSqlite, needs: [] },
  'this project, SQLite, by name': { stand: oursByName, server: startSqlite, needs: [] },
  'etcd (etcd3)': { stand: etcd, server: startEtcd, needs: ['etcd3'] },
  'ZooKeeper (recipe)': { stand: zookeeper, server: startZookeeper, needs: ['node-zookeeper-client'] },
  'Redis (redlock)': { stand: redlock, server: startRedis, needs: ['ioredis', 'redlock'] },
  'Redis (redis-semaphore)': {
    stand: redisSemaphore,
    server: startRedis,
    needs: ['ioredis', 'redis-semaphore'],
  },
  'PostgreSQL advisory locks': { stand: advisory, ...ofPostgres },
  'seed, cluster locks': { stand: seedCluster, ...ofPostgres },
  'seed, global locks': { stand: seedGlobal, ...ofPostgres },
  'seed, coordinated workers': { stand: seedCoordinated, ...ofPostgres },
} as const satisfies Record<string, Contestant>

export type ContestantName = keyof typeof contestants

/** Returns which packages are missing; undefined when none is. */
export function missing(needs: readonly string[]): string | undefined {
  const absent = needs.filter((name) => peerNamed(name) === undefined)
  if (absent.length === 0) return undefined
  return `${absent.join(' and ')} not installed (npm install --prefix bench/peers)`
}

export function versionsOf(needs: readonly string[]): string[] {
  return needs.map(peerVersion)
}
