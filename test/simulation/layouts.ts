/**
 * The layouts of workers in a simulated world: of which kind they are, and how many partitions they have. In worlds with
 * the trait `layouts` there are two versions of the application that disagree in this, as in a deploy and a rollback.
 */
import type { WorkerHandle } from '../../plugin/core/work/worker.js'
import type { StoredWorker } from './database.js'
import { Chance } from './scheduler.js'

/** What a definition says about the leases of its worker. */
export type Layout =
  | { readonly kind: 'single' | 'coordinated' }
  | { readonly kind: 'partitioned'; readonly partitions: number }

/** A worker that a process has registered. */
export interface Registered {
  readonly handle: WorkerHandle
  readonly layout: Layout
  /** Since when, in true time. */
  readonly sinceMs: number
}

const usual: Readonly<Record<string, Layout>> = {
  data: { kind: 'coordinated' },
  parts: { kind: 'partitioned', partitions: 5 },
}

export class Layouts {
  readonly #other: Readonly<Record<string, Layout>>

  constructor(seed: number, differ: boolean) {
    const chance = Chance.of(seed, 'layouts')
    const data: Layout = chance.pick<Layout>([
      { kind: 'single' },
      { kind: 'partitioned', partitions: 4 },
      { kind: 'coordinated' },
    ])
    const parts: Layout = chance.pick<Layout>([
      { kind: 'partitioned', partitions: 3 },
      { kind: 'partitioned', partitions: 8 },
      { kind: 'coordinated' },
    ])
    this.#other = differ ? { data, parts } : usual
  }

  /** Returns the layout with which a process registers a worker this time. */
  draw(name: string, chance: Chance): Layout {
    const versions = chance.happens(0.5) ? usual : this.#other
    return versions[name] ?? { kind: 'single' }
  }
}

/** Whether a worker is stored with this layout. */
export function hasLayout(worker: StoredWorker, layout: Layout): boolean {
  return worker.kind === layout.kind && (layout.kind !== 'partitioned' || worker.slots === layout.partitions)
}
