/**
 * What each command asks or does.
 */
import type { Coordinator } from '../core/coordinator.js'
import { type Explanation, explain } from '../core/reports/explain.js'
import { type Problem, problemsIn, severities } from '../core/reports/problems.js'
import { termEvents, termsOf } from '../core/reports/terms.js'
import { vacancyOf } from '../core/reports/vacancy.js'
import { blockWaitMs } from '../core/time/timing.js'
import type { Command, Order } from './arguments.js'
import { type Answer, exitCodes } from './output.js'
import { isPresent, labelOfId, look, readBesides, type Scene, typed } from './scene.js'
import { leaseTable, nodeTable, problemTable, termTable, time } from './tables.js'

/** The commands for which the namespace is read first. */
type Asking = Exclude<Command, 'check' | 'migrate'>

type Ways = {
  readonly [Name in Asking]: (
    scene: Scene,
    order: Order<Name>,
    coordinator: Coordinator,
  ) => Answer | Promise<Answer>
}

/** Carries out the commands that need only a coordinator, which has not been started. */
export async function obey(
  coordinator: Coordinator,
  order: Order<Exclude<Command, 'check'>>,
): Promise<Answer> {
  // Connecting has already run the migrations.
  if (order.command === 'migrate') return done({ migrated: true }, ['The tables are up to date.'])
  const scene = await look(coordinator)
  const isUnused = scene.snapshot.meta.revision === 0
  const known = isUnused ? await coordinator.operator.namespaces() : []
  if (known.length > 0) return noNamespace(order.namespace, known)
  return follow(scene, order, coordinator)
}

function follow<Name extends Asking>(
  scene: Scene,
  order: Order<Name>,
  coordinator: Coordinator,
): Answer | Promise<Answer> {
  return ways[order.command](scene, order, coordinator)
}

