import t from 'tap'
import { CoordinationError } from '../plugin/core/errors.js'
import { silentLog } from '../plugin/core/log.js'
import { resolveTiming } from '../plugin/core/time/timing.js'
import {
  type CoordinatorOptions,
  coordinatorOptions,
  pluginOptions,
  readCoordinatorOptions,
  readPluginOptions,
  type WorkerCoordinationOptions,
} from '../plugin/options.js'

const database = 'sqlite:coordination.db'
const identity = { node: 'n1', cluster: 'c1' }

/** Returns the problems of plugin options. JavaScript can pass what the types forbid, so they are untyped here. */
function pluginProblems(options: Readonly<Record<string, unknown>>): Promise<string[]> {
  return problemsOf(readPluginOptions(options as unknown as WorkerCoordinationOptions))
}

async function problemsOf(reading: Promise<unknown>): Promise<string[]> {
  try {
    await reading
    return []
  } catch (error) {
    if (!(error instanceof CoordinationError) || error.code !== 'WCO_OPTIONS') throw error
    return error.message.split('\n  - ').slice(1)
  }
}

const expectedDatabase =
  'database: expected a URL that begins with "postgres:", "postgresql:", "mysql:", "mariadb:", "mssql:" or "sqlite:", ' +
  'a pg.Pool, a pool or connection of mysql2, a ConnectionPool of mssql, a better-sqlite3 Database, or a Drizzle ' +
  'database over one of these'

