import type { LeaseRow, NodeRow, WorkerRow } from '../../core/store.js'
import { byCodePoints } from './code-points.js'

/** Leases as a change reads them, with what it asks for next: their workers, and the nodes that they name. */
export interface Found<Lease extends LeaseRow> {
  readonly leases: Lease[]
  readonly workers: WorkerRow[]
  /** Those that hold the leases, block them, or cool down. */
  readonly nodes: NodeRow[]
}

/**
 * Rows that a change has read beyond what it asked for. Later reads may be served from here until the change writes,
 * because nothing else alters these rows meanwhile, except the heartbeats of nodes.
 */
export class Known {
  #workers = new Map<string, WorkerRow>()
  /** Undefined for a node that has no row. */
  #nodes = new Map<string, NodeRow | undefined>()

  add({ leases, workers, nodes }: Found<LeaseRow>): void {
    for (const worker of workers) this.#workers.set(worker.key, worker)
    for (const { holder, blockedNode, cooldownNode } of leases)
      for (const id of [holder, blockedNode, cooldownNode]) if (id !== null) this.#nodes.set(id, undefined)
    for (const node of nodes) this.#nodes.set(node.id, node)
  }

  /** Returns undefined when not all of them are known. */
  workers(keys: readonly string[]): WorkerRow[] | undefined {
    const rows = [...new Set(keys)].sort(byCodePoints).flatMap((key) => this.#workers.get(key) ?? [])
    return rows.length === new Set(keys).size ? rows : undefined
  }

  /** Returns undefined unless it is known, for each of them, whether the row exists. */
  nodesById(ids: readonly string[]): NodeRow[] | undefined {
    if (!ids.every((id) => this.#nodes.has(id))) return undefined
    return [...new Set(ids)]
      .flatMap((id) => this.#nodes.get(id) ?? [])
      .sort((a, b) => a.joinedRevision - b.joinedRevision || byCodePoints(a.id, b.id))
  }

  forget(): void {
    this.#workers = new Map()
    this.#nodes = new Map()
  }
}
