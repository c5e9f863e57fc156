/**
 * The tables on MySQL and MariaDB. `drizzle-kit` turns them into `migrations/mysql`; a check fails when the two
 * differ.
 *
 * Property names are those of the rows in `core/store.ts`, so that a row read is a row of the port.
 *
 * How texts are compared is declared not here but in the migrations, by hand: byte by byte, including trailing
 * blanks. The collation that does so has one name on MySQL and another on MariaDB.
 */
import {
  bigint,
  boolean,
  customType,
  index,
  int,
  mysqlTable,
  primaryKey,
  text,
  varchar,
} from 'drizzle-orm/mysql-core'

const int8 = (name: string) => bigint(name, { mode: 'number' })

/** A name or key. An index takes no text without a limit, and at most 768 characters in all its columns together. */
const name = (column: string) => varchar(column, { length: 255 })

/** Shorter, so that a namespace and a name fit into one index. */
const namespace = () => varchar('namespace', { length: 128 }).notNull()

/** JSON is a type of its own on MySQL and a text on MariaDB. A text is the same on both. */
const json = customType<{ data: unknown; driverData: string }>({
  dataType: () => 'mediumtext',
  toDriver: (value) => JSON.stringify(value),
  fromDriver: (value) => JSON.parse(value),
})

/** One row per session. No index covers a column that a heartbeat changes. */
export const nodes = mysqlTable(
  'coordination_nodes',
  {
    namespace: namespace(),
    id: name('id').notNull(),
    name: name('name').notNull(),
    cluster: name('cluster').notNull(),
    state: varchar('state', { length: 16 }).$type<'active' | 'draining' | 'gone'>().notNull(),
    workers: json('workers').$type<readonly string[]>().notNull(),
    labels: json('labels').$type<Readonly<Record<string, string>>>().notNull(),
    version: text('version'),
    machine: name('machine'),
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
export const workers = mysqlTable(
  'coordination_workers',
  {
    namespace: namespace(),
    key: name('key').notNull(),
    name: name('name').notNull(),
    kind: varchar('kind', { length: 16 }).$type<'single' | 'coordinated' | 'partitioned'>().notNull(),
    scope: varchar('scope', { length: 16 }).$type<'cluster' | 'global'>().notNull(),
    cluster: name('cluster'),
    generation: int8('generation').notNull(),
    slots: int('slots').notNull(),
    paused: boolean('paused').notNull(),
    handoverTimeoutMs: int8('handover_timeout_ms').notNull(),
    schedule: text('schedule'),
    revision: int8('revision').notNull(),
  },
  (table) => [primaryKey({ columns: [table.namespace, table.key] })],
)

/** One row per exclusive right. Rows outlive their holders, so that tokens never go back. */
export const leases = mysqlTable(
  'coordination_leases',
  {
    namespace: namespace(),
    key: name('key').notNull(),
    worker: name('worker'),
    slot: int('slot').notNull(),
    generation: int8('generation').notNull(),
    target: name('target'),
    targetAtMs: int8('target_at_ms'),
    holder: name('holder'),
    token: int8('token').notNull(),
    attempt: int8('attempt'),
    identity: text('identity'),
    acquiredAtMs: int8('acquired_at_ms'),
    blockedNode: name('blocked_node'),
    blockedToken: int8('blocked_token'),
    cooldownNode: name('cooldown_node'),
    cooldownUntilMs: int8('cooldown_until_ms'),
    firedAtMs: int8('fired_at_ms'),
    waiters: json('waiters').$type<readonly string[]>().notNull(),
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
    index('coordination_leases_pending').on(table.namespace, table.pending),
  ],
)

/** The audit trail and timeline. */
export const events = mysqlTable(
  'coordination_events',
  {
    namespace: namespace(),
    revision: int8('revision').notNull(),
    position: int('position').notNull(),
    atMs: int8('at_ms').notNull(),
    type: name('type').notNull(),
    subject: name('subject').notNull(),
    node: name('node'),
    token: int8('token'),
    actor: text('actor'),
    reason: text('reason'),
    detail: json('detail').$type<Readonly<Record<string, unknown>>>(),
  },
  (table) => [primaryKey({ columns: [table.namespace, table.revision, table.position] })],
)

/** One row per namespace. Its update orders all changes. */
export const meta = mysqlTable(
  'coordination_meta',
  {
    namespace: namespace(),
    revision: int8('revision').notNull(),
    watchers: json('watchers').$type<readonly string[]>().notNull(),
    longestTtlMs: int8('longest_ttl_ms').notNull(),
    tokenFloor: int8('token_floor').notNull(),
    serverIdentity: text('server_identity').notNull(),
    identitySettled: boolean('identity_settled').notNull(),
  },
  (table) => [primaryKey({ columns: [table.namespace] })],
)
