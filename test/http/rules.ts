/**
 * What the interface promises about safety, rule by rule: the place in the code that keeps it, and the test that fails
 * when that place does something else. `without-rules.ts` shows that it fails. `docs/testing/http-rules.md` has the same table.
 *
 * A place is one in the compiled code. It must be found exactly once, so that a line that has changed is noticed.
 */

export interface Rule {
  readonly rule: string
  /** A file under `plugin`, without its ending. */
  readonly file: string
  readonly find: string
  readonly replace: string
  /** A file under `test`, without its ending, and the name of the test. */
  readonly test: readonly [file: string, name: string]
}

const access = (name: string): Rule['test'] => ['http/access', name]
const reads = (name: string): Rule['test'] => ['http/reads', name]
const interventions = (name: string): Rule['test'] => ['http/interventions', name]
const releases = (name: string): Rule['test'] => ['http/releases', name]
const stream = (name: string): Rule['test'] => ['http/stream', name]

const nobodyWrites = access('without authorize nobody may write, and the answer names the option')
const directOnly = access('without authorize only a direct connection from the machine itself may read')
const noActor = access('an authorize that throws, or answers what is no actor, has said no')
const forged = access('forged forwarding headers open nothing over a real socket, with trustProxy or without')
const alike = access('who has been refused cannot tell what exists')
const crossSite = access('pages of other sites cannot write')
const described = reads('what is not as described is refused, and the answer says what it is')
const bodies = interventions('a body that is not as described changes nothing')
const tokens = interventions('each needs the token it is about')
const seats = stream('of 60 streams 50 are served, and of one actor 4; who leaves makes room')

const ours =
  "const ours = site === undefined ? origin === undefined || this.#isOurs(request, origin) : site === 'same-origin';"
const preParsing = "scope.addHook('preParsing', dependencies.guard.check);"
const queryLine = "return { type: 'object', additionalProperties: false, properties };"

