/**
 * Tests by their imports which files may know which others. A room is a set of files with the same rules. A room that
 * reached into another one would still work, but would be hard to separate later.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { codeOf, computed, type Import, importsIn } from '../support/source.js'

/** What the files of a room may import: packages by name, files by the beginning of their path. */
interface Room {
  readonly name: string
  readonly holds: (file: string) => boolean
  readonly may: readonly string[]
  /** What the room may import as types only, so that nothing of it is loaded. */
  readonly mayAsTypes?: readonly string[]
}

const dialects = ['postgres', 'sqlite', 'mysql', 'mssql']
const drivers: Readonly<Record<string, string>> = {
  postgres: 'pg',
  sqlite: 'better-sqlite3',
  mysql: 'mysql2',
  mssql: 'mssql',
}
const coreForStores = ['errors', 'log', 'names', 'store'].map((name) => `plugin/core/${name}.ts`)

const rooms: readonly Room[] = [
  {
    name: "the engine's door to the ambient world",
    holds: (file) =>
      ['time/clock', 'identity', 'watch/machine'].some((name) => file === `plugin/core/${name}.ts`),
    may: ['plugin/core/', 'node:os', 'node:crypto', 'node:fs'],
  },
  {
    // Only this module can tell to which request, trace or transaction work belongs. This is no matter of time or
    // chance.
    name: 'the engine where it keeps async contexts apart',
    holds: (file) => file === 'plugin/core/time/context.ts',
    may: ['node:async_hooks'],
  },
  {
    name: 'the engine where it reads cron patterns',
    holds: (file) => file === 'plugin/core/work/schedule.ts',
    may: ['plugin/core/', 'croner'],
  },
  {
    name: 'the thread beside the engine, and who starts it',
    holds: isWatchdog,
    may: ['plugin/core/', 'node:os', 'node:fs', 'node:worker_threads'],
  },
  {
    name: 'the engine',
    holds: (file) => file.startsWith('plugin/core/'),
    may: ['plugin/core/', 'node:events'],
  },
  ...dialects.map((dialect) => ({
    name: `the ${dialect} store`,
    holds: (file: string) => file.startsWith(`plugin/stores/${dialect}/`),
    may: [
      `plugin/stores/${dialect}/`,
      'plugin/stores/shared/',
      ...coreForStores,
      'drizzle-orm',
      'node:',
      drivers[dialect] ?? '',
    ],
  })),
  {
    name: 'what the stores share',
    holds: (file) => file.startsWith('plugin/stores/shared/'),
    may: ['plugin/stores/shared/', ...coreForStores, 'drizzle-orm', 'node:'],
  },
  {
    name: 'the opening of stores',
    holds: (file) => file.startsWith('plugin/stores/'),
    may: ['plugin/stores/', ...coreForStores],
    mayAsTypes: Object.values(drivers),
  },
  {
    name: 'the HTTP room',
    holds: (file) => file.startsWith('plugin/http/'),
    may: [
      'plugin/http/',
      'plugin/core/',
      'node:',
      'prom-client',
      '@fastify/ajv-compiler',
      '@fastify/fast-json-stringify-compiler',
    ],
    mayAsTypes: ['fastify'],
  },
  {
    name: 'the Fastify shell',
    holds: (file) => ['plugin/plugin.ts', 'plugin/index.ts'].includes(file),
    may: [
      'plugin/core/',
      'plugin/http/',
      'fastify-plugin',
      ...topLevel('plugin', 'open', 'options', 'coordinator-options', 'coordinator'),
    ],
    mayAsTypes: ['fastify'],
  },
  {
    name: 'the command line',
    holds: (file) => file.startsWith('plugin/cli/'),
    may: ['plugin/cli/', 'plugin/core/', 'plugin/stores/open.ts', 'node:', ...topLevel('coordinator')],
  },
  {
    name: 'the door for other servers',
    holds: (file) => file === 'plugin/node-handler.ts',
    may: ['plugin/core/'],
    mayAsTypes: ['fastify', 'node:http'],
  },
  {
    name: 'the door for OpenTelemetry',
    holds: (file) => file === 'plugin/opentelemetry.ts',
    may: ['plugin/core/', '@opentelemetry/api', 'node:crypto'],
  },
  {
    name: 'the door for node-cron',
    holds: (file) => file === 'plugin/node-cron.ts',
    may: ['plugin/core/'],
  },
  {
    name: "the plugin's options",
    holds: (file) => file === 'plugin/options.ts',
    may: ['plugin/core/', 'plugin/http/', ...topLevel('coordinator-options')],
    mayAsTypes: ['fastify'],
  },
  {
    name: 'the way without Fastify',
    holds: (file) => dirname(file) === 'plugin',
    may: [
      'plugin/core/',
      'plugin/stores/open.ts',
      'plugin/stores/shared/migrate.ts',
      ...topLevel('open', 'coordinator-options'),
    ],
  },
  {
    name: 'what is made for tests',
    holds: (file) => file.startsWith('plugin/testing/'),
    may: [
      'plugin/testing/',
      'plugin/core/',
      'plugin/stores/shared/code-points.ts',
      'plugin/stores/shared/deadline.ts',
      'plugin/stores/shared/hints.ts',
      'plugin/stores/shared/turns.ts',
      'node:',
    ],
  },
  {
    name: 'what runs the example that is asked for',
    holds: (file) => file === 'examples/run.ts',
    may: ['node:', computed],
  },
  {
    name: 'an example, which knows the package by its published name',
    holds: (file) => file.startsWith('examples/'),
    may: [
      'examples/',
      'fastify',
      'fastify-worker-coordination',
      'better-sqlite3',
      'express',
      'node-cron',
      'node:',
    ],
  },
  {
    name: 'the dashboard, which runs in browsers',
    holds: (file) => file.startsWith('dashboard/'),
    may: ['dashboard/'],
  },
]

