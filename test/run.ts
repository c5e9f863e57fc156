/**
 * Runs all tests with tap, or those named on the command line. A store without a server is left out of the coverage,
 * because hardly any of its code is loaded then. A store with a server counts like everything else.
 */
import { spawn } from 'node:child_process'
import { withoutMssql, withoutMysql } from './support/databases.js'

const untried = [
  { store: 'mysql', why: withoutMysql },
  { store: 'mssql', why: withoutMssql },
].filter(({ why }) => why !== undefined)

for (const { store, why } of untried) console.log(`# ${store} is not tried: ${why}`)
const left = untried.map(({ store }) => `--coverage-exclude=build/plugin/stores/${store}/**`)
const tap = spawn('tap', [...left, ...process.argv.slice(2)], { stdio: 'inherit' })
tap.once('error', (error) => {
  console.error(`Run it as "npm test": ${error.message}`)
  process.exitCode = 1
})
tap.once('close', (code) => {
  process.exitCode = code ?? 1
})
