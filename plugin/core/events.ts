/**
 * The typed events by which a coordinator tells the application about this node. Their names are past participles.
 *
 * Listeners run synchronously, in the async context in which they were registered. One that throws, or returns a
 * promise that rejects, is reported and harms neither the others nor the engine.
 */
import { EventEmitter } from 'node:events'
import { CoordinationError, type EndReason, type StoreError } from './errors.js'
import { shown } from './names.js'
import { presentContext } from './time/context.js'

/** What all events about a lease carry. */
export interface AboutLease {
  /** The full key of the lease: `global/month-close` or `eu-1/consumer#3`. */
  readonly key: string
  /** The fencing token of the term. */
  readonly token: number
  /** Key of the worker that the lease belongs to; null when it was acquired by name. */
  readonly worker: string | null
}

/** The events by name, with what they carry. */
export interface CoordinatorEvents {
  /** This node has joined, or joined again under a new id after its session was lost. */
  'node.joined': { readonly node: string }
  /** This node has left of its own accord. */
  'node.left': { readonly node: string }
  /** This node has declared another node gone. */
  'node.gone': { readonly node: string }
  /** This node's session was buried or has vanished: everything it held has ended. */
  'session.lost': { readonly node: string }
  /** The trust window ended without a good heartbeat: everything held has ended. */
  'trust.expired': { readonly node: string }
  /**
   * This node holds a lease. `namedForMs` is how long it was the target before (null for leases by name that were
   * free).
   */
  'lease.acquired': AboutLease & {
    readonly namedForMs: number | null
    /** The token of the term before, where this node has seen it; null otherwise. */
    readonly previousToken: number | null
  }
  /** A term has ended, and the work under it was told to stop for this reason. */
  'lease.ended': AboutLease & { readonly reason: EndReason }
  /** The lease is free or held elsewhere, and the work under it has stopped. */
  'lease.released': AboutLease
  /** This node has a share of a coordinated worker, in a new term; its pass is about to begin. */
  'assignment.changed': {
    readonly worker: string
    readonly index: number
    readonly count: number
    readonly generation: number
  }
  /**
   * A worker contradicts what other nodes registered. At the start that is an error instead; a worker registered later
   * is told of, and any worker when this node joins again after its session was lost.
   */
  'worker.refused': { readonly worker: string; readonly error: unknown }
  /**
   * A pass threw. `failures` counts the failures in a row for this lease on this node. `dueAtMs` is the time of the
   * schedule that the pass was for, in ms since 1970, which is not begun again; null for a worker without a schedule.
   */
  'pass.failed': {
    readonly key: string
    readonly error: unknown
    readonly failures: number
    readonly dueAtMs: number | null
  }
  /** A heartbeat was answered: how long that took, and the time by the database's clock. */
  'heartbeat.answered': { readonly latencyMs: number; readonly databaseNowMs: number }
  /** A heartbeat was not answered; it is tried again. A `store.failed` follows. */
  'heartbeat.failed': { readonly error: unknown }
  /** The database did not answer a heartbeat, a read or a change; it is tried again. */
  'store.failed': { readonly error: StoreError }
}

export type EventName = keyof CoordinatorEvents

/** All event names: a listener for any other would wait for ever. */
const eventNames: Readonly<Record<EventName, true>> = {
  ...{ 'node.joined': true, 'node.left': true, 'node.gone': true },
  ...{ 'session.lost': true, 'trust.expired': true },
  ...{ 'lease.acquired': true, 'lease.ended': true, 'lease.released': true },
  ...{ 'assignment.changed': true, 'worker.refused': true, 'pass.failed': true },
  ...{ 'heartbeat.answered': true, 'heartbeat.failed': true, 'store.failed': true },
}

export type Listener<Name extends EventName> = (event: CoordinatorEvents[Name]) => void

/** A typed event emitter whose listeners cannot break its owner. */
export class Events {
  readonly #emitter = new EventEmitter()
  readonly #guarded = new Map<EventName, WeakMap<object, (event: unknown) => void>>()
  readonly #report: (error: unknown, name: EventName) => void
  /** The event that is being told, and those that have happened meanwhile. */
  readonly #untold: [EventName, unknown][] = []

  constructor(report: (error: unknown, name: EventName) => void) {
    this.#report = report
    this.#emitter.setMaxListeners(0)
  }

  /** @throws {CoordinationError} `WCO_OPTIONS` when there is no such event, or the listener is not a function. */
  on<Name extends EventName>(name: Name, listener: Listener<Name>): void {
    checkListener('on', name, listener)
    this.#emitter.on(name, this.#guard(name, listener))
  }

  /** @throws {CoordinationError} as {@link on}. */
  once<Name extends EventName>(name: Name, listener: Listener<Name>): void {
    checkListener('once', name, listener)
    this.#emitter.once(name, this.#guard(name, listener))
  }

  /** @throws {CoordinationError} as {@link on}. */
  off<Name extends EventName>(name: Name, listener: Listener<Name>): void {
    checkListener('off', name, listener)
    const guarded = this.#guarded.get(name)?.get(listener)
    if (guarded !== undefined) this.#emitter.off(name, guarded)
  }

  /**
   * Tells all listeners. What one of them brings about is told afterwards, so that none hears of an end before the
   * beginning.
   */
  emit<Name extends EventName>(name: Name, event: CoordinatorEvents[Name]): void {
    this.#untold.push([name, event])
    if (this.#untold.length > 1) return
    try {
      for (const [next, what] of this.#untold) this.#emitter.emit(next, what)
    } finally {
      this.#untold.length = 0
    }
  }

  /**
   * Returns the same wrapper for the same name and listener, so that it can be removed again. One that was removed, or
   * used up by `once`, is not used again: its context is that of an earlier registration.
   */
  #guard<Name extends EventName>(name: Name, listener: Listener<Name>): (event: unknown) => void {
    const ofName = this.#guarded.get(name) ?? new WeakMap<object, (event: unknown) => void>()
    this.#guarded.set(name, ofName)
    const known = ofName.get(listener)
    if (known !== undefined && this.#emitter.listeners(name).includes(known)) return known
    const report = (error: unknown): void => this.#report(error, name)
    const inContext = presentContext()
    const guarded = (event: unknown): void => {
      try {
        const answer: unknown = inContext(() => listener(event as CoordinatorEvents[Name]))
        if (answer instanceof Promise) answer.catch(report)
      } catch (error) {
        report(error)
      }
    }
    ofName.set(listener, guarded)
    return guarded
  }
}

function checkListener(method: string, name: string, listener: unknown): void {
  const known = Object.keys(eventNames)
  if (!known.includes(name)) {
    const events = known.map((each) => `"${each}"`).join(', ')
    throw wrong(`${method}: there is no event ${shown(name)}; there are ${events}.`)
  }
  if (typeof listener !== 'function')
    throw wrong(`${method}: the listener of "${name}" must be a function, got ${shown(listener)}.`)
}

function wrong(message: string): CoordinationError {
  return new CoordinationError('WCO_OPTIONS', message)
}
