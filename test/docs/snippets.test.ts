/**
 * Compares the documents with what they speak of: snippets compile against the package as it is published, tables of
 * options and figures are those of the code, quoted tests exist, and links lead somewhere.
 */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join, relative, resolve } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import Fastify from 'fastify'
import t, { type Test } from 'tap'
import { commands, flagNames, parse } from '../../plugin/cli/arguments.js'
import { exitCodes } from '../../plugin/cli/output.js'
import { resolveTiming, timingFigures } from '../../plugin/core/time/timing.js'
import { parseWorker } from '../../plugin/core/work/worker.js'
import workerCoordination from '../../plugin/index.js'
import { coordinatorOptions, type Option, pluginOptions } from '../../plugin/options.js'
import { tokensOf } from '../support/source.js'

/** The declarations that the snippets take for granted. */
const given = `
import type { FastifyInstance } from 'fastify'
import { integer, pgTable } from 'drizzle-orm/pg-core'
import { integer as localInteger, sqliteTable } from 'drizzle-orm/sqlite-core'
const reportsTable = pgTable('reports', { total: integer('total').notNull() })
const localReportsTable = sqliteTable('reports', { total: localInteger('total').notNull() })
type Coordination = FastifyInstance['coordination']
declare global {
  const app: FastifyInstance
  const workerCoordination: typeof import('fastify-worker-coordination').default
  const lease: Awaited<ReturnType<Coordination['acquire']>>
  const nodeId: string
  const token: number
  const db: import('drizzle-orm/node-postgres').NodePgDatabase
  const reports: typeof reportsTable
  const sqliteDb: import('drizzle-orm/better-sqlite3').BetterSQLite3Database
  const localReports: typeof localReportsTable
  class AppModule {}
  const report: { total: number }
  function reindex(options: { signal: AbortSignal }): Promise<void>
  function backUp(): Promise<void>
  function rebuild(options: { signal: AbortSignal }): Promise<void>
  function closeMonth(options: { token: number; signal: AbortSignal }): Promise<void>
  function pendingRows(signal: AbortSignal): AsyncIterable<{ id: string }>
  function handle(row: { id: string }): Promise<void>
  function consume(options: { partition: number; token: number; signal: AbortSignal }): Promise<void>
}
`

/** All public and protected names of Logx.WorkerCoordination, and the parameters of its constructors and methods. */
const namesInDotNet = [
  ...[
    'ServiceCollectionExtensions',
    'AddWorkerCoordination',
    'dbContextOptionsAction',
    'AddHostedService<T>',
  ],
  ...['ApplicationBuilderExtensions', 'UseWorkerCoordination', 'logToConsole'],
  ...['INodeIdentityProvider', 'NodeId', 'GroupName', 'ExplicitNodeIdentityProvider'],
  ...['EnvironmentIdentityProvider', 'nodeIdEnvVar', 'groupNameEnvVar'],
  ...['SingleInstanceClusterWorker', 'ExecuteLeaderWorkAsync', 'logger', 'serviceProvider'],
  ...['nodeIdentityProvider', 'workerName', 'ExecuteAsync', 'StopAsync', 'stoppingToken'],
  ...['SingleInstanceGlobalWorker', 'ExecuteGlobalLeaderWorkAsync'],
  ...['GloballyCoordinatedWorker', 'ExecuteCoordinatedWorkAsync', 'GlobalWorkerIndex', 'GlobalWorkerCount'],
  ...['workerType', 'heartbeatInvervalSeconds', 'heartbeatTtlSeconds'],
  ...['WorkerCoordinationDbContext', 'OnModelCreating', 'WorkerLocks', 'WorkerRegistrations'],
  ...[
    'WorkerLock',
    'LockName',
    'OwnerId',
    'OwnerPod',
    'ClusterName',
    'ExpiresAt',
    'LastRenewed',
    'CreatedAt',
  ],
  ...['WorkerRegistration', 'WorkerId', 'WorkerType', 'PodName', 'RegisteredAt', 'LastHeartbeat'],
]
/** Environment variables that name a node in Logx.WorkerCoordination. */
const variables = ['HOSTNAME', 'COMPUTERNAME', 'CLUSTER_NAME', 'KUBERNETES_CLUSTER']

