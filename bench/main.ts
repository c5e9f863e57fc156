/**
 * Runs the benches, all of them or those that are named, one after another:
 *
 *     npm run bench
 *     npm run bench -- hand-off scale
 *
 * Each is a program of its own, which prints tables and writes `build/bench/results/NAME.json`. One that takes far longer
 * than it should is ended, so that all of them end.
 */
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'

/** With the minutes after which something must be wrong. */
const benches = { 'steady-state': 6, 'hand-off': 3, takeover: 3, scale: 5, peers: 2 } as const

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
  const late = setTimeout(() => bench.kill('SIGTERM'), minutes * 60_000)
  const [code] = await once(bench, 'exit')
  clearTimeout(late)
  if (code === 0) continue
  process.stderr.write(`The bench ${name} failed.\n`)
  process.exitCode = 1
}
