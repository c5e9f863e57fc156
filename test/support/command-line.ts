/** Parses the options of the commands that are beside the tests. */
import { parseArgs } from 'node:util'

type Defaults = Readonly<Record<string, string | number | boolean>>

/** The type of an option with this default. */
type Widened<Default> = Default extends number ? number : Default extends string ? string : boolean

/**
 * Parses the options of this process. A mistake is printed in one line, followed by the usage, and ends the process
 * with code 2.
 *
 * @param usage how the command is used.
 * @param defaults the options with a default; the type of the default is the type of the option.
 * @param optional the options without a default, by type.
 */
export function optionsOf<const D extends Defaults, T extends string = never, N extends string = never>(
  usage: string,
  defaults: D,
  optional: { readonly texts?: readonly T[]; readonly numbers?: readonly N[] } = {},
): { readonly [Name in keyof D]: Widened<D[Name]> } & { readonly [Name in T]?: string } & {
  readonly [Name in N]?: number
} {
  try {
    return read(defaults, optional) as ReturnType<typeof optionsOf<D, T, N>>
  } catch (error) {
    return refuse(usage, (error as Error).message)
  }
}

/**
 * Returns the names in a list with commas. One that is not `known` ends the process. `what` says what they are names
 * of.
 */
export function namesIn<Name extends string>(
  usage: string,
  list: string,
  what: string,
  known: readonly Name[],
): Name[] {
  const isKnown = (name: string): name is Name => (known as readonly string[]).includes(name)
  return list
    .split(',')
    .filter(Boolean)
    .map((name) =>
      isKnown(name) ? name : refuse(usage, `There is no ${what} "${name}", only ${known.join(', ')}.`),
    )
}

function refuse(usage: string, why: string): never {
  process.stderr.write(`${why}\n\n${usage.trim()}\n`)
  process.exit(2)
}

function read(
  defaults: Defaults,
  { texts = [], numbers = [] }: { readonly texts?: readonly string[]; readonly numbers?: readonly string[] },
): Record<string, unknown> {
  const flags = Object.keys(defaults).filter((name) => typeof defaults[name] === 'boolean')
  const names = [...Object.keys(defaults), ...texts, ...numbers]
  const isNumber = (name: string): boolean => typeof defaults[name] === 'number' || numbers.includes(name)
  const { values } = parseArgs({
    options: Object.fromEntries(
      names.map((name) => [name, { type: flags.includes(name) ? 'boolean' : 'string' } as const]),
    ),
  })
  const typed = Object.entries(values).map(([name, value]) => [
    name,
    isNumber(name) ? numberOf(name, String(value)) : value,
  ])
  return { ...defaults, ...Object.fromEntries(typed) }
}

function numberOf(name: string, text: string): number {
  const number = Number(text)
  if (text.trim() !== '' && Number.isFinite(number) && number >= 0) return number
  throw new Error(`--${name} takes a number that is 0 or more, not "${text}".`)
}
