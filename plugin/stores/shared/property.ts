/** Reads a property of a value of unknown type. */

/** The property of that name; undefined when there is none, or the value is no object. */
export function property(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null ? Reflect.get(value, name) : undefined
}
