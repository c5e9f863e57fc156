/**
 * What a node does about the others: it looks for those that are gone, among all nodes (`lookout.ts`) and among the
 * processes of its machine (`neighbourhood.ts`), and makes the changes that follow.
 */
import { attend, bury, buryEnded, nameWatchers } from '../changes/upkeep.js'
import type { RequestKind } from '../outage.js'
import type { Beat, Change, Neighbour, NodeRow } from '../store.js'
import type { Reading } from '../time/clock.js'
import { Lookout } from '../watch/lookout.js'
import { Neighbourhood } from '../watch/neighbourhood.js'
import type { Session } from './session.js'
import type { Surroundings } from './surroundings.js'

/** What acts for the node. */
export interface WatchingOwner {
  /** Makes a change of this session. `done` is called with its result, unless the session is over by then. */
  change<T>(work: (change: Change) => Promise<T>, done?: (result: T) => void): Promise<T | undefined>
  failed(error: unknown, request: RequestKind): void
}

export class Watching {
  readonly #in: Surroundings
  readonly #owner: WatchingOwner
  readonly #lookout: Lookout
  /** Undefined where other processes cannot be observed. */
  readonly #neighbourhood: Neighbourhood | undefined

  constructor(surroundings: Surroundings, session: Session, owner: WatchingOwner) {
    const { store, clock, timing, server, machine } = surroundings
    this.#in = surroundings
    this.#owner = owner
    this.#lookout = new Lookout(session.id, store, clock, timing, {
      trusted: () => session.trusted(),
      mayClaim: () => server.mayClaim,
      longestTtlMs: () => server.longestTtlMs,
      bury: (beats, longestTtlMs) => this.#bury(beats, longestTtlMs),
      nameWatchers: async () => void (await owner.change(nameWatchers)),
      attend: async (findings) => (await owner.change((change) => attend(change, findings))) ?? [],
      lookFailed: (error) => owner.failed(error, 'look'),
    })
    this.#neighbourhood =
      machine &&
      new Neighbourhood(session.id, { machine, store, clock }, timing.heartbeatMs, {
        looks: () => session.checkTrust(),
        bury: (ended) => this.#buryEnded(ended, machine.name),
        lookFailed: (error) => owner.failed(error, 'neighbours'),
      })
  }

  /** Begins to look at the processes of this machine. Who is a watcher looks at all nodes, too. */
  start(): void {
    this.#neighbourhood?.start()
  }

  stop(): void {
    this.#lookout.stop()
    this.#neighbourhood?.stop()
  }

  /** Takes in who the watchers are. */
  setWatchers(watchers: readonly string[]): void {
    this.#lookout.setWatchers(watchers)
  }

  /** Takes in what a heartbeat's answer says of the watchers. */
  sawWatchers(beats: readonly Beat[], sentAt: Reading, receivedAt: Reading): void {
    this.#lookout.sawWatchers(beats, sentAt, receivedAt)
  }

  /** Notes that a node may have joined. */
  noteNews(): void {
    this.#neighbourhood?.noteNews()
  }

  /** Forgets what was seen of other nodes, because the server is another one. */
  reset(): void {
    this.#lookout.reset()
  }

  async #bury(beats: readonly Beat[], longestTtlMs: number): Promise<void> {
    const by = this.#in.identity.node
    await this.#owner.change(
      (change) => bury(change, beats, longestTtlMs, by),
      (buried) => this.#buried(buried, (name) => `the heartbeat of ${name} stood still for a ttl`),
    )
  }

  async #buryEnded(ended: readonly Neighbour[], machine: string): Promise<void> {
    const by = this.#in.identity.node
    await this.#owner.change(
      (change) => buryEnded(change, ended, machine, by),
      (buried) => this.#buried(buried, (name) => `the process of ${name} has ended`),
    )
  }

  #buried(nodes: readonly NodeRow[], why: (name: string) => string): void {
    for (const { id, name } of nodes) {
      this.#in.log.warn({ gone: id }, `another node is gone: ${why(name)}`)
      this.#in.events.emit('node.gone', { node: id })
    }
  }
}
