/**
 * Judges a history. It knows nothing of the engine, only what must hold of leases, tokens and writes, whatever made
 * them.
 */
import type { Entry } from './history.js'

/** The result of a check. */
export interface Verdict {
  /** Each as one sentence; empty when all promises were kept. */
  readonly violations: readonly string[]
  /** How often each kind of fault was tried, and how often it really happened. */
  readonly faults: ReadonlyMap<string, FaultCount>
  readonly notRun: ReadonlyMap<string, string>
  readonly terms: number
  readonly samples: number
  readonly writes: number
  /** How many writes a fence refused. Without any, the fences were not tested. */
  readonly refused: number
  /** The longest time in ms from the end of all faults until everything had found its place. */
  readonly slowestSettlingMs: number
}

export interface FaultCount {
  readonly tried: number
  readonly happened: number
}

type Of<T extends Entry['t']> = Extract<Entry, { readonly t: T }>

/** A term of one node. It was trusted at `firstMs` and at `lastMs`, and therefore at every instant in between. */
interface Term {
  readonly by: string
  readonly key: string
  readonly token: number
  readonly generation: number
  readonly firstMs: number
  lastMs: number
}

export function check(entries: readonly Entry[]): Verdict {
  const terms = termsOf(only(entries, 'held'))
  const wrote = only(entries, 'wrote')
  return {
    violations: [
      ...overlaps(terms),
      ...generationOverlaps(terms),
      ...tokensThatDidNotGrow(terms),
      ...writesOutOfOrder(only(entries, 'written')),
      ...forgottenOrders(entries),
      ...notSettled(only(entries, 'settled')),
      ...endedByThemselves(only(entries, 'ended')),
      ...tooOld(only(entries, 'admitted')),
    ],
    faults: faultsOf(entries),
    notRun: new Map(only(entries, 'not-run').map(({ kind, why }) => [kind, why])),
    terms: terms.length,
    samples: only(entries, 'held').length,
    writes: wrote.filter(({ error }) => error === null).length,
    refused: wrote.filter(({ error }) => error === 'FencedError').length,
    slowestSettlingMs: slowestSettlingMs(entries),
  }
}

function only<T extends Entry['t']>(entries: readonly Entry[], t: T): Of<T>[] {
  return entries.filter((entry): entry is Of<T> => entry.t === t)
}

function termsOf(held: readonly Of<'held'>[]): Term[] {
  const terms = new Map<string, Term>()
  for (const { by, atMs, terms: seen } of held) {
    for (const [key, token, generation] of seen) {
      const id = `${by} ${key} ${token}`
      const term = terms.get(id)
      if (term === undefined) terms.set(id, { by, key, token, generation, firstMs: atMs, lastMs: atMs })
      else term.lastMs = Math.max(term.lastMs, atMs)
    }
  }
  return [...terms.values()]
}

/** At no instant do two nodes trust that they hold one lease. */
function overlaps(terms: readonly Term[]): string[] {
  return [...grouped(terms, ({ key }) => key).values()].flatMap((group) =>
    overlapping(group, (a, b) => a !== b),
  )
}

/** No two generations of one coordinated worker run at once. Shares have the keys `worker#0`, `worker#1`, and so on. */
function generationOverlaps(terms: readonly Term[]): string[] {
  const shares = terms.filter(({ generation }) => generation > 0)
  return [...grouped(shares, ({ key }) => key.split('#')[0] ?? '').values()].flatMap((group) =>
    overlapping(group, (a, b) => a.generation !== b.generation),
  )
}

/** Compares each term with those that have begun before it and not ended yet. */
function overlapping(group: readonly Term[], conflict: (a: Term, b: Term) => boolean): string[] {
  const found: string[] = []
  let open: Term[] = []
  for (const late of [...group].sort((a, b) => a.firstMs - b.firstMs)) {
    open = open.filter((early) => early.lastMs >= late.firstMs)
    for (const early of open) if (conflict(early, late)) found.push(overlapSentence(early, late))
    open.push(late)
  }
  return found
}

function overlapSentence(early: Term, late: Term): string {
  const overlapMs = (Math.min(early.lastMs, late.lastMs) - late.firstMs).toFixed(3)
  return (
    `${early.by} still held ${early.key} (${early.token}, generation ${early.generation}) when ${late.by} ` +
    `held ${late.key} (${late.token}, generation ${late.generation}) at ${late.firstMs.toFixed(3)}: for ${overlapMs} ms at least`
  )
}

