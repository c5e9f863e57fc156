/**
 * The tables on SQL Server. `drizzle-kit` turns them into `migrations/mssql`; a check fails when the two differ.
 *
 * Property names are those of the rows in `core/store.ts`, so that a row read is a row of the port. Each type also
 * defines how its values are written and read, by `mapToDriverValue` and `mapFromDriverValue`, whether they are
 * passed directly or as JSON.
 */
import { customType, index, mssqlTable, primaryKey } from 'drizzle-orm/mssql-core'

/** Texts are compared by their code units. The database's own collation would usually treat `a` and `A` as equal. */
export const collation = 'Latin1_General_100_BIN2'

/** The longest key. Together with a namespace it fills the 900 bytes that an index takes. */
const keyLength = 320

/** The longest namespace. */
const namespaceLength = 128

/**
 * Returns a key as it is stored. SQL Server treats texts that differ only in trailing blanks as equal, in indexes,
 * too. A key that ends with blanks is therefore stored with a mark behind them. A key that ends with blanks and marks
 * gets one more mark, because it would otherwise be read as another key.
 */
export function storedKey(key: string): string {
  return / \ue000*$/.test(key) ? `${key}\ue000` : key
}

function readKey(text: string): string {
  return / \ue000+$/.test(text) ? text.slice(0, -1) : text
}

/** A text that rows are looked up by. */
const key = customType<{ data: string; driverData: string }>({
  dataType: () => `nvarchar(${keyLength}) COLLATE ${collation}`,
  toDriver: storedKey,
  fromDriver: readKey,
})

const namespace = customType<{ data: string; driverData: string }>({
  dataType: () => `nvarchar(${namespaceLength}) COLLATE ${collation}`,
  toDriver: storedKey,
  fromDriver: readKey,
})

/** A text that no row is looked up by. */
const text = customType<{ data: string; driverData: string }>({
  dataType: () => `nvarchar(max) COLLATE ${collation}`,
})

/** One of a few words. */
const word = customType<{ data: string; driverData: string }>({
  dataType: () => `nvarchar(16) COLLATE ${collation}`,
})

/** A list of keys in JSON. They are stored as keys are, so that a key can be found in the list. */
const keys = customType<{ data: readonly string[]; driverData: string }>({
  dataType: () => `nvarchar(max) COLLATE ${collation}`,
  toDriver: (list) => JSON.stringify(list.map(storedKey)),
  fromDriver: (json) => listOf(json).map(readKey),
})

/** Any other value, in JSON. */
const json = customType<{ data: unknown; driverData: string }>({
  dataType: () => `nvarchar(max) COLLATE ${collation}`,
  toDriver: (value) => JSON.stringify(value),
  fromDriver: (value) => JSON.parse(value),
})

/** The driver returns these as texts, because not all of them would fit a number. Ours do. */
const int8 = customType<{ data: number; driverData: number | string }>({
  dataType: () => 'bigint',
  fromDriver: Number,
})

const int4 = customType<{ data: number; driverData: number }>({ dataType: () => 'int' })

const flag = customType<{ data: boolean; driverData: boolean | number }>({
  dataType: () => 'bit',
  fromDriver: Boolean,
})

/** One row per session. No index covers a column that a heartbeat changes. */
export const nodes = mssqlTable(
  'coordination_nodes',
  {
    namespace: namespace('namespace').notNull(),
    id: key('id').notNull(),
    name: text('name').notNull(),
    cluster: text('cluster').notNull(),
    state: word('state').$type<'active' | 'draining' | 'gone'>().notNull(),
    workers: keys('workers').notNull(),
    labels: json('labels').$type<Readonly<Record<string, string>>>().notNull(),
    version: text('version'),
    machine: key('machine'),
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
    primaryKey({ name: 'coordination_nodes_pkey', columns: [table.namespace, table.id] }),
    index('coordination_nodes_machine').on(table.machine, table.namespace),
  ],
)

