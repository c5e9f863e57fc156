/** The searches that spin runs: for each the size of the model, and whether a violation must be found. */

export interface Search {
  readonly name: string
  readonly nodes: 2 | 3
  /** How many crashes, slips and orders may occur, at any instant. */
  readonly crashes: number
  /** Lost answers, and requests that arrive after their sender has given up on them. */
  readonly slips: number
  /** Orders of an operator, who revokes the lease or has it handed over. */
  readonly orders: number
  /** Asks whether a node ends up working in time. Otherwise: only whether two nodes ever work at once. */
  readonly liveness: boolean
  /** Answers may come arbitrarily late. Otherwise they come at once; the model gives the reasons. */
  readonly lateAnswers: boolean
  /** Takes longer than all others together, and runs only with `--long`. */
  readonly long: boolean
  /** The name of the mutant in the model. */
  readonly mutant?: string
  /** Whether a violation must be found. */
  readonly fails: boolean
}

const safety = {
  nodes: 2,
  crashes: 0,
  slips: 0,
  orders: 0,
  liveness: false,
  lateAnswers: false,
  long: false,
  fails: false,
} as const

const liveness = { ...safety, liveness: true } as const

const each = { crashes: 1, slips: 1, orders: 1 } as const
const twice = { crashes: 2, slips: 2, orders: 2 } as const
const late = { lateAnswers: true } as const

/** A mutant, with no more faults than it needs to show. */
function mutant(name: string, mutant: string, more: Partial<Search>): Search {
  return { ...safety, name: `mutant: ${name}`, mutant, ...more, fails: true }
}

export const searches: readonly Search[] = [
  { ...safety, name: 'safety' },
  { ...safety, ...each, name: 'safety, all faults' },
  { ...safety, ...twice, name: 'safety, all faults twice' },
  { ...safety, ...late, name: 'safety, late answers' },
  { ...safety, ...late, crashes: 1, name: 'safety, late answers, a crash' },
  { ...safety, ...late, slips: 1, name: 'safety, late answers, a slip' },
  { ...safety, ...late, orders: 1, name: 'safety, late answers, an order' },
  { ...safety, ...late, ...each, long: true, name: 'safety, late answers, all faults' },
  { ...safety, nodes: 3, name: 'safety of three' },
  { ...safety, ...each, nodes: 3, name: 'safety of three, all faults' },
  { ...liveness, name: 'liveness' },
  { ...liveness, ...each, name: 'liveness, all faults' },
  { ...liveness, ...twice, name: 'liveness, all faults twice' },
  { ...liveness, nodes: 3, name: 'liveness of three' },
  { ...liveness, ...each, nodes: 3, name: 'liveness of three, all faults' },
  mutant('trust counts from the answer', 'TRUST_FROM_ANSWER', {}),
  mutant('trust counts from the answer, and answers are late', 'TRUST_FROM_ANSWER', late),
  mutant('trust is renewed before the news has been read', 'RENEW_UNREAD', { orders: 1 }),
  mutant('a beat need stand still for half as long', 'BURY_EARLY', {}),
  mutant('a node is buried without another look at its beat', 'BURY_UNCHECKED', {}),
  mutant('a blocked lease is free', 'CLAIM_BLOCKED', { orders: 1 }),
  mutant('a block is hardly waited for', 'WAIT_SHORT', { orders: 1 }),
  mutant('a release names no token, and comes whenever it likes', 'RELEASE_BLIND', { slips: 1 }),
  mutant('an acknowledgement names no token', 'ACKNOWLEDGE_BLIND', { slips: 2, orders: 2 }),
  mutant('a block is acknowledged before the work has settled', 'ACKNOWLEDGE_EARLY', { orders: 1 }),
  mutant('what was asked to be given back is begun after all', 'BEGIN_RENOUNCED', { slips: 1 }),
  mutant('nobody hears what is meant for them', 'NO_NEWS', { liveness: true, orders: 1 }),
  mutant('a target that is gone stays the target', 'FORGET_PLAN', { liveness: true, crashes: 1 }),
]
