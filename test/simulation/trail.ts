/**
 * Checks the audit trail in a simulated world: the events of each committed change must be those of what it has altered.
 */
import type { NewEvent } from '../../plugin/core/store.js'
import type { Committed, SimulatedDatabase, StoredLease } from './database.js'
import type { History } from './history.js'

/** The events by which a term ends. */
export const ends: readonly string[] = ['lease.released', 'lease.revoked', 'lease.lost']

/** What an operator switches on and off: the name of the state, and the events that tell of it. */
const switches = {
  paused: { on: 'worker.paused', off: 'worker.resumed' },
  draining: { on: 'node.draining', off: 'node.resumed' },
} as const

export class Trail {
  readonly #database: SimulatedDatabase
  readonly #history: History
  /** The workers and nodes, each with whether it is paused or drained. */
  #states = new Map<string, boolean>()

  constructor(database: SimulatedDatabase, history: History) {
    this.#database = database
    this.#history = history
  }

  /** Checks a committed change. The history must not know of it yet. */
  committed({ leases, events }: Committed): void {
    for (const lease of leases) this.#checkTerm(lease, this.#history.stored(lease.key), events)
    for (const event of events) this.#checkToken(event, leases)
    const before = this.#states
    this.look()
    for (const [name, on] of this.#states) this.#checkSwitch(name, on, before.get(name), events)
  }

  /** Takes what is stored as given, whoever has written it. */
  look(): void {
    this.#states = new Map([
      ...this.#database.workers().map(({ key, paused }) => [`paused ${key}`, paused === 1] as const),
      ...this.#database.nodes().map(({ id, state }) => [`draining ${id}`, state === 'draining'] as const),
    ])
  }

  /** Each term that begins has one event, and so has each that ends. */
  #checkTerm(now: StoredLease, before: StoredLease | undefined, events: readonly NewEvent[]): void {
    const { key, holder, token } = now
    const isSame = before?.holder === holder && before.token === token
    if (isSame) return
    const about = events.filter((event) => event.subject === key)
    if (holder !== null) this.#expectOne('lease.acquired', now, about)
    if (before !== undefined && before.holder !== null) this.#expectOne('an end', before, about)
  }

  #expectOne(what: 'lease.acquired' | 'an end', lease: StoredLease, about: readonly NewEvent[]): void {
    const { key, holder, token } = lease
    const isMeant = (type: string): boolean => (what === 'an end' ? ends.includes(type) : type === what)
    const found = about.filter(
      (event) => isMeant(event.type) && event.token === token && event.node === holder,
    ).length
    if (found !== 1)
      this.#history.violate('E1', `${key}@${token} of ${holder} has ${found} events of ${what}`)
  }

  /** No event tells of a term that has not begun or ended with it. */
  #checkToken({ type, subject, token, node, actor }: NewEvent, leases: readonly StoredLease[]): void {
    if (type !== 'lease.acquired' && !ends.includes(type)) return
    const now = leases.find(({ key }) => key === subject)
    const before = this.#history.stored(subject)
    const began = now?.holder === node && now?.token === token
    const isOver = before?.holder === node && before?.token === token && !began
    // An operator may end the wait for a term that was revoked before.
    const isWaitOver = type === 'lease.revoked' && actor !== undefined && before?.blockedNode === node
    if (type === 'lease.acquired' ? began : isOver || isWaitOver) return
    this.#history.violate('E1', `${type} tells of ${subject}@${token} of ${node}, which it does not concern`)
  }

  #checkSwitch(name: string, on: boolean, before: boolean | undefined, events: readonly NewEvent[]): void {
    if (before === undefined || before === on) return
    const [state = '', subject] = name.split(' ')
    const { [on ? 'on' : 'off']: type } = switches[state as keyof typeof switches]
    if (events.filter((event) => event.type === type && event.subject === subject).length !== 1)
      this.#history.violate('E2', `${subject} is ${on ? '' : 'no longer '}${state} without an event`)
  }
}
