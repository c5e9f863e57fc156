/** Workers for tests. */
import type { PartitionedContext, WorkerDefinition } from '../../plugin/core/work/worker.js'

/** Returns a single worker of all clusters. */
export function single(name: string, run: () => unknown): WorkerDefinition {
  return { name, kind: 'single', scope: 'global', run }
}

/** Returns a worker that is divided into partitions. */
export function partitioned(
  partitions: number,
  run: (context: PartitionedContext) => unknown,
): WorkerDefinition {
  return { name: 'parts', kind: 'partitioned', scope: 'global', partitions, run }
}

/** Returns a single worker whose passes last until their signal aborts, with what `more` says otherwise. */
export function untilAborted(name: string, more: object = {}): WorkerDefinition {
  return {
    ...single(name, () => undefined),
    run: ({ signal }: { signal: AbortSignal }) => aborted(signal),
    ...more,
  } as WorkerDefinition
}

/** Resolves when the signal aborts. */
export function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve()
    signal.addEventListener('abort', () => resolve(), { once: true })
  })
}
