/** A worker with a schedule, and the passes that it has begun. The clocks of a world begin at 22:13:20. */
import type { Schedule } from '../../plugin/core/work/schedule.js'
import type { SingleContext, WorkerHandle } from '../../plugin/core/work/worker.js'
import type { WorldNode } from './world.js'

/** A pass: the node that began it, and the time for which it was due. */
export interface Fired {
  readonly by: string
  readonly due: string
}

/** Registers a scheduled worker. Each pass is noted, and then does what the test wants. */
export function scheduled(
  node: WorldNode,
  schedule: string | Schedule,
  fired: Fired[],
  more: { run?: (context: SingleContext) => unknown; maxFailures?: number } = {},
): WorkerHandle {
  const { run = () => undefined, ...options } = more
  return node.coordinator.worker({
    ...options,
    name: 'month-close',
    kind: 'single',
    scope: 'global',
    schedule,
    run: (context) => {
      fired.push({ by: node.name, due: new Date(context.dueAtMs ?? Number.NaN).toISOString().slice(11, 19) })
      return run(context)
    },
  })
}

export const everyMinute = '* * * * *'

export const minutes = (...of: number[]): string[] => of.map((minute) => `22:${minute}:00`)

export const dues = (fired: readonly Fired[]): string[] => fired.map(({ due }) => due)