const ways: Ways = {
  status: async (scene, _order, coordinator) => {
    const { status, isSilent } = scene
    const others = (await coordinator.operator.namespaces()).filter((each) => each !== status.namespace)
    const problems = await problemsOf(scene, coordinator)
    const nodes = status.nodes.map((node) => ({ ...node, silent: isSilent(node) }))
    const leases = status.leases.map((lease) => ({ ...lease, silent: isSilent(lease.holder) }))
    const present = status.nodes.filter(isPresent)
    const goneCount = nodes.length - present.length
    const tables = [
      nodeTable(scene, present),
      ...(goneCount > 0 ? [`${goneCount === 1 ? '1 node is' : `${goneCount} nodes are`} gone.`] : []),
      '',
      leaseTable(scene, status.leases),
    ]
    return found(scene, problems, { ...status, nodes, leases, problems }, tables, others)
  },

  leaders: async (scene, _order, coordinator) => {
    const { status, isSilent } = scene
    const problems = await problemsOf(scene, coordinator)
    const singles = new Set(status.workers.flatMap(({ key, kind }) => (kind === 'single' ? [key] : [])))
    const leases = status.leases.filter(({ worker }) => worker !== null && singles.has(worker))
    // The same as `GET /leaders`, and whether each of them is silent.
    const leaders = leases.flatMap(({ key, holder, token, acquiredAtMs }) => {
      if (holder === null) return []
      const sinceMs = acquiredAtMs === null ? null : Math.max(0, status.nowMs - acquiredAtMs)
      const { name: node, id, cluster } = holder
      return [[key, { node, id, cluster, token, sinceMs, silent: isSilent(holder) }]]
    })
    return found(scene, problems, Object.fromEntries(leaders), [leaseTable(scene, leases)])
  },

  explain: async (scene, { key }, coordinator) => {
    const { operator } = coordinator
    const { timing } = scene
    const lease = scene.snapshot.leases.find((each) => each.key === key)
    if (lease === undefined) return noLease(scene, key)
    const latest = (type: string, subject: string | null) =>
      operator.events({ types: [type], subject: subject ?? '', limit: 1 })
    const [revoked] = await latest('lease.revoked', key)
    const [pause] = await latest('worker.paused', lease.worker)
    await readBesides(scene, coordinator)
    const vacancy = await vacancyOf(lease, (query) => operator.events(query))
    const circumstances = { timing, revokedAtMs: revoked?.atMs ?? null, pause, vacancy }
    const explanation = explain(scene.snapshot, key, circumstances)
    if (explanation === undefined) return noLease(scene, key)
    const terms = termsOf(await operator.events({ types: termEvents, subject: key, limit: 20 }))
    return done({ ...explanation, terms }, [
      ...explanation.reasons.map(({ sentence }) => sentence),
      ...scheduleLines(explanation),
      '',
      termTable(scene, terms),
    ])
  },

  release: async (scene, { key, token, immediate, cooldownMs, by }, { operator }) => {
    const cooldown = cooldownMs === undefined ? {} : { cooldownMs }
    const answer = await operator.release({ key, token, immediate, ...cooldown, ...by })
    if (answer.kind === 'unknown') return noLease(scene, key)
    if (answer.kind === 'fenced')
      return no(
        'A transaction of the application fences it: nothing was released. Try again once that has ended.',
      )
    if (answer.kind === 'stale') {
      const { holder, token: latest } = answer.lease
      const now =
        holder === null ? 'nobody holds it' : `${labelOfId(holder, scene)} holds it, with token ${latest}`
      return no(`Nothing was released: by now ${now}.`, answer)
    }
    if (answer.kind === 'repeated') return done(answer, ['It had been released already.'])
    const name = labelOfId(answer.previousHolder, scene)
    const goesOn = `Work on ${name} that ignores its signal`
    const shown = `which only the log and \`/status\` of ${name} show: restart that process.`
    if (!answer.blocked) {
      const still = `${name} may still be at work, ${shown}`
      return done(answer, ['Released. The next holder may begin at once.', ...(immediate ? [still] : [])])
    }
    const explaining = typed(`explain ${key}`, scene)
    const waitS = Math.ceil(blockWaitMs(scene.timing) / 1_000)
    return done(answer, [
      `Released. ${name} is told to stop. The next holder begins once it has, or after ${waitS} s at the latest.`,
      `Until then \`${explaining}\` shows whether ${name} has said that it has stopped, and its history afterwards.`,
      `${goesOn} goes on even then, ${shown}`,
    ])
  },

  drain: (scene, { node, by }, { operator }) =>
    toNode(scene, node, (id) => operator.drain(id, by), {
      done: 'It hands over, and gets nothing new.',
      silent:
        'It gets nothing new. It is silent, and hands over only if it goes on; else the others take over.',
      unchanged: 'It was draining already.',
    }),

  undrain: (scene, { node, by }, { operator }) =>
    toNode(scene, node, (id) => operator.undrain(id, by), {
      done: 'It takes part again.',
      silent: 'It takes part again if it goes on: it is silent.',
      unchanged: 'It was not draining.',
    }),

  pause: async (scene, { key, by }, { operator }) =>
    ofWorker(scene, key, await operator.pause(key, by), {
      done: 'Nobody runs it until it is resumed.',
      unchanged: 'It was paused already.',
    }),

  resume: async (scene, { key, by }, { operator }) =>
    ofWorker(scene, key, await operator.resume(key, by), {
      done: 'Its nodes run it again.',
      unchanged: 'It was not paused.',
    }),

  forget: async (scene, { key, by }, { operator }) => {
    const outcome = await operator.forgetWorker(key, by)
    if (outcome === 'registered')
      return no('Some node has registered it: nothing was removed. Pause it, if nobody is to run it.', {
        outcome,
      })
    if (outcome === 'named')
      return no('A node still holds a lease of it: nothing was removed. Try again in a moment.', { outcome })
    return ofWorker(scene, key, outcome, { done: 'It is removed, with its leases.' })
  },
}

