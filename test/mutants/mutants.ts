/**
 * Deliberate faults of the engine and of the SQLite store. The simulation or a test must find each.
 *
 * A mutant changes one place of a copy of the compiled code; the engine itself knows nothing of mutants. Its `find`
 * must occur exactly once, so that a line that has changed is noticed and not skipped.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { MixName } from '../simulation/faults.js'

export interface Mutant {
  /** What the fault is. Unique. */
  readonly name: string
  /** The file under `plugin`, without its extension. */
  readonly file: string
  readonly find: string
  readonly replace: string
  /** The mix in which the fault shows soonest; default `all`. */
  readonly mix?: MixName
  /** A test file that finds it at once, under `test` and without `.test.js`. It is run before the simulation. */
  readonly test?: string
  /** The first seed to try; default 1. An earlier hunt found the mutant from this seed on. */
  readonly from?: number
}

/** Returns the compiled code of the mutant's file, with the fault in it. */
export function mutated({ name, file, find, replace }: Mutant, build: string): string {
  const source = readFileSync(join(build, 'plugin', `${file}.js`), 'utf8')
  const found = source.split(find).length - 1
  if (found !== 1) throw new Error(`"${name}": its place was found ${found} times in ${file}.js, not once.`)
  return source.replace(find, () => replace)
}

