/**
 * The tables on PostgreSQL. `drizzle-kit` turns them into `migrations/postgres`; a check fails when the two differ.
 *
 * Property names are those of the rows in `core/store.ts`, so that a row read is a row of the port.
 */
import { sql } from 'drizzle-orm'
import { bigint, boolean, index, integer, jsonb, pgTable, primaryKey, text } from 'drizzle-orm/pg-core'

const int8 = (name: string) => bigint(name, { mode: 'number' })

/**
 * One row per session. No index covers a column that a heartbeat changes, and the migration sets a low fill factor,
 * so that a heartbeat stays a heap-only update.
 */
export const nodes = pgTable(
  'coordination_nodes',
  {
    namespace: text('namespace').notNull(),
    id: text('id').notNull(),
    name: text('name').notNull(),
    cluster: text('cluster').notNull(),
    state: text('state').$type<'active' | 'draining' | 'gone'>().notNull(),
    workers: jsonb('workers').$type<readonly string[]>().notNull(),
    labels: jsonb('labels').$type<Readonly<Record<string, string>>>().notNull(),
    version: text('version'),
    machine: text('machine'),
    process: text('process'),
    ttlMs: int8('ttl_ms').notNull(),
    operation: int8('operation').notNull(),
    beat: int8('beat').notNull(),
    startedAtMs: int8('started_at_ms').notNull(),
    heartbeatAtMs: int8('heartbeat_at_ms').notNull(),
    goneAtMs: int8('gone_at_ms'),
    joinedRevision: int8('joined_revision').notNull(),
    newsRevision: int8('news_revision').notNull(),
    revision: int8('revision').notNull(),
  },
  (table) => [
    primaryKey({ columns: [table.namespace, table.id] }),
    index('coordination_nodes_machine').on(table.machine, table.namespace),
  ],
)

/** One row per worker in its scope. */
export const workers = pgTable(
  'coordination_workers',
  {
    namespace: text('namespace').notNull(),
    key: text('key').notNull(),
    name: text('name').notNull(),
    kind: text('kind').$type<'single' | 'coordinated' | 'partitioned'>().notNull(),
    scope: text('scope').$type<'cluster' | 'global'>().notNull(),
    cluster: text('cluster'),
    generation: int8('generation').notNull(),
    slots: integer('slots').notNull(),
    paused: boolean('paused').notNull(),
    handoverTimeoutMs: int8('handover_timeout_ms').notNull(),
    schedule: text('schedule'),
    revision: int8('revision').notNull(),
  },
  (table) => [primaryKey({ columns: [table.namespace, table.key] })],
)

/** One row per exclusive right. Rows outlive their holders, so that tokens never go back. */
export const leases = pgTable(
  'coordination_leases',
  {
    namespace: text('namespace').notNull(),
    key: text('key').notNull(),
    worker: text('worker'),
    slot: integer('slot').notNull(),
    generation: int8('generation').notNull(),
    target: text('target'),
    targetAtMs: int8('target_at_ms'),
    holder: text('holder'),
    token: int8('token').notNull(),
    attempt: int8('attempt'),
    identity: text('identity'),
    acquiredAtMs: int8('acquired_at_ms'),
    blockedNode: text('blocked_node'),
    blockedToken: int8('blocked_token'),
    cooldownNode: text('cooldown_node'),
    cooldownUntilMs: int8('cooldown_until_ms'),
    firedAtMs: int8('fired_at_ms'),
    waiters: jsonb('waiters').$type<readonly string[]>().notNull(),
    pending: boolean('pending').notNull(),
    revision: int8('revision').notNull(),
  },
  (table) => [
    primaryKey({ columns: [table.namespace, table.key] }),
    // The most selective column comes first, because a planner without statistics takes any index that fits.
    index('coordination_leases_worker').on(table.worker, table.namespace),
    index('coordination_leases_holder').on(table.holder, table.namespace),
    index('coordination_leases_target').on(table.target, table.namespace),
    index('coordination_leases_blocked').on(table.blockedNode, table.namespace),
    index('coordination_leases_pending').on(table.namespace).where(sql`${table.pending}`),
  ],
)

/** The audit trail and timeline. */
export const events = pgTable(
  'coordination_events',
  {
    namespace: text('namespace').notNull(),
    revision: int8('revision').notNull(),
    position: integer('position').notNull(),
    atMs: int8('at_ms').notNull(),
    type: text('type').notNull(),
    subject: text('subject').notNull(),
    node: text('node'),
    token: int8('token'),
    actor: text('actor'),
    reason: text('reason'),
    detail: jsonb('detail').$type<Readonly<Record<string, unknown>>>(),
  },
  (table) => [primaryKey({ columns: [table.namespace, table.revision, table.position] })],
)

/** One row per namespace. Its update orders all changes. */
export const meta = pgTable('coordination_meta', {
  namespace: text('namespace').primaryKey(),
  revision: int8('revision').notNull(),
  watchers: jsonb('watchers').$type<readonly string[]>().notNull(),
  longestTtlMs: int8('longest_ttl_ms').notNull(),
  tokenFloor: int8('token_floor').notNull(),
  serverIdentity: text('server_identity').notNull(),
  identitySettled: boolean('identity_settled').notNull(),
})