const root = projectRoot()
const options: Readonly<Record<string, Option>> = { ...coordinatorOptions, ...pluginOptions }
const presets = ['default', 'fast', 'relaxed'] as const

/** The compiler itself, without the script around it, because tap gives every script it starts a loader of its own. */
const compiler = await compilerPath()

t.test('every snippet compiles against the package by its published name', async (t) => {
  const snippets = documents().flatMap(snippetsOf)
  t.ok(snippets.length > 10, 'the snippets are found')
  t.equal(compilationOf(t, snippets), '', 'the compiler has nothing to say')
})

t.test('every snippet that says so runs as it stands', async (t) => {
  const snippets = documents()
    .flatMap(snippetsOf)
    .filter(({ runs }) => runs)
  t.ok(snippets.length > 1, 'the snippets are found')
  const folder = emptyFolder(t)
  t.equal(compilationOf(t, snippets, folder), '', 'the compiler has nothing to say')
  for (const { name } of snippets) {
    const { status, stdout, stderr } = await ran(join(folder, name.replace(/\.ts$/, '.js')))
    t.equal(status, 0, name)
    if (status !== 0) t.comment(stdout, stderr)
  }
})

t.test('the README opens with the example quick-start', async (t) => {
  const [first] = snippetsOf('README.md')
  const program = read('examples/quick-start/main.ts').replace(/^\/\*\*.*?\*\/\n/s, '')
  t.equal(first?.source.trim(), `${program}\nexport {}`)
})

t.test('the compiler is heard', async (t) => {
  const wrong = {
    name: 'wrong.ts',
    runs: false,
    source: "import x from 'fastify-worker-coordination'\nx.nothing()\n",
  }
  t.match(compilationOf(t, [wrong]), /wrong\.ts\(2,3\): error TS2339/)
})

t.test('the options that are documented are those there are, with their defaults and units', async (t) => {
  const documented = rowsOf('docs/configuration.md', 'option')
  t.strictSame(documented.map(nameIn).sort(), Object.keys(options).sort())
  for (const row of [...documented, ...rowsOf('README.md', 'option')]) checkOption(t, row)
})

t.test('below the tables there is something about each option, and not only its name', async (t) => {
  const prose = read('docs/configuration.md').replaceAll(/^\|.*$/gm, '')
  const names = [/^option$/, /^worker option$/, /^acquire option$/].flatMap((header) =>
    rowsOf('docs/configuration.md', header).map(nameIn),
  )
  const mentioned = new Set([...prose.matchAll(/`([a-zA-Z]+)[`:(]/g)].map(([, name]) => name))
  t.strictSame(
    names.filter((name) => !mentioned.has(name)),
    [],
  )
})

t.test('the options of workers and leases that are documented are those there are', async (t) => {
  const checks = [
    keyCheck('Workers', "Parameters<Coordination['worker']>[0]", 'worker option'),
    keyCheck('Leases', "NonNullable<Parameters<Coordination['acquire']>[1]>", 'acquire option'),
  ]
  t.equal(compilationOf(t, checks), '', 'no option is missing or made up')

  const run = (): void => undefined
  const timing = resolveTiming({})
  const definition = { name: 'w', kind: 'single', scope: 'global', run } as const
  const worker = parseWorker(definition, { node: 'n', cluster: 'c' }, timing)
  const defaults = new Map(
    rowsOf('docs/configuration.md', 'worker option').map((row) => [nameIn(row), valueIn(row[1])]),
  )
  for (const name of ['everyMs', 'maxFailures', 'cooldownMs', 'enabled'] as const) {
    t.equal(defaults.get(name), String(worker[name]), name)
  }
})