export const mutants: readonly Mutant[] = [
  // ---------------------------------------------------------------- trust
  {
    name: 'trust counts from the answer to a heartbeat',
    file: 'core/session/session',
    find: 'this.#take(answer, sentAt);',
    replace: 'this.#take(answer, this.#clock.read());',
    test: 'core/session',
  },
  {
    name: 'trust is renewed before the news has been read',
    file: 'core/session/session',
    find: 'this.#credit = sentAt;',
    replace: 'this.#renew(sentAt);',
    test: 'core/session',
  },
  {
    name: 'a view that was read counts as a heartbeat',
    file: 'core/session/session',
    find: 'this.#renew(credit);',
    replace: 'this.#renew(this.#clock.read());',
    test: 'core/session',
  },
  {
    name: 'trust is renewed without asking whether it has run out',
    file: 'core/session/session',
    find: '    #renew(sentAt) {\n        this.trusted();',
    replace: '    #renew(sentAt) {',
    mix: 'duel',
    from: 103,
  },
  {
    name: 'news that goes back is taken for old news',
    file: 'core/session/session',
    find: 'answer.newsRevision === this.#seen',
    replace: 'answer.newsRevision <= this.#seen',
    test: 'core/session',
  },
  {
    name: 'trust counts from the last try of a join',
    file: 'core/session/life',
    find: 'this.#firstJoinSentAt ??= clock.read()',
    replace: 'this.#firstJoinSentAt = clock.read()',
    test: 'core/session',
  },
  {
    name: 'the margin is 0',
    file: 'core/time/timing',
    find: 'Math.floor(ttlMs * (1 - clockRateError)) - marginMs;',
    replace: 'Math.floor(ttlMs * (1 - clockRateError));',
    mix: 'duel',
    from: 17,
  },
  {
    name: 'the monotonic clock alone counts',
    file: 'core/time/trust',
    find: 'Math.max(0, to.monoMs - from.monoMs, to.bootMs - from.bootMs)',
    replace: 'Math.max(0, to.monoMs - from.monoMs)',
    mix: 'duel',
    from: 225,
  },
  {
    name: 'work is not told that trust has run out',
    file: 'core/session/life',
    find: "this.#in.holdings.endAll('trust-expired');",
    replace: '',
    mix: 'duel',
    from: 5,
  },
  // ---------------------------------------------------------------- watching
  {
    name: 'a beat need stand still for half as long',
    file: 'core/time/timing',
    find: 'Math.ceil(ttlMs * (1 + clockRateError))',
    replace: 'Math.ceil(ttlMs * 0.5)',
    mix: 'duel',
  },
  {
    name: 'a beat need stand still for a tenth less',
    file: 'core/watch/watch',
    find: 'surelyElapsedMs(since, sentAt) >= waitMs',
    replace: 'surelyElapsedMs(since, sentAt) >= waitMs * 0.9',
    test: 'core/watch',
  },
  {
    name: 'a node is buried without another look at its beat',
    file: 'stores/sqlite/change-queries',
    find: ".where(and(thisNode(at), eq(nodes.beat, given('beat'))))",
    replace: '.where(thisNode(at))',
    test: 'stores/conformance',
  },
  {
    name: 'others are watched by the own ttl',
    file: 'core/watch/lookout',
    find: 'const waitMs = () => standstillMs({ ttlMs: owner.longestTtlMs() });',
    replace: 'const waitMs = () => standstillMs(timing);',
    from: 8,
  },
  {
    name: 'a node that joins with a longer ttl is not noted',
    file: 'core/changes/rules',
    find: 'const longestTtlMs = Math.max(0, ...nodes.map((node) => node.ttlMs));',
    replace: 'const longestTtlMs = Math.min(...nodes.map((node) => node.ttlMs));',
    from: 8,
  },
  {
    name: 'nobody watches the watchers',
    file: 'core/watch/lookout',
    find: 'this.#standIn.sawWatchers(this.#onDuty ? [] : beats, sentAt, receivedAt);\n        if (this.#onDuty)\n',
    replace: 'if (true)\n',
  },
  {
    name: 'nobody stands in for watchers that died together',
    file: 'core/watch/stand-in',
    find: 'this.#begin();',
    replace: ';',
    test: 'core/engine',
  },
  {
    name: 'who stands in goes on though the watchers live',
    file: 'core/watch/stand-in',
    find: 'if (beats.some(({ id, beat }) => (before.get(id) ?? beat) !== beat))\n            this.#end();\n        else if',
    replace: 'if',
    test: 'core/engine',
  },
  {
    name: 'who stands in waits for half as long',
    file: 'core/watch/stand-in',
    find: 'waitMs: () => standstillMs({ ttlMs: owner.longestTtlMs() }),',
    replace: 'waitMs: () => standstillMs({ ttlMs: owner.longestTtlMs() }) / 2,',
    mix: 'crowd',
  },
  {
    name: 'who stands in looks no further round than the end of the ids',
    file: 'core/watch/stand-in',
    find: "next.length < nodesInView ? await this.#store.beats('', nodesInView - next.length) : []",
    replace: '[]',
    test: 'core/engine',
  },
  {
    name: 'a watcher does not wait between looks',
    file: 'core/watch/lookout',
    find: 'Math.min(everyMs, ...due)',
    replace: 'Math.min(everyMs / 50, ...due)',
    mix: 'full',
  },
  {
    name: 'who was alone does not look when somebody comes',
    file: 'core/watch/lookout',
    find: '(onDuty === this.#onDuty && alone === this.#alone)',
    replace: 'onDuty === this.#onDuty',
    test: 'core/engine',
  },
  {
    name: 'a look that failed is made again at once',
    file: 'core/time/timing',
    find: 'return failures === 0 ? 1 :',
    replace: 'return true ? 1 :',
    test: 'core/engine',
  },
  {
    name: 'a target that does not claim is waited for',
    file: 'core/changes/upkeep',
    find: 'await passOver(draft, key, target);',
    replace: '',
    test: 'core/regressions',
  },
  {
    name: 'a holder that does not hand over is waited for',
    file: 'core/changes/upkeep',
    find: 'findings.overdue.filter(({ key, token }) => revokeOverdue(draft, key, token))',
    replace: '[]',
    test: 'core/regressions',
  },
  // ---------------------------------------------------------------- rows and numbers
  {
    name: 'the order of beats is not checked',
    file: 'stores/sqlite/verb-queries',
    find: ".where(and(thisNode(at), lt(nodes.beat, given('beat'))))",
    replace: '.where(thisNode(at))',
    test: 'stores/conformance',
  },
  {
    name: 'a heartbeat counts whether it could be committed or not',
    file: 'stores/sqlite/verb-queries',
    find: 'const [pulse] = statement.all({ node, beat, nowMs });',
    replace: 'const pulse = statement.get({ node, beat, nowMs });',
    test: 'stores/sqlite',
  },
  {
    name: 'a heartbeat brings back the dead',
    file: 'stores/sqlite/terms',
    find: "return and(alive(at), eq(nodes.id, given('node')));",
    replace: "return and(ourNodes(at), eq(nodes.id, given('node')));",
    mix: 'duel',
    from: 17,
  },
  {
    name: 'the number of an operation is not checked',
    file: 'stores/sqlite/change-queries',
    find: '.where(and(thisNode(at), lt(nodes.operation, operation)))',
    replace: '.where(thisNode(at))',
    test: 'core/regressions',
  },
  {
    name: 'a change is made for a session that is gone',
    file: 'core/changes/run-change',
    find: 'if (session !== undefined && !joining && change.session === undefined)',
    replace: 'if (false)',
    test: 'core/regressions',
  },
  {
    name: 'the fence asks for no token',
    file: 'stores/sqlite/fence',
    find: 'and holder = ? and token = ? and exists (',
    replace: 'and ? is not null and ? is not null and exists (',
  },
  // ---------------------------------------------------------------- tokens
  {
    name: 'a token is a plain counter',
    file: 'core/changes/token',
    find: 'Math.max(previous + 1, floor + 1, Math.floor(nowMs))',
    replace: 'previous + 1',
    mix: 'servers',
    from: 8,
  },
  {
    name: 'a token is the time',
    file: 'core/changes/token',
    find: 'Math.max(previous + 1, floor + 1, Math.floor(nowMs))',
    replace: 'Math.floor(nowMs)',
    from: 5,
  },
  {
    name: 'a new server does not raise the floor',
    file: 'core/changes/run-change',
    find: 'tokenFloor: raisedFloor(tokenFloor, await change.highestToken(), highestSeen, change.nowMs),',
    replace: 'tokenFloor,',
    mix: 'servers',
    from: 24,
  },
  {
    name: 'the floor forgets what the node has seen',
    file: 'core/changes/token',
    find: 'Math.max(floor, highestToken, highestSeenHere)',
    replace: 'Math.max(floor, highestToken)',
    test: 'core/token',
  },
  {
    name: 'the floor leaps from the floor before',
    file: 'core/changes/token',
    find: 'Math.max(Math.floor(nowMs) + leapMs, known + mostLostClaims)',
    replace: 'Math.max(Math.floor(nowMs), known) + leapMs',
    test: 'core/token',
  },
  // ---------------------------------------------------------------- another server
  {
    name: 'survivors keep to themselves which tokens they have seen',
    file: 'core/session/server',
    find: 'return this.#silent && !this.mustRecord;',
    replace: 'return false;',
    mix: 'full',
    from: 700_325,
  },
  {
    name: 'another server is not noticed in a change',
    file: 'core/changes/run-change',
    find: 'else if (change.meta.serverIdentity !== change.serverIdentity) {',
    replace: 'else if (false) {',
    test: 'core/server',
  },
  {
    name: 'nobody waits after another server',
    file: 'core/changes/run-change',
    find: 'serverIdentity: change.serverIdentity,\n        identitySettled: false,',
    replace: 'serverIdentity: change.serverIdentity,\n        identitySettled: true,',
    mix: 'servers',
    from: 27,
  },
  {
    name: 'another server is settled on the spot',
    file: 'core/session/server',
    find: 'return Math.max(0, graceMs - surelyElapsedMs(this.#graceFrom, now));',
    replace: 'return 0;',
    mix: 'servers',
  },
  {
    name: 'the grace period goes by the own ttl',
    file: 'core/session/server',
    find: 'ttlMs: this.#longestEverMs })',
    replace: 'ttlMs: this.#timing.ttlMs })',
    test: 'core/server',
  },
  {
    name: 'the wait for one server counts for the next',
    file: 'core/changes/run-change',
    find: 'if (change.meta.identitySettled || change.serverIdentity !== waitedFor)',
    replace: 'if (change.meta.identitySettled)',
    mix: 'servers',
    from: 78,
  },
  {
    name: 'rows are not read again after another server',
    file: 'core/session/life',
    find: 'return { mustReadAgain: this.#view?.serverIdentity !== answer.serverIdentity };',
    replace: 'return { mustReadAgain: false };',
    test: 'core/regressions',
  },
  {
    name: 'a row that names a node is taken for its own claim',
    file: 'core/session/holdings',
    find: 'return attempt !== null && identity === view.serverIdentity && attempts.get(attempt) === identity;',
    replace: 'return true;',
    mix: 'servers',
  },
  {
    name: 'a claim is recognised under any server',
    file: 'core/session/holdings',
    find: 'return attempt !== null && identity === view.serverIdentity && attempts.get(attempt) === identity;',
    replace: 'return attempt !== null && attempts.has(attempt);',
    test: 'core/server',
  },
  // ---------------------------------------------------------------- claiming
  {
    name: 'the barrier between generations stands open',
    file: 'core/changes/rows',
    find: 'if ((held && isOutdated(lease, worker)) || (isBlocked(lease, isGone) && !isWaived(lease)))',
    replace: 'if (false)',
  },
  {
    name: 'the barrier does not mind blocks',
    file: 'core/changes/rows',
    find: 'if ((held && isOutdated(lease, worker)) || (isBlocked(lease, isGone) && !isWaived(lease)))',
    replace: 'if (held && isOutdated(lease, worker))',
    test: 'core/regressions',
  },
  {
    name: 'a blocked lease is free',
    file: 'core/changes/rows',
    find: 'return lease.blockedNode !== null && !isGone(lease.blockedNode);',
    replace: 'return false;',
    mix: 'operators',
    from: 8,
  },
  {
    name: 'a block is waited for by half',
    file: 'core/time/timing',
    find: 'standstillMs(timing) + Math.ceil(1.5 * timing.statementTimeoutMs)',
    replace: 'standstillMs(timing) / 2',
    test: 'core/timing',
  },
  {
    name: 'a block is acknowledged before the work has settled',
    file: 'core/session/agenda',
    find: 'if (holding !== undefined && holding.token === token && !holding.settled)',
    replace: 'if (false)',
    test: 'core/engine',
  },
  {
    name: 'work that ignores its signal keeps a lease whose row looks healthy',
    file: 'core/session/agenda',
    find: 'this.#isLate(lease)',
    replace: 'false',
    test: 'core/regressions',
  },
  {
    name: 'a lease is given back before the work has settled',
    file: 'core/session/agenda',
    find: 'holding.ended !== undefined && holding.settled',
    replace: 'holding.ended !== undefined',
    mix: 'operators',
  },
  {
    name: 'what was asked to be given back is begun after all',
    file: 'core/session/holdings',
    find: 'if (circumstances.renounced.has(termOf(lease)))',
    replace: 'if (false)',
    test: 'core/holdings',
  },
  {
    name: 'a node claims while its earlier work goes on',
    file: 'core/session/agenda',
    find: 'if (this.#holdings.get(lease.key) !== undefined)\n            return true;',
    replace: '',
    mix: 'operators',
    from: 58,
  },
  {
    name: 'whoever asks for a name gets it, whoever holds it',
    file: 'core/changes/rules',
    find: 'const held = lease.holder !== null && !draft.isGone(lease.holder);',
    replace: 'const held = lease.worker !== null && lease.holder !== null && !draft.isGone(lease.holder);',
    test: 'core/operator',
  },
  {
    name: 'nobody hears of what is taken from them',
    file: 'core/changes/draft',
    find: 'this.concern([before?.holder ?? null, before?.target ?? null, before?.blockedNode ?? null]);',
    replace: '',
    test: 'core/operator',
  },
  // ---------------------------------------------------------------- planning
  {
    name: 'a plan forgets a node',
    file: 'core/changes/draft',
    find: 'return this.#activeByWorker.get(worker) ?? [];',
    replace: 'return (this.#activeByWorker.get(worker) ?? []).slice(0, 2);',
    from: 13,
  },
  {
    name: 'a plan minds nobody who has gone',
    file: 'core/changes/rules',
    find: 'await replan(draft, touched.map((lease) => lease.key), rows.flatMap((row) => row.workers));',
    replace: '',
  },
  {
    name: 'shares change hands within one generation',
    file: 'core/changes/draft',
    find: 'this.putWorker({ ...worker, generation: worker.generation + 1, slots: shares.length });',
    replace: 'this.putWorker({ ...worker, slots: shares.length });',
    test: 'core/regressions',
  },
  {
    name: 'nobody cools down',
    file: 'core/changes/draft',
    find: 'cooldownNode !== null && (cooldownUntilMs ?? 0) > this.change.nowMs ? [cooldownNode] : []',
    replace: '[]',
    test: 'core/regressions',
  },
  {
    name: 'a paused worker is planned',
    file: 'core/changes/draft',
    find: 'if (worker.paused)\n            return [];',
    replace: '',
    test: 'core/engine',
  },
  {
    name: 'a time from a clock that was far ahead stays',
    file: 'core/changes/draft',
    find: 'this.#shortenCooldown(row);',
    replace: '',
    test: 'core/regressions',
  },
  {
    name: 'a pause ends nothing',
    file: 'core/session/holdings',
    find: "if (worker.paused)\n            return 'paused';",
    replace: '',
    test: 'core/regressions',
  },
  {
    name: 'a draining node keeps what it has',
    file: 'core/session/holdings',
    find: "if (view.state === 'draining')\n        return 'draining';\n    return",
    replace: 'return',
    test: 'core/regressions',
  },
  {
    name: 'a draining node is a candidate',
    file: 'core/changes/draft',
    find: "byWorker(present.filter((node) => node.state === 'active'))",
    replace: 'byWorker(present)',
    mix: 'operators',
  },
  // ---------------------------------------------------------------- operators, closing
  {
    name: 'a release by force leaves no event',
    file: 'core/changes/operations',
    find: "    draft.record({\n        type: 'lease.revoked',",
    replace: "    void ({\n        type: 'lease.revoked',",
    mix: 'operators',
  },
  {
    name: 'a closing node begins what it is given',
    file: 'core/session/holdings',
    find: 'if (holding !== undefined || reason !== undefined || circumstances.closing)',
    replace: 'if (holding !== undefined || reason !== undefined)',
    mix: 'operators',
    from: 60,
  },
  {
    name: 'who cannot renew its own session goes on watching',
    file: 'core/watch/lookout',
    find: '!this.#owner.trusted()',
    replace: 'false',
    test: 'core/regressions',
  },
  {
    name: 'a share whose node has lapsed is planned anew',
    file: 'core/changes/changes',
    find: 'if (!draft.isCoordinated(lease))',
    replace: 'if (!hasNewPlan(draft, lease))',
    test: 'core/regressions',
  },
  {
    name: 'leases that a worker once had are made again',
    file: 'core/changes/changes',
    find: 'await loadLeft(draft, declarations);',
    replace: '',
    test: 'core/operator',
  },
  {
    name: 'a node that is passed over for a partition leaves no trace',
    file: 'core/changes/upkeep',
    find: 'draft.coolDown(key, target, passedOverMs);',
    replace: '',
    test: 'core/regressions',
  },
  {
    name: 'empty tables are a new namespace to everybody',
    file: 'core/changes/run-change',
    find: "change.meta.serverIdentity === '' && highestSeen === 0",
    replace: "change.meta.serverIdentity === ''",
    test: 'core/regressions',
  },
  {
    name: 'a worker that a node has registered is forgotten',
    file: 'core/changes/operations',
    find: 'present.some((node) => node.workers.includes(key))',
    replace: 'false',
    test: 'core/operator',
  },
  {
    name: 'a closing node does not leave',
    file: 'core/coordinator',
    find: 'await this.#insist(() => life.leave(), hasTime)',
    replace: 'true',
  },
  {
    name: 'closing does not wait until work has ended',
    file: 'core/coordinator',
    find: 'await settled;',
    replace: '',
    mix: 'brief',
    from: 25,
  },
  {
    name: 'what is answered after the end of a life counts',
    file: 'core/session/life',
    find: 'if (this.#session.over)\n            return result;',
    replace: '',
    test: 'core/regressions',
  },
  {
    name: 'rarer heartbeats are taken for silence',
    file: 'core/watch/stand-in',
    find: 'longestTtlMs * 0.4',
    replace: 'longestTtlMs * 0.25',
    test: 'core/engine',
  },
  {
    name: 'a turn under way leaves its timer when the life ends',
    file: 'core/session/life',
    find: 'if (dueInMs !== undefined && !this.#session.over)',
    replace: 'if (dueInMs !== undefined)',
    test: 'core/lifetimes',
  },
  {
    name: 'a session that has ended leaves its timer',
    file: 'core/session/session',
    find: '        this.#over = true;\n        this.#trust = undefined;\n        this.#heartbeatAlarm.clear();',
    replace: '        this.#over = true;\n        this.#trust = undefined;',
  },

  // ---------------------------------------------------------------- schedules
  {
    name: 'a pass begins before its time is written',
    file: 'core/work/firing',
    find: 'const taken = await this.#take(latestMs);',
    replace: "void this.#take(latestMs); const taken = 'taken';",
    test: 'core/schedule',
  },
  {
    name: 'a time whose pass is begun is taken back',
    file: 'core/work/firing',
    find: "if (taken === 'perhaps')",
    replace: "if (taken !== 'not-taken')",
    test: 'core/schedule',
  },
  {
    name: 'a time whose pass could not begin is not taken back',
    file: 'core/work/firing',
    find: "if (taken === 'perhaps')",
    replace: 'if (false)',
    test: 'core/schedule',
  },
  {
    name: 'who has lost the lease writes its times',
    file: 'core/changes/changes',
    find: 'if (lease?.holder !== node || lease.token !== token)',
    replace: 'if (lease === undefined)',
    test: 'core/schedule',
  },
  {
    name: 'times that are skipped count by the clock as it is',
    file: 'core/work/firing',
    find: 'Math.max(dealtWithMs, this.#skippedToMs)',
    replace: "(this.#timetable.missed === 'skip' ? this.#skippedToMs : dealtWithMs)",
    mix: 'brief',
    from: 67,
  },
  {
    name: 'a time has a fraction of a millisecond',
    file: 'core/session/server',
    find: 'Math.floor(this.#clockMs',
    replace: '(this.#clockMs',
    test: 'core/server',
  },
  {
    name: 'a target that cools down stays the target when another becomes a candidate',
    file: 'core/changes/draft',
    find: '(isCandidate(lease.holder) ? current[0] : undefined)',
    replace: 'current[0]',
    test: 'core/operator',
  },
]
