/**
 * Reads in a simulated world what operators read, the problems and the explanations, and checks that they agree with the
 * rows. In a calm nothing may be called a problem that is none.
 */
import { explain } from '../../plugin/core/reports/explain.js'
import { problemsIn } from '../../plugin/core/reports/problems.js'
import { describe as describeAll } from '../../plugin/core/reports/status.js'
import type { Snapshot } from '../../plugin/core/store.js'
import type { Application } from './application.js'
import type { SimulatedDatabase } from './database.js'
import type { History } from './history.js'
import { describe, type LifeOnSite, type Scene } from './scene.js'

/** What may be said in a calm of a lease that is held. */
const calmCodes: readonly string[] = ['held', 'candidates', 'cooling-down']

export class Reports {
  readonly #scene: Scene
  readonly #database: SimulatedDatabase
  readonly #history: History
  readonly #application: Application

  constructor(scene: Scene, application: Application) {
    this.#scene = scene
    this.#application = application
    this.#database = scene.database
    this.#history = scene.history
  }

  /** Reads everything through one node. The request goes past the network, so that it changes nothing. */
  read(): void {
    const [life] = this.#running()
    if (life !== undefined) this.#withSnapshot((snapshot) => this.#readThrough(life, snapshot))
  }

  /** Reads everything through each node in a calm. */
  readCalm(): void {
    this.#withSnapshot((snapshot) => {
      for (const life of this.#running()) this.#judgeCalm(life, snapshot)
    })
  }

  #running(): LifeOnSite[] {
    return this.#scene.living().filter(({ coordinator }) => coordinator.state === 'running')
  }

  #withSnapshot(read: (snapshot: Snapshot) => void): void {
    this.#database.store
      .snapshot()
      .then(read)
      .catch((error: unknown) => this.#history.violate('R1', `a report fails: ${describe(error)}`))
  }

  #problems({ coordinator }: LifeOnSite, snapshot: Snapshot) {
    const { settings, nodeId, state } = coordinator
    const status = describeAll(snapshot, settings, nodeId, state)
    return problemsIn(snapshot, status, coordinator.health(), settings.timing)
  }

  #reasons({ coordinator }: LifeOnSite, snapshot: Snapshot, key: string) {
    const circumstances = { timing: coordinator.settings.timing, revokedAtMs: null }
    return explain(snapshot, key, circumstances)?.reasons ?? []
  }

  #readThrough(life: LifeOnSite, snapshot: Snapshot): void {
    this.#history.count('reports')
    const { nodes, workers, leases } = snapshot
    const keys = [...workers, ...leases].map(({ key }) => key)
    const subjects = new Set([
      'database',
      'this node',
      ...keys,
      ...nodes.map(({ id }) => id),
      ...nodes.flatMap((node) => node.workers),
      ...life.coordinator.health().unsettled,
      life.coordinator.nodeId,
    ])
    for (const { code, subject } of this.#problems(life, snapshot))
      if (!subjects.has(subject)) this.#history.violate('R1', `${code} concerns ${subject}, which is unknown`)
    for (const { key, holder } of leases) {
      const codes = this.#reasons(life, snapshot, key).map(({ code }) => code)
      const isHeld = nodes.some(({ id, state }) => id === holder && state !== 'gone')
      if (codes.length === 0 || codes.includes('held') !== isHeld)
        this.#history.violate('R1', `${key} of ${holder} is explained by ${codes.join(' and ')}`)
    }
  }

  #judgeCalm(life: LifeOnSite, snapshot: Snapshot): void {
    const { nodes, workers, leases } = snapshot
    const isCandidate = (worker: string): boolean =>
      nodes.some((node) => node.state === 'active' && node.workers.includes(worker))
    const unsettled = this.#application.unsettled(life)
    const isReal = (code: string, subject: string): boolean =>
      (code === 'worker-without-candidates' && !isCandidate(subject)) ||
      (code === 'work-unsettled' && unsettled.includes(subject)) ||
      (code === 'lease-blocked' && this.#application.isWithheld(subject))
    const told = this.#problems(life, snapshot)
    for (const { code, subject, sentence } of told)
      if (!isReal(code, subject))
        this.#history.violate(
          'R1',
          `${life.process.label} calls it a problem in a calm: ${code}: ${sentence}`,
        )
    for (const key of unsettled)
      if (!told.some(({ code, subject }) => code === 'work-unsettled' && subject === key))
        this.#history.violate('R1', `${life.process.label} does not say that the work under ${key} goes on`)
    const lacking = workers.filter(({ key }) => !isCandidate(key)).map(({ key }) => key)
    for (const key of lacking)
      if (!told.some(({ subject }) => subject === key))
        this.#history.violate('R1', `${life.process.label} does not say that ${key} has no candidates`)
    for (const { key, worker, holder } of leases) {
      if (worker === null || holder === null) continue
      const codes = this.#reasons(life, snapshot, key).map(({ code }) => code)
      if (!codes.every((code) => calmCodes.includes(code)))
        this.#history.violate('R1', `${key} of ${holder} is explained in a calm by ${codes.join(' and ')}`)
    }
  }
}
