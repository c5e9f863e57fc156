/** What all ways of having one leader have in common, so that one bench can drive them all. */
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'

/** One node, which stands for every key it is given. */
export interface Standing {
  /** Gives up a key it leads: the work has ended, the next may begin. Until {@link stand} it does not stand for it again. */
  resign(key: string): Promise<void>
  stand(key: string): Promise<void> | void
  /** Ends without giving anything back where it can; used when a bench is over. */
  close(): Promise<void>
}

export interface Order {
  readonly url: string
  /** Names of nodes: each stands for every key. */
  readonly nodes: readonly string[]
  readonly keys: readonly string[]
  readonly ttlMs: number
  /** Held topology: each node has these many leases to itself, and nobody competes. Undefined: all stand for all keys. */
  readonly heldEach?: number
  /** As if each process had a machine to itself: only silence tells of its end. */
  readonly apart?: boolean
}

/** @param leads called when the work under a key begins. */
export type Stand = (order: Order, node: string, leads: (key: string) => void) => Promise<Standing>

const peers = createRequire(fileURLToPath(new URL('../../../bench/peers/package.json', import.meta.url)))

/** A package that only the benches know, or undefined where it has not been installed. */
export function peerNamed<T>(name: string): T | undefined {
  try {
    return peers(name) as T
  } catch (error) {
    if ((error as { code?: string }).code === 'MODULE_NOT_FOUND') return undefined
    throw error
  }
}

export function peerVersion(name: string): string {
  const { version } = peers(`./node_modules/${name}/package.json`) as { version: string }
  return `${name} ${version}`
}

/** As {@link peerNamed}, for those who have made sure before. */
export function peer<T>(name: string): T {
  const found = peerNamed<T>(name)
  if (found === undefined) throw new Error(`${name} is not installed: npm install --prefix bench/peers`)
  return found
}

export function keysOf({ keys, heldEach }: Order, node: string): readonly string[] {
  return heldEach === undefined ? keys : Array.from({ length: heldEach }, (_, index) => `${node}-${index}`)
}

/** A pause that does not keep the process alive. */
export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}
