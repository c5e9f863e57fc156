/** Everything that a bench has set up. It is undone in reverse order when the bench ends or is asked to end (SIGTERM). */
export interface Lifetime {
  teardown(undo: () => unknown): void
}

export async function withLifetime<T>(work: (lifetime: Lifetime) => Promise<T>): Promise<T> {
  const undos: (() => unknown)[] = []
  const undoAll = async (): Promise<void> => {
    for (let undo = undos.pop(); undo !== undefined; undo = undos.pop()) await undo()
  }
  const stop = (): void => void undoAll().finally(() => process.exit(143))
  process.once('SIGTERM', stop)
  try {
    return await work({ teardown: (undo) => undos.push(undo) })
  } finally {
    process.off('SIGTERM', stop)
    await undoAll()
  }
}
