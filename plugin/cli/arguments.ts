/**
 * Turns what was typed into an order, or says what is wrong with it.
 */
import { parseArgs } from 'node:util'
import { actorLimits, checkText, reasonLimits, usualReasons } from '../core/audit.js'
import type { Instruction } from '../core/changes/operations.js'
import { checkName, keyFrom } from '../core/names.js'
import type { Preset } from '../core/time/timing.js'

/** The flags that every command takes. */
const ofAll = ['database', 'namespace', 'json', 'help', 'version'] as const
/** The flags of commands that alter something. */
const why = ['actor', 'reason'] as const

/** Every command, with its operands, its own flags, and what it is for. */
export const commands = {
  status: { operands: [], flags: [], about: 'nodes, leases and what is wrong' },
  leaders: { operands: [], flags: [], about: 'who leads which single worker, and under which token' },
  explain: {
    operands: ['lease'],
    flags: [],
    about: 'why a lease has its holder, or none, and who held it when',
  },
  release: {
    operands: ['lease'],
    flags: [...why, 'token', 'immediate', 'cooldown-ms'],
    about: 'take a lease from a holder that hangs; needs --token',
  },
  drain: { operands: ['node'], flags: why, about: 'ask a node to hand everything over' },
  undrain: { operands: ['node'], flags: why, about: 'cancel a drain' },
  pause: { operands: ['worker'], flags: why, about: 'pause a worker: no node runs it' },
  resume: { operands: ['worker'], flags: why, about: 'resume a paused worker' },
  forget: { operands: ['worker'], flags: why, about: 'remove a worker that no program registers any more' },
  migrate: { operands: [], flags: [], about: 'bring the tables up to date' },
  check: {
    operands: [],
    flags: ['preset'],
    about: 'whether this database and these settings can hold the promises',
  },
} as const satisfies Record<string, { operands: readonly string[]; flags: readonly Flag[]; about: string }>

export type Command = keyof typeof commands
type Flag = keyof typeof options

/** What each command needs besides what all of them take. */
interface Needs {
  status: unknown
  leaders: unknown
  explain: { readonly key: string }
  release: {
    readonly key: string
    readonly token: number
    readonly immediate: boolean
    /** In ms; undefined for the operator's default. */
    readonly cooldownMs: number | undefined
    readonly by: Instruction
  }
  drain: OfNode
  undrain: OfNode
  pause: OfWorker
  resume: OfWorker
  forget: OfWorker
  migrate: unknown
  check: { readonly preset: Preset }
}

interface OfNode {
  /** Id or name of a node. */
  readonly node: string
  readonly by: Instruction
}

interface OfWorker {
  readonly key: string
  readonly by: Instruction
}

/** A command with everything it needs, and nothing that it does not take. */
export type Order<Name extends Command = Command> = {
  [Each in Name]: {
    readonly command: Each
    readonly database: string
    readonly namespace: string
    readonly json: boolean
  } & Needs[Each]
}[Name]

/** The command line cannot be understood. Reported on standard error, with exit code 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
}

const options = {
  database: { type: 'string' },
  namespace: { type: 'string' },
  actor: { type: 'string' },
  reason: { type: 'string' },
  token: { type: 'string' },
  immediate: { type: 'boolean' },
  'cooldown-ms': { type: 'string' },
  preset: { type: 'string' },
  json: { type: 'boolean' },
  help: { type: 'boolean', short: 'h' },
  version: { type: 'boolean' },
} as const

/** The flags that may follow a command, as `--name`. */
export const flagNames: readonly string[] = Object.keys(options)

/**
 * Parses a command line.
 *
 * @param environment supplies what is not typed: `DATABASE_URL`
 * @param user returns who is asking; called where that matters and `--actor` is not given
 * @throws UsageError or CoordinationError `WCO_OPTIONS`, `WCO_NAME`
 */
