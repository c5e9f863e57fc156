/** Undoes what a bench has set up, in reverse order, when the bench ends in any way. */
export interface Lifetime {
  teardown(undo: () => unknown): void
}

export async function withLifetime<T>(work: (lifetime: Lifetime) => Promise<T>): Promise<T> {
  const undos: (() => unknown)[] = []
  try {
    return await work({ teardown: (undo) => undos.push(undo) })
  } finally {
    for (const undo of undos.reverse()) await undo()
  }
}
