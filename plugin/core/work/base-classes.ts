/**
 * Three workers as classes, for applications that prefer classes or come from .NET.
 *
 * Each *is* a worker definition: pass an instance to {@link Coordinator.worker}. A class can do nothing that a plain
 * object cannot.
 */
import { checkOptions } from '../inputs.js'
import type { Schedule } from './schedule.js'
import type {
  Assignment,
  CoordinatedContext,
  CoordinatedWorker,
  SingleContext,
  SingleWorker,
} from './worker.js'

/** What the constructors take besides the name. */
export type ClassOptions = Pick<
  SingleWorker,
  'everyMs' | 'maxFailures' | 'cooldownMs' | 'handoverTimeoutMs' | 'enabled'
>

/** What the constructors of `single` workers take: these can have a schedule instead of `everyMs`. */
export type SingleClassOptions = ClassOptions & Pick<SingleWorker, 'schedule'>

const knownOptions = ['everyMs', 'schedule', 'maxFailures', 'cooldownMs', 'handoverTimeoutMs', 'enabled']

abstract class NamedWorker {
  readonly name: string
  declare readonly everyMs?: number
  declare readonly maxFailures?: number
  declare readonly cooldownMs?: number
  declare readonly handoverTimeoutMs?: number
  declare readonly enabled?: boolean

  /**
   * @param name unique in its scope
   * @param options the defaults are those of every worker
   * @throws {CoordinationError} `WCO_OPTIONS` for an unknown option.
   */
  constructor(name: string, options: ClassOptions = {}) {
    checkOptions(new.target.name || 'worker', options, knownOptions)
    this.name = name
    Object.assign(this, options)
  }
}

abstract class NamedSingleWorker extends NamedWorker implements SingleWorker {
  readonly kind = 'single'
  abstract readonly scope: SingleWorker['scope']
  abstract readonly run: SingleWorker['run']
  declare readonly schedule?: string | Schedule

  /**
   * @param name unique in its scope
   * @param options the defaults are those of every worker
   * @throws {CoordinationError} `WCO_OPTIONS` for an unknown option.
   */
  constructor(name: string, options: SingleClassOptions = {}) {
    super(name, options)
  }
}

/** Runs on one node of each cluster at a time. */
export abstract class SingleInstanceClusterWorker extends NamedSingleWorker {
  readonly scope = 'cluster'

  /** Runs one pass while this node leads its cluster. Must stop when `context.signal` aborts. */
  abstract executeLeaderWork(context: SingleContext): unknown

  readonly run = (context: SingleContext): unknown => this.executeLeaderWork(context)
}

/** Runs on one node at a time, across all clusters. */
export abstract class SingleInstanceGlobalWorker extends NamedSingleWorker {
  readonly scope = 'global'

  /** Runs one pass while this node leads globally. Must stop when `context.signal` aborts. */
  abstract executeGlobalLeaderWork(context: SingleContext): unknown

  readonly run = (context: SingleContext): unknown => this.executeGlobalLeaderWork(context)
}

/** Runs on every node of every cluster; each node has an index and knows the count. */
export abstract class GloballyCoordinatedWorker extends NamedWorker implements CoordinatedWorker {
  readonly kind = 'coordinated'
  readonly scope = 'global'
  #assignment: Assignment | undefined

  /** Runs one pass while this node has its share. Must stop when `context.signal` aborts. */
  abstract executeCoordinatedWork(context: CoordinatedContext): unknown

  /** Index of this node's share, from 0; undefined outside a pass, because there is no default. */
  get globalWorkerIndex(): number | undefined {
    return this.#assignment?.index
  }

  /** How many nodes share the work; undefined outside a pass. */
  get globalWorkerCount(): number | undefined {
    return this.#assignment?.count
  }

  readonly run = async (context: CoordinatedContext): Promise<unknown> => {
    const { assignment } = context
    this.#assignment = assignment
    try {
      return await this.executeCoordinatedWork(context)
    } finally {
      if (this.#assignment === assignment) this.#assignment = undefined
    }
  }
}
