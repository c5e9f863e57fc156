/** Parses the options of the commands that are beside the tests. */
import { closeSync, openSync } from 'node:fs'
import { parseArgs } from 'node:util'

type Defaults = Readonly<Record<string, string | number | boolean>>

/** The type of an option with this default. */
type Widened<Default> = Default extends number ? number : Default extends string ? string : boolean

/** The least and the greatest value of an option that takes a whole number. */
type Bounds = readonly [least: number, most: number]

/** How many seeds there are: what draws from a seed takes it modulo this, so a greater one would repeat another. */
export const seedCount = 2 ** 32

/** The bounds of an option that takes a seed. */
export const seeds: Bounds = [0, seedCount - 1]

/** The bounds of an option that says how many. */
export const atLeastOne: Bounds = [1, Number.MAX_SAFE_INTEGER]

/**
 * Parses the options of this process. A mistake is printed in one line, followed by the usage, and ends the process
 * with code 2. `--help` prints the usage, and ends it with code 0.
 *
 * @param usage how the command is used.
 * @param defaults the options with a default; the type of the default is the type of the option.
 * @param more the options without a default, by type, and the bounds of all options that take whole numbers. Other
 *   numbers may be fractions. `ways` has the options that go together, for each way to use the command; all ways but
 *   the first are chosen by their first option.
 */
export function optionsOf<const D extends Defaults, T extends string = never, N extends string = never>(
  usage: string,
  defaults: D,
  more: {
    readonly texts?: readonly T[]
    readonly numbers?: readonly N[]
    readonly whole?: { readonly [Name in keyof D | N]?: Bounds }
    readonly ways?: readonly (readonly (keyof D | T | N)[])[]
  } = {},
): { readonly [Name in keyof D]: Widened<D[Name]> } & { readonly [Name in T]?: string } & {
  readonly [Name in N]?: number
} {
  if (process.argv.slice(2).includes('--help')) {
    process.stdout.write(`${usage.trim()}\n`)
    process.exit()
  }
  try {
    return read(defaults, more) as ReturnType<typeof optionsOf<D, T, N>>
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

/** Ends the process if the file that an option names cannot be opened: to be read (`r`), or to be appended to (`a`). */
export function mustOpen(usage: string, option: string, path: string, how: 'r' | 'a'): void {
  try {
    closeSync(openSync(path, how))
  } catch (error) {
    refuse(usage, `--${option}: ${(error as Error).message}`)
  }
}

/** Prints what is wrong with the options of this process, and how it is used. Ends the process with code 2. */
export function refuse(usage: string, why: string): never {
  process.stderr.write(`${why}\n\n${usage.trim()}\n`)
  process.exit(2)
}

function read(
  defaults: Defaults,
  {
    texts = [],
    numbers = [],
    whole = {},
    ways,
  }: {
    readonly texts?: readonly string[]
    readonly numbers?: readonly string[]
    readonly whole?: Readonly<Record<string, Bounds | undefined>>
    readonly ways?: readonly (readonly PropertyKey[])[]
  },
): Record<string, unknown> {
  const flags = Object.keys(defaults).filter((name) => typeof defaults[name] === 'boolean')
  const names = [...Object.keys(defaults), ...texts, ...numbers]
  const isNumber = (name: string): boolean => typeof defaults[name] === 'number' || numbers.includes(name)
  const { values, tokens } = parseArgs({
    options: Object.fromEntries(
      names.map((name) => [name, { type: flags.includes(name) ? 'boolean' : 'string' } as const]),
    ),
    tokens: true,
  })
  const given = tokens.flatMap((token) => (token.kind === 'option' ? [token.name] : []))
  refuseTwice(given)
  if (ways !== undefined) refuseMixed(given, ways)
  const typed = Object.entries(values).map(([name, value]) => [
    name,
    isNumber(name) ? numberOf(name, String(value), whole[name]) : mustSay(name, value),
  ])
  return { ...defaults, ...Object.fromEntries(typed) }
}

/** Of an option that is given twice only the last value would count. */
function refuseTwice(given: readonly string[]): void {
  const again = given.find((name, at) => given.indexOf(name) < at)
  if (again !== undefined) throw new Error(`--${again} is given twice.`)
}

/** What goes with none of the other options would be passed over in silence. */
function refuseMixed(
  given: readonly string[],
  [usual = [], ...others]: readonly (readonly PropertyKey[])[],
): void {
  const chosen = others.find(([key]) => given.some((name) => name === key))
  const strange = given.find((name) => !(chosen ?? usual).includes(name))
  if (strange === undefined) return
  if (chosen === undefined) {
    const keys = others.flatMap(([key, ...rest]) => (rest.includes(strange) ? [`--${String(key)}`] : []))
    throw new Error(`--${strange} goes only with ${keys.join(' or ')}.`)
  }
  const [key, ...rest] = chosen.map((name) => `--${String(name)}`)
  const expected = rest.length === 0 ? 'no other option does' : `only ${rest.join(', ')} do`
  throw new Error(`--${strange} does not go with ${key}; ${expected}.`)
}

/** An empty name would be in every name, and an empty list would mean everything. */
function mustSay<Value>(name: string, value: Value): Value {
  if (value === '') throw new Error(`--${name} is given without a value.`)
  return value
}

function numberOf(name: string, text: string, bounds: Bounds | undefined): number {
  const number = text.trim() === '' ? Number.NaN : Number(text)
  const [least, most] = bounds ?? [0, Number.MAX_VALUE]
  if (number >= least && number <= most && (bounds === undefined || Number.isInteger(number))) return number
  const range = most < Number.MAX_SAFE_INTEGER ? `from ${least} to ${most}` : `that is ${least} or more`
  throw new Error(`--${name} takes a ${bounds === undefined ? '' : 'whole '}number ${range}, not "${text}".`)
}