/** Returns the same problems as `GET /status`, except those that only the node that answers can know. */
async function problemsOf(scene: Scene, coordinator: Coordinator): Promise<Problem[]> {
  await readBesides(scene, coordinator)
  return problemsIn(scene.snapshot, scene.status, coordinator.health(), scene.timing)
}

/** Returns what has been seen: first how the namespace is and what is wrong, then the tables, which may be long. */
function found(
  scene: Scene,
  problems: readonly Problem[],
  json: unknown,
  tables: Answer['text'],
  others: readonly string[] = [],
): Answer {
  const { status, snapshot, isSilent, sharedNames } = scene
  const present = status.nodes.filter(isPresent)
  const isAlone = present.length > 0 && present.every(isSilent)
  return {
    json,
    text: [
      `Namespace ${status.namespace}, ${counted(present, 'node')}: ${countsOf(problems)}`,
      ...(snapshot.meta.revision === 0 ? ['No node has ever joined here.'] : []),
      ...(others.length > 0 ? [`Other namespaces in this database: ${listed(others)}`] : []),
      ...(isAlone ? [alone] : []),
      ...(sharedNames.size > 0
        ? [
            `Several nodes have one name (${listed([...sharedNames])}): HOLDER also shows how their ids begin.`,
          ]
        : []),
      ...(problems.length > 0 ? ['', problemTable(scene, problems)] : []),
      '',
      ...tables,
      '',
      'Work that ignores its signal is known only to its own process: see `/status` of each node.',
    ],
    exitCode: problems.some(({ severity }) => severity === 'error') ? exitCodes.no : exitCodes.done,
  }
}

/** A database that can only be read looks the same as one whose nodes have all ended. */
const alone =
  'No node renews its session: none runs, or the database takes no writes, which `check` tells. Leases of silent ' +
  'nodes are taken over once a node renews its session again.'

function countsOf(problems: readonly Problem[]): string {
  const counts = severities.flatMap((each) => {
    const { length } = problems.filter(({ severity }) => severity === each)
    return length === 0 ? [] : [`${length} ${each}${length === 1 || each === 'info' ? '' : 's'}`]
  })
  return counts.length === 0 ? 'no problems' : counts.join(', ')
}

/**
 * Refuses a namespace that does not exist. Where no namespace exists yet, any is accepted: it may be that of the
 * first node.
 */
function noNamespace(namespace: string, known: readonly string[]): Answer {
  return no(`There is no namespace "${namespace}" in this database. There is ${listed(known)}.`, {
    namespaces: known,
  })
}

/** How many names fit into a sentence. */
const mostNamed = 10

function listed(names: readonly string[]): string {
  const more = names.length > mostNamed ? ` and ${names.length - mostNamed} more` : ''
  return `${names.slice(0, mostNamed).map(quoted).join(', ')}${more}`
}

function noLease({ status }: Scene, key: string): Answer {
  // Its row is made with that of the worker, and no command deletes it.
  if (status.workers.some((worker) => worker.kind === 'single' && worker.key === key))
    return no(
      `The lease "${key}" is missing although its worker is registered: its row was deleted by hand. Nobody can take ` +
        'it until a node that registers the worker joins: restart one.',
    )
  const meant = ofSameName(key, status.leases)
  return no(
    `There is no lease "${key}". ${hint(meant, 'global/month-close, eu-1/indexing or global/consumer#12')}`,
  )
}

interface Words {
  readonly done: string
  readonly unchanged: string
}

