/** Everything that a bench has set up. It is undone in reverse order when the bench ends or is asked to end. */
export interface Lifetime {
  teardown(undo: () => unknown): void
}

const signals = ['SIGINT', 'SIGTERM'] as const

export async function withLifetime<T>(work: (lifetime: Lifetime) => Promise<T>): Promise<T> {
  const undos: (() => unknown)[] = []
  const undoAll = async (): Promise<void> => {
    for (let undo = undos.pop(); undo !== undefined; undo = undos.pop()) await undo()
  }
  const stop = (_signal: NodeJS.Signals, number: number): void =>
    void undoAll().finally(() => process.exit(128 + number))
  for (const signal of signals) process.once(signal, stop)
  try {
    return await work({ teardown: (undo) => undos.push(undo) })
  } finally {
    for (const signal of signals) process.off(signal, stop)
    await undoAll()
  }
}
