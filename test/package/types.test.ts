/** Tests what an editor shows of the package: every type of which a public one is made has a public name as well. */
import { existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'

const root = packageRoot()

interface Declaration {
  readonly file: string
  readonly name: string
}

/** A file of declarations, as the compiler writes it. */
interface Source {
  /** What the file declares, without comments, by name. */
  readonly declared: ReadonlyMap<string, string>
  /** What it imports from other files of the package, by the name it has here. */
  readonly imported: ReadonlyMap<string, Declaration>
  /** What it exports, by the name it has outside. */
  readonly exported: ReadonlyMap<string, Declaration>
}

/** Types that others only share or derive from. Users need no name for them. */
const unnamed = ['CommonOptions', 'Given', 'GivenTiming', 'NamedSingleWorker', 'NamedWorker']

class Sources {
  readonly #read = new Map<string, Source>()

  of(file: string): Source {
    const known = this.#read.get(file)
    if (known !== undefined) return known
    const source = this.#parsed(file, read(file))
    this.#read.set(file, source)
    return source
  }

  /** Returns the package's own types that the text of a declaration names. */
  namedBy({ file, name }: Declaration): Declaration[] {
    const { declared, imported } = this.of(file)
    const words = new Set(declared.get(name)?.match(/\b[A-Z]\w*\b/g))
    words.delete(name)
    return [...words].flatMap((word) => {
      const from = imported.get(word)
      if (from !== undefined) return [this.#origin(from)]
      return declared.has(word) ? [{ file, name: word }] : []
    })
  }

  /** Returns where something is declared that a file may only export again. */
  #origin(declaration: Declaration): Declaration {
    return this.of(declaration.file).exported.get(declaration.name) ?? declaration
  }

  #parsed(file: string, text: string): Source {
    const code = text.replace(/\/\*.*?\*\//gs, '').replace(/^\s*\/\/.*$/gm, '')
    const declared = new Map<string, string>()
    const imported = new Map<string, Declaration>()
    const exported = new Map<string, Declaration>()
    for (const statement of code.split(/^(?=(?:export|import|declare|interface|type|class)\b)/m)) {
      const [, isExport, name = ''] =
        /^(export )?(?:declare )?(?:abstract )?(?:interface|type|class|const|function) (\w+)/.exec(
          statement,
        ) ?? []
      if (name !== '') {
        declared.set(name, (declared.get(name) ?? '') + statement)
        if (isExport !== undefined) exported.set(name, { file, name })
        continue
      }
      const [, verb, list, from] =
        /^(import|export)(?: type)? (\*|\{.*?\}) from '(\.[^']+)'/s.exec(statement) ?? []
      if (list === undefined || from === undefined) continue
      const other = join(dirname(file), from.replace(/\.js$/, '.d.ts'))
      if (list === '*') for (const [each, origin] of this.of(other).exported) exported.set(each, origin)
      else
        for (const [each, as] of namesIn(list)) {
          if (verb === 'import') imported.set(as, { file: other, name: each })
          else exported.set(as, this.#origin({ file: other, name: each }))
        }
    }
    return { declared, imported, exported }
  }
}

t.test('each type that a public type names is public itself', async (t) => {
  const manifest: { exports: Record<string, { types?: string }> } = JSON.parse(read('package.json'))
  const sources = new Sources()
  const doors = Object.values(manifest.exports).flatMap(({ types }) =>
    types === undefined ? [] : [...sources.of(types.replace('./', '')).exported.values()],
  )
  t.ok(doors.length > 50, 'exports are found')
  const given = new Set(doors.map(({ file, name }) => `${file} ${name}`))
  const holes = doors.flatMap((declaration) =>
    sources
      .namedBy(declaration)
      .filter(({ file, name }) => !given.has(`${file} ${name}`) && !unnamed.includes(name))
      .map(({ name }) => `${declaration.name} is made of ${name}`),
  )
  t.strictSame([...new Set(holes)].sort(), [])
})

t.test('options that may be left out may be undefined, too', async (t) => {
  const manifest: { exports: Record<string, { types?: string }> } = JSON.parse(read('package.json'))
  const sources = new Sources()
  const options = Object.values(manifest.exports)
    .flatMap(({ types }) =>
      types === undefined ? [] : [...sources.of(types.replace('./', '')).exported.values()],
    )
    .filter(({ name }) => /(Options|Order|Query|Worker|Schedule|Access)$/.test(name))
  t.ok(options.length > 15, 'they are found')
  // Fastify's own options of these names may not be undefined; a class declares what it has, and takes the options.
  const excepted = /^(prefix\?: string|logLevel\?: RequestLogLevel)$/
  const strict = options
    .filter(({ file }) => !file.endsWith('base-classes.d.ts'))
    .flatMap(({ file, name }) =>
      [...(sources.of(file).declared.get(name) ?? '').matchAll(/^ {4}(?:readonly )?(\w+\?: .*);$/gm)].flatMap(
        ([, member = '']) =>
          member.endsWith('| undefined') || excepted.test(member) ? [] : [`${name}: ${member}`],
      ),
    )
  t.strictSame(strict, [])
})

t.test('what only this package may make has no public constructor', async (t) => {
  const sources = new Sources()
  for (const [file, name] of [
    ['build/plugin/core/coordinator.d.ts', 'Coordinator'],
    ['build/plugin/core/operator.d.ts', 'Operator'],
    ['build/plugin/testing/test-world.d.ts', 'TestNode'],
  ] as const)
    t.notMatch(sources.of(file).declared.get(name), /constructor\(/, name)
})

/** Returns the names in `{ type A, B as C }`, and the names they have here. */
function namesIn(list: string): [name: string, as: string][] {
  return list
    .slice(1, -1)
    .split(',')
    .map((each) => each.trim().replace(/^type /, ''))
    .filter((each) => each !== '')
    .map((each) => {
      const [name = each, as = name] = each.split(' as ')
      return [name, as]
    })
}

function read(file: string): string {
  return readFileSync(join(root, file), 'utf8')
}

/** Returns the nearest folder above that has sources. It does not matter where this test was compiled to. */
function packageRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url))
  while (!existsSync(join(folder, 'tsconfig.json')) || !existsSync(join(folder, 'plugin')))
    folder = dirname(folder)
  return folder
}
