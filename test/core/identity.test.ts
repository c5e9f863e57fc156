import { hostname } from 'node:os'
import t from 'tap'
import { CoordinationError, type ErrorCode } from '../../plugin/core/errors.js'
import { type IdentitySource, identityFromEnvironment, resolveIdentity } from '../../plugin/core/identity.js'
import { checkName, leaseKey, shown, slotKey } from '../../plugin/core/names.js'
import { thrownBy } from '../support/errors.js'

t.test('without a source the environment says who this node is', async (t) => {
  const table: readonly [string, Record<string, string>, string, string][] = [
    ['HOSTNAME and CLUSTER_NAME', { HOSTNAME: 'pod-7', CLUSTER_NAME: 'eu-1' }, 'pod-7', 'eu-1'],
    [
      'they come first',
      { HOSTNAME: 'a', COMPUTERNAME: 'b', CLUSTER_NAME: 'c', KUBERNETES_CLUSTER: 'd' },
      'a',
      'c',
    ],
    [
      'COMPUTERNAME and KUBERNETES_CLUSTER',
      { COMPUTERNAME: 'PC-1', KUBERNETES_CLUSTER: 'k8s' },
      'PC-1',
      'k8s',
    ],
    [
      'empty is as good as missing',
      { HOSTNAME: '', COMPUTERNAME: 'PC-1', CLUSTER_NAME: '' },
      'PC-1',
      'default',
    ],
  ]
  for (const [name, environment, node, cluster] of table) {
    t.same(await resolveIdentity(undefined, environment), { node, cluster }, name)
  }
  t.same(await resolveIdentity(undefined, {}), { node: hostname(), cluster: 'default' }, 'nothing is set')
})

t.test('values come before the environment, each for itself', async (t) => {
  const environment = { HOSTNAME: 'pod-7', CLUSTER_NAME: 'eu-1' }
  const table: readonly [IdentitySource, string, string][] = [
    [{ node: 'my-node', cluster: 'production-group' }, 'my-node', 'production-group'],
    [{ node: 'my-node' }, 'my-node', 'eu-1'],
    [{ cluster: 'production-group' }, 'pod-7', 'production-group'],
    [{}, 'pod-7', 'eu-1'],
    [() => ({ node: 'my-node', cluster: 'production-group' }), 'my-node', 'production-group'],
    [async () => ({ node: 'my-node', cluster: 'production-group' }), 'my-node', 'production-group'],
  ]
  for (const [source, node, cluster] of table) {
    t.same(await resolveIdentity(source, environment), { node, cluster })
  }
})

t.test('an identity cannot be changed afterwards', async (t) => {
  t.ok(Object.isFrozen(await resolveIdentity({ node: 'a', cluster: 'b' }, {})))
})

t.test('named variables are read when the source is asked', async (t) => {
  const source = identityFromEnvironment({ node: 'WCO_TEST_NODE', cluster: 'WCO_TEST_CLUSTER' })
  setVariables(t, { WCO_TEST_NODE: 'n-1', WCO_TEST_CLUSTER: 'c-1' })
  t.same(source(), { node: 'n-1', cluster: 'c-1' })
  t.same(await resolveIdentity(source, {}), { node: 'n-1', cluster: 'c-1' })
})

t.test('variables that are not named are the usual ones', async (t) => {
  setVariables(t, { WCO_TEST_NODE: 'n-1', HOSTNAME: 'pod-7', CLUSTER_NAME: 'eu-1' })
  t.same(identityFromEnvironment()(), { node: 'pod-7', cluster: 'eu-1' })
  t.same(identityFromEnvironment({ node: 'WCO_TEST_NODE' })(), { node: 'n-1', cluster: 'eu-1' })
})

