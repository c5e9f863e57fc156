/** What spin is asked: each a size of the model, and whether it must find something. */

export interface Search {
  readonly name: string
  readonly nodes: 2 | 3
  /** How many of each kind of fault may come, at any instant. */
  readonly crashes: number
  /** Lost answers, late requests, terms that end by themselves. */
  readonly slips: number
  readonly revokes: number
  /** Asks whether somebody ends up working; else, whether two ever work at once. */
  readonly liveness: boolean
  /** One bit for each state seen, by two hashes: little memory, and a few states are taken for others. */
  readonly byBits: boolean
  /** Steps that a course of events may have; default as many as there are. What shows soon is found soon with few. */
  readonly depth?: number
  /** As the models know it. */
  readonly mutant?: string
  /** Whether it must be violated. */
  readonly fails: boolean
}

const calmPair = {
  nodes: 2,
  crashes: 0,
  slips: 0,
  revokes: 0,
  liveness: false,
  byBits: false,
  fails: false,
} as const

const pair = { ...calmPair, crashes: 1, slips: 2, revokes: 1, byBits: true } as const

/** With no more faults than it needs to show. */
function mutant(name: string, mutant: string, more: Partial<Search>): Search {
  return { ...calmPair, name: `mutant: ${name}`, mutant, depth: 300, ...more, fails: true }
}

const alive = { ...calmPair, liveness: true } as const

export const searches: readonly Search[] = [
  { ...calmPair, name: 'safety' },
  { ...calmPair, name: 'safety, a crash', crashes: 1 },
  { ...calmPair, name: 'safety, a revoke', revokes: 1 },
  { ...calmPair, name: 'safety, a slip', slips: 1 },
  { ...pair, name: 'safety, all faults' },
  { ...pair, name: 'safety of three, all faults', nodes: 3 },
  { ...alive, name: 'liveness' },
  { ...alive, name: 'liveness, a crash', crashes: 1 },
  { ...alive, name: 'liveness, a revoke', revokes: 1 },
  { ...alive, name: 'liveness, a slip', slips: 1 },
  mutant('trust counts from the answer', 'TRUST_FROM_ANSWER', {}),
  mutant('trust is renewed before the news has been read', 'RENEW_UNREAD', { revokes: 1, depth: 80 }),
  mutant('a beat need stand still for half as long', 'BURY_EARLY', {}),
  mutant('a node is buried without another look at its beat', 'BURY_UNCHECKED', {}),
  mutant('a blocked lease is free', 'CLAIM_BLOCKED', { revokes: 1 }),
  mutant('a block is hardly waited for', 'WAIT_SHORT', { revokes: 1 }),
  mutant('a release names no token, and comes whenever it likes', 'RELEASE_BLIND', { slips: 2 }),
  mutant('a block is acknowledged before the work has settled', 'ACKNOWLEDGE_EARLY', { revokes: 1 }),
  mutant('nobody hears what is meant for them', 'NO_NEWS', { liveness: true, revokes: 1 }),
  mutant('a target that is gone stays the target', 'FORGET_PLAN', { liveness: true, crashes: 1 }),
]
