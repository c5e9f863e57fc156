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
import { refuse } from '../test/support/command-line.js'
import { interruptible } from '../test/support/interruptible.js'

/** Each bench with the number of minutes after which it is stopped. */
const benches = { 'steady-state': 10, 'hand-off': 6, takeover: 8, scale: 15, peers: 5 } as const

const named = process.argv.slice(2)
const unknown = named.filter((name) => !Object.hasOwn(benches, name))
const usage = `npm run bench -- [${Object.keys(benches).join('] [')}]`
if (named.includes('--help')) {
  process.stdout.write(`${usage}\n`)
  process.exit()
}
if (unknown.length > 0) refuse(usage, `There is no bench "${unknown.join('", "')}".`)
await interruptible(async (asked) => {
  for (const [name, minutes] of Object.entries(benches)) {
    if (named.length > 0 && !named.includes(name)) continue
    process.stdout.write(`\n— ${name}\n`)
    // In a group of its own, so that Ctrl-C reaches none of its processes before it.
    const bench = fork(fileURLToPath(new URL(`./${name}.js`, import.meta.url)), { detached: true })
    asked.addEventListener('abort', () => bench.kill('SIGTERM'), { once: true })
    const late = setTimeout(() => {
      process.stderr.write(`The bench ${name} is ended: it has run for ${minutes} minutes.\n`)
      bench.kill('SIGTERM')
    }, minutes * 60_000)
    const [code] = await once(bench, 'exit')
    clearTimeout(late)
    asked.throwIfAborted()
    if (code === 0) continue
    process.stderr.write(`The bench ${name} failed.\n`)
    process.exitCode = 1
  }
})