t.test('the codes of errors that are documented are those there are', async (t) => {
  const [, union = ''] = /^export type ErrorCode =$(.*?)^$/ms.exec(read('plugin/core/errors.ts')) ?? []
  const codes = [...union.matchAll(/'(WCO_[A-Z_]+)'/g)].map(([, code = '']) => code)
  t.ok(codes.length > 10, 'the codes are found')
  t.strictSame(rowsOf('docs/errors.md', 'code').map(nameIn).sort(), codes.sort())
})

t.test('the members and events that are documented are those there are', async (t) => {
  const members = {
    'coordinator member': 'Package.Coordinator',
    'worker handle member': 'Package.WorkerHandle',
    'lease member': 'Package.Lease',
    'pass member': 'Package.SingleContext | Package.CoordinatedContext | Package.PartitionedContext',
    'operator member': 'Package.Operator',
    event: 'Package.CoordinatorEvents',
  }
  const checks = Object.entries(members).map(([header, type]) =>
    keyCheck(header.replaceAll(' ', '-'), type, header, 'docs/api.md'),
  )
  t.equal(compilationOf(t, checks), '', 'nothing is missing or made up')
})

t.test('the durations and figures of the presets are those of the code', async (t) => {
  const documented = rowsOf('docs/configuration.md', '').map((row) => row.map(valueIn))
  const expected = presets.map((preset) => {
    const timing = resolveTiming({ preset })
    return { ...timing, ...timingFigures(timing) }
  })
  const names = Object.keys(expected[0] ?? {}) as (keyof (typeof expected)[number])[]
  t.strictSame(
    documented,
    names.map((name) => [name, ...expected.map((values) => String(values[name]))]),
  )
  const usual = rowsOf('docs/how-it-works.md', 'figure').map((row) => [nameIn(row), valueIn(row[1])])
  t.strictSame(
    usual,
    Object.entries(timingFigures(resolveTiming({}))).map(([name, ms]) => [name, String(ms)]),
  )
})

t.test(
  'every public name of the package from .NET has a counterpart, and the counterparts exist',
  async (t) => {
    const rows = rowsOf('docs/from-dotnet.md', /^there: /)
    t.strictSame(rows.flatMap(([there]) => codeIn(there)).sort(), [...namesInDotNet, ...variables].sort())
    for (const variable of variables) t.match(read('plugin/core/identity.ts'), `'${variable}'`)
    const documented = new Set(
      rows.flatMap(([, here]) => codeIn(here)).flatMap((code) => code.match(/\w+/g) ?? []),
    )
    for (const word of [...variables, 'app', 'global', 'default']) documented.delete(word)
    const source = `
    import type { FastifyInstance } from 'fastify'
    import type * as Package from 'fastify-worker-coordination'
    type KeysOf<T> = T extends unknown ? keyof T : never
    type Known =
      | keyof typeof Package
      | KeysOf<FastifyInstance | Package.Coordinator | Package.WorkerHandle | Package.WorkerCoordinationOptions | Package.Identity>
      | KeysOf<Package.WorkerDefinition | Package.CoordinatedContext | Package.Assignment>
      | KeysOf<Package.SingleInstanceClusterWorker | Package.SingleInstanceGlobalWorker | Package.GloballyCoordinatedWorker>
      | KeysOf<Package.Status | Package.NodeStatus | Package.LeaseStatus | Package.NodeReference>
      | 'workerCoordination'
    type Documented = ${[...documented].map((word) => `'${word}'`).join(' | ')}
    export const madeUp: Exclude<Documented, Known> extends never ? null : Exclude<Documented, Known> = null
  `
    t.ok(documented.size > 30, 'the counterparts are found')
    t.equal(compilationOf(t, [{ name: 'counterparts.ts', source, runs: false }]), '', 'none is made up')
  },
)

