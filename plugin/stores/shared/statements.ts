/**
 * Counts the statements of a store. Given to Drizzle as its logger it hears of each one that goes out; what a store
 * sends past Drizzle it adds itself.
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
