/**
 * Lets the processes of a simulated world claim times, as a scheduler of their own does, and checks what they are told:
 * of all who ask for a time one is told yes, and nobody is told no without a reason.
 */
import { claimedForMs } from '../../plugin/core/changes/upkeep.js'
import { StoreError } from '../../plugin/core/errors.js'
import type { Scope } from '../../plugin/core/store.js'
import { clockMistakeMs } from '../../plugin/core/time/timing.js'
import type { StoredLease } from './database.js'
import { describe, type LifeOnSite, retention, type Scene } from './scene.js'
import type { Chance } from './scheduler.js'

/** The tasks whose times are claimed. The last is also the name of a lease. */
const tasks = ['nightly', 'hourly', 'one'] as const

/** The distance between two times of a task, in ms. */
const everyMs = 10_000

const hourMs = 3_600_000

/** Times that are older may have been forgotten, in ms. */
const rememberedForMs = retention.goneNodesForMs + claimedForMs

/** A question under way: what is known of the world when it is asked. */
interface Question {
  readonly label: string
  readonly key: string
  readonly atMs: number
  readonly past: string
  readonly sentMs: number
  /** The time by the database's clock. */
  readonly nowMs: number
}

export class Claims {
  readonly #scene: Scene
  readonly #clockMovedAtMs: () => number
  /** The times that have been written and of which nobody has been told, each with the key of its task. */
  readonly #untold = new Set<string>()
  /** The times that a process was told to act on, with what was known of the world then. */
  readonly #told = new Map<string, Pick<Question, 'past' | 'sentMs'>>()

  /** @param clockMovedAtMs returns when the database's clock last jumped, in true time. */
  constructor(scene: Scene, clockMovedAtMs: () => number) {
    this.#scene = scene
    this.#clockMovedAtMs = clockMovedAtMs
  }

  /** Lets a process claim times until the faults are over, by a clock of its own. */
  begin(life: LifeOnSite, chance: Chance): void {
    if (!this.#scene.plan.traits.has('claimed-times')) return
    const aheadMs = chance.between(-15_000, 15_000)
    const farAheadMs = chance.pick([23.9, 49, -24, -400]) * hourMs
    const again = (): void => {
      life.process.later(chance.gap(2_500), () => {
        if (life.closing || this.#scene.stage !== 'faults') return
        again()
        if (life.coordinator.state !== 'running') return
        const scope = chance.happens(0.2) ? 'cluster' : 'global'
        const isFar = chance.happens(0.05)
        const name = isFar ? 'hourly' : chance.pick(tasks)
        const clockMs = this.#scene.database.nowMs + (isFar ? farAheadMs : aheadMs)
        this.#ask(life, name, scope, Math.floor(clockMs / everyMs) * everyMs)
      })
    }
    again()
  }

  /** Checks a committed change that touched this lease. */
  committed({ key, firedAtMs }: StoredLease, before: StoredLease | undefined): void {
    if (firedAtMs === null || firedAtMs === (before?.firedAtMs ?? null) || !isOfTask(key)) return
    this.#untold.add(`${key} ${firedAtMs}`)
    const { nowMs } = this.#scene.database
    const beforeMs = before?.firedAtMs ?? null
    if (firedAtMs > nowMs + clockMistakeMs || firedAtMs < nowMs - rememberedForMs)
      this.#violate(`${shown(firedAtMs)} of ${key} is claimed at ${shown(nowMs)}`)
    if (beforeMs !== null && firedAtMs < beforeMs && beforeMs <= nowMs + clockMistakeMs)
      this.#violate(`${shown(firedAtMs)} of ${key} is claimed after ${shown(beforeMs)}`)
  }

  #ask(life: LifeOnSite, name: string, scope: Scope, atMs: number): void {
    const { coordinator, process, identity } = life
    const { database, history, scheduler } = this.#scene
    const key = `${scope === 'global' ? scope : identity.cluster}/${name}`
    const { past, nowMs } = database
    const question = { label: process.label, key, atMs, past, sentMs: scheduler.nowMs, nowMs }
    coordinator.claimTime(name, new Date(atMs), { scope }).then(
      (isMine) => (isMine ? this.#toldYes(question) : this.#toldNo(question)),
      (error: unknown) => {
        if (!(error instanceof StoreError) && !life.closing)
          history.violate('X2', `${process.label} claims a time of ${key}: ${describe(error)}`)
      },
    )
  }

  #toldYes({ label, key, atMs, past, sentMs }: Question): void {
    const time = `${key} ${atMs}`
    const earlier = this.#told.get(time)
    this.#scene.history.hit('claimed-times')
    this.#scene.history.note(() => `${label} is the one for ${shown(atMs)} of ${key}`)
    if (!this.#untold.delete(time) || (earlier !== undefined && this.#isSameWorld(earlier)))
      this.#violate(`${label} is told to act on ${shown(atMs)} of ${key}, which is not its to act on`)
    this.#told.set(time, { past, sentMs })
  }

  #toldNo(question: Question): void {
    const { label, key, atMs, nowMs } = question
    const { database, history } = this.#scene
    history.count('times refused')
    if (!this.#isSameWorld(question)) return
    const isOutside = atMs > nowMs + clockMistakeMs || atMs < database.nowMs - rememberedForMs
    const claimedMs = history.stored(key)?.firedAtMs ?? null
    if (!isOutside && (claimedMs === null || claimedMs < atMs || claimedMs > database.nowMs + clockMistakeMs))
      this.#violate(`${label} is refused ${shown(atMs)} of ${key}, of which ${claimedMs} was claimed last`)
  }

  /** Whether no rows have been lost since then, and the database's clock has not jumped. */
  #isSameWorld({ past, sentMs }: Pick<Question, 'past' | 'sentMs'>): boolean {
    return past === this.#scene.database.past && this.#clockMovedAtMs() < sentMs
  }

  #violate(what: string): void {
    this.#scene.history.violate('T4', what)
  }
}

function isOfTask(key: string): boolean {
  return tasks.some((task) => key.endsWith(`/${task}`))
}

function shown(ms: number): string {
  return new Date(ms).toISOString()
}
