/** Reads a property of a value of unknown type. */

/** Returns the property of that name, or undefined when there is none or the value is not an object. */
export function property(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null ? Reflect.get(value, name) : undefined
}
