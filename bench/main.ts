/**
 * Runs all benches, or those that are named, one after another:
 *
 *     npm run bench
 *     npm run bench -- hand-off scale
 *
 * Each bench is a separate program that prints tables and writes `build/bench/results/NAME.json`. A bench that takes
 * far too long is stopped, so that the run always ends.
 */
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'

/** Each bench with the number of minutes after which it is stopped. */
const benches = { 'steady-state': 10, 'hand-off': 6, takeover: 8, scale: 15, peers: 5 } as const

const named = process.argv.slice(2)
const unknown = named.filter((name) => !Object.hasOwn(benches, name))
if (unknown.length > 0) {
  process.stderr.write(
    `There is no bench ${unknown.join(', ')}; there are ${Object.keys(benches).join(', ')}.\n`,
  )
  process.exit(2)
}
for (const [name, minutes] of Object.entries(benches)) {
  if (named.length > 0 && !named.includes(name)) continue
  process.stdout.write(`\n— ${name}\n`)
  const bench = fork(fileURLToPath(new URL(`./${name}.js`, import.meta.url)))
  const late = setTimeout(() => {
    process.stderr.write(`The bench ${name} is ended: it has run for ${minutes} minutes.\n`)
    bench.kill('SIGTERM')
  }, minutes * 60_000)
  const [code] = await once(bench, 'exit')
  clearTimeout(late)
  if (code === 0) continue
  process.stderr.write(`The bench ${name} failed.\n`)
  process.exitCode = 1
}