/** The other folders of the engine that each of its folders may import. */
const engineFolders: Readonly<Record<string, readonly string[]>> = {
  time: [],
  changes: ['time'],
  watch: ['time', 'changes'],
  work: ['time', 'changes'],
  session: ['time', 'changes', 'watch', 'work'],
  reports: ['time', 'changes', 'work'],
}

/** These files are made of the folders, so no folder may import them. */
const atTheTop = new Set(['coordinator', 'operator'].map((name) => `plugin/core/${name}.ts`))

const root = projectRoot()

/** What a program can use of its surroundings without importing it. A Date may be made of a given number. */
const ambient = new RegExp(
  [
    String.raw`(?<![.#])\b(?:setTimeout|setInterval|setImmediate|queueMicrotask|fetch|crypto|performance|console)\b(?! :)`,
    String.raw`(?<![.#])\b(?:globalThis|global\.|require\b|createRequire|eval\(|process[.[])`,
    String.raw`Math\.random|AbortSignal\.timeout`,
    String.raw`(?<!(?:new|instanceof|:) )\bDate\b|new Date\b(?!\((?!\)))`,
  ].join('|'),
  'g',
)

/**
 * What a library must not do to the process that loads it. Signal 0 is allowed: it only asks whether a process exists.
 */
const intrusive = /\b(?:process\.(?:exit|abort|kill(?!\(pid,0\))|on|once|stdout|stderr)\b|console\.)/g

t.test('every file imports only what its room may know', async (t) => {
  for (const file of [...sources('plugin'), ...sources('dashboard'), ...sources('examples')]) {
    const room = rooms.find(({ holds }) => holds(file))
    if (room === undefined) {
      t.fail(`${file} belongs to no room`)
      continue
    }
    t.strictSame(strangersIn(file, read(file), room), [], `${file}: ${room.name}`)
  }
})

t.test('inside the engine knowledge points one way', async (t) => {
  for (const file of sources('plugin/core')) {
    const [folder, name] = relative('plugin/core', file).split('/')
    if (folder === undefined || name === undefined) continue
    const may = [folder, ...(engineFolders[folder] ?? [])].map((each) => `plugin/core/${each}/`)
    const inner = importsOf(file, read(file)).filter(({ target }) => target.startsWith('plugin/core/'))
    const strangers = inner.filter(({ target }) =>
      dirname(target) === 'plugin/core' ? atTheTop.has(target) : !allowed(target, may),
    )
    t.strictSame(strangers, [], file)
  }
  const folders = new Set(sources('plugin/core').map((file) => dirname(relative('plugin/core', file))))
  t.strictSame([...folders].sort(), ['.', ...Object.keys(engineFolders)].sort(), 'no folder is forgotten')
})

