/** Checks that each mutant can still be made. The hunt itself takes long and is not run here (`npm run mutants`). */
import { fileURLToPath } from 'node:url'
import { transformSync } from 'esbuild'
import t from 'tap'
import { mutants, mutated } from './mutants.js'

const build = fileURLToPath(new URL('../..', import.meta.url))

t.test('each mutant still has its one place in the code, and a name of its own', async (t) => {
  for (const mutant of mutants) t.doesNotThrow(() => mutated(mutant, build), mutant.name)
  t.equal(new Set(mutants.map(({ name }) => name)).size, mutants.length)
})

t.test('each mutant is a program: one that cannot even be loaded would count as found', async (t) => {
  for (const mutant of mutants) t.doesNotThrow(() => transformSync(mutated(mutant, build)), mutant.name)
})
