/** The actions on a lease, a node or a worker: the question for each, and the request that it sends. */
import { type Child, h, icon, type Props } from './dom.js'
import {
  type Action,
  ago,
  type CoordinationNode,
  grouped,
  keyInPath,
  type Lease,
  type NodeRef,
  timeOf,
} from './model.js'
import { type Acts, button, type Fact, may, type Order, type State } from './parts.js'

/** Returns a button for the action, if the user may perform it. */
export function offer(
  state: State,
  acts: Acts,
  action: Action,
  label: string,
  order: (state: State) => Order,
  props?: Props,
): Child {
  return may(state, action) && button(label, () => acts.open(order), props)
}

export function releaseButton(state: State, acts: Acts, lease: Lease, props: Props): Child {
  return lease.holder && offer(state, acts, 'release', 'Release…', (now) => release(now, lease), props)
}

function note(text: string, tone?: 'bad' | 'warn'): Child {
  return tone ? h('p', { class: `note ${tone}` }, icon('alert'), h('span', text)) : h('p.muted', text)
}

/** Takes a lease away from its holder by force. */
function release(state: State, asked: Lease): Order {
  const { nowMs, utc, followed } = state
  const now = followed?.key === asked.key ? followed : asked
  const moved = now.token !== asked.token || !now.holder
  const lease = moved ? asked : now
  const { key, token, session, candidateCount } = lease
  const healthy = session?.pulse === 'steady'
  const name = lease.holder?.name
  const alone = candidateCount < 2
  return {
    title: `Release ${key}?`,
    facts: [
      ...holderFacts(lease),
      [
        'Last heartbeat',
        session
          ? `${ago(nowMs - Date.parse(session.heartbeatAt))}, at ${timeOf(session.heartbeatAt, utc)}`
          : '—',
      ],
      ['Candidates', `${grouped(candidateCount)}${alone ? ': no other one' : ''}`],
    ],
    notes: [
      moved &&
        note(
          `The lease has moved since: ${now.holder ? `${now.holder.name} holds it, with token ${now.token}` : 'nobody holds it'}. Nothing will be released.`,
          'bad',
        ),
      healthy
        ? note(`${name} is alive. It is told to stop; its work goes on until it has.`, 'warn')
        : note(`Nothing has been heard of ${name} for a while.`),
      note(`The next holder begins once ${name} has stopped, or cannot act on token ${token} any more.`),
      alone && note('No other node may hold it: it may stay free, or come back.', 'bad'),
      note(`Only token ${token} is released: if the lease moves meanwhile, nothing happens.`),
    ],
    typed: healthy ? key : undefined,
    submit: 'Release lease',
    danger: true,
    method: 'POST',
    path: `leases/${keyInPath(key)}/release`,
    token,
    done: `Released ${key}`,
    follows: key,
    afterwards:
      `If work on ${name} ignores its signal, it still runs there: restart that process. Until then only the fence, or ` +
      `a check of token ${token}, keeps out what it writes.`,
    refused: 'Nothing was released.',
  }
}

function holderFacts({ holder, token }: Lease): Fact[] {
  return [
    ['Holder', h('span.mono', holder?.name)],
    ['Fencing token', h('span.mono', token)],
  ]
}

/** @param nodes the nodes to choose from; without them, the plan decides. */
export function handOver(lease: Lease, nodes?: readonly NodeRef[]): Order {
  const { key, token, holder } = lease
  return {
    title: nodes ? `Transfer ${key}` : `Ask ${holder?.name} to step down from ${key}?`,
    facts: holderFacts(lease),
    notes: [
      note(
        `Its signal aborts, its pass ends, and ${nodes ? 'the node you choose' : 'another node'} follows. Work that ignores the signal is taken away later.`,
      ),
    ],
    nodes,
    submit: nodes ? 'Transfer' : 'Ask to step down',
    method: 'POST',
    path: `leases/${keyInPath(key)}/${nodes ? 'transfer' : 'step-down'}`,
    token,
    done: `Asked for ${key}`,
  }
}

export function drain({ id, name, leadCount, slotCount }: CoordinationNode): Order {
  return {
    title: `Drain ${name}?`,
    facts: [
      ['Leads', grouped(leadCount)],
      ['Shares and partitions', grouped(slotCount)],
    ],
    notes: [note('It hands everything over and takes nothing new until the drain is ended, or it restarts.')],
    submit: 'Drain node',
    method: 'PUT',
    path: `nodes/${id}/drain`,
    done: `${name} hands over as its passes end`,
  }
}

export function undrain({ id, name }: CoordinationNode): Order {
  return {
    title: `Let ${name} take work again?`,
    notes: [note('It is a candidate again.')],
    submit: 'End the drain',
    method: 'DELETE',
    path: `nodes/${id}/drain`,
    done: `${name} takes work again`,
  }
}

/** @param kind of what is forgotten, as in the path. */
export function forget({ id, name }: Pick<NodeRef, 'id' | 'name'>, kind = 'nodes'): Order {
  return {
    title: `Remove ${name}?`,
    notes: [note('Its events stay.')],
    submit: 'Remove',
    method: 'DELETE',
    path: `${kind}/${keyInPath(id)}`,
    done: `Removed ${name}`,
  }
}

export function pauseOrResume(key: string, paused: boolean): Order {
  const path = `workers/${keyInPath(key)}/pause`
  return paused
    ? {
        title: `Resume ${key}?`,
        notes: [note('Its candidates begin at once.')],
        submit: 'Resume',
        method: 'DELETE',
        path,
        done: `Nodes may run ${key} again`,
      }
    : {
        title: `Pause ${key}?`,
        notes: [
          note('Nobody runs it until it is resumed, even after restarts. Whoever runs it is told to stop.'),
        ],
        submit: 'Pause',
        method: 'PUT',
        path,
        done: `${key} is given up as its passes end`,
      }
}
