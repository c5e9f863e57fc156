/** Stores on PostgreSQL under test, and connections beside them. */
import pg, { type Client, type Pool } from 'pg'
import type { Test } from 'tap'
import { openPostgresStore, type PostgresOptions } from '../../plugin/stores/postgres/index.js'
import type { PostgresStore } from '../../plugin/stores/postgres/store.js'
import { endPool } from '../support/databases.js'

export const namespace = 'shop'

export function options(database: string | Pool, more: Partial<PostgresOptions> = {}): PostgresOptions {
  return {
    database,
    namespace,
    statementTimeoutMs: 30_000,
    migrate: true,
    push: true,
    onWarning: () => undefined,
    ...more,
  }
}

export async function opened(
  t: Test,
  database: string | Pool,
  more: Partial<PostgresOptions> = {},
): Promise<PostgresStore> {
  const store = await openPostgresStore(options(database, more))
  t.teardown(() => store.close())
  return store
}

export function withSearchPath(url: string, path: string): string {
  const elsewhere = new URL(url)
  elsewhere.searchParams.set('options', `-c search_path=${path.replace(/[\\ ]/g, '\\$&')}`)
  return elsewhere.href
}

export async function connected(t: Test, url: string): Promise<Client> {
  const client = new pg.Client({ connectionString: url, application_name: 'test' })
  // A database that is dropped at the end of a test ends its connections.
  client.on('error', () => undefined)
  await client.connect()
  t.teardown(() => client.end())
  return client
}

export function usePool(t: Test, url: string, more: pg.PoolConfig = {}): Pool {
  const pool = new pg.Pool({ connectionString: url, ...more })
  t.teardown(() => endPool(pool))
  return pool
}

export async function onDatabase(url: string, sql: string): Promise<void> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  await client.query(sql)
  await client.end()
}

/** Returns what all clients of the driver send while `work` runs. */
export async function queriesOf(
  work: () => Promise<unknown>,
): Promise<{ name: string | undefined; text: string }[]> {
  const { query } = pg.Client.prototype
  const sent: { name: string | undefined; text: string }[] = []
  pg.Client.prototype.query = function (this: Client, ...args: unknown[]) {
    const [first] = args
    sent.push(
      typeof first === 'string'
        ? { name: undefined, text: first }
        : (first as pg.QueryConfig & { name: string }),
    )
    return Reflect.apply(query, this, args)
  }
  try {
    await work()
  } finally {
    pg.Client.prototype.query = query
  }
  return sent
}

export async function storeProcesses(client: Client): Promise<number[]> {
  const { rows } = await client.query(
    "select pid from pg_stat_activity where application_name = 'fastify-worker-coordination' and datname = current_database()",
  )
  return rows.map(({ pid }) => pid)
}

/** Makes the next inserts into a table, as many as `times`, fail with an error of this state. */
export async function failInserts(
  client: Client,
  state: string,
  times: number,
  table = 'coordination_events',
): Promise<void> {
  await client.query(`
    create sequence failures;
    create function fail() returns trigger language plpgsql as $$ begin
      if nextval('failures') <= ${times} then
        raise exception 'failing with ${state}' using errcode = '${state}';
      end if;
      return new;
    end $$;
    create trigger fail before insert on ${table} for each statement execute function fail()`)
}
