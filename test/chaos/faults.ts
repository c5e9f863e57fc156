/** A kind of fault, and the list of all. */
import type { World } from './world.js'

export interface Fault {
  readonly kind: string
  /** Faults of one lane come one after another; lanes run beside each other. */
  readonly lane: 'process' | 'network' | 'database' | 'operator'
  /** Why it cannot be done here; undefined when it can. */
  readonly missing: (world: World) => string | undefined
  /** Begins it, ends it, and answers how often it has really happened. */
  readonly inject: (world: World) => Promise<number>
}

export const onServer = (world: World): string | undefined =>
  world.server === undefined ? 'needs a PostgreSQL server of its own' : undefined

export const onFile = (world: World): string | undefined =>
  world.plan.place.at === 'file' ? undefined : 'is about files'

export const onNetwork = (world: World): string | undefined =>
  world.ways.length === 0 ? 'there is no network to a file' : undefined

export const onLinks = (world: World): string | undefined =>
  world.links === undefined ? world.withoutLinks : undefined

export const anywhere = (): undefined => undefined

/** The first reason of several. */
export function and(
  ...reasons: readonly ((world: World) => string | undefined)[]
): (world: World) => string | undefined {
  return (world) => reasons.map((reason) => reason(world)).find((reason) => reason !== undefined)
}