export function parse(
  typed: readonly string[],
  environment: Readonly<Record<string, string | undefined>>,
  user: () => string,
): Order | 'help' | 'version' {
  const { values, positionals } = understood(typed)
  if (values.version) return 'version'
  // Not repeated: it may contain a password, and the output of a job is often kept.
  if (positionals.some((each) => each.includes('://')))
    throw new UsageError('Is the URL that of the database? Say --database URL, or set DATABASE_URL.')
  const [command, ...operands] = positionals
  if (values.help || command === undefined) return 'help'
  if (!isCommand(command)) throw new UsageError(`There is no command "${command}".`)
  refuseFlagsOfOthers(command, values)
  const { operands: needed } = commands[command]
  const [operand = ''] = operands
  if (operands.length !== needed.length)
    throw new UsageError(`Expected: ${[command, ...needed.map((each) => `<${each}>`)].join(' ')}`)
  const database = values.database ?? environment.DATABASE_URL
  if (database === undefined || database === '')
    throw new UsageError('Which database? Say --database URL, or set DATABASE_URL.')
  const namespace = checkName('--namespace', values.namespace ?? 'default')
  const common = { database, namespace, json: values.json ?? false }
  switch (command) {
    case 'status':
    case 'leaders':
    case 'migrate':
      return { ...common, command }
    case 'explain':
      return { ...common, command, key: keyFrom(operand) }
    case 'release':
      return { ...common, command, key: keyFrom(operand), by: said(values, user), ...released(values) }
    case 'drain':
      return { ...common, command, node: operand, by: said(values, user) }
    case 'undrain':
      return { ...common, command, node: operand, by: said(values, user, usualReasons.undrain) }
    case 'pause':
      return { ...common, command, key: keyFrom(operand), by: said(values, user) }
    case 'resume':
      return { ...common, command, key: keyFrom(operand), by: said(values, user, usualReasons.resume) }
    case 'forget':
      return { ...common, command, key: keyFrom(operand), by: said(values, user, usualReasons.forget) }
    case 'check':
      return { ...common, command, preset: presetIn(values) }
  }
}

type Values = ReturnType<typeof understood>['values']

/**
 * Returns who asks, and why.
 *
 * @param usual the reason to record where none need be given
 */
function said({ actor, ...given }: Values, user: () => string, usual?: string): Instruction {
  const { reason = usual } = given
  if (reason === undefined)
    throw new UsageError('Why? Say --reason "…" with 3 to 200 characters; it goes into the audit trail.')
  return {
    actor: checkText('--actor', actorLimits, actor ?? user()),
    reason: checkText('--reason', reasonLimits, reason),
  }
}

function released({ token, immediate = false, 'cooldown-ms': cooldownMs }: Values) {
  if (token === undefined)
    throw new UsageError('Which term? Say --token N, as `explain` shows it: a newer holder is not touched.')
  return {
    token: whole('token', token),
    immediate,
    cooldownMs: cooldownMs === undefined ? undefined : whole('cooldown-ms', cooldownMs),
  }
}

function presetIn({ preset = 'default' }: Values): Preset {
  if (isPreset(preset)) return preset
  throw new UsageError(`--preset: expected default, fast or relaxed, got "${preset}".`)
}

function isPreset(name: string): name is Preset {
  return ['default', 'fast', 'relaxed'].includes(name)
}

/** Refuses the flags of other commands: a user would believe that they had an effect. */
function refuseFlagsOfOthers(command: Command, values: object): void {
  for (const flag of Object.keys(values)) {
    if (takes(command, flag)) continue
    const takers = Object.keys(commands).filter((each) => isCommand(each) && takes(each, flag))
    throw new UsageError(`\`${command}\` takes no --${flag}; it is for ${takers.join(', ')}.`)
  }
}

function takes(command: Command, flag: string): boolean {
  return [...ofAll, ...commands[command].flags].some((each) => each === flag)
}

function understood(typed: readonly string[]) {
  try {
    return parseArgs({ args: [...typed], options, allowPositionals: true, strict: true })
  } catch (error) {
    // Node adds advice about positional arguments that would be wrong here.
    const [what = ''] = (error instanceof Error ? error.message : String(error)).split(/(?<=\.) /)
    throw new UsageError(what)
  }
}

function isCommand(name: string): name is Command {
  return Object.hasOwn(commands, name)
}

function whole(name: string, text: string): number {
  const number = Number(text)
  if (/^\d{1,16}$/.test(text) && Number.isSafeInteger(number)) return number
  throw new UsageError(`--${name}: expected a whole number, got "${text}".`)
}
