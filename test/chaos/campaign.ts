/**
 * Runs faults without pause on a world, and records what happens in a history. The faults of a lane come one after
 * another; the lanes run side by side.
 */
import { randomInt } from 'node:crypto'
import { chmod, mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Lifetime, useMssql, useMysql, withoutMssql, withoutMysql } from '../support/databases.js'
import { aborted } from '../support/interruptible.js'
import type { Fault } from './faults.js'
import { fileFaults } from './file-faults.js'
import { History, monotonicMs } from './history.js'
import { linkFaults } from './link-faults.js'
import { MariadbServer, withoutMariadb } from './mariadb.js'
import { networkFaults } from './network-faults.js'
import { operatorFaults } from './operator-faults.js'
import { PostgresServer } from './postgres.js'
import { processFaults } from './process-faults.js'
import { reach } from './register.js'
import { serverFaults } from './server-faults.js'
import { versionFaults } from './version-faults.js'
import { type Place, Undo, World } from './world.js'

export const allFaults: readonly Fault[] = [
  ...processFaults,
  ...versionFaults,
  ...networkFaults,
  ...linkFaults,
  ...serverFaults,
  ...fileFaults,
  ...operatorFaults,
]

export interface CampaignPlan {
  /**
   * `postgres`, `mariadb` and `sqlite` are databases of the campaign's own. `mysql` and `mssql` are a new database on
   * the server that the tests use. A URL is an existing database.
   */
  readonly database: string
  /** The file of the history, which is appended to. */
  readonly history: string
  /** Ends after this many faults. */
  readonly faults: number
  /** Or ends after this many seconds. */
  readonly seconds: number
  readonly nodes: number
  readonly ttlMs: number
  readonly seed: number
  /** After this many faults all of them end, and everything must find its place again. */
  readonly faultsPerRound: number
  /** Only these kinds of fault; all kinds when the list is empty. */
  readonly kinds: readonly string[]
}

/** A world that has not settled after this long is broken, not only slow. */
const settleLimitMs = 300_000

/** A fault that takes longer than this is reported as not having happened. */
const injectLimitMs = 90_000

export function randomSeed(): number {
  return randomInt(2 ** 31)
}

/** @throws the reason of `asked` when it aborts. The world is gone by then. */
export async function runCampaign(
  plan: CampaignPlan,
  asked: AbortSignal = new AbortController().signal,
): Promise<void> {
  const history = new History(plan.history)
  const random = seeded(plan.seed)
  history.add({ t: 'campaign', atMs: monotonicMs(), database: plan.database, seed: plan.seed })
  const { nodes, ttlMs } = plan
  const folder = await mkdtemp(join(tmpdir(), 'coordination-chaos-'))
  // As root the server runs as another user, which must be able to reach its data through this folder.
  await chmod(folder, 0o755)
  const lifetime = new Undo()
  try {
    const place = await placeOf(plan.database, lifetime)
    const world = await World.start({ place, nodes, ttlMs, folder, history, random })
    await disturb(plan, world, random, asked)
  } finally {
    history.close()
    await lifetime.undo()
  }
}

async function disturb(
  plan: CampaignPlan,
  world: World,
  random: () => number,
  asked: AbortSignal,
): Promise<void> {
  try {
    await Promise.race([playAll(plan, world, random), aborted(asked)])
  } catch (error) {
    if (!asked.aborted) process.stderr.write(`The campaign cannot go on.${conditionOf(world)}\n`)
    throw error
  } finally {
    await world.end()
  }
}

async function playAll(plan: CampaignPlan, world: World, random: () => number): Promise<void> {
  const possible = noteMissing(world, plan.kinds)
  const decks = new Map(
    lanes.map((lane) => [
      lane,
      new Deck(
        possible.filter((each) => each.lane === lane),
        random,
      ),
    ]),
  )
  let left = plan.faults
  let settled = await world.settle(settleLimitMs)
  const untilMs = monotonicMs() + plan.seconds * 1_000
  while (settled && left > 0 && monotonicMs() < untilMs) {
    const inRound = Math.min(left, plan.faultsPerRound)
    await playRound(world, decks, inRound, untilMs)
    left -= inRound
    settled = await world.settle(settleLimitMs)
  }
  await world.takeStock()
}

const lanes = ['process', 'network', 'database', 'operator'] as const

async function playRound(
  world: World,
  decks: ReadonlyMap<string, Deck>,
  faults: number,
  untilMs: number,
): Promise<void> {
  let left = faults
  const play = async (deck: Deck): Promise<void> => {
    while (left > 0 && monotonicMs() < untilMs) {
      const fault = deck.draw()
      if (fault === undefined) return
      left -= 1
      await inject(world, fault)
    }
  }
  await Promise.all([...decks.values()].map(play))
}