t.test('one wrong option is one sentence that says what was expected and what came', async (t) => {
  const rows: [options: Record<string, unknown>, problem: string][] = [
    ...(
      [
        [undefined, 'undefined'],
        ['', 'an empty string'],
        [5, 'a value of type number'],
        ['coordination.db', 'a string that begins with none of these; a file is "sqlite:path"'],
        ['oracle://app:secret@host/app', 'a URL that begins with "oracle:"'],
        [new Map(), 'an object of class Map'],
      ] as const
    ).map(([database, came]): [Record<string, unknown>, string] => [
      { database },
      `${expectedDatabase}, got ${came}.`,
    ]),
    [{ ttlMs: '5s' }, 'ttlMs: expected a whole number of milliseconds from 500 to 3600000, got "5s".'],
    [{ ttlMs: 10 }, 'ttlMs: expected a whole number of milliseconds from 500 to 3600000, got 10.'],
    [{ ttlMs: null }, 'ttlMs: expected a whole number of milliseconds from 500 to 3600000, got null.'],
    [{ pollMs: 0.5 }, 'pollMs: expected a whole number of milliseconds from 1 to 3600000, got 0.5.'],
    [{ preset: 'quick' }, 'preset: expected "default", "fast" or "relaxed", got "quick".'],
    [{ migrate: 'no' }, 'migrate: expected true or false, got "no".'],
    [{ push: 1 }, 'push: expected true or false, got 1.'],
    [{ http: null }, 'http: expected true or false, got null.'],
    [{ autoStart: true }, 'autoStart: expected "ready", "listen" or false, got true.'],
    [{ keepEvents: -1 }, 'keepEvents: expected a whole number from 0 to 10000000, got -1.'],
    [
      { keepEventsForMs: '30d' },
      'keepEventsForMs: expected a whole number of milliseconds from 0 to 316224000000, got "30d".',
    ],
    [
      { prefix: 'coordination' },
      'prefix: expected a path like "/coordination", with a slash before each part and none at the end, got "coordination".',
    ],
    [
      { prefix: '/a/' },
      'prefix: expected a path like "/coordination", with a slash before each part and none at the end, got "/a/".',
    ],
    [
      { prefix: '/:id' },
      'prefix: expected a path like "/coordination", with a slash before each part and none at the end, got "/:id".',
    ],
    [{ authorize: true }, 'authorize: expected a function, got true.'],
    [{ metrics: { registry: {} } }, "metrics.registry: expected a registry of prom-client's, got an object."],
    [{ metrics: { prefix: 'app_' } }, 'metrics["prefix"]: there is no such entry; there is registry.'],
    [
      { metrics: 'all' },
      'metrics: expected an object like { registry }, with a registry of prom-client\'s, got "all".',
    ],
    [{ access: { read: 'everybody' } }, 'access.read: expected "public", got "everybody".'],
    [
      { access: { write: 'public' } },
      'access["write"]: there is no such entry; there is read and allowedHosts.',
    ],
    [
      { access: 'public' },
      'access: expected an object like { read: "public", allowedHosts: ["coordination.example"] }, got "public".',
    ],
    [
      { access: { read: 'public', allowedHosts: ['coordination.example', 'coordination.example:443'] } },
      'access.allowedHosts[1]: expected a host name like "coordination.example", in lower case and without a port, got "coordination.example:443".',
    ],
    [
      { access: { allowedHosts: 'coordination.example' } },
      'access.allowedHosts: expected a list of host names like "coordination.example", got "coordination.example".',
    ],
    ...['intranet.example', 'null', 'INTRANET.example'].map((origin): [Record<string, unknown>, string] => [
      { allowedOrigins: [origin] },
      `allowedOrigins[0]: expected an origin like https://intranet.example, in lower case and with nothing behind the host and its port, got "${origin}".`,
    ]),
    [
      { allowedOrigins: ['https://intranet.example/'] },
      'allowedOrigins[0]: expected an origin like https://intranet.example, in lower case and with nothing behind the host and its port, got "https://intranet.example/".',
    ],
    [
      { allowedOrigins: '*' },
      'allowedOrigins: expected a list of origins like https://intranet.example, got "*".',
    ],
    [
      { security: [{ bearer: 'all' }] },
      'security[0]: expected an object of lists of texts, like { bearer: [] }, got an object.',
    ],
    [
      { decorateAs: 'my coordination' },
      'decorateAs: expected the name of a property, like "coordination", got "my coordination".',
    ],
    [
      { logLevel: 'loud' },
      'logLevel: expected "fatal", "error", "warn", "info", "debug", "trace" or "silent", got "loud".',
    ],
    [{ labels: { zone: 5 } }, 'labels["zone"]: expected a printable text, got 5.'],
    [{ labels: { zone: 'a\0b' } }, 'labels["zone"]: expected a printable text, got "a\\u0000b".'],
    [
      { labels: { 'a\0b': 'zone' } },
      'labels: the name of a label: expected a printable text, got "a\\u0000b".',
    ],
    [{ labels: { zone: 'x'.repeat(5_000) } }, 'labels: expected at most 4096 bytes of JSON, got 5011.'],
    [{ labels: ['a'] }, 'labels: expected an object of texts like { zone: "eu-1a" }, got an array.'],
    [{ version: 7 }, 'version: expected a printable text of 1 to 100 characters, got 7.'],
    [{ version: '' }, 'version: expected a printable text of 1 to 100 characters, got "".'],
    [
      { namespace: 'a b' },
      'namespace: expected 1 to 100 of the characters A-Z, a-z, 0-9, ".", "_" and "-", beginning with a letter or digit, got "a b".',
    ],
    [
      { identity: 'node-1' },
      'identity: expected an object with node and cluster, or a function that returns one, got "node-1".',
    ],
    [
      { identity: { node: 'n 1', cluster: 'c' } },
      'identity.node: expected 1 to 100 of the characters A-Z, a-z, 0-9, ".", "_" and "-", beginning with a letter or digit, got "n 1".',
    ],
    [
      { identity: { node: 'n', clusterName: 'c' } },
      'identity: expected only node and cluster, got also "clusterName".',
    ],
    [
      { identity: { node: 'n', cluster: 'Global' } },
      'identity.cluster: expected another name than "Global", which stands for the scope of all clusters.',
    ],
    [{ ttl: 5_000 }, '"ttl": there is no such option. Did you mean "ttlMs"?'],
    [{ heartBeatMS: 5_000 }, '"heartBeatMS": there is no such option. Did you mean "heartbeatMs"?'],
    [{ databse: 'x' }, '"databse": there is no such option. Did you mean "database"?'],
    [{ decorateAS: 'x' }, '"decorateAS": there is no such option. Did you mean "decorateAs"?'],
    [{ colour: 'red' }, '"colour": there is no such option.'],
    [{ constructor: 1 }, '"constructor": there is no such option.'],
    [{ log: silentLog }, '"log": there is no such option.'],
  ]
  for (const [options, problem] of rows) {
    t.strictSame(await pluginProblems({ database, identity, ...options }), [problem], problem)
  }
})

