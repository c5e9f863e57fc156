/**
 * Stores that do not do what their database does: they fail, lose answers, take their time or are counted. Each function
 * returns what a node is given as `wrap`.
 */
import { StoreError } from '../../plugin/core/errors.js'
import type { Change, SessionKey, Store } from '../../plugin/core/store.js'
import type { Clock } from '../../plugin/core/time/clock.js'

export type Wrap = (store: Store) => Store

/** The verbs of a store that ask the database for something. */
const requests = [
  'heartbeat',
  'view',
  'news',
  'look',
  'beats',
  'neighbours',
  'snapshot',
  'leasesAfter',
  'namespaces',
  'events',
  'change',
  'prune',
] as const satisfies readonly (keyof Store)[]

export type Request = (typeof requests)[number]

/** Calls `meet` in place of these requests, or of all. What it returns is the answer; `run` asks the database. */
export function around(
  meet: (run: () => Promise<unknown>, request: Request) => Promise<unknown>,
  ...names: readonly Request[]
): Wrap {
  return (store) => {
    const own = (names.length > 0 ? names : requests).map((name) => {
      const verb = store[name].bind(store) as (...given: unknown[]) => Promise<unknown>
      return [name, (...given: unknown[]) => meet(() => verb(...given), name)]
    })
    return overriding(store, Object.fromEntries(own))
  }
}

/** Refuses these requests, or all, while the outage is on: the database does not get to see them. */
export function failing(outage: { readonly on: boolean }, ...names: readonly Request[]): Wrap {
  return around(
    async (run) => {
      if (outage.on) throw new StoreError('The database is away.', 'none')
      return run()
    },
    ...names,
  )
}

/** Loses the answers to the `next` changes, which are made all the same. Counts them down. */
export function losingAnswers(loss: { next: number }): Wrap {
  return around(async (run) => {
    const answer = await run()
    if (loss.next <= 0) return answer
    loss.next -= 1
    throw new StoreError('The answer was lost.', 'unknown')
  }, 'change')
}

/** Answers these requests, or all, once `until` has settled. They are carried out at once. */
export function answeringLate(
  until: (request: Request) => Promise<unknown> | undefined,
  ...names: readonly Request[]
): Wrap {
  return around(
    async (run, request) => {
      const answer = await run()
      await until(request)
      return answer
    },
    ...names,
  )
}

/** Answers changes `pauseMs` later by the clock of their node. They are made at once. */
export function answeringChangesLate(
  node: () => { readonly clock: Clock },
  answers: { readonly pauseMs: number },
): Wrap {
  return answeringLate(() => {
    const { pauseMs } = answers
    if (pauseMs <= 0) return
    return new Promise<void>((resolve) => node().clock.setTimer(pauseMs, resolve))
  }, 'change')
}

/** Counts requests, each under its own name. */
export function counting(calls: Map<string, number>): Wrap {
  return around((run, request) => {
    calls.set(request, (calls.get(request) ?? 0) + 1)
    return run()
  })
}

/** Counts what the work of changes asks for, each verb under its own name. */
export function countingInChanges(calls: Map<string, number>): Wrap {
  return inChanges(
    (change) =>
      new Proxy(change, {
        get(_, name) {
          const value: unknown = Reflect.get(change, name, change)
          if (typeof value !== 'function') return value
          return (...given: unknown[]): unknown => {
            calls.set(String(name), (calls.get(String(name)) ?? 0) + 1)
            return Reflect.apply(value, change, given)
          }
        },
      }),
  )
}

/** Puts something else in the place of each change, for the work to use. */
export function inChanges(wrap: (change: Change, session: SessionKey | undefined) => Change): Wrap {
  return (store) =>
    overriding(store, {
      change: (session, work, ahead) => store.change(session, (change) => work(wrap(change, session)), ahead),
    })
}

/** Lets changes see the leases with these keys as fenced, as if a user's transaction held them. */
export function fenced(fences: ReadonlySet<string>): Wrap {
  return inChanges((change) =>
    overriding(change, {
      leases: async (filter) =>
        (await change.leases(filter)).map((row) => ({ ...row, fenced: fences.has(row.key) })),
    }),
  )
}

/** Returns the same object with some members replaced. */
export function overriding<T extends object>(target: T, own: Partial<T>): T {
  return new Proxy(target, {
    get(_, name) {
      if (name in own) return Reflect.get(own, name)
      const value: unknown = Reflect.get(target, name, target)
      return typeof value === 'function' ? value.bind(target) : value
    },
  })
}
