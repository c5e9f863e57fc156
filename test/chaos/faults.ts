/** A kind of fault, and the conditions under which one can be injected. */
import type { World } from './world.js'

export interface Fault {
  readonly kind: string
  /** Faults of one lane come one after another; lanes run side by side. */
  readonly lane: 'process' | 'network' | 'database' | 'operator'
  /** Returns why the fault cannot be injected here; undefined when it can. */
  readonly missing: (world: World) => string | undefined
  /** Begins the fault, ends it, and returns how often it really happened. */
  readonly inject: (world: World) => Promise<number>
}

export const onServer = (world: World): string | undefined =>
  world.server === undefined ? 'needs a server of its own' : undefined

export const onPostgres = (world: World): string | undefined =>
  world.server?.name === 'PostgreSQL' ? undefined : 'needs a PostgreSQL server of its own'

export const onMariadb = (world: World): string | undefined =>
  world.server?.name === 'MariaDB' ? undefined : 'needs a MariaDB server of its own'

export const onFile = (world: World): string | undefined =>
  world.plan.place.at === 'file' ? undefined : 'is about files'

export const onNetwork = (world: World): string | undefined =>
  world.ways.length === 0 ? 'there is no network to a file' : undefined

export const onLinks = (world: World): string | undefined =>
  world.links === undefined ? world.withoutLinks : undefined

export const needsSmallDisk = (world: World): string | undefined =>
  world.smallDisk === undefined ? 'no file system can be mounted here' : undefined

export const anywhere = (): undefined => undefined

/** Combines several conditions: the first reason counts. */
export function and(
  ...reasons: readonly ((world: World) => string | undefined)[]
): (world: World) => string | undefined {
  return (world) => reasons.map((reason) => reason(world)).find((reason) => reason !== undefined)
}