t.test('all problems are said at once, each once', async (t) => {
  const problems = await pluginProblems({
    namespace: '',
    ttlMs: '5s',
    heartbeatMs: 1,
    identity: { node: 'n 1', cluster: 'c' },
    prefx: '/x',
  })
  t.strictSame(
    problems.map((problem) => problem.split(':')[0]),
    ['database', 'namespace', '"prefx"', 'ttlMs', 'heartbeatMs', 'identity.node'],
  )
})

t.test('of a list or an object every entry that is wrong is named', async (t) => {
  t.strictSame(
    await pluginProblems({
      database,
      identity,
      labels: { zone: 5, rack: null, owner: 'billing' },
      access: { read: 'all', allowedHosts: ['a.example', 'B.example', 7] },
    }),
    [
      'labels["zone"]: expected a printable text, got 5.',
      'labels["rack"]: expected a printable text, got null.',
      'access.read: expected "public", got "all".',
      ...['"B.example"', '7'].map(
        (got, at) =>
          `access.allowedHosts[${at + 1}]: expected a host name like "coordination.example", in lower case and without a port, got ${got}.`,
      ),
    ],
  )
})

t.test('durations that do not go together are refused with the arithmetic', async (t) => {
  t.strictSame(await pluginProblems({ database, identity, ttlMs: 10_000, statementTimeoutMs: 4_000 }), [
    'statementTimeoutMs must be less than (ttlMs - heartbeatMs) / 2, so that two tries fit: ' +
      '4000 is not less than (10000 - 3333) / 2 = 3333.5.',
    '1.1 * heartbeatMs + 2 * statementTimeoutMs + marginMs must be at most 0.99 * ttlMs, so that one slow ' +
      'heartbeat costs no lease: 3666 + 8000 + 1000 = 12666 is more than 9900.',
  ])
})

t.test('no error repeats a password', async (t) => {
  const url = 'postgres://app:hunter2@db.internal/app?password=hunter3'
  const rows: Record<string, unknown>[] = [
    { databse: url },
    {
      database,
      allowedOrigins: [
        url,
        'https://app:hunter2@a.example',
        'https://hunter2.hunter2.hunter2.hunter2.hunter2',
      ],
    },
    { database, namespace: url },
    { database, identity: url },
    { database, identity: { node: url, cluster: 'c' } },
    { database, prefix: url, decorateAs: url, version: `${url}\n`, ttlMs: url, preset: url, keepEvents: url },
    { database: [url] },
    { database, labels: { [url]: 5 } },
  ]
  for (const options of rows) {
    const problems = await pluginProblems({ identity, ...options })
    t.not(problems.length, 0)
    t.notMatch(problems.join('\n'), /hunter/)
  }
})

t.test('what is left out, or undefined, is filled in from the table', async (t) => {
  const given = Object.fromEntries(Object.keys(pluginOptions).map((name) => [name, undefined]))
  for (const options of [
    { database, identity },
    { ...given, database, identity },
  ]) {
    t.strictSame(await readPluginOptions(options), {
      database,
      identity,
      namespace: 'default',
      labels: {},
      version: null,
      timing: resolveTiming({}),
      migrate: true,
      push: true,
      watchProcesses: true,
      watchdog: false,
      retention: { eventsForMs: 2_592_000_000, events: 10_000, goneNodesForMs: 86_400_000 },
      prefix: '/coordination',
      decorateAs: 'coordination',
      autoStart: 'ready',
      http: true,
      authorize: undefined,
      access: {},
      allowedOrigins: [],
      security: undefined,
      metrics: {},
      logLevel: undefined,
    })
  }
})