let number = 0

async function inject(world: World, { kind, inject }: Fault): Promise<void> {
  number += 1
  const which = { kind, number }
  world.add({ t: 'fault', atMs: monotonicMs(), ...which })
  let detail = ''
  const times = await within(injectLimitMs, inject(world)).catch(async (error: unknown) => {
    detail = error instanceof Error ? (error.stack ?? error.message) : String(error)
    if (error instanceof Late) detail += conditionOf(world)
    if (error instanceof Late) process.stderr.write(`fault ${number}, ${kind}: ${detail}\n`)
    // While a fault of another lane keeps the database away, this one would soon have tried all its faults in vain.
    await world.pause(200)
    return 0
  })
  world.add({ t: 'happened', atMs: monotonicMs(), ...which, times, detail })
}

class Late extends Error {}

/** What can be known of the world's server, on lines of its own. */
function conditionOf({ server }: World): string {
  try {
    return server === undefined ? '' : `\n${server.condition()}`
  } catch (error) {
    return `\nnothing is known of the server: ${error}`
  }
}

async function within(ms: number, work: Promise<number>): Promise<number> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new Late(`It did not end within ${ms} ms`)), ms)
  })
  return Promise.race([work, late]).finally(() => clearTimeout(timer))
}

/** Draws kinds of fault in a random order. Each kind is drawn once before any is drawn again. */
class Deck {
  readonly #kinds: readonly Fault[]
  readonly #random: () => number
  #left: Fault[] = []

  constructor(kinds: readonly Fault[], random: () => number) {
    this.#kinds = kinds
    this.#random = random
  }

  draw(): Fault | undefined {
    if (this.#left.length === 0) this.#left = [...this.#kinds]
    return this.#left.splice(Math.floor(this.#random() * this.#left.length), 1)[0]
  }
}

function noteMissing(world: World, kinds: readonly string[]): Fault[] {
  return allFaults.filter((fault) => {
    if (kinds.length > 0 && !kinds.includes(fault.kind)) return false
    const why = fault.missing(world)
    if (why !== undefined) world.add({ t: 'not-run', kind: fault.kind, why })
    return why === undefined
  })
}

/** Returns why there can be no campaign on this database, or undefined where there can. */
export function whyNot(database: string): string | undefined {
  const named = { mariadb: withoutMariadb, mysql: withoutMysql, mssql: withoutMssql, ...ownDatabases }
  if (Object.hasOwn(named, database)) return named[database as keyof typeof named]
  if (isUrl(database)) return undefined
  return `expected postgres, mariadb, sqlite, mysql, mssql or a URL, got "${database}"`
}

/** Returns why the server of a database that is not the campaign's own cannot be used; undefined when it can. */
export async function whyUnreachable(database: string): Promise<string | undefined> {
  const { TEST_MYSQL_URL: mysql = '', TEST_MSSQL_URL: mssql = '' } = process.env
  const url = isUrl(database) ? database : { mysql, mssql }[database]
  if (url === undefined) return undefined
  return reach(url).then(
    () => undefined,
    (error: unknown) => `the server cannot be used: ${messageOf(error)}`,
  )
}

function isUrl(database: string): boolean {
  return /^(postgres|postgresql|mysql|mssql):\/\//.test(database)
}

/** Where a name has several addresses, the error is made of those of each. */
function messageOf(error: unknown): string {
  const [first = error] = error instanceof AggregateError ? error.errors : []
  return first instanceof Error ? first.message : String(first)
}

/** Those that need nothing of the machine. */
const ownDatabases = { postgres: undefined, sqlite: undefined }

async function placeOf(database: string, lifetime: Lifetime): Promise<Place> {
  const why = whyNot(database)
  if (why !== undefined) throw new Error(`--database: ${why}.`)
  // PostgreSQL needs some 40 MB at first, and a copy needs as much again.
  if (database === 'postgres')
    return { at: 'server', diskMb: 320, create: (plan) => PostgresServer.create(plan) }
  if (database === 'mariadb') return { at: 'server', create: (plan) => MariadbServer.create(plan) }
  // Beside the file there must be room for its log, which grows as long as a reader is active. A log that has taken all
  // the room can never be written back.
  if (database === 'sqlite') return { at: 'file', diskMb: 60 }
  if (database === 'mysql') return { at: 'url', url: (await useMysql(lifetime)).url }
  if (database === 'mssql') return { at: 'url', url: (await useMssql(lifetime)).url }
  return { at: 'url', url: database }
}

/** A sequence of numbers in [0, 1) that follows from its seed, by mulberry32. */
function seeded(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}
