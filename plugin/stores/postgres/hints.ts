/**
 * Hints by LISTEN and NOTIFY.
 *
 * All nodes of one namespace in one schema share a channel. A notification carries the short names of the nodes that
 * it is for, so that the others sleep on. It costs the server some work for each connection to the database that
 * listens to anything, so one is sent only when a change has news for another node. All commits with notifications
 * wait for each other, so with very many nodes one such commit delays all the others. Above a number of nodes, hints
 * are therefore not sent, no node listens, and news is polled.
 */
import { createHash } from 'node:crypto'
import { Hints as HintsHere } from '../shared/hints.js'

/** A notification holds at most 8000 bytes. Beyond this many nodes it is cheaper to wake them all. */
const namedNodes = 150

const everybody = '*'

/** Returns the channel of a namespace in a schema. It is a hash, because PostgreSQL cuts names off at 63 bytes. */
export function channelOf(schema: string, namespace: string): string {
  return `coordination_${digest(`${schema}\0${namespace}`).slice(0, 24)}`
}

/** Returns the payload of a notification for these nodes. */
export function payloadFor(nodes: readonly string[]): string {
  return nodes.length > namedNodes ? everybody : nodes.map(shortName).join(',')
}

/** With more nodes than this, hints are not pushed. `docs/performance.md` has the measurements behind the number. */
export const pushedNodes = 400

/**
 * Whether there are too many nodes to push hints. Between the two limits the answer stays as it is, so that it does
 * not keep changing.
 */
export class Crowd {
  #crowded = false

  get crowded(): boolean {
    return this.#crowded
  }

  /** Takes the present number of nodes into account. Returns whether the answer has changed. */
  counts(nodes: number): boolean {
    const before = this.#crowded
    if (nodes > pushedNodes) this.#crowded = true
    else if (nodes < (pushedNodes * 3) / 4) this.#crowded = false
    return this.#crowded !== before
  }
}

/** The listeners for hints in this process, by the short names of their nodes. */
export class Hints {
  readonly #here = new HintsHere()

  /** Calls `wake` at each hint for `node`, until the returned function is called. */
  listen(node: string, wake: () => void): () => void {
    return this.#here.listen(shortName(node), wake)
  }

  /**
   * Wakes the listeners that a payload names: the payload of a notification or, where none are sent, the one that
   * would have been sent.
   */
  heard(payload: string): void {
    if (payload === everybody) this.wakeAll()
    else this.#here.told(payload.split(','))
  }

  /** Wakes all listeners, because hints may have been lost. */
  wakeAll(): void {
    this.#here.told(this.#here.nodes())
  }
}

/** Two nodes with the same short name wake together, which does no harm. */
function shortName(node: string): string {
  return digest(node).slice(0, 8)
}

function digest(text: string): string {
  return createHash('sha256').update(text).digest('hex')
}
