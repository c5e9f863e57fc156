/** What a bench has set up, undone in reverse order when it ends, however it ends. */
export async function withLifetime(
  work: (lifetime: { teardown(undo: () => unknown): void }) => Promise<void>,
): Promise<void> {
  const undos: (() => unknown)[] = []
  try {
    await work({ teardown: (undo) => undos.push(undo) })
  } finally {
    for (const undo of undos.reverse()) await undo()
  }
}
