/** Returns everything that a log of this error could show. */
export function describe(error: unknown): string {
  const seen: unknown[] = []
  for (let at = error; at instanceof Error; at = at.cause) {
    seen.push(at.message, at.stack, JSON.stringify(at), Object.values(at))
  }
  return JSON.stringify(seen)
}

/** Returns what an action throws; undefined when it throws nothing. */
export function thrownBy(action: () => unknown): unknown {
  try {
    action()
  } catch (error) {
    return error
  }
  return undefined
}