t.test('a named variable that is missing or empty is an error that names it', async (t) => {
  setVariables(t, { WCO_TEST_EMPTY: '' })
  const missing = {
    code: 'WCO_OPTIONS',
    message: 'the environment variable "WCO_TEST_MISSING" to be set, got undefined',
  }
  t.match(thrownBy(identityFromEnvironment({ node: 'WCO_TEST_MISSING' })), missing)
  t.match(thrownBy(identityFromEnvironment({ cluster: 'WCO_TEST_MISSING' })), missing)
  t.match(thrownBy(identityFromEnvironment({ node: 'WCO_TEST_EMPTY' })), {
    code: 'WCO_OPTIONS',
    message: 'the environment variable "WCO_TEST_EMPTY" to be set, got ""',
  })
  t.match(thrownBy(identityFromEnvironment({ node: '' })), { code: 'WCO_OPTIONS', message: 'variable ""' })
})

t.test('an unusable name says where it came from', async (t) => {
  setVariables(t, { WCO_TEST_NODE: 'n 1' })
  const named = identityFromEnvironment({ node: 'WCO_TEST_NODE' })
  t.match(thrownBy(named), {
    code: 'WCO_NAME',
    message: /^The environment variable "WCO_TEST_NODE": .* got "n 1"/,
  })
  await refuses(t, undefined, 'WCO_NAME', /^The environment variable "HOSTNAME": /, { HOSTNAME: 'a/b' })
  await refuses(t, { node: 'a b' }, 'WCO_NAME', /^identity\.node: /)
  await refuses(t, { node: 'a', cluster: 'b c' }, 'WCO_NAME', /^identity\.cluster: /)
})

t.test('a cluster cannot be called global, in any spelling', async (t) => {
  for (const cluster of ['global', 'Global', 'GLOBAL']) {
    await refuses(t, { node: 'a', cluster }, 'WCO_NAME', new RegExp(`identity\\.cluster: .*"${cluster}"`))
    await refuses(t, { node: 'a' }, 'WCO_NAME', /"CLUSTER_NAME": /, { CLUSTER_NAME: cluster })
  }
  t.same(await resolveIdentity({ node: 'global', cluster: 'global-1' }, {}), {
    node: 'global',
    cluster: 'global-1',
  })
})

t.test('a key that there is not is named, wherever it comes from', async (t) => {
  const wrong = { node: 'n', clusterName: 'eu-1' } as IdentitySource
  const named = /^identity: expected only node and cluster, got also "clusterName"\.$/
  await refuses(t, wrong, 'WCO_OPTIONS', named)
  const asked = { node: 'n', cluster: 'c', clusterName: 'eu-1' }
  await refuses(t, () => asked, 'WCO_OPTIONS', named)
  await refuses(t, async () => asked, 'WCO_OPTIONS', named)
  const names = { node: 'HOME', clusterName: 'HOME' }
  await refuses(t, identityFromEnvironment(names), 'WCO_OPTIONS', named)
})

t.test('what was asked for and is not there is an error, never a default', async (t) => {
  const wrong = (value: unknown): IdentitySource => value as IdentitySource
  await refuses(
    t,
    wrong({ node: undefined, cluster: 'c' }),
    'WCO_NAME',
    /identity\.node: .* got undefined: leave it out for the default, or use identityFromEnvironment\(\)\.$/,
  )
  await refuses(
    t,
    wrong({ node: 'n', cluster: undefined }),
    'WCO_NAME',
    /identity\.cluster: .* got undefined/,
  )
  await refuses(
    t,
    wrong(() => ({ node: 'n' })),
    'WCO_NAME',
    /identity\.cluster: .* got undefined/,
  )
  await refuses(
    t,
    wrong(() => undefined),
    'WCO_OPTIONS',
    /expected an object .* got undefined/,
  )
  await refuses(t, wrong('my-node'), 'WCO_OPTIONS', /expected an object .* got "my-node"/)
  await refuses(t, wrong(['a', 'b']), 'WCO_OPTIONS', /got an array/)
  await refuses(t, wrong(7), 'WCO_OPTIONS', /got 7/)
})

t.test('what the function throws comes out unchanged', async (t) => {
  const error = new Error('no metadata server')
  await t.rejects(
    resolveIdentity(() => Promise.reject(error), {}),
    error,
  )
})

t.test('names of letters, digits, dots, underscores and dashes are usable', async (t) => {
  for (const name of ['a', '7', 'month-close', 'Eu_1.example.org', 'constructor', 'a--', 'x'.repeat(100)]) {
    t.equal(checkName('worker.name', name), name)
  }
})