t.test('every test that the guarantees quote exists, and is run', async (t) => {
  const line = /^- \[`[^`]+`\]\(([^)]+)\): "(.+)"$/
  const quoted = read('docs/guarantees.md')
    .split('\n')
    .filter((text) => text.startsWith('- [`'))
  t.ok(quoted.length > 30, 'the quotations are found')
  for (const text of quoted) {
    const [, file = '', name = ''] = line.exec(text) ?? []
    const source = join(root, 'docs', file)
    t.ok(existsSync(source) && testsIn(readFileSync(source, 'utf8')).includes(name), text)
  }
})

t.test('a test that is left out, or only spoken of, is none', async (t) => {
  const source = `
    // t.test('spoken of', async (t) => {})
    const name = 'said'
    t.test('left out', { skip: true }, async (t) => {})
    t.test('left out for now', { todo: 'later' }, async (t) => {})
    t.todo('to be written')
    t.test('run where it can be', { skip }, async (t) => {})
    t.test("run", async (t) => {})
    promise('kept', async (world) => {})
  `
  t.strictSame(testsIn(source), ['run where it can be', 'run', 'kept'])
  const table = "const rules = { 'a rule': [7] }"
  t.strictSame(testsIn(table), [])
  t.strictSame(testsIn(`${table}; for (const rule in rules) t.test(rule, run)`), ['a rule'])
})

