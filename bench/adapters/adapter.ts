/** The interface that all compared ways of electing a leader implement, so that the same benches can drive them. */
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'

/** One node, which is a candidate for every key it is given. */
export interface Candidate {
  /**
   * Gives up a key that the node leads, so that the next may begin. The node is no candidate for it until {@link
   * campaign}.
   */
  resign(key: string): Promise<void>
  campaign(key: string): Promise<void> | void
  /** Ends the node, where possible without giving anything back; used when a bench is over. */
  close(): Promise<void>
}

export interface Order {
  readonly url: string
  /** Names of the nodes; each is a candidate for every key. */
  readonly nodes: readonly string[]
  readonly keys: readonly string[]
  readonly ttlMs: number
  /**
   * Each node holds this many leases of its own, and no nodes compete. Undefined: all nodes are candidates for all
   * keys.
   */
  readonly heldEach?: number
  /** Behave as if each process had a machine to itself, so that only its silence reveals its end. */
  readonly apart?: boolean
}

/** @param leads called when the work under a key begins. */
export type Join = (order: Order, node: string, leads: (key: string) => void) => Promise<Candidate>

const peers = createRequire(fileURLToPath(new URL('../../../bench/peers/package.json', import.meta.url)))

/** Returns a package that only the benches use, or undefined when it is not installed. */
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

/** Like {@link peerNamed}, but throws when the package is not installed. */
export function peer<T>(name: string): T {
  const found = peerNamed<T>(name)
  if (found === undefined) throw new Error(`${name} is not installed: npm install --prefix bench/peers`)
  return found
}

export function keysOf({ keys, heldEach }: Order, node: string): readonly string[] {
  return heldEach === undefined ? keys : Array.from({ length: heldEach }, (_, index) => `${node}-${index}`)
}

export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}
