/**
 * The tables on SQLite. `drizzle-kit` turns them into `migrations/sqlite`; a check fails when the two differ.
 *
 * Property names are those of the rows in `core/store.ts`, so that a row read is a row of the port.
 */
import { sql } from 'drizzle-orm'
import { index, integer, primaryKey, sqliteTable, text } from 'drizzle-orm/sqlite-core'

/** One row per session. */
export const nodes = sqliteTable(
  'coordination_nodes',
  {
    namespace: text('namespace').notNull(),
    id: text('id').notNull(),
    name: text('name').notNull(),
    cluster: text('cluster').notNull(),
    state: text('state').$type<'active' | 'draining' | 'gone'>().notNull(),
    workers: text('workers', { mode: 'json' }).$type<readonly string[]>().notNull(),
    labels: text('labels', { mode: 'json' }).$type<Readonly<Record<string, string>>>().notNull(),
    version: text('version'),
    machine: text('machine'),
    process: text('process'),
    ttlMs: integer('ttl_ms').notNull(),
    operation: integer('operation').notNull(),
    beat: integer('beat').notNull(),
    startedAtMs: integer('started_at_ms').notNull(),
    heartbeatAtMs: integer('heartbeat_at_ms').notNull(),
    goneAtMs: integer('gone_at_ms'),
    joinedRevision: integer('joined_revision').notNull(),
    newsRevision: integer('news_revision').notNull(),
    revision: integer('revision').notNull(),
  },
  (table) => [
    primaryKey({ columns: [table.namespace, table.id] }),
    index('coordination_nodes_machine').on(table.machine, table.namespace),
  ],
)

/** One row per worker in its scope. */
export const workers = sqliteTable(
  'coordination_workers',
  {
    namespace: text('namespace').notNull(),
    key: text('key').notNull(),
    name: text('name').notNull(),
    kind: text('kind').$type<'single' | 'coordinated' | 'partitioned'>().notNull(),
    scope: text('scope').$type<'cluster' | 'global'>().notNull(),
    cluster: text('cluster'),
    generation: integer('generation').notNull(),
    slots: integer('slots').notNull(),
    paused: integer('paused', { mode: 'boolean' }).notNull(),
    handoverTimeoutMs: integer('handover_timeout_ms').notNull(),
    schedule: text('schedule'),
    revision: integer('revision').notNull(),
  },
  (table) => [primaryKey({ columns: [table.namespace, table.key] })],
)

/** One row per exclusive right. Rows outlive their holders, so that tokens never go back. */
export const leases = sqliteTable(
  'coordination_leases',
  {
    namespace: text('namespace').notNull(),
    key: text('key').notNull(),
    worker: text('worker'),
    slot: integer('slot').notNull(),
    generation: integer('generation').notNull(),
    target: text('target'),
    targetAtMs: integer('target_at_ms'),
    holder: text('holder'),
    token: integer('token').notNull(),
    attempt: integer('attempt'),
    identity: text('identity'),
    acquiredAtMs: integer('acquired_at_ms'),
    blockedNode: text('blocked_node'),
    blockedToken: integer('blocked_token'),
    cooldownNode: text('cooldown_node'),
    cooldownUntilMs: integer('cooldown_until_ms'),
    firedAtMs: integer('fired_at_ms'),
    waiters: text('waiters', { mode: 'json' }).$type<readonly string[]>().notNull(),
    pending: integer('pending', { mode: 'boolean' }).notNull(),
    revision: integer('revision').notNull(),
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
export const events = sqliteTable(
  'coordination_events',
  {
    namespace: text('namespace').notNull(),
    revision: integer('revision').notNull(),
    position: integer('position').notNull(),
    atMs: integer('at_ms').notNull(),
    type: text('type').notNull(),
    subject: text('subject').notNull(),
    node: text('node'),
    token: integer('token'),
    actor: text('actor'),
    reason: text('reason'),
    detail: text('detail', { mode: 'json' }).$type<Readonly<Record<string, unknown>>>(),
  },
  (table) => [primaryKey({ columns: [table.namespace, table.revision, table.position] })],
)

/** One row per namespace. Its update orders all changes. */
export const meta = sqliteTable('coordination_meta', {
  namespace: text('namespace').primaryKey(),
  revision: integer('revision').notNull(),
  watchers: text('watchers', { mode: 'json' }).$type<readonly string[]>().notNull(),
  longestTtlMs: integer('longest_ttl_ms').notNull(),
  tokenFloor: integer('token_floor').notNull(),
  serverIdentity: text('server_identity').notNull(),
  identitySettled: integer('identity_settled', { mode: 'boolean' }).notNull(),
})