t.test('the map of the engine names each of its files, and no others', async (t) => {
  const mapped = rowsOf('plugin/core/README.md', 'file').flatMap(([files = '']) =>
    [...files.matchAll(/`([^`]+)`/g)].map(([, file]) => file),
  )
  const files = readdirSync(join(root, 'plugin/core'), { recursive: true, encoding: 'utf8' })
  t.strictSame(mapped.sort(), files.filter((file) => file.endsWith('.ts')).sort())
})

t.test('the commands that are documented are those there are, with their flags and exit codes', async (t) => {
  const documented = rowsOf('docs/cli.md', 'command').map(([name = '']) => valueIn(name))
  t.strictSame(
    documented,
    Object.entries(commands).map(([name, { operands }]) =>
      [name, ...operands.map((each) => `<${each}>`)].join(' '),
    ),
  )
  const flags = rowsOf('docs/cli.md', 'flag').flatMap(([flag = '']) => flag.match(/--[a-z-]+/g) ?? [])
  t.strictSame(flags.sort(), flagNames.map((name) => `--${name}`).sort())
  t.strictSame(
    rowsOf('docs/cli.md', 'exit code').map(([code]) => Number(code)),
    Object.values(exitCodes),
  )
})

t.test('commands in documents are understood by what they are for', async (t) => {
  const lines = documents().flatMap((file) => shellLinesOf(file).map((line) => ({ file, line })))
  const ours = lines.filter(({ line }) => line.startsWith('npx fastify-worker-coordination'))
  t.ok(ours.length > 4, 'calls of the command line are found')
  for (const { file, line } of ours) {
    const typed = wordsOf(line).slice(2)
    t.doesNotThrow(() => parse(typed, { DATABASE_URL: 'sqlite:x' }, () => 'mira'), `${file}: ${line}`)
  }
  const { scripts }: { scripts: Record<string, string> } = JSON.parse(read('package.json'))
  const run = documents().flatMap((file) =>
    [...read(file).matchAll(/\bnpm (?:run )?(start|test|(?<=run )[a-z:]+)/g)].map(([, name = '']) => ({
      file,
      name,
    })),
  )
  t.ok(run.length > 4, 'scripts are found')
  for (const { file, name } of run) t.ok(name in scripts, `${file}: npm run ${name}`)
})

t.test('requests in documents lead to routes', async (t) => {
  const paths = documents().flatMap((file) => requestsIn(file).map((path) => ({ file, path })))
  t.ok(paths.length > 15, 'requests are found')
  const routes = await routePatterns()
  t.notOk(
    routes.some((route) => route.test('/leaders/of/nothing')),
    'not everything is a route',
  )
  for (const { file, path } of paths)
    t.ok(
      routes.some((route) => route.test(path)),
      `${file}: ${path}`,
    )
})

t.test('the index of the documentation has every page', async (t) => {
  const indexed = linksOf('docs/README.md')
  const pages = readdirSync(join(root, 'docs')).filter((name) => name.endsWith('.md') && name !== 'README.md')
  t.strictSame(
    pages.filter((page) => !indexed.includes(page)),
    [],
  )
})

t.test('relative links lead somewhere', async (t) => {
  const links = documents().flatMap((file) => linksOf(file).map((link) => ({ file, link })))
  t.ok(links.length > 30, 'the links are found')
  for (const { file, link } of links) t.ok(leadsSomewhere(file, link), `${file}: ${link}`)
})

/**
 * Returns the names of the tests in a file, without those that are skipped everywhere. Where the calls do not contain
 * the names, they are the keys of a table.
 */
function testsIn(source: string): string[] {
  const tokens = tokensOf(source)
  const isCall = (at: number): boolean =>
    tokens[at - 1]?.text === '(' && testing.test(tokens[at - 2]?.text ?? '')
  const named = tokens.flatMap(({ kind, text }, at) => {
    if (kind !== 'string' || !isCall(at)) return []
    const options = tokens.slice(at + 1, at + 5).map((token) => token.text)
    const leftOut = options[1] === '{' && /^(?:skip|todo)$/.test(options[2] ?? '') && options[3] === ':'
    return leftOut ? [] : [text]
  })
  const isTable = tokens.some(({ kind, text }, at) => kind === 'word' && text !== 'async' && isCall(at))
  const keys = tokens.filter(({ kind }, at) => kind === 'string' && tokens[at + 1]?.text === ':')
  return isTable ? [...named, ...keys.map(({ text }) => text)] : named
}

const testing = /^(?:test|promise)$/

interface Snippet {
  readonly name: string
  readonly source: string
  /** Whether the snippet is a whole program, marked as `ts run`. The others are parts of one. */
  readonly runs: boolean
}

/** Returns every Markdown file of the project, as a path from its root. */
function documents(folder = ''): string[] {
  return readdirSync(join(root, folder), { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name)
    if (entry.isDirectory()) return isOurs(entry.name) ? documents(path) : []
    return entry.name.endsWith('.md') ? [path] : []
  })
}

function isOurs(folder: string): boolean {
  return !folder.startsWith('.') && !['node_modules', 'build'].includes(folder)
}

/**
 * Returns the snippets of a file. Each begins on the same line as in its document, so that the compiler's errors can be
 * found there.
 */
function snippetsOf(file: string): Snippet[] {
  const text = read(file)
  return [...text.matchAll(/^```ts( run)?\n(.*?)^```$/gms)].map(({ index, 1: run, 2: code = '' }, place) => {
    const above = text.slice(0, index).split('\n').length
    return {
      runs: run !== undefined,
      name: `${file.replaceAll(/[\\/]/g, '-')}.${place + 1}.ts`,
      source: `${'\n'.repeat(above)}${code}\nexport {}\n`,
    }
  })
}

/**
 * Returns what the project's own compiler says of the snippets, as strictly as of the project itself. They are put into
 * the package, where its own name is known, and beside the compiled code, to which that name leads.
 *
 * @param outDir Where to write programs. Default: nowhere.
 */
function compilationOf(t: Test, snippets: readonly Snippet[], outDir?: string): string {
  const folder = emptyFolder(t)
  const sources = [{ name: 'given.ts', source: given }, ...snippets]
  for (const { name, source } of sources) writeFileSync(join(folder, name), source)
  const config = {
    extends: join(root, 'tsconfig.json'),
    // Must differ from the project's own folder, or the compiler would look through to the sources.
    compilerOptions: {
      noEmit: outDir === undefined,
      rootDir: folder,
      outDir: outDir ?? folder,
      noUnusedLocals: false,
    },
    include: [],
    files: sources.map(({ name }) => name),
  }
  writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify(config))
  const { stdout, stderr } = spawnSync(compiler, ['-p', folder, '--pretty', 'false'], {
    cwd: folder,
    encoding: 'utf8',
  })
  return (stdout + stderr).trim()
}

/** Makes an empty folder inside the package. */
function emptyFolder(t: Test): string {
  const folder = mkdtempSync(join(dirname(fileURLToPath(import.meta.url)), 'snippets-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

/** Runs a file as a program of its own, which knows nothing of the test around it. */
async function ran(file: string): Promise<{ status: number | null; stdout: string; stderr: string }> {
  const { NODE_OPTIONS: _, NODE_TEST_CONTEXT: __, ...env } = process.env
  const child = spawn(process.execPath, [file], { env, cwd: dirname(file), timeout: 120_000 })
  const said = { stdout: '', stderr: '' }
  for (const stream of ['stdout', 'stderr'] as const) {
    child[stream].setEncoding('utf8').on('data', (text: string) => {
      said[stream] += text
    })
  }
  const [status] = await once(child, 'close')
  return { status: typeof status === 'number' ? status : null, ...said }
}

async function compilerPath(): Promise<string> {
  const manifest = createRequire(import.meta.url).resolve('typescript/package.json')
  const finder = join(dirname(manifest), 'lib', 'getExePath.js')
  const { default: getExePath } = (await import(pathToFileURL(finder).href)) as { default: () => string }
  return getExePath()
}

/** Returns a snippet that compiles only when the type has exactly the keys that the table names. */
function keyCheck(name: string, type: string, header: string, file = 'docs/configuration.md'): Snippet {
  const documented = rowsOf(file, header)
    .map((row) => `'${nameIn(row)}'`)
    .join(' | ')
  const source = `
    import type { FastifyInstance } from 'fastify'
    import type * as Package from 'fastify-worker-coordination'
    type Coordination = FastifyInstance['coordination']
    type KeysOf<T> = T extends unknown ? Extract<keyof T, string> : never
    type Known = KeysOf<${type}>
    type Documented = ${documented}
    export const undocumented: Exclude<Known, Documented> extends never ? null : Exclude<Known, Documented> = null
    export const madeUp: Exclude<Documented, Known> extends never ? null : Exclude<Documented, Known> = null
  `
  return { name: `${name}.ts`, source, runs: false }
}

function checkOption(t: Test, row: readonly string[]): void {
  const [, byDefault, unit] = row
  const name = nameIn(row)
  const option = options[name]
  if (option === undefined) return void t.fail(`there is no option ${name}`)
  const units = { milliseconds: 'ms', events: 'events' } as const
  t.equal(unit, option.unit === null ? '' : units[option.unit], `the unit of ${name}`)
  if (['string', 'number', 'boolean'].includes(typeof option.default)) {
    t.equal(valueIn(byDefault), String(option.default), `the default of ${name}`)
  } else {
    t.notMatch(byDefault, /^`|^\d/, `${name} has no default that could be written down`)
  }
}