t.test('any other name is refused, and shown so that it cannot lie in a log', async (t) => {
  const table: readonly [string, unknown, string][] = [
    ['empty', '', '""'],
    ['a blank', ' ', '" "'],
    ['blanks inside', 'month close', '"month close"'],
    ['a percent sign', '100%', '"100%"'],
    ['a single quote', "o'brien", `"o'brien"`],
    ['a double quote', 'say "x"', '"say \\"x\\""'],
    ['a semicolon', 'a;b', '"a;b"'],
    ['a slash', 'eu-1/indexing', '"eu-1/indexing"'],
    ['a hash', 'consumer#12', '"consumer#12"'],
    ['a backslash', 'a\\b', '"a\\\\b"'],
    ['a dot first', '.hidden', '".hidden"'],
    ['a dash first', '-rf', '"-rf"'],
    ['an underscore first', '__proto__', '"__proto__"'],
    ['101 characters', 'x'.repeat(101), `"${'x'.repeat(40)}"… (101 characters)`],
    ['not ASCII', 'zürich', '"zürich"'],
    ['not ASCII first', 'éa', '"éa"'],
    ['digits of another script', '٣', '"٣"'],
    ['an emoji', '🚀', '"🚀"'],
    ['a line break at the end', 'indexing\n', '"indexing\\n"'],
    ['a null character', 'a\u0000', '"a\\u0000"'],
    ['an escape sequence', '\u001b[31m', '"\\u001b[31m"'],
    ['a delete character', 'a\u007f', '"a\\u{7f}"'],
    ['a right-to-left mark', 'a\u202eb', '"a\\u{202e}b"'],
    ['a zero-width blank', 'a\u200bb', '"a\\u{200b}b"'],
    ['a line separator', 'a\u2028b', '"a\\u{2028}b"'],
    ['half of a surrogate pair', 'a\ud83d', '"a\\ud83d"'],
    ['nothing', undefined, 'undefined'],
    ['null', null, 'null'],
    ['a number', 12, '12'],
    ['an object', { toString: () => 'a' }, 'an object'],
    ['an array', ['a'], 'an array'],
    ['a function', () => 'a', 'a function'],
    ['a symbol', Symbol('a'), 'a symbol'],
  ]
  for (const [name, value, text] of table) {
    const error = thrownBy(() => checkName('worker.name', value))
    t.type(error, CoordinationError, name)
    t.equal(error instanceof CoordinationError && error.code, 'WCO_NAME', name)
    t.equal(
      error instanceof Error && error.message,
      `worker.name: expected 1 to 100 of the characters A-Z, a-z, 0-9, ".", "_" and "-", ` +
        `beginning with a letter or digit, got ${text}.`,
      name,
    )
  }
})

t.test('a text of any length is shown in few characters', async (t) => {
  t.equal(shown('🚀'.repeat(41)), `"${'🚀'.repeat(40)}"…`)
  t.equal(shown('🚀'.repeat(40)), `"${'🚀'.repeat(40)}"`)
  t.ok(shown('\u202e'.repeat(1_000_000)).length < 500)
})

t.test('keys of leases and workers', async (t) => {
  t.equal(leaseKey('global', 'eu-1', 'month-close'), 'global/month-close')
  t.equal(leaseKey('cluster', 'eu-1', 'indexing'), 'eu-1/indexing')
  t.equal(slotKey(leaseKey('global', 'eu-1', 'consumer'), 12), 'global/consumer#12')
})

async function refuses(
  t: Tap,
  source: IdentitySource | undefined,
  code: ErrorCode,
  message: RegExp,
  environment: Readonly<Record<string, string>> = {},
): Promise<void> {
  await t.rejects(resolveIdentity(source, environment), { code, message })
}

type Tap = Pick<typeof t, 'rejects'>

function setVariables(
  t: { teardown(action: () => void): unknown },
  variables: Readonly<Record<string, string>>,
): void {
  for (const [name, value] of Object.entries(variables)) {
    const before = process.env[name]
    process.env[name] = value
    t.teardown(() => {
      if (before === undefined) delete process.env[name]
      else process.env[name] = before
    })
  }
}
