/** The names, types, labels and help texts of all metrics. The documentation has the same table. */

/** A row of {@link metricTable}. */
export interface MetricRow {
  readonly type: 'gauge' | 'counter' | 'histogram'
  readonly labels: readonly string[]
  readonly help: string
  readonly buckets?: readonly number[]
}

/** Every metric. Durations are in seconds, as is customary for Prometheus. */
export const metricTable = {
  coordination_leaderless_seconds: {
    type: 'gauge',
    labels: ['worker'],
    help: 'How long a worker has had a lease that nobody holds, or only a silent node, the longest of its leases; 0 when all are held or it is paused',
  },
  coordination_partitions: {
    type: 'gauge',
    labels: ['worker', 'state'],
    help: 'Shares or partitions of a worker that are owned, moving or unowned',
  },
  coordination_leases: {
    type: 'gauge',
    labels: ['state'],
    help: 'Leases in the namespace that are held, moving, held by a silent node, blocked, unclaimed or free',
  },
  coordination_nodes: {
    type: 'gauge',
    labels: ['state'],
    help: 'Nodes in the namespace that are active, draining, silent for longer than their ttl, or gone',
  },
  coordination_changes_total: {
    type: 'counter',
    labels: [],
    help: 'Changes made in the namespace, by whichever node',
  },
  coordination_database_up: {
    type: 'gauge',
    labels: [],
    help: 'Whether the database answered for this very page: 1 or 0',
  },
  coordination_held_leases: {
    type: 'gauge',
    labels: [],
    help: 'Leases this node holds',
  },
  coordination_unsettled_passes: {
    type: 'gauge',
    labels: [],
    help: 'Leases that have ended on this node while work under them goes on, its signal ignored',
  },
  coordination_trust_remaining_seconds: {
    type: 'gauge',
    labels: [],
    help: 'How long this node may still act on its leases without another heartbeat; 0 when it may not',
  },
  coordination_term_seconds: {
    type: 'histogram',
    labels: ['worker'],
    help: 'How long terms of this node lasted that have ended',
    buckets: [1, 10, 60, 300, 1_800, 7_200, 43_200, 86_400, 604_800],
  },
  coordination_terms_ended_total: {
    type: 'counter',
    labels: ['worker', 'reason'],
    help: 'Terms of this node that have ended, by reason',
  },
  coordination_takeover_seconds: {
    type: 'histogram',
    labels: ['worker'],
    help: 'From the moment this node was named for a lease until it held it, by the clock of the database',
    buckets: [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60],
  },
  coordination_pass_failures_total: {
    type: 'counter',
    labels: ['worker'],
    help: 'Passes that threw on this node',
  },
  coordination_heartbeat_seconds: {
    type: 'histogram',
    labels: [],
    help: 'How long heartbeats of this node took to be answered',
    buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5],
  },
  coordination_heartbeat_failures_total: {
    type: 'counter',
    labels: [],
    help: 'Heartbeats of this node that were not answered',
  },
  coordination_store_failures_total: {
    type: 'counter',
    labels: [],
    help: 'Requests of this node to the database that failed, heartbeats among them',
  },
  coordination_statements_total: {
    type: 'counter',
    labels: [],
    help: 'Statements this node has sent to the database, not counting those that only begin or end a transaction',
  },
  coordination_trust_expired_total: {
    type: 'counter',
    labels: [],
    help: 'How often this node had to stop because its trust had ended',
  },
  coordination_sessions_lost_total: {
    type: 'counter',
    labels: [],
    help: 'How often this node was declared gone while it was alive',
  },
  coordination_event_loop_delay_seconds: {
    type: 'gauge',
    labels: ['quantile'],
    help: 'How late timers of this process fired since this was last asked; quantile 1 is the latest',
  },
  coordination_database_clock_offset_seconds: {
    type: 'gauge',
    labels: [],
    help: 'How far the clock of the database is ahead of that of this process',
  },
  coordination_database_clock_jumps_total: {
    type: 'counter',
    labels: [],
    help: 'How often the clock of the database has moved by more than a second otherwise than time passed here',
  },
} as const satisfies Readonly<Record<string, MetricRow>>

export type MetricName = keyof typeof metricTable

export const metricNames = Object.keys(metricTable) as MetricName[]

/** Metrics that are read when a page is requested. All others are counted as events happen. */
export const sampled: ReadonlySet<MetricName> = new Set([
  'coordination_leaderless_seconds',
  'coordination_partitions',
  'coordination_leases',
  'coordination_nodes',
  'coordination_changes_total',
  'coordination_database_up',
  'coordination_held_leases',
  'coordination_unsettled_passes',
  'coordination_trust_remaining_seconds',
  'coordination_statements_total',
  'coordination_event_loop_delay_seconds',
])
