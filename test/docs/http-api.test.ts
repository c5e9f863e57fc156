/** Compares the documents of the HTTP interface with the code that they describe. */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { httpProblems } from '../../plugin/http/http-problems.js'
import { rules } from '../http/rules.js'
import { documents, filled, reference } from './http-reference.js'

const root = projectRoot()
const [document = '', rulesPage = ''] = documents.map((name) => readFileSync(join(root, name), 'utf8'))
const all = `${document}${rulesPage}`

t.test('the tables of the documents are those the code makes', async (t) => {
  const parts = await reference()
  for (const name of Object.keys(parts)) t.match(all, `<!-- made: ${name} -->`, name)
  t.equal(filled(all, parts), all, 'it is out of date: npm run docs')
})

t.test('a table that is out of date would be noticed', async (t) => {
  const parts = await reference()
  for (const [name, made] of Object.entries(parts)) {
    const [first = ''] = made.split('\n')
    t.not(filled(all, { ...parts, [name]: made.replace(first, 'something else') }), all, name)
  }
})

t.test('every problem can be met on some route, and every route describes its own', async (t) => {
  const { routes = '' } = await reference()
  const rows = [...routes.matchAll(/^\| [45]\d\d +\| (.*) \|$/gm)].map(([, names = '']) => names)
  const met = new Set(rows.flatMap((names) => [...names.matchAll(/`([a-z-]+)`/g)].map(([, name]) => name)))
  // This is answered on routes of the application that only the leader serves.
  met.add('misdirected')
  // This is answered where a path has routes, but none for the method.
  met.add('method-not-allowed')
  t.strictSame([...met].sort(), Object.keys(httpProblems).sort())
})

t.test('every type of event is in the document, and no other', async (t) => {
  const folder = join(root, 'plugin/core')
  const sources = readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.ts'))
    .map((file) => readFileSync(join(folder, file), 'utf8'))
  const recorded = sources.flatMap((source) =>
    [...source.matchAll(/\btype: (?:\w+ \? )?'([a-z]+\.[a-z-]+)'(?: : '([a-z]+\.[a-z-]+)')?/g)].flatMap(
      ([, one = '', other]) => (other === undefined ? [one] : [one, other]),
    ),
  )
  const [, events = ''] = /^## Events$(.*?)^## /ms.exec(document) ?? []
  const documented = [...events.matchAll(/^\| `([a-z]+\.[a-z-]+)` /gm)].map(([, type]) => type)
  t.ok(recorded.length > 15, 'they are found')
  t.strictSame(documented.sort(), [...new Set(recorded)].sort())
})

t.test('every rule has its place in the code, and a test of that name', async (t) => {
  t.ok(rules.length > 60)
  t.equal(new Set(rules.map(({ rule }) => rule)).size, rules.length)
  for (const { rule, file, find, replace, test } of rules) {
    const source = readFileSync(new URL(`../../plugin/${file}.js`, import.meta.url), 'utf8')
    t.equal(source.split(find).length, 2, `${rule}: its place is there once`)
    t.not(replace, find, rule)
    const [path, name] = test
    const tests = readFileSync(join(root, `test/${path}.test.ts`), 'utf8').replaceAll("\\'", "'")
    t.ok(tests.includes(name), `${rule}: "${name}"`)
  }
})

/** Returns the nearest folder above that has sources. It does not matter where this test was compiled to. */
function projectRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url))
  while (!existsSync(join(folder, 'tsconfig.json')) || !existsSync(join(folder, 'plugin'))) {
    folder = dirname(folder)
  }
  return folder
}
