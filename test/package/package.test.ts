/** Tests what would be published: it is complete, tools can resolve it, and it runs by itself. */
import { execFile, fork } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync } from 'node:fs'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join, relative, sep } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { promisify } from 'node:util'
import { type BuildOptions, build } from 'esbuild'
import { publint } from 'publint'
import { formatMessage } from 'publint/utils'
import t, { type Test } from 'tap'
import { linkPackages } from '../support/packages.js'

const run = promisify(execFile)
const root = packageRoot()
/** The environment without tap's loader and coverage, because programs must run here as users have them. */
const { NODE_OPTIONS: _, NODE_V8_COVERAGE: __, ...env } = process.env

interface Manifest {
  readonly exports: Readonly<Record<string, string | Readonly<Record<string, string>>>>
  readonly bin: string
  readonly dependencies: Readonly<Record<string, string>>
}

const manifest: Manifest = JSON.parse(await readFile(join(root, 'package.json'), 'utf8'))

/** Packs the package into a folder, and returns what npm says of it. */
async function pack(into: string) {
  const { stdout } = await run('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', into], {
    cwd: root,
    env,
  })
  const said: unknown = JSON.parse(stdout)
  const [packed] = (Array.isArray(said) ? said : Object.values(said as object)) as {
    filename: string
    size: number
    files: { path: string }[]
  }[]
  if (packed === undefined) throw new Error('npm packed nothing')
  return packed
}

/** Returns the paths of all files in a folder of the package, relative to its root. */
function filesBelow(folder: string): string[] {
  const entries = readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => relative(root, join(entry.parentPath, entry.name)).replaceAll(sep, '/'))
}

async function useFolder(t: Test): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'coordination-package-'))
  t.teardown(() => rm(folder, { recursive: true, force: true }))
  return folder
}