t.test('no files import each other in a circle, not even for types', async (t) => {
  const folders = ['plugin', 'dashboard', 'examples', 'bench', 'test']
  const files = folders.flatMap(sources)
  const imports = new Map(
    files.map((file) => [file, importsOf(file, read(file)).map(({ target }) => target)] as const),
  )
  t.strictSame(circleIn(imports), undefined)
  const example = { a: ['b', 'c'], b: ['d'], c: ['e'], d: ['e'] }
  t.strictSame(circleIn(new Map(Object.entries({ ...example, e: ['b'] }))), ['b', 'd', 'e', 'b'])
  t.strictSame(circleIn(new Map(Object.entries({ ...example, e: ['f'] }))), undefined)
})

t.test('the engine takes time, chance and surroundings from its door alone', async (t) => {
  for (const file of sources('plugin/core')) {
    const isDoor = ['time/clock.ts', 'identity.ts', 'watch/machine.ts'].includes(
      relative('plugin/core', file),
    )
    if (isDoor || isWatchdog(file)) continue
    t.strictSame(matchesIn(read(file), ambient), [], file)
  }
})

t.test('nothing of ours ends a process, catches its signals or prints', async (t) => {
  // The command line is a program of its own, and the watchdog runs only when an application asks for it.
  const ours = sources('plugin').filter((file) => !file.startsWith('plugin/cli/') && !isWatchdog(file))
  for (const file of ours) t.strictSame(matchesIn(read(file), intrusive), [], file)
})

t.test('these checks see what they should', async (t) => {
  t.ok(sources('plugin').length > 20, 'the sources are found')
  t.strictSame(
    importsOf('plugin/plugin.ts', read('plugin/plugin.ts')).filter(({ target }) =>
      target.startsWith('fastify'),
    ),
    [
      { target: 'fastify', typeOnly: true },
      { target: 'fastify-plugin', typeOnly: false },
    ],
  )
  t.strictSame(
    importsIn(`
      import a, { type B } from 'one'
      import type { C } from "two"
      import 'three'
      export * from './four.js'
      export type { D } from './five.js'
      import {
        type E,
        f,
      } from './six.js'
      const late = await import('seven')
      type Late = import('eight').Late
      import {            // a comment inside the braces
        fastify,
      } from 'nine'
      const both = [import('ten'), import(\`./eleven.js\`), import(twelve)]
      export { default as from } from 'thirteen'
      export const from = 'nowhere' // import 'nothing'
    `),
    [
      { target: 'one', typeOnly: false },
      { target: 'two', typeOnly: true },
      { target: 'three', typeOnly: false },
      { target: './four.js', typeOnly: false },
      { target: './five.js', typeOnly: true },
      { target: './six.js', typeOnly: false },
      { target: 'seven', typeOnly: false },
      { target: 'eight', typeOnly: true },
      { target: 'nine', typeOnly: false },
      { target: 'ten', typeOnly: false },
      { target: './eleven.js', typeOnly: false },
      { target: computed, typeOnly: false },
      { target: 'thirteen', typeOnly: false },
    ],
  )
  const [engine, dashboard] = ['plugin/core/changes/plan.ts', 'dashboard/model.ts'].map((file) => ({
    strangers(source: string): string[] {
      const room = rooms.find(({ holds }) => holds(file))
      return room === undefined ? ['no room'] : strangersIn(file, source, room)
    },
  }))
  t.strictSame(engine?.strangers("const both = [import('fastify'), import('./token.js')]"), ['fastify'])
  t.strictSame(dashboard?.strangers("import { StoreError } from '../plugin/core/errors.js'"), [
    'plugin/core/errors.ts',
  ])
  t.ok(allowed('node:fs', ['node:']))
  t.ok(allowed('drizzle-orm/pg-core', ['drizzle-orm']))
  t.notOk(allowed('fastify-plugin', ['fastify']), 'a package is not the beginning of another one')
  t.notOk(allowed('plugin/core/store-of-lies.ts', ['plugin/core/store.ts']))
})

