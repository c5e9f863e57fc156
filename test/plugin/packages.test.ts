/**
 * Tests which packages must be installed for which features, in copies of the compiled package beside which some
 * packages are missing.
 */
import { execFile } from 'node:child_process'
import { cp, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import t, { type Test } from 'tap'
import workerCoordination from '../../plugin/index.js'
import { installed, linkPackages } from '../support/packages.js'

const program = `
import Fastify from 'fastify'
import workerCoordination from './build/plugin/index.js'
const app = Fastify()
const options = { database: process.argv[2], identity: { node: 'n1', cluster: 'c1' } }
try {
  await app.register(workerCoordination, options)
  await app.ready()
  console.log(app.coordination.state)
} catch (error) {
  console.log(error.code, error.message)
} finally {
  await app.close()
}
`

/** What `require` does in a CommonJS file. It works only as long as no module of the package awaits at its top level. */
const programThatRequires = `
import { createRequire } from 'node:module'
const require = createRequire(import.meta.url)
const app = require('fastify')()
const { default: workerCoordination } = require('./build/plugin/index.js')
app.register(workerCoordination, { database: process.argv[2], identity: { node: 'n1', cluster: 'c1' } })
app.register(async (child) => console.log(child.coordination.state))
await app.ready()
await app.close()
`

const programWithoutFastify = `
import { createCoordinator } from './build/plugin/coordinator.js'
const coordinator = await createCoordinator({ database: process.argv[2], identity: { node: 'n1', cluster: 'c1' } })
await coordinator.start()
console.log(coordinator.state)
await coordinator.close()
`

t.test('the versions of Fastify that the plugin takes are those that the package asks for', async (t) => {
  const text = await readFile(new URL('../../../package.json', import.meta.url), 'utf8')
  const { peerDependencies }: { peerDependencies: { fastify: string } } = JSON.parse(text)
  const meta: unknown = Reflect.get(workerCoordination, Symbol.for('plugin-meta'))
  t.match(meta, { fastify: peerDependencies.fastify })
})

t.test('the oldest drivers that the package asks for are those of the pages', async (t) => {
  const text = (path: string) => readFile(new URL(`../../../${path}`, import.meta.url), 'utf8')
  const { peerDependencies }: { peerDependencies: Record<string, string> } = JSON.parse(
    await text('package.json'),
  )
  const rows: [driver: string, range: string, oldest: string, page: string][] = [
    ['pg', '^8.11.0', '8.11', 'postgres'],
    // Before 3.10 it has no `jsonStrings`: what MySQL makes with `json_object` comes as objects, and is not understood.
    ['mysql2', '^3.10.0', '3.10', 'mysql'],
    ['better-sqlite3', '>=12', '12', 'sqlite'],
  ]
  for (const [driver, range, oldest, page] of rows) {
    t.equal(peerDependencies[driver], range, driver)
    t.match(await text('README.md'), `\`${driver}\` ${oldest} and later`)
    t.match(await text(`docs/databases/${page}.md`), `\`${driver}\` ${oldest} or later`)
  }
})

t.test('a missing driver is an error at registration that says what to install', async (t) => {
  const rows: [driver: string, database: string, install: RegExp][] = [
    ['pg', 'postgres://127.0.0.1:1/app', /npm install pg/],
    ['mysql2', 'mysql://127.0.0.1:1/app', /npm install mysql2/],
    ['mssql', 'mssql://127.0.0.1:1/app', /npm install mssql@11/],
    ['better-sqlite3', 'sqlite::memory:', /npm install better-sqlite3/],
  ]
  for (const [driver, database, install] of rows) {
    const said = await run(t, [driver], program, database)
    t.match(said, /^WCO_DRIVER_MISSING /, driver)
    t.match(said, install)
  }
})

t.test('the driver of a database that is not used need not be there', async (t) => {
  t.equal(await run(t, ['pg'], program, 'sqlite::memory:'), 'running')
  t.match(await run(t, ['better-sqlite3'], program, 'postgres://127.0.0.1:1/app'), /^WCO_STORE /)
})

t.test('without Fastify nothing of Fastify need be there, nor what else is optional', async (t) => {
  const optional = ['pg', 'mysql2', 'mssql', '@opentelemetry', 'prom-client', 'node-cron']
  const missing = ['fastify', 'fastify-plugin', '@fastify', ...optional]
  t.equal(await run(t, missing, programWithoutFastify, 'sqlite::memory:'), 'running')
})

t.test('CommonJS can require it', async (t) => {
  t.equal(await run(t, [], programThatRequires, 'sqlite::memory:'), 'idle')
})

/**
 * Returns what a program prints where these packages are not installed. Links are kept as they are: a linked package
 * that imports a missing one, as parts of Drizzle import drivers, must not find it in the project.
 */
async function run(t: Test, missing: readonly string[], program: string, database: string): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'coordination-packages-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  await installWithout(missing, folder)
  await writeFile(join(folder, 'program.mjs'), program)
  const args = ['--preserve-symlinks', 'program.mjs', database]
  const { stdout } = await promisify(execFile)(process.execPath, args, { cwd: folder })
  return stdout.trim()
}

/** Copies the project's own code, because Node looks for packages where a file really is. Packages are only linked. */
async function installWithout(missing: readonly string[], folder: string): Promise<void> {
  const compiled = fileURLToPath(new URL('../../plugin', import.meta.url))
  await cp(compiled, join(folder, 'build', 'plugin'), { recursive: true })
  await writeFile(join(folder, 'package.json'), '{ "type": "module" }')
  await symlink(join(dirname(installed), 'migrations'), join(folder, 'migrations'))
  await mkdir(join(folder, 'node_modules'))
  await linkPackages(join(folder, 'node_modules'), missing)
}
