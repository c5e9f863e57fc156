/** Statements that are made when they are first asked for, and then kept. */

/** Makes what it is given at the first call, and answers that from then on. */
export function once<T>(make: () => T): () => T {
  let made: { readonly it: T } | undefined
  return () => {
    made ??= { it: make() }
    return made.it
  }
}

/** The same, one for each list of names. */
export function onceFor<N extends string, T>(make: (names: readonly N[]) => T): (names: readonly N[]) => T {
  const made = new Map<string, T>()
  return (names) => {
    const key = names.join()
    const kept = made.get(key) ?? make(names)
    made.set(key, kept)
    return kept
  }
}