function ofWorker<Outcome extends 'done' | 'unchanged'>(
  { status }: Scene,
  worker: string,
  outcome: Outcome | 'unknown',
  words: Pick<Words, Outcome>,
): Answer {
  if (outcome !== 'unknown') return done({ outcome }, [words[outcome]])
  if (status.leases.some((lease) => lease.key === worker && lease.worker === null))
    return no(
      `"${worker}" is a lease that is acquired by name: no worker belongs to it. \`release\` takes it away.`,
      { outcome },
    )
  if (status.leases.some((lease) => lease.worker === worker))
    return no(
      `The worker "${worker}" is missing although there are leases of it: its row was deleted by hand. Restart one ` +
        'node that registers it, and it is made again.',
      { outcome },
    )
  const meant = ofSameName(worker.replace(/#.*/, ''), status.workers)
  return no(`There is no worker "${worker}". ${hint(meant, 'global/month-close or eu-1/indexing')}`, {
    outcome,
  })
}

/**
 * Returns the keys that are the same after the slash. The typed key may be the name alone, have another scope, or
 * lack the slot.
 */
function ofSameName(key: string, things: readonly { readonly key: string }[]): string[] {
  const nameIn = (text: string): string => text.slice(text.indexOf('/') + 1)
  const keys = things.map((thing) => thing.key)
  const same = keys.filter((each) => nameIn(each) === nameIn(key))
  return same.length > 0 ? same : keys.filter((each) => nameIn(each).replace(/#.*/, '') === nameIn(key))
}

function hint(meant: readonly string[], examples: string): string {
  if (meant.length > mostNamed)
    return `Did you mean one of ${meant.length}, such as ${quoted(meant[0] ?? '')}?`
  if (meant.length > 0) return `Did you mean ${meant.map(quoted).join(' or ')}?`
  return `Keys are written like ${examples}; \`status\` lists those there are.`
}

/** Gives an order to a node, which is identified by its id or, where only one has it, by its name. */
async function toNode(
  scene: Scene,
  subject: string,
  order: (id: string) => Promise<'done' | 'unchanged' | 'gone'>,
  words: Words & { readonly silent: string },
): Promise<Answer> {
  const { nodes } = scene.status
  const byName = nodes.filter((node) => isPresent(node) && node.name === subject)
  const [node, ...others] = nodes.some(({ id }) => id === subject)
    ? nodes.filter(({ id }) => id === subject)
    : byName
  if (node !== undefined && others.length > 0) {
    const sentence = `${byName.length} nodes are called "${subject}". Name the one you mean by its id.`
    const answer = no(sentence, { nodes: byName.map(({ id }) => id) })
    return { ...answer, text: [sentence, '', nodeTable(scene, byName)] }
  }
  const outcome = node === undefined ? 'unknown' : await order(node.id)
  if (outcome === 'gone' || (outcome === 'unknown' && nodes.some(({ name }) => name === subject)))
    return no(`The node "${subject}" is gone.`, { outcome: 'gone' })
  if (outcome === 'unknown')
    return no(`There is no node "${subject}". \`status\` lists those there are.`, { outcome })
  const isUnheard = outcome === 'done' && node !== undefined && scene.isSilent(node)
  return done({ outcome }, [isUnheard ? words.silent : words[outcome]])
}

/** Says when a scheduled worker acted last, and when it will next. */
function scheduleLines({ schedule }: Explanation): string[] {
  if (schedule === null) return []
  const { cron, timeZone, lastFireAtMs, nextFireAtMs } = schedule
  const at = (ms: number | null): string => (ms === null ? 'none' : time(ms))
  return [
    `Its schedule is ${cron} (${timeZone}). The last time begun: ${at(lastFireAtMs)}. The next: ${at(nextFireAtMs)}.`,
  ]
}

function counted(things: readonly unknown[], word: string): string {
  return `${things.length} ${word}${things.length === 1 ? '' : 's'}`
}

function quoted(text: string): string {
  return `"${text}"`
}

function done(json: unknown, text: Answer['text']): Answer {
  return { json, text, exitCode: exitCodes.done }
}

function no(sentence: string, facts: object = {}): Answer {
  return { json: { error: sentence, ...facts }, text: [sentence], exitCode: exitCodes.no }
}