t.test('the package has what it needs to run, and nothing else', async (t) => {
  const { files, size } = await pack(await useFolder(t))
  const paths = files.map(({ path }) => path)
  const targets = Object.values(manifest.exports).flatMap((target) =>
    typeof target === 'string' ? target : Object.values(target),
  )
  for (const target of [...targets, manifest.bin]) t.ok(paths.includes(target.replace('./', '')), target)
  for (const dialect of ['postgres', 'sqlite', 'mysql', 'mssql'])
    t.ok(
      paths.some((path) => path.startsWith(`migrations/${dialect}/`) && path.endsWith('migration.sql')),
      dialect,
    )
  t.ok(paths.includes('build/dashboard/index.html'), 'the dashboard')
  const pages = filesBelow('docs').filter((path) => path.endsWith('.md'))
  t.ok(pages.length > 20, 'pages are found')
  t.strictSame(
    paths.filter((path) => path.startsWith('docs/')).sort(),
    pages.sort(),
    'the documentation, without its pictures',
  )
  const known =
    /^(docs\/|build\/plugin\/|build\/dashboard\/[a-z]+\.(css|html|js|svg)$|migrations\/|(README|CHANGELOG)\.md$|LICENSE$|package\.json$)/
  t.strictSame(
    paths.filter((path) => !known.test(path)),
    [],
  )
  const documented = await readFile(join(root, 'docs/package.md'), 'utf8')
  const mostKiB = Number(/the tarball +\| (\d+) KiB/.exec(documented)?.[1])
  t.ok(size / 1_024 <= 1.02 * mostKiB, `${Math.ceil(size / 1_024)} KiB: docs/package.md says ${mostKiB}`)
  const doors = Object.keys(manifest.exports).filter((name) => !name.endsWith('.json'))
  const described = [...documented.matchAll(/^\| `(fastify-worker-coordination[^`]*)`/gm)].map(
    ([, name]) => name,
  )
  t.strictSame(described.sort(), doors.map((name) => name.replace('.', 'fastify-worker-coordination')).sort())
  t.comment(`${paths.length} files, ${Math.round(size / 1_024)} KiB packed`)
})

t.test('tools that resolve packages find no fault with it', async (t) => {
  const { messages, pkg } = await publint({ pkgDir: root, pack: 'npm', level: 'warning' })
  t.strictSame(
    messages.map((message) => formatMessage(message, pkg, { color: false })),
    [],
  )
  const attw = join(root, 'node_modules/@arethetypeswrong/cli/dist/index.js')
  const { stdout } = await run(
    process.execPath,
    [attw, '--pack', root, '--profile', 'esm-only', '--no-emoji'],
    {
      cwd: await useFolder(t),
      env,
    },
  )
  t.equal(stdout.match(/node16 \(from ESM\): OK/g)?.length, Object.keys(manifest.exports).length)
})

t.test('installed into an empty project, its types hold under the strictest settings', async (t) => {
  const folder = await useFolder(t)
  await install(folder)
  const compiler = await compilerPath()
  const doors = Object.keys(manifest.exports).filter((name) => !name.endsWith('.json'))
  const imports = doors.map(
    (name, at) => `import * as door${at} from '${name.replace('.', 'fastify-worker-coordination')}'`,
  )
  const used = doors.map((_name, at) => `door${at}`).join()
  const program = `
    ${imports.join('\n')}
    import cron from 'node-cron'
    import { createCoordinator } from 'fastify-worker-coordination/coordinator'
    import { runCoordinator } from 'fastify-worker-coordination/node-cron'
    const coordinator = await createCoordinator({ database: 'sqlite::memory:' })
    cron.setRunCoordinator(runCoordinator(coordinator))
    export default [${used}]
  `
  const compilerOptions = {
    ...{ module: 'nodenext', target: 'es2022', lib: ['es2023', 'esnext.disposable'], types: ['node'] },
    ...{ strict: true, exactOptionalPropertyTypes: true, skipLibCheck: false, noEmit: true },
  }
  await writeFile(join(folder, 'package.json'), '{ "type": "module" }')
  await writeFile(join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions, files: ['main.ts'] }))
  const check = async (source: string): Promise<string> => {
    await writeFile(join(folder, 'main.ts'), source)
    return run(compiler, ['-p', folder], { cwd: folder, env }).then(
      () => 'well',
      ({ stdout }) => String(stdout),
    )
  }
  t.equal(await check(program), 'well')
  t.match(await check(`${program}\nruncoordinator()`), /error TS/, 'the compiler is heard')
})

t.test("installed into an empty project, it runs the README's first screen", async (t) => {
  const folder = await useFolder(t)
  await install(folder)
  const readme = await readFile(join(root, 'README.md'), 'utf8')
  const screen = /```ts\n(.*?)```/s.exec(readme)?.[1] ?? ''
  t.match(screen, 'fastify-worker-coordination')
  const asked = `
    const answer = await app.inject({ url: '/coordination/leaders', remoteAddress: '127.0.0.1', headers: { host: 'localhost' } })
    process.send?.(answer.json())
    await app.close()
    process.disconnect()
  `
  await writeFile(join(folder, 'package.json'), '{ "type": "module" }')
  await writeFile(join(folder, 'main.mjs'), `${screen}${waiting}${asked}`)
  t.match(await answerOf(folder, 'main.mjs'), { 'default/indexing': { token: Number } })
})

t.test('installed into an empty project, its command line says what it can do', async (t) => {
  const folder = await useFolder(t)
  await install(folder)
  const program = join(folder, 'node_modules/fastify-worker-coordination', manifest.bin)
  const { stdout } = await run(process.execPath, [program, '--help'], { cwd: folder, env })
  t.match(stdout, /^Usage: fastify-worker-coordination/)
})

t.test('a bundle leaves it out, and one that does not says so', async (t) => {
  const folder = await useFolder(t)
  await install(folder)
  const program = `
    import { createCoordinator } from 'fastify-worker-coordination'
    const told = createCoordinator({ database: 'sqlite::memory:' }).then(
      (coordinator) => coordinator.close().then(() => ({ well: true })),
      ({ code, message }) => ({ code, message }),
    )
    told.then((answer) => { process.send(answer); process.disconnect() })
  `
  await writeFile(join(folder, 'main.mjs'), program)
  const drivers = ['better-sqlite3', 'pg', 'mysql2', 'mssql', 'prom-client', '@opentelemetry/api']
  const inside = { external: drivers, logLevel: 'silent' } as const
  const bundled = async (format: 'esm' | 'cjs', options: BuildOptions): Promise<unknown> => {
    const outfile = `bundle.${format === 'esm' ? 'mjs' : 'cjs'}`
    const paths = { entryPoints: ['main.mjs'], outfile, absWorkingDir: folder }
    await build({ ...paths, bundle: true, platform: 'node', format, ...options })
    return answerOf(folder, outfile)
  }
  t.match(await bundled('esm', { packages: 'external' }), { well: true })
  t.match(await bundled('cjs', { external: [...drivers, 'fastify-worker-coordination'] }), { well: true })
  const refusal = { code: 'WCO_SCHEMA_PENDING', message: /leave this package out of the bundle/ }
  t.match(await bundled('cjs', inside), refusal)
})

const waiting = `
  while (!app.coordination.isHeld('indexing')) await new Promise((resolve) => setTimeout(resolve, 10))
`

/**
 * Returns the compiler itself, without the script around it, because tap gives every script it starts a loader of its
 * own.
 */
async function compilerPath(): Promise<string> {
  const finder = join(root, 'node_modules/typescript/lib/getExePath.js')
  const { default: getExePath } = (await import(pathToFileURL(finder).href)) as { default: () => string }
  return getExePath()
}

/** Returns the first message of a program, which then ends by itself. */
async function answerOf(folder: string, file: string): Promise<unknown> {
  const child = fork(join(folder, file), {
    cwd: folder,
    env: { ...env, PORT: '0' },
    execArgv: [],
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
  })
  const said: string[] = []
  for (const stream of [child.stdout, child.stderr]) stream?.on('data', (text) => said.push(String(text)))
  const [answer] = await Promise.race([once(child, 'message'), once(child, 'exit')])
  if (typeof answer !== 'object') throw new Error(`It ended without an answer.\n${said.join('')}`)
  if (child.exitCode === null) await once(child, 'exit')
  return answer
}

/** Installs as npm would: the packed files, and beside them the packages that are already installed here. */
async function install(folder: string): Promise<void> {
  const { filename } = await pack(folder)
  const modules = join(folder, 'node_modules')
  await mkdir(modules)
  await linkPackages(modules)
  await run('tar', ['-xzf', join(folder, filename), '-C', modules])
  await rm(join(folder, filename))
  await run('mv', [join(modules, 'package'), join(modules, 'fastify-worker-coordination')])
}

function packageRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url))
  while (!existsSync(join(folder, 'tsconfig.json')) || !existsSync(join(folder, 'plugin')))
    folder = dirname(folder)
  return folder
}