/** Returns the rows of all tables of a document whose first column has this header. */
function rowsOf(file: string, header: string | RegExp): string[][] {
  const rows: string[][] = []
  let within = false
  let before: string[] | undefined
  for (const line of read(file).split('\n')) {
    const cells = line.startsWith('|') ? cellsOf(line) : undefined
    if (cells === undefined) within = false
    else if (cells.every((cell) => /^-+$/.test(cell))) within = isHeaded(before, header)
    else if (within) rows.push(cells)
    before = cells
  }
  return rows
}

function isHeaded([first]: readonly string[] = [], header: string | RegExp): boolean {
  return typeof header === 'string' ? first === header : first !== undefined && header.test(first)
}

function codeIn(cell = ''): string[] {
  return [...cell.matchAll(/`([^`]+)`/g)].map(([, code = '']) => code)
}

function cellsOf(line: string): string[] {
  return line
    .split('|')
    .slice(1, -1)
    .map((cell) => cell.trim())
}

function nameIn(row: readonly string[]): string {
  return valueIn(row[0])
}

/** Returns the value in a cell. Numbers are written as `15 000` for people. */
function valueIn(cell = ''): string {
  return cell.replaceAll('`', '').replaceAll(/(?<=\d) (?=\d)/g, '')
}

/** Returns the lines of shell snippets, with continued lines joined. */
function shellLinesOf(file: string): string[] {
  return [...read(file).matchAll(/^```sh\n(.*?)^```$/gms)].flatMap(([, code = '']) =>
    code
      .replaceAll(/\\\n\s*/g, '')
      .split('\n')
      .map((line) => line.trim()),
  )
}

