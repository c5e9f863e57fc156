/** Keeps statements that are built when they are first needed. */

/** Returns a function that calls `make` at its first call, and returns that result from then on. */
export function once<T>(make: () => T): () => T {
  let made: { readonly it: T } | undefined
  return () => {
    made ??= { it: make() }
    return made.it
  }
}

/** As {@link once}, with one result per list of names. */
export function onceFor<N extends string, T>(make: (names: readonly N[]) => T): (names: readonly N[]) => T {
  const made = new Map<string, T>()
  return (names) => {
    const key = names.join()
    const kept = made.get(key) ?? make(names)
    made.set(key, kept)
    return kept
  }
}
