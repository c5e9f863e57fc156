/**
 * Counts the statements of a store. As Drizzle's logger it is called for each statement that Drizzle sends. The store
 * adds the statements that it sends without Drizzle.
 */
export class Statements {
  #count = 0

  get count(): number {
    return this.#count
  }

  add(more = 1): void {
    this.#count += more
  }

  /** Called by Drizzle, once for each statement. */
  logQuery(): void {
    this.add()
  }
}
