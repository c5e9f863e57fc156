/** All contestants: their adapters, the servers they run on, and the packages they need. */
import { type Start, startEtcd, startPostgres, startRedis, startSqlite, startZookeeper } from '../servers.js'
import { type Join, peerNamed, peerVersion } from './adapter.js'
import { advisory } from './advisory.js'
import { dotnetCluster, dotnetCoordinated, dotnetGlobal } from './dotnet.js'
import { etcd } from './etcd.js'
import { ours, oursByName } from './ours.js'
import { redisSemaphore, redlock } from './redis.js'
import { zookeeper } from './zookeeper.js'

export interface Contestant {
  readonly join: Join
  readonly server: Start
  /** Packages that only the benches use. */
  readonly needs: readonly string[]
}

const ofPostgres = { server: startPostgres, needs: [] } as const

/** Contestants by the names used in reports. */
export const contestants = {
  'this project, PostgreSQL': { join: ours, ...ofPostgres },
  'this project, PostgreSQL, by name': { join: oursByName, ...ofPostgres },
  'this project, SQLite': { join: ours, server: startSqlite, needs: [] },
  'this project, SQLite, by name': { join: oursByName, server: startSqlite, needs: [] },
  'etcd (etcd3)': { join: etcd, server: startEtcd, needs: ['etcd3'] },
  'ZooKeeper (recipe)': { join: zookeeper, server: startZookeeper, needs: ['node-zookeeper-client'] },
  'Redis (redlock)': { join: redlock, server: startRedis, needs: ['ioredis', 'redlock'] },
  'Redis (redis-semaphore)': {
    join: redisSemaphore,
    server: startRedis,
    needs: ['ioredis', 'redis-semaphore'],
  },
  'PostgreSQL advisory locks': { join: advisory, ...ofPostgres },
  '.NET library, cluster locks': { join: dotnetCluster, ...ofPostgres },
  '.NET library, global locks': { join: dotnetGlobal, ...ofPostgres },
  '.NET library, coordinated workers': { join: dotnetCoordinated, ...ofPostgres },
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
