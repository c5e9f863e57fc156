/** Looking into what others have made, of which nothing is certain. */

/** What a value has under this name; undefined when it has nothing, or is no object. */
export function property(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null ? Reflect.get(value, name) : undefined
}
