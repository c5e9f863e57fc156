/**
 * Decides what happens to each request in a simulated world. This depends on the disturbances that are on at the site
 * it comes from.
 */
import type { Timing } from '../../plugin/core/time/timing.js'
import type { Commits } from './commits.js'
import type { Fault, Plan, TimedKind } from './faults.js'
import type { History } from './history.js'
import type { Course, Weather } from './network.js'
import type { Scene, Site } from './scene.js'
import type { Chance } from './scheduler.js'

export class Climate {
  readonly #commits: Commits
  readonly #history: History
  readonly #timing: Timing
  readonly #plan: Plan
  readonly #network: Chance

  constructor(scene: Scene, commits: Commits) {
    this.#commits = commits
    this.#history = scene.history
    this.#timing = scene.timing
    this.#plan = scene.plan
    this.#network = scene.chances.network
  }

  /** Returns the weather for one life on a site. `calls` counts its requests by verb. */
  of(site: Site, label: string, calls: Map<string, number>): Weather {
    const chance = this.#network
    return {
      course: (verb) => this.#course(site, verb),
      hintMs: () => {
        const lost = this.#disturbance(site, 'hints-lost')
        if (lost !== undefined && chance.happens(lost.degree)) {
          this.#history.hit('hints-lost')
          return undefined
        }
        return chance.between(0.1, 3)
      },
      sent: (verb) => {
        calls.set(verb, (calls.get(verb) ?? 0) + 1)
        if (verb === 'news') this.#history.hit('polling')
        this.#history.count(verb)
      },
      committed: (change) => {
        this.#history.count('changes')
        this.#commits.committed(change)
      },
      hit: (kind) => this.#history.hit(kind),
      cameLate: (verb, refused) => {
        this.#history.count(`late ${verb}${refused ? ' refused' : ''}`)
        const what = refused ? 'refused: it came too late' : 'carried out although it was given up'
        this.#history.note(() => `a ${verb} of ${label} is ${what}`)
      },
      answerLost: (verb) => {
        this.#history.count('answer lost')
        this.#history.note(() => `the answer to a ${verb} of ${label} is lost`)
      },
    }
  }

  #course(site: Site, verb: string): Course {
    const chance = this.#network
    const slow = this.#hitBy(site, 'slow')
    const factor = slow === undefined ? 1 : 10 ** (slow.degree * 3)
    const trip = (): number =>
      Math.min(site.baseMs * chance.magnitude(0.5, 3) * factor, this.#timing.ttlMs * 2)
    const holdsMs = this.#plan.traits.has('slow-changes') ? chance.magnitude(0.5, 800) : 0
    const connectsLate = this.#plan.traits.has('late-connections') && chance.happens(0.5)
    const course = { thereMs: trip(), backMs: trip(), noticed: chance.happens(0.5), holdsMs, connectsLate }
    if (this.#hitBy(site, 'cut-off')) return { ...course, thereMs: undefined }
    const isRead = verb === 'view' || verb === 'look'
    const failing = this.#disturbance(site, 'reads-fail')
    if (failing && isRead && chance.happens(0.2 + failing.degree)) {
      this.#history.hit('reads-fail')
      return { ...course, thereMs: undefined }
    }
    if (this.#hitBy(site, 'answers-lost')) return { ...course, backMs: undefined }
    const lossy = this.#disturbance(site, 'lossy')
    const lost = lossy !== undefined && chance.happens(lossy.degree / 2)
    const unanswered = lossy !== undefined && !lost && chance.happens(lossy.degree / 2)
    if (lost || unanswered) this.#history.hit('lossy')
    if (lost) return { ...course, thereMs: undefined }
    if (unanswered) return { ...course, backMs: undefined }
    const late = this.#disturbance(site, verb === 'heartbeat' ? 'late-heartbeats' : 'late-changes')
    if (late === undefined || isRead || !chance.happens(late.degree)) return course
    this.#history.hit(late.kind)
    return { ...course, thereMs: chance.magnitude(50, 40_000) }
  }

  #hitBy(site: Site, kind: TimedKind): Fault | undefined {
    const fault = this.#disturbance(site, kind)
    if (fault !== undefined) this.#history.hit(kind)
    return fault
  }

  #disturbance(site: Site, kind: Fault['kind']): Fault | undefined {
    for (const fault of site.disturbed.values()) if (fault.kind === kind) return fault
    return undefined
  }
}
