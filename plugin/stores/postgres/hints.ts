/**
 * Hints by LISTEN and NOTIFY.
 *
 * All nodes of one namespace in one schema share a channel; a notification carries short names of the
 * nodes it is for, so that the others sleep on. A notification costs the server some work for each connection of
 * the database that listens to anything, which is why there is one only when a change has news for somebody. All
 * commits with notifications wait for each other, so that with very many nodes one of them holds up everybody's: then
 * none are sent any more, nobody listens, and news is polled.
 */
import { createHash } from 'node:crypto'
import { Hints as HintsHere } from '../shared/hints.js'

/** A notification may carry 8000 bytes; beyond this many nodes it is cheaper to wake them all. */
const namedNodes = 150

const everybody = '*'

/** The channel of a namespace in a schema. PostgreSQL cuts names off at 63 bytes, so it is a hash. */
export function channelOf(schema: string, namespace: string): string {
  return `coordination_${digest(`${schema}\0${namespace}`).slice(0, 24)}`
}

/** What a notification for these nodes says. */
export function payloadFor(nodes: readonly string[]): string {
  return nodes.length > namedNodes ? everybody : nodes.map(shortName).join(',')
}

/** With more nodes than this hints are not pushed; `docs/performance.md` has the measurements behind the number. */
export const pushedNodes = 400

/** Whether there are too many nodes to push hints. Between the two limits it stays as it is, so that it does not flicker. */
export class Crowd {
  #crowded = false

  get crowded(): boolean {
    return this.#crowded
  }

  /** Takes in how many nodes there are. Answers whether that makes a difference. */
  counts(nodes: number): boolean {
    const before = this.#crowded
    if (nodes > pushedNodes) this.#crowded = true
    else if (nodes < (pushedNodes * 3) / 4) this.#crowded = false
    return this.#crowded !== before
  }
}

/** Those in this process who are waiting for hints, by the short names of their nodes. */
export class Hints {
  readonly #here = new HintsHere()

  /** Calls `wake` at each hint for `node`, until the answered function is called. */
  listen(node: string, wake: () => void): () => void {
    return this.#here.listen(shortName(node), wake)
  }

  /** A notification has come, or would have come had there been a connection to hear it. */
  heard(payload: string): void {
    if (payload === everybody) this.wakeAll()
    else this.#here.told(payload.split(','))
  }

  /** Hints may have been lost. */
  wakeAll(): void {
    this.#here.told(this.#here.nodes())
  }
}

/** Two nodes of one short name wake together, which does no harm. */
function shortName(node: string): string {
  return digest(node).slice(0, 8)
}

function digest(text: string): string {
  return createHash('sha256').update(text).digest('hex')
}
