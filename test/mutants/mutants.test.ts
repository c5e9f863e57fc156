/** The hunt itself takes long (`npm run mutants`); that each mutant still is one takes no time. */
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { mutants, mutated } from './mutants.js'

const build = fileURLToPath(new URL('../..', import.meta.url))

t.test('each mutant still has its one place in the code, and a name of its own', async (t) => {
  for (const mutant of mutants) t.doesNotThrow(() => mutated(mutant, build), mutant.name)
  t.equal(new Set(mutants.map(({ name }) => name)).size, mutants.length)
})