export const rules: readonly Rule[] = [
  // ---------------------------------------------------------------- access
  {
    rule: 'Each route names an action',
    file: 'http/routes',
    find: 'if (action === undefined || !actions.includes(action))',
    replace: 'if (false)',
    test: ['http/routes', 'a route that does not is refused when it is added'],
  },
  {
    rule: 'Each write route asks about a write',
    file: 'http/routes/interventions',
    find: "action: 'release',\n            id: 'ReleaseLease',",
    replace: "action: 'read',\n            id: 'ReleaseLease',",
    test: ['http/routes', 'every route names what it does, and none that alters something calls it reading'],
  },
  {
    rule: 'Writes need authorize',
    file: 'http/guard/guard',
    find: 'if (alters(action))\n        throw',
    replace: "if (alters(action))\n        return { id: 'anybody' };\n    if (false)\n        throw",
    test: nobodyWrites,
  },
  {
    rule: 'Without authorize the machine itself may not write',
    file: 'http/guard/guard',
    find: 'if (alters(action))\n        throw',
    replace: 'if (alters(action) && !isDirectLoopback(request.raw))\n        throw',
    test: nobodyWrites,
  },
  {
    rule: 'The refusal names the option',
    file: 'http/guard/guard',
    find: "until the option `authorize` says who may.', { option: 'authorize' }",
    replace: "until the option `authorize` says who may.', {}",
    test: nobodyWrites,
  },
  {
    rule: 'Each action is asked about by its name',
    file: 'http/guard/guard',
    find: 'await authorize(request, action)',
    replace: "await authorize(request, 'read')",
    test: access('authorize is asked with the action of the route, and its no is a 403'),
  },
  {
    rule: 'Throwing is no',
    file: 'http/guard/guard',
    find: "log?.warn({ err: error, action }, 'authorize threw: the request is denied');",
    replace: "return { id: 'anybody' };",
    test: noActor,
  },
  {
    rule: 'What is no actor is no',
    file: 'http/guard/guard',
    find: 'if (isActor(answer))',
    replace: 'if (true)',
    test: noActor,
  },
  {
    rule: 'Without authorize nothing is read in production',
    file: 'http/guard/guard',
    find: 'if (!isProduction() && isDirectLoopback(request.raw))',
    replace: 'if (isDirectLoopback(request.raw))',
    test: access('without authorize nobody may read in production'),
  },
  {
    rule: 'allowLoopback opens nothing in production',
    file: 'http/guard/access',
    find: 'if (isProduction())',
    replace: 'if (false)',
    test: access('allowLoopback lets the machine itself do everything, and nobody else anything'),
  },
  {
    rule: 'A forwarding header is not direct',
    file: 'http/guard/loopback',
    find: '!Object.keys(headers).some(isForwarding)',
    replace: 'true',
    test: directOnly,
  },
  {
    rule: 'The address of the socket is looked at',
    file: 'http/guard/loopback',
    find: '(isLoopbackAddress(socket.remoteAddress) &&',
    replace: '(true &&',
    test: directOnly,
  },
  {
    rule: 'A rebound name is not the machine itself',
    file: 'http/guard/loopback',
    find: 'hosts.every(isLoopbackHost)',
    replace: 'true',
    test: directOnly,
  },
  {
    rule: 'No name at all is no name of this machine',
    file: 'http/guard/loopback',
    find: 'hosts.length > 0 &&',
    replace: 'true &&',
    test: access('who does not name the server at all is not let in by where it comes from'),
  },
  {
    rule: 'What `trustProxy` makes of headers is not asked',
    file: 'http/guard/guard',
    find: 'if (!isProduction() && isDirectLoopback(request.raw))',
    replace:
      'if (isDirectLoopback({ socket: { remoteAddress: request.ip }, headers: { host: request.host } }))',
    test: forged,
  },
  {
    rule: 'Forged forwarding headers open nothing',
    file: 'http/guard/loopback',
    find: '!Object.keys(headers).some(isForwarding)',
    replace: 'true',
    test: forged,
  },
  {
    rule: 'The guard runs after later hooks of the application',
    file: 'http/routes',
    find: preParsing,
    replace: "scope.addHook('onRequest', dependencies.guard.check);",
    test: access('authorize sees what hooks that were added after the plugin have found out'),
  },
  {
    rule: 'The guard runs before the body is read',
    file: 'http/routes',
    find: preParsing,
    replace: "scope.addHook('preValidation', dependencies.guard.check);",
    test: access('who may not write is told so before sending a body'),
  },
  {
    rule: 'The refused are told nothing of what exists',
    file: 'http/routes',
    find: preParsing,
    replace: "scope.addHook('preHandler', dependencies.guard.check);",
    test: alike,
  },
  {
    rule: 'Paths that lead nowhere are guarded as well',
    file: 'http/guard/guard',
    find: 'const action = actionOf(request);',
    replace: 'const action = actionOf(request);\n        if (request.is404)\n            return;',
    test: alike,
  },
  {
    rule: 'Public reading checks Host',
    file: 'http/guard/guard',
    find: 'isPublic || access.allowedHosts !== undefined',
    replace: 'false',
    test: access('reading can be opened to everybody, by the names that are listed'),
  },
  {
    rule: 'Where names are listed, Host is checked whoever asks',
    file: 'http/guard/guard',
    find: 'isPublic || access.allowedHosts !== undefined',
    replace: 'isPublic',
    test: access('where names are listed, nobody is let in by another one, whatever authorize says'),
  },
  {
    rule: 'Only two routes are open',
    file: 'http/routes/health',
    find: 'open: false,',
    replace: 'open: true,',
    test: [
      'http/routes',
      'every route answers a stranger 403, but for the two that say a word about their process',
    ],
  },
  {
    rule: 'Who leads is not open',
    file: 'http/routes/health',
    find: 'open: false,',
    replace: 'open: true,',
    test: access('who leads is told only to those who may probe, and they need not be allowed to read'),
  },
  {
    rule: 'Probes are open',
    file: 'http/guard/guard',
    find: 'request.routeOptions.config.coordinationOpen === true',
    replace: 'false',
    test: access('a word about the process is for everybody, and nobody is asked'),
  },
  // ---------------------------------------------------------------- other sites
  {
    rule: 'No writes from other sites',
    file: 'http/guard/guard',
    find: 'this.#refuseCrossSite(request);',
    replace: ';',
    test: crossSite,
  },
  {
    rule: 'Sec-Fetch-Site decides where it is sent',
    file: 'http/guard/guard',
    find: ours,
    replace: 'const ours = origin === undefined || this.#isOurs(request, origin);',
    test: crossSite,
  },
  {
    rule: 'same-site is not same-origin',
    file: 'http/guard/guard',
    find: ours,
    replace: ours.replace("site === 'same-origin'", "['same-origin', 'same-site'].includes(site)"),
    test: crossSite,
  },
  {
    rule: 'Origin decides where only it is sent',
    file: 'http/guard/guard',
    find: ours,
    replace: "const ours = site === undefined || site === 'same-origin';",
    test: crossSite,
  },
  {
    rule: 'The origin null is refused',
    file: 'http/guard/guard',
    find: '#isOurs(request, origin) {',
    replace: "#isOurs(request, origin) {\n        if (origin === 'null')\n            return true;",
    test: crossSite,
  },
  {
    rule: 'An Authorization header excuses nothing',
    file: 'http/guard/guard',
    find: '#refuseCrossSite(request) {',
    replace: '#refuseCrossSite(request) {\n        if (request.headers.authorization)\n            return;',
    test: crossSite,
  },
  {
    rule: 'The own origin is not taken from X-Forwarded-Host',
    file: 'http/guard/guard',
    find: 'const own = hostsOf(request.raw)',
    replace: 'const own = [request.host]',
    test: crossSite,
  },
  {
    rule: 'No CORS headers',
    file: 'http/routes',
    find: "reply.header('cache-control', 'no-store');",
    replace: "reply.header('cache-control', 'no-store').header('access-control-allow-origin', '*');",
    test: access('no other origin is invited: there are no CORS headers, and OPTIONS is not answered'),
  },
  {
    rule: 'Other sites embed no answer',
    file: 'http/routes',
    find: 'if (!reply.hasHeader(name))',
    replace: 'if (false)',
    test: access('pages of other sites cannot embed an answer'),
  },
  // ---------------------------------------------------------------- input
  {
    rule: 'No text bodies',
    file: 'http/routes',
    find: 'scope.removeAllContentTypeParsers();',
    replace: "scope.removeContentTypeParser('application/json');",
    test: bodies,
  },
  {
    rule: 'JSON only',
    file: 'http/routes',
    find: "scope.addContentTypeParser('application/json',",
    replace: "scope.addContentTypeParser(['application/json', 'text/json'],",
    test: bodies,
  },
  {
    rule: 'Bodies have 4 KiB at most',
    file: 'http/routes',
    find: 'const bodyLimitBytes = 4_096;',
    replace: 'const bodyLimitBytes = 1_048_576;',
    test: bodies,
  },
  {
    rule: 'Unknown fields are refused',
    file: 'http/schemas/common',
    find: "return { type: 'object', additionalProperties: false, required, properties, examples: [example] };",
    replace: "return { type: 'object', required, properties, examples: [example] };",
    test: bodies,
  },
  {
    rule: 'Unknown fields are refused, also where no body is needed',
    file: 'http/schemas/common',
    find: "return { type: 'object', additionalProperties: false, description: 'May be left out', properties };",
    replace: "return { type: 'object', description: 'May be left out', properties };",
    test: bodies,
  },
  {
    rule: 'Nothing is silently removed',
    file: 'http/routes',
    find: 'removeAdditional: false',
    replace: 'removeAdditional: true',
    test: bodies,
  },
  {
    rule: 'Nothing is converted in bodies',
    file: 'http/routes',
    find: 'coerceTypes: false',
    replace: 'coerceTypes: true',
    test: bodies,
  },
  {
    rule: '`__proto__` is refused',
    file: 'http/routes',
    find: "scope.getDefaultJsonParser('error', 'error')",
    replace: "scope.getDefaultJsonParser('remove', 'remove')",
    test: bodies,
  },
  {
    rule: 'A reason has 3 characters at least',
    file: 'core/audit',
    find: 'minLength: 3,',
    replace: '',
    test: bodies,
  },
  {
    rule: 'A reason has 200 characters at most',
    file: 'core/audit',
    find: 'minLength: 3,\n    maxLength: 200,',
    replace: 'minLength: 3,',
    test: bodies,
  },
  {
    rule: 'A reason has no control characters',
    file: 'core/audit',
    find: 'maxLength: 200,\n    pattern: moreThanSpaces,',
    replace: 'maxLength: 200,',
    test: bodies,
  },
  {
    rule: 'Unknown parameters are refused',
    file: 'http/schemas/common',
    find: `export function query(properties) {\n    ${queryLine}`,
    replace: "export function query(properties) {\n    return { type: 'object', properties };",
    test: described,
  },
  {
    rule: 'Names are names',
    file: 'http/schemas/common',
    find: "export const name = { type: 'string', pattern: '^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$' };",
    replace: "export const name = { type: 'string', pattern: '^.{1,100}$' };",
    test: described,
  },
  {
    rule: 'Names have 100 characters at most',
    file: 'http/schemas/common',
    find: "export const name = { type: 'string', pattern: '^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$' };",
    replace: "export const name = { type: 'string', pattern: '^[A-Za-z0-9][A-Za-z0-9._-]*$' };",
    test: described,
  },
  {
    rule: 'Keys are keys',
    file: 'http/keys',
    find: 'if (pattern.test(key))',
    replace: 'if (true)',
    test: described,
  },
  {
    rule: 'Keys of 101 characters are none',
    file: 'http/keys',
    find: "const name = '[A-Za-z0-9][A-Za-z0-9._-]{0,99}';",
    replace: "const name = '[A-Za-z0-9][A-Za-z0-9._-]*';",
    test: described,
  },
  {
    rule: 'Pages have 500 items at most',
    file: 'http/schemas/common',
    find: 'maximum: 500,',
    replace: '',
    test: described,
  },
  {
    rule: 'Cursors are those that were given',
    file: 'http/paging',
    find: "if (place !== '' && cursorAt(place, list) === cursor)",
    replace: "if (place !== '')",
    test: reads('a cursor that is not ours is refused'),
  },
  {
    rule: 'Labels have 4 KiB at most',
    file: 'coordinator-options',
    find: 'bytes > 4_096',
    replace: 'false',
    test: ['options', 'one wrong option is one sentence that says what was expected and what came'],
  },
  // ---------------------------------------------------------------- interventions
  {
    rule: 'If-Match where something is taken away',
    file: 'http/etag',
    find: "const { 'if-match': given } = request.headers;",
    replace: "const { 'if-match': given = '\"1\"' } = request.headers;",
    test: tokens,
  },
  {
    rule: 'A release is about the token it names',
    file: 'core/changes/operations',
    find: 'if (previousHolder === null || lease.token !== order.token)',
    replace: 'if (previousHolder === null)',
    test: tokens,
  },
  {
    rule: 'A release that is repeated changes nothing',
    file: 'core/changes/operations',
    find: 'if (isBlockedByIt && !order.immediate)',
    replace: 'if (false)',
    test: releases(
      'a stuck lease is freed by force, and the next holder begins when the old one has stopped',
    ),
  },
  {
    rule: 'Nobody claims while the old holder may go on',
    file: 'core/changes/rules',
    find: 'const blocks = !how.immediate && !draft.isGone(holder);',
    replace: 'const blocks = false;',
    test: [
      'process/release',
      'a holder that hangs is put out, and the next begins in the moment in which it has stopped',
    ],
  },
  {
    rule: 'Who was stuck before does not win again',
    file: 'core/changes/draft',
    find: 'return isAnyLeft ? all : new Set(cooledHere);',
    replace: 'return new Set(cooledHere);',
    test: releases('one after another is stuck: who was first does not win again while another stands'),
  },
  {
    rule: 'Writes of one actor are limited',
    file: 'http/guard/guard',
    find: "this.#count(actor?.id ?? '');",
    replace: ';',
    test: access('writes of one actor are limited, and those of another go on'),
  },
  {
    rule: "The application's own limits on requests are honoured",
    file: 'http/http-problems',
    find: "return { type: 'about:blank', title, status, detail, details: {} };",
    replace: "return named(new HttpProblem('internal-error', 'The request failed.'));",
    test: ['http/hosts', '@fastify/rate-limit counts what is asked of us, and its refusal is a problem'],
  },
  {
    rule: 'The actor comes from authorize alone',
    file: 'http/guard/instruction',
    find: 'actor: actor.id',
    replace: "actor: String(request.headers['x-user'] ?? actor.id)",
    test: interventions('whoever a request says it is from, the actor is the one whom authorize has named'),
  },
  {
    rule: 'The event is written with the action',
    file: 'stores/sqlite/change',
    find: "this.#write('record an event', () => this.#queries.recordEvent({ ...event, revision, position, atMs }));",
    replace:
      'try { this.#queries.recordEvent({ ...event, revision, position, atMs }); this.wrote = true; } catch {}',
    test: interventions('what cannot be written to the audit trail is not done'),
  },
  // ---------------------------------------------------------------- answers
  {
    rule: 'Nothing is for a cache',
    file: 'http/routes',
    find: "reply.header('cache-control', 'no-store');",
    replace: ';',
    test: reads('everything can be read'),
  },
  {
    rule: 'What no schema names is not sent',
    file: 'http/routes',
    find: 'serializerFor(schema)',
    replace: 'JSON.stringify',
    test: reads('what no schema names is not sent, wherever it comes from'),
  },
  {
    rule: 'Nor does the stream send it',
    file: 'http/routes/status',
    find: 'serializerFor(event)',
    replace: 'JSON.stringify',
    test: reads('what no schema names is not sent, wherever it comes from'),
  },
  {
    rule: 'A stream begins with what GET /status answers',
    file: 'http/routes/status',
    find: 'serializerFor(streamedState)',
    replace: 'JSON.stringify',
    test: reads('a stream begins with what GET /status answers, without its lists and capabilities'),
  },
  {
    rule: 'A 5xx repeats no error',
    file: 'http/http-problems',
    find: "'The request failed; the log of the application says why.'",
    replace: 'String(error)',
    test: ['http/routes', 'a failure of ours is a 500 whose cause is in the log only'],
  },
  {
    rule: 'A database that is away says no more',
    file: 'http/http-problems',
    find: "new HttpProblem('store-unavailable', storeUnavailable,",
    replace: "new HttpProblem('store-unavailable', error.message,",
    test: reads('a database that is away is a 503 that does not say more'),
  },
  {
    rule: 'The connection string is told nowhere',
    file: 'stores/postgres/index',
    find: 'cause, connectionAdvice(cause)',
    replace: 'createClient().password, connectionAdvice(cause)',
    test: ['http/secrets', 'nor is it told when the database refuses'],
  },
  {
    rule: 'Nor while all is well',
    file: 'http/http-problems',
    find: "'The request failed; the log of the application says why.'",
    replace: 'String(error)',
    test: [
      'http/secrets',
      'the connection string is in no answer and in no line of the log, whatever happens',
    ],
  },
  // ---------------------------------------------------------------- streams
  {
    rule: 'Streams pass proxies that buffer',
    file: 'http/stream/stream',
    find: "'x-accel-buffering': 'no',",
    replace: '',
    test: stream('a reverse proxy that buffers passes it on at once'),
  },
  {
    rule: '50 streams per process',
    file: 'http/stream/seats',
    find: 'if (this.#all >= streams)',
    replace: 'if (false)',
    test: seats,
  },
  {
    rule: '4 streams per actor',
    file: 'http/stream/seats',
    find: 'own >= streamsPerActor',
    replace: 'false',
    test: seats,
  },
  {
    rule: 'Who leaves makes room',
    file: 'http/stream/stream',
    find: 'viewer.whenGone(leave);',
    replace: '',
    test: seats,
  },
  {
    rule: 'Who leaves before the stream begins makes room as well',
    file: 'http/stream/viewer',
    find: 'raw.stream?.destroyed ?? (raw.destroyed || raw.closed)',
    replace: 'false',
    test: stream('who leaves while authorize is still deciding keeps no seat'),
  },
  {
    rule: 'Slow readers are disconnected',
    file: 'http/stream/viewer',
    find: 'this.#raw.writableLength > this.#pace.unreadBytes',
    replace: 'false',
    test: stream('a reader that is too slow is disconnected, and keeps nobody else from anything'),
  },
  {
    rule: 'Stuck readers are disconnected',
    file: 'http/stream/viewer',
    find: 'nowMs - this.#takenAtMs > this.#pace.stuckMs',
    replace: 'false',
    test: stream('a reader that takes nothing for a while is disconnected, however little there was'),
  },
  {
    rule: 'close() ends open streams',
    file: 'http/stream/stream',
    find: "scope.addHook('preClose', async () => feed.close());",
    replace: '',
    test: stream('close() ends every stream, also of those who do not read, and waits for nobody'),
  },
  {
    rule: 'One look for all viewers',
    file: 'http/stream/feed',
    find: 'this.#look ??=',
    replace: 'this.#look =',
    test: stream('one reading is for all who come, and one loop for all who watch'),
  },
  {
    rule: 'Who may not watch any more is soon asked',
    file: 'http/stream/viewer',
    find: 'nowMs >= this.#endAtMs',
    replace: 'false',
    test: stream('nobody watches for long who may not any more'),
  },
]