/** Splits a line into words like a shell, as far as documents need it. */
function wordsOf(line: string): string[] {
  return [...line.replace(/ #.*$/, '').matchAll(/"([^"]*)"|(\S+)/g)].map(
    ([, quoted, bare = '']) => quoted ?? bare,
  )
}

/** Returns the paths below the prefix that curl requests. A placeholder for a value is one segment. */
function requestsIn(file: string): string[] {
  return shellLinesOf(file)
    .filter((line) => line.includes('curl'))
    .flatMap((line) => [...line.matchAll(/(?:\$URL|\/coordination|\/ops)(\/[^\s"'?|;)]*)/g)])
    .map(([, path = '']) => path.replaceAll(/\$\w+/g, 'value'))
}

/** Returns the pattern of every route of an application with the plugin, without its prefix. */
async function routePatterns(): Promise<RegExp[]> {
  const app = Fastify({ pluginTimeout: 0 })
  const urls: string[] = []
  app.addHook('onRoute', ({ url }) => void urls.push(url))
  await app.register(workerCoordination, { database: 'sqlite::memory:' })
  await app.ready()
  await app.close()
  return urls
    .map((url) => url.replace('/coordination', ''))
    .map((url) => new RegExp(`^${url.replaceAll(/:\w+(\([^/]*\))?|\*/g, '[^/]+')}$`))
}

/** Returns the targets of links, without those to other sites and those in code. */
function linksOf(file: string): string[] {
  const prose = read(file)
    .replaceAll(/^```.*?^```$/gms, '')
    .replaceAll(/^ {4}.*$/gm, '')
  return [...prose.matchAll(/\]\(([^)\s]+)\)/g)]
    .map(([, target = '']) => target)
    .filter((target) => !/^[a-z]+:/.test(target))
}

function leadsSomewhere(file: string, link: string): boolean {
  const [path = '', heading] = link.split('#')
  const target = path === '' ? join(root, file) : resolve(root, dirname(file), path)
  if (!existsSync(target) || relative(root, target).startsWith('..')) return false
  return heading === undefined || headingsOf(readFileSync(target, 'utf8')).includes(heading)
}

/** Returns the anchors of the headings, as the usual sites make them. */
function headingsOf(text: string): string[] {
  return [...text.matchAll(/^#+ (.+)$/gm)].map(([, heading = '']) =>
    heading
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N} _-]/gu, '')
      .replaceAll(' ', '-'),
  )
}

function read(file: string): string {
  return readFileSync(join(root, file), 'utf8')
}

/** Returns the nearest folder above that has sources. It does not matter where this test was compiled to. */
function projectRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url))
  while (!existsSync(join(folder, 'tsconfig.json')) || !existsSync(join(folder, 'plugin'))) {
    folder = dirname(folder)
  }
  return folder
}
