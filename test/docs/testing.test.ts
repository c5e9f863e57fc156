/** Compares the pages on testing with the mutants and tests they name. */
import { existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { mutants } from '../mutants/mutants.js'

const root = projectRoot()

t.test('the table of mutants has each of them once, in order, and what finds it', async (t) => {
  const rows = rowsOf('docs/testing/mutants.md')
  t.strictSame(
    rows.map(([name, place]) => [name, place]),
    mutants.map(({ name, file }) => [name, `\`${file}\``]),
  )
  for (const [name = '', , finder = ''] of rows) {
    const [, file, quoted = ''] = /^test: (\S+), "(.+)"$/.exec(finder) ?? []
    if (file === undefined) t.match(finder, /^simulation: [A-Z]\d, `--mix [a-z]+ --seed \d+`$/, name)
    else t.ok(quoted === 'it does not end' || isQuotedFrom(file, quoted), `${name}: ${finder}`)
  }
})

t.test('each test and each seed that is said to find a fault again is there', async (t) => {
  const rows = rowsOf('docs/testing/found-by.md')
  t.ok(rows.length > 60, 'the rows are found')
  const { scripts }: { scripts: object } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
  const simulated = readFileSync(sourceOf('simulation/simulation'), 'utf8').replaceAll(/(?<=\d)_(?=\d)/g, '')
  const seeds = new Set(simulated.match(/\b\d+\b/g))
  for (const [what, , , finder = ''] of rows) {
    for (const [, name = ''] of finder.matchAll(/`([^`]+)`/g)) {
      const [, script] = /^npm run (.+)$/.exec(name) ?? []
      t.ok(script === undefined ? existsSync(sourceOf(name)) : script in scripts, `${what}: ${name}`)
    }
    for (const [, list = ''] of finder.matchAll(/\bseeds? ([\d, ]+)/g)) {
      for (const seed of list.match(/\d+/g) ?? []) t.ok(seeds.has(seed), `${what}: seed ${seed}`)
    }
    const [, file = '', quoted] = /^`([a-z/-]+)`: "(.+)"$/.exec(finder) ?? []
    if (quoted !== undefined) t.ok(isQuotedFrom(`${file}.test.ts`, quoted), `${what}: ${finder}`)
  }
})

function sourceOf(name: string): string {
  return join(root, name.startsWith('conformance/') ? `plugin/testing/${name}.ts` : `test/${name}.test.ts`)
}

/** Returns whether a test of that name is in the file, or in the conformance suite, which all databases share. */
function isQuotedFrom(file: string, name: string): boolean {
  const promises = ['changes', 'fences', 'heartbeats', 'limits', 'reads', 'rows', 'sessions']
  const files = [
    join(root, 'test', file),
    ...(file === 'stores/conformance.test.ts' ? promises.map((each) => sourceOf(`conformance/${each}`)) : []),
  ]
  return files.some((each) => {
    const source = existsSync(each) ? readFileSync(each, 'utf8').replaceAll("\\'", "'") : ''
    return source.includes(`'${name}'`) || source.includes(`"${name}"`)
  })
}

/** Returns the rows of all tables of a page, without their headers. */
function rowsOf(file: string): string[][] {
  const lines = readFileSync(join(root, file), 'utf8').split('\n')
  return lines
    .filter(
      (line, at) => line.startsWith('| ') && !lines[at + 1]?.startsWith('| --') && !line.startsWith('| --'),
    )
    .map((line) => line.split('|').slice(1, -1))
    .map((cells) => cells.map((cell) => cell.trim()))
}

/** Returns the nearest folder above that has sources. It does not matter where this test was compiled to. */
function projectRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url))
  while (!existsSync(join(folder, 'tsconfig.json')) || !existsSync(join(folder, 'plugin'))) {
    folder = dirname(folder)
  }
  return folder
}