/** One row per worker in its scope. */
export const workers = mssqlTable(
  'coordination_workers',
  {
    namespace: namespace('namespace').notNull(),
    key: key('key').notNull(),
    name: text('name').notNull(),
    kind: word('kind').$type<'single' | 'coordinated' | 'partitioned'>().notNull(),
    scope: word('scope').$type<'cluster' | 'global'>().notNull(),
    cluster: text('cluster'),
    generation: int8('generation').notNull(),
    slots: int4('slots').notNull(),
    paused: flag('paused').notNull(),
    handoverTimeoutMs: int8('handover_timeout_ms').notNull(),
    schedule: text('schedule'),
    revision: int8('revision').notNull(),
  },
  (table) => [primaryKey({ name: 'coordination_workers_pkey', columns: [table.namespace, table.key] })],
)

/** One row per exclusive right. Rows outlive their holders, so that tokens never go back. */
export const leases = mssqlTable(
  'coordination_leases',
  {
    namespace: namespace('namespace').notNull(),
    key: key('key').notNull(),
    worker: key('worker'),
    slot: int4('slot').notNull(),
    generation: int8('generation').notNull(),
    target: key('target'),
    targetAtMs: int8('target_at_ms'),
    holder: key('holder'),
    token: int8('token').notNull(),
    attempt: int8('attempt'),
    identity: text('identity'),
    acquiredAtMs: int8('acquired_at_ms'),
    blockedNode: key('blocked_node'),
    blockedToken: int8('blocked_token'),
    cooldownNode: key('cooldown_node'),
    cooldownUntilMs: int8('cooldown_until_ms'),
    firedAtMs: int8('fired_at_ms'),
    waiters: keys('waiters').notNull(),
    pending: flag('pending').notNull(),
    revision: int8('revision').notNull(),
  },
  (table) => [
    primaryKey({ name: 'coordination_leases_pkey', columns: [table.namespace, table.key] }),
    // The most selective column comes first, because a planner without statistics takes any index that fits.
    index('coordination_leases_worker').on(table.worker, table.namespace),
    index('coordination_leases_holder').on(table.holder, table.namespace),
    index('coordination_leases_target').on(table.target, table.namespace),
    index('coordination_leases_blocked').on(table.blockedNode, table.namespace),
    // This index is not a filtered one, because any connection that writes to the table by hand would then need
    // settings that few connections have.
    index('coordination_leases_pending').on(table.pending, table.namespace),
  ],
)

/** The audit trail and timeline. */
export const events = mssqlTable(
  'coordination_events',
  {
    namespace: namespace('namespace').notNull(),
    revision: int8('revision').notNull(),
    position: int4('position').notNull(),
    atMs: int8('at_ms').notNull(),
    type: key('type').notNull(),
    subject: key('subject').notNull(),
    node: key('node'),
    token: int8('token'),
    actor: text('actor'),
    reason: text('reason'),
    detail: json('detail').$type<Readonly<Record<string, unknown>>>(),
  },
  (table) => [
    primaryKey({
      name: 'coordination_events_pkey',
      columns: [table.namespace, table.revision, table.position],
    }),
  ],
)

/** One row per namespace. Its update orders all changes. */
export const meta = mssqlTable(
  'coordination_meta',
  {
    namespace: namespace('namespace').notNull(),
    revision: int8('revision').notNull(),
    watchers: keys('watchers').notNull(),
    longestTtlMs: int8('longest_ttl_ms').notNull(),
    tokenFloor: int8('token_floor').notNull(),
    serverIdentity: text('server_identity').notNull(),
    identitySettled: flag('identity_settled').notNull(),
  },
  (table) => [primaryKey({ name: 'coordination_meta_pkey', columns: [table.namespace] })],
)

function listOf(json: string): string[] {
  const list: unknown = JSON.parse(json)
  return Array.isArray(list) ? list.map(String) : []
}
