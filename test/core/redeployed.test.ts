/** Tests for leases of workers that another version of the application declares in another way, and that come back. */
import t, { type Test } from 'tap'
import type { PassContext, WorkerDefinition } from '../../plugin/core/work/worker.js'
import { World, type WorldNode } from '../support/world.js'
import { inChanges, overriding } from '../support/wrapped-store.js'

interface Pass {
  readonly node: string
  readonly key: string
  readonly token: number
}

/** Versions of one application, each on a node of its own, and what their passes are doing. */
class Deployments {
  readonly world: World
  /** Every pass that has begun. */
  readonly begun: Pass[] = []
  readonly running = new Set<Pass>()
  /** Passes whose lease another one had, in an earlier term, when they began. */
  readonly beside: string[] = []

  constructor(t: Test) {
    this.world = new World(t)
  }

  /** Defines the worker as one version does. Its passes end with their signal, or when `until` has resolved. */
  define(node: string, kind: object, until?: Promise<void>): WorkerDefinition {
    const run = async ({ lease, signal }: PassContext): Promise<void> => {
      const pass = { node, key: lease.key, token: lease.token }
      for (const other of this.running)
        if (other.key === pass.key) this.beside.push(`${pass.key} on ${node} beside ${other.node}`)
      this.begun.push(pass)
      this.running.add(pass)
      await (until ??
        new Promise((resolve) => signal.addEventListener('abort', () => resolve(undefined), { once: true })))
      this.running.delete(pass)
    }
    const definition: object = { name: 'data', scope: 'global', ...kind, run }
    return definition as WorkerDefinition
  }

  /** Runs this version on a node of its own for a while. */
  async deploy(name: string, kind: object): Promise<void> {
    const node: WorldNode = await this.world.node(name)
    node.coordinator.worker(this.define(name, kind))
    const started = node.coordinator.start()
    await this.world.advance(30_000, 250)
    await started
    const closed = node.coordinator.close()
    await this.world.advanceUntil(() => node.coordinator.state === 'closed', 60_000)
    await closed
  }

  tokensOf(key: string): number[] {
    return this.begun.filter((pass) => pass.key === key).map(({ token }) => token)
  }
}

const partitions = (count: number): object => ({ kind: 'partitioned', partitions: count })

/** Roll-backs: a kind of worker, another one that replaces it, and a lease that only the first has. */
const rollbacks: readonly (readonly [string, object, object, string])[] = [
  ['fewer partitions', partitions(4), partitions(2), 'global/data#3'],
  ['no partitions', partitions(4), { kind: 'single' }, 'global/data#0'],
  ['no shares', { kind: 'coordinated' }, { kind: 'single' }, 'global/data#0'],
]

for (const [what, first, second, key] of rollbacks) {
  t.test(`after a version with ${what} was rolled back, tokens are greater than before`, async (t) => {
    const deployments = new Deployments(t)
    await deployments.deploy('a', first)
    // Tokens leap ahead of the time, which therefore does not raise them any more.
    deployments.world.identity = 'server-2'
    await deployments.deploy('b', first)
    await deployments.deploy('c', second)
    await deployments.deploy('d', first)
    const tokens = deployments.tokensOf(key)
    t.equal(tokens.length, 3)
    t.ok(
      tokens.every((token, term) => token > (tokens[term - 1] ?? 0)),
      `${tokens}`,
    )
  })

  t.test(`work that goes on is waited for although ${what} were declared in between`, async (t) => {
    const deployments = new Deployments(t)
    const { world } = deployments
    const [a, b] = [await world.node('a'), await world.node('b')]
    let end: () => void = () => undefined
    const long = new Promise<void>((resolve) => {
      end = resolve
    })
    const old = a.coordinator.worker(deployments.define('a', first, long))
    await world.start(a, b)
    await world.advance(2_000)
    void old.stop()
    await world.advance(2_000)
    const between = b.coordinator.worker(deployments.define('b', second))
    await world.advance(2_000)
    const over = between.stop()
    await world.advance(2_000)
    await over
    b.coordinator.worker(deployments.define('b', first))
    await world.advance(5_000)
    t.notOk(deployments.beside.includes(`${key} on b beside a`), 'no two nodes work under one lease')
    end()
    await world.advance(30_000, 250)
    t.ok([...deployments.running].some((pass) => pass.node === 'b' && pass.key === key))
  })
}

/** Ends the work that has ignored its signal. */
const end: (() => void)[] = []

t.test(
  'no share begins while an earlier one goes on, although another kind was declared in between',
  async (t) => {
    const deployments = new Deployments(t)
    const { world, running } = deployments
    const [a, b] = [await world.node('a'), await world.node('b')]
    const old = [a, b].map(({ coordinator, name }) => {
      const long = name === 'b' ? new Promise<void>((resolve) => end.push(resolve)) : undefined
      return coordinator.worker(deployments.define(name, { kind: 'coordinated' }, long))
    })
    await world.start(a, b)
    await world.advance(2_000)
    t.same([...running].map(({ key }) => key).sort(), ['global/data#0', 'global/data#1'])
    for (const worker of old) void worker.stop()
    await world.advance(2_000)
    const between = a.coordinator.worker(deployments.define('a', { kind: 'single' }))
    await world.advance(2_000)
    void between.stop()
    await world.advance(2_000)
    a.coordinator.worker(deployments.define('a', { kind: 'coordinated' }))
    await world.advance(5_000)
    t.same(
      [...running].map(({ node }) => node),
      ['b'],
    )
    for (const resolve of end) resolve()
    await world.advance(5_000)
    t.same(
      [...running].map(({ node, key }) => `${node} ${key}`),
      ['a global/data#0'],
    )
  },
)

for (const kind of [{ kind: 'coordinated' }, partitions(2)]) {
  t.test(
    `many workers that are ${Object.values(kind).join(' ')} join with no more reads than one`,
    async (t) => {
      const world = new World(t)
      const reads = async (name: string, count: number): Promise<number> => {
        let leases = 0
        const node = await world.node(name, {
          namespace: name,
          wrap: inChanges((change, session) =>
            session?.operation !== 1
              ? change
              : overriding(change, {
                  leases: (filter) => {
                    leases += 1
                    return change.leases(filter)
                  },
                }),
          ),
        })
        const define = (number: number): WorkerDefinition => {
          const definition: object = {
            name: `data-${number}`,
            scope: 'global',
            ...kind,
            run: async () => undefined,
          }
          return definition as WorkerDefinition
        }
        for (let number = 0; number < count; number++) node.coordinator.worker(define(number))
        const started = node.coordinator.start()
        await world.advanceUntil(() => node.coordinator.state === 'running', 5_000)
        await started
        return leases
      }
      t.equal(await reads('many', 50), await reads('one', 1))
    },
  )
}