t.test('what the engine must not use is seen wherever it is code, and nowhere else', async (t) => {
  for (const code of [
    'const stop = AbortSignal.timeout(5)',
    "const ms = Reflect.get(Date, 'now')()",
    `const at = \`http://x/\${Date.now()}\``,
    "createRequire('/')('fastify')",
    'queueMicrotask(() => undefined)',
    "const answer = fetch('http://x')",
    'crypto.getRandomValues(bytes)',
    'const id = crypto.randomUUID()',
    'const url = "http://x"; setTimeout(wake, 5) // later',
    'const now = new Date()',
    'const now = new Date',
    'const { now } = Date',
    'const chance = Math . random()',
    'process.exit()',
    "globalThis['process']",
  ])
    t.equal(matchesIn(code, ambient).length, 1, code)
  for (const code of [
    'const at = new Date(atMs)',
    'const isTime = at instanceof Date',
    'function claim(name: string, at: Date): void {}',
    'const ended = ({ process }: Neighbour) => machine.process === process',
    '// Date.now() is not asked',
    "const said = 'Date.now() is not asked'",
    `const said = \`Date.now() is \${not} asked\``,
  ])
    t.strictSame(matchesIn(code, ambient), [], code)
  t.strictSame(matchesIn('process.kill(pid, 0); process.kill(pid, 9)', intrusive), ['process.kill'])
})

function isWatchdog(file: string): boolean {
  return /^plugin\/core\/watch\/watchdog(-thread)?\.ts$/.test(file)
}

function topLevel(...names: readonly string[]): string[] {
  return names.map((name) => `plugin/${name}.ts`)
}

function allowed(target: string, list: readonly string[]): boolean {
  return list.some((entry) =>
    /[/:]$/.test(entry) ? target.startsWith(entry) : target === entry || target.startsWith(`${entry}/`),
  )
}

/** Returns what a file imports that its room may not know. */
function strangersIn(file: string, source: string, room: Room): string[] {
  return importsOf(file, source)
    .filter(
      ({ target, typeOnly }) => !allowed(target, [...room.may, ...(typeOnly ? (room.mayAsTypes ?? []) : [])]),
    )
    .map(({ target }) => target)
}

/** Returns the first circle of files that is found, from one file to the same one. */
function circleIn(imports: ReadonlyMap<string, readonly string[]>): readonly string[] | undefined {
  const done = new Set<string>()
  function search(path: readonly string[]): readonly string[] | undefined {
    const file = path.at(-1) ?? ''
    for (const target of imports.get(file) ?? []) {
      if (path.includes(target)) return [...path.slice(path.indexOf(target)), target]
      if (done.has(target)) continue
      const circle = search([...path, target])
      if (circle !== undefined) return circle
    }
    done.add(file)
    return undefined
  }
  for (const file of imports.keys()) {
    const circle = done.has(file) ? undefined : search([file])
    if (circle !== undefined) return circle
  }
  return undefined
}

function matchesIn(source: string, forbidden: RegExp): string[] {
  return codeOf(source).match(forbidden) ?? []
}

function importsOf(file: string, source: string): Import[] {
  return importsIn(source).map(({ target, typeOnly }) => ({
    target: target.startsWith('.') ? pathFrom(file, target) : target,
    typeOnly,
  }))
}

/** Returns the path of an imported source. Imports name compiled files such as `./store.js`; the rules name sources. */
function pathFrom(file: string, target: string): string {
  return relative(root, resolve(root, dirname(file), target)).replace(/\.js$/, '.ts')
}

function sources(folder: string): string[] {
  return readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => join(folder, name))
    .sort()
}

function read(file: string): string {
  return readFileSync(join(root, file), 'utf8')
}

/** Returns the nearest folder above that has sources. It does not matter where this test was compiled to. */
function projectRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url))
  while (!readdirSync(folder).includes('tsconfig.json') || !readdirSync(folder).includes('plugin')) {
    folder = dirname(folder)
  }
  return folder
}