t.test('what is given is taken', async (t) => {
  const options: CoordinatorOptions = {
    database,
    identity: async () => ({ node: 'n2', cluster: 'c2' }),
    namespace: 'billing',
    labels: { zone: 'eu-1a' },
    version: '1.2.3',
    preset: 'fast',
    pollMs: 100,
    migrate: false,
    push: false,
    watchProcesses: false,
    watchdog: true,
    keepEventsForMs: 1_000,
    keepEvents: 5,
    keepGoneNodesForMs: 0,
    log: silentLog,
  }
  t.strictSame(await readCoordinatorOptions(options), {
    database,
    identity: { node: 'n2', cluster: 'c2' },
    namespace: 'billing',
    labels: { zone: 'eu-1a' },
    version: '1.2.3',
    timing: { ...resolveTiming({ preset: 'fast' }), pollMs: 100 },
    migrate: false,
    push: false,
    watchProcesses: false,
    watchdog: true,
    retention: { eventsForMs: 1_000, events: 5, goneNodesForMs: 0 },
    log: silentLog,
  })
})

t.test('the durations follow a ttl that is given alone', async (t) => {
  const { timing } = await readCoordinatorOptions({ database, identity, ttlMs: 3_000 })
  t.strictSame(timing, resolveTiming({ ttlMs: 3_000 }))
})

t.test('what was read is frozen, and no longer follows what was given', async (t) => {
  const labels: Record<string, string> = { zone: 'a' }
  const config = await readPluginOptions({ database, identity, labels })
  labels.zone = 'b'
  t.strictSame(config.labels, { zone: 'a' })
  for (const part of [config, config.labels, config.timing, config.retention, config.identity]) {
    t.ok(Object.isFrozen(part))
  }
})

t.test('no identity given: it comes from the environment', async (t) => {
  const config = await readCoordinatorOptions({ database })
  t.type(config.identity.node, 'string')
  t.type(config.identity.cluster, 'string')
})

t.test('an identity function belongs to the application', async (t) => {
  const failure = new Error('no metadata service')
  const failing = (): never => {
    throw failure
  }
  await t.rejects(
    readCoordinatorOptions({ database, identity: failing }),
    failure,
    'its error comes out unchanged',
  )
  t.strictSame(
    await pluginProblems({ database, identity: failing, http: 'x' }),
    ['http: expected true or false, got "x".'],
    'it is not called when something else is wrong',
  )
  t.strictSame(await pluginProblems({ database, identity: () => ({ node: 'n', cluster: '' }) }), [
    'identity.cluster: expected 1 to 100 of the characters A-Z, a-z, 0-9, ".", "_" and "-", beginning with a letter or digit, got "".',
  ])
})

t.test('something that is no object of options is refused', async (t) => {
  for (const options of [undefined, null, 'sqlite:x', []]) {
    t.match(await problemsOf(readCoordinatorOptions(options as unknown as CoordinatorOptions)), [
      /^The options: expected an object, got /,
    ])
  }
})

t.test('a log must have all the methods that are called', async (t) => {
  const log = { info: () => undefined } as unknown as typeof silentLog
  t.match(await problemsOf(readCoordinatorOptions({ database, identity, log })), [
    'log: expected an object with the methods debug, info, warn and error, got an object.',
  ])
})

t.test('every default passes its own check', async (t) => {
  for (const [name, option] of Object.entries({ ...coordinatorOptions, ...pluginOptions })) {
    const given = option.default ?? undefined
    if (given !== undefined) t.equal(option.check?.(name, given), undefined, name)
    t.match(option.about, /^[A-Z].*\.$/, `${name} is described in a sentence`)
  }
})
