/**
 * Versions side by side, as campaigns have them: the newer one migrates, the older one goes on, but a new node of the
 * older version is refused.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { silentLog } from '../../plugin/core/log.js'
import type { Store } from '../../plugin/core/store.js'
import { eachDatabase } from '../support/databases.js'
import { openRegister } from './register.js'
import { dialectOf, Versions } from './versions.js'

t.setTimeout(300_000)

t.test('a newer version migrates, and who runs goes on', async (t) => {
  await eachDatabase(t, async (t, { url }) => {
    const folder = await mkdtemp(join(tmpdir(), 'coordination-versions-'))
    t.teardown(() => rm(folder, { recursive: true, force: true }))
    const versions = new Versions(folder, dialectOf(url))
    const older = await open(0)
    t.equal(await versions.release(), 1)
    t.equal(await versions.release(), 2)
    const newer = await open(1)
    const names = await migrations()
    t.ok(versions.isAmong(1, names) && !versions.isAmong(2, names), 'it knows its own migrations only')
    t.equal(versions.knowing(names), 1)
    await t.rejects(open(0), { code: 'WCO_SCHEMA_NEWER' })
    for (const store of [older, newer]) {
      const { committed } = await store.change(undefined, (change) => change.saveMeta({ tokenFloor: 1 }))
      t.ok(committed)
    }
    const newest = await open(2)
    t.equal(versions.knowing(await migrations()), 2)
    for (const store of [older, newer, newest]) await store.close()

    async function open(version: number): Promise<Store> {
      const open = await versions.openerOf(version)
      const how = { namespace: 'default', statementTimeoutMs: 10_000, migrate: true, push: false }
      return open({ ...how, database: url, log: silentLog })
    }

    async function migrations(): Promise<string[]> {
      const register = openRegister(url)
      return register.migrations().finally(() => register.close())
    }
  })
})