/** Each term of a lease has a greater token than all terms that began before it. */
function tokensThatDidNotGrow(terms: readonly Term[]): string[] {
  return [...grouped(terms, ({ key }) => key).values()].flatMap((group) => {
    const inTime = [...group].sort((a, b) => a.firstMs - b.firstMs)
    return inTime.slice(1).flatMap((term, index) => {
      const before = inTime[index]
      if (before === undefined || before.token < term.token) return []
      return [
        `${term.by} got ${term.key} with token ${term.token} after ${before.by} had it with ${before.token}`,
      ]
    })
  })
}

/** A fence keeps its lease until the commit, so for each lease the rows must be in the order of their tokens. */
function writesOutOfOrder(written: readonly Of<'written'>[]): string[] {
  return written.flatMap(({ rows }) => {
    const highest = new Map<string, number>()
    return rows.flatMap(([key, token]) => {
      const before = highest.get(key) ?? 0
      highest.set(key, Math.max(before, token))
      return token < before ? [`a write to ${key} under token ${token} came after one under ${before}`] : []
    })
  })
}

/** Each order that was acknowledged to an operator has its event, unless the database has forgotten both. */
function forgottenOrders(entries: readonly Entry[]): string[] {
  const kept = only(entries, 'events').at(-1)
  if (kept === undefined) return []
  const reasons = new Set(kept.reasons)
  const since = only(entries, 'forgot').at(-1)?.atMs ?? 0
  return only(entries, 'ordered')
    .filter(({ atMs, reason }) => atMs > since && !reasons.has(reason))
    .map(
      ({ what, reason }) => `the order "${what}" was acknowledged, and no event has its reason "${reason}"`,
    )
}

function notSettled(settled: readonly Of<'settled'>[]): string[] {
  return settled.flatMap(({ ok, detail }) =>
    ok ? [] : [`after the faults had ended not everything found its place: ${detail}`],
  )
}

/** No process ends unless the campaign has ended it or expects its end. */
function endedByThemselves(ended: readonly Of<'ended'>[]): string[] {
  return ended.flatMap(({ by, how, asked }) => (asked ? [] : [`${by} ended by itself: ${how}`]))
}

/** A node that does not know all migrations is refused before it can misread anything. */
function tooOld(admitted: readonly Of<'admitted'>[]): string[] {
  return admitted.map(({ by }) => `${by} was let in, and does not know all migrations that the database has`)
}

function faultsOf(entries: readonly Entry[]): Map<string, FaultCount> {
  const counts = new Map<string, FaultCount>()
  for (const { kind } of only(entries, 'fault')) {
    const { tried = 0, happened = 0 } = counts.get(kind) ?? {}
    counts.set(kind, { tried: tried + 1, happened })
  }
  for (const { kind, times } of only(entries, 'happened')) {
    const { tried = 0, happened = 0 } = counts.get(kind) ?? {}
    counts.set(kind, { tried, happened: happened + (times > 0 ? 1 : 0) })
  }
  return new Map([...counts].sort(([a], [b]) => a.localeCompare(b)))
}

function slowestSettlingMs(entries: readonly Entry[]): number {
  let quietAtMs = 0
  let slowestMs = 0
  for (const entry of entries) {
    if (entry.t === 'quiet') quietAtMs = entry.atMs
    if (entry.t === 'settled') slowestMs = Math.max(slowestMs, entry.atMs - quietAtMs)
  }
  return slowestMs
}

function grouped<T>(items: readonly T[], of: (item: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>()
  for (const item of items) {
    const group = groups.get(of(item))
    if (group === undefined) groups.set(of(item), [item])
    else group.push(item)
  }
  return groups
}

/** Returns the verdict as text for people. */
export function report(verdict: Verdict): string {
  const { violations, faults, notRun, terms, samples, writes, refused, slowestSettlingMs } = verdict
  const tried = [...faults.values()].reduce((sum, { tried }) => sum + tried, 0)
  const rows = [...faults].map(([kind, count]) => `  ${kind.padEnd(28)} ${count.happened} of ${count.tried}`)
  return [
    `${tried} faults; ${terms} terms in ${samples} looks; ${writes} fenced writes, ${refused} refused; ` +
      `settled within ${Math.round(slowestSettlingMs)} ms`,
    'faults that really happened:',
    ...rows,
    ...[...notRun].map(([kind, why]) => `  ${kind.padEnd(28)} not run: ${why}`),
    violations.length === 0 ? 'no violation' : `${violations.length} violations:`,
    ...violations.slice(0, 50).map((violation) => `  ${violation}`),
  ].join('\n')
}
