/**
 * A network of the campaign's own. Each node lives in a network namespace, as on a host of its own. Every packet
 * between it and its database goes through a router, which is another namespace. There links go down and packets get
 * lost, below the kernel's own TCP. The packet filter rules of the machine itself are not touched.
 *
 *     node 1 ── n1 ┐
 *     node 2 ── n2 ┤ router ── this machine, where proxies listen
 *     node 3 ── n3 ┘
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { promisify } from 'node:util'
import type { Lifetime } from '../support/databases.js'

const run = promisify(execFile)

/** The direction of packets. */
export type Heading = 'to the database' | 'to the node'

/** The option of `iptables`, as seen from the router. */
const deviceIn: Readonly<Record<Heading, string>> = { 'to the database': '-i', 'to the node': '-o' }

/** A network, or the reason why there is none. */
export type Laid = { readonly links: Links } | { readonly why: string }

/** The network has 256 addresses: four between this machine and the router, and four for each node. */
const mostNodes = 62

export class Links {
  /** The address at which all namespaces reach this machine. */
  readonly host: string
  readonly #net: readonly number[]
  readonly #id: string

  private constructor(net: readonly number[]) {
    this.#net = net
    this.#id = Buffer.from(net).toString('hex')
    this.host = this.#address(1)
  }

  /** Builds a network for this many nodes. It is removed with `lifetime`, and in any case when this process ends. */
  static async lay(nodes: number, lifetime: Lifetime): Promise<Laid> {
    if (nodes > mostNodes) return { why: `a network has room for ${mostNodes} nodes` }
    const missing = ['ip', 'iptables', 'iptables-restore', 'nsenter'].filter((program) => !isThere(program))
    if (missing.length > 0) return { why: `${missing.join(', ')} cannot be found` }
    try {
      const links = await Links.#claim(nodes, lifetime)
      await links.#connect(nodes)
      await links.#tryOut()
      return { links }
    } catch (error) {
      return { why: `no network namespaces can be connected here: ${lastLine(error)}` }
    }
  }

  /** Claims a range of addresses. Two campaigns never share one: the router's namespace is named after it. */
  static async #claim(nodes: number, lifetime: Lifetime): Promise<Links> {
    for (let attempt = 1; ; attempt++) {
      const links = new Links(await freeNet())
      try {
        await run('ip', ['netns', 'add', links.#router])
      } catch (error) {
        if (attempt === 10 || !existsSync(pathOf(links.#router))) throw error
        continue
      }
      const names = Array.from({ length: nodes }, (_, index) => links.#name(index))
      const guard = guarding(links.#device, [...names, links.#router])
      lifetime.teardown(() => ended(guard))
      return links
    }
  }

  /** The file of a node's namespace. */
  namespaceOf(index: number): string {
    return pathOf(this.#name(index))
  }

  /** Loses this share of the packets of some nodes while `work` runs. Returns how many packets were lost. */
  async losing(
    indices: readonly number[],
    headings: readonly Heading[],
    share: number,
    work: () => Promise<void>,
  ): Promise<number> {
    const chance = share < 1 ? `-m statistic --mode random --probability ${share.toFixed(3)}` : ''
    const rules = indices.flatMap((index) =>
      headings.map((heading) => `-A FORWARD ${deviceIn[heading]} n${index + 1} ${chance} -j DROP`),
    )
    try {
      await this.#filter(rules)
      await work()
      return await this.#dropped()
    } finally {
      await this.#filter(['-F FORWARD'])
    }
  }

  /**
   * Pulls the cables of some nodes while `work` runs. Returns how many of them have sent something meanwhile and
   * received nothing. Each `pid` is a process in the node's namespace.
   */
  async unplugged(
    nodes: readonly { readonly index: number; readonly pid: number }[],
    work: () => Promise<void>,
  ): Promise<number> {
    try {
      await this.#setLinks(nodes, 'down')
      const before = nodes.map(({ pid }) => segmentsOf(pid))
      await work()
      return nodes.filter(({ pid }, at) => isCutOff(before[at], segmentsOf(pid))).length
    } finally {
      await this.#setLinks(nodes, 'up')
    }
  }

  async #connect(nodes: number): Promise<void> {
    const router = this.#router
    const indices = Array.from({ length: nodes }, (_, index) => index)
    await ip([
      `link add ${this.#device} type veth peer name host netns ${router}`,
      `address add ${this.#address(1)}/30 dev ${this.#device}`,
      `link set ${this.#device} up`,
      ...indices.map((index) => `netns add ${this.#name(index)}`),
    ])
    const cables = indices.flatMap((index) => [
      `link add n${index + 1} type veth peer name eth0 netns ${this.#name(index)}`,
      `address add ${this.#gateway(index)}/30 dev n${index + 1}`,
      `link set n${index + 1} up`,
    ])
    await ip([`address add ${this.#address(2)}/30 dev host`, 'link set host up', ...cables], router)
    for (const index of indices) {
      const address = this.#address(4 * (index + 1) + 2)
      const route = `route add default via ${this.#gateway(index)}`
      const here = [`address add ${address}/30 dev eth0`, 'link set lo up', 'link set eth0 up', route]
      await ip(here, this.#name(index))
    }
    await ip([`route add ${this.#address(0)}/24 via ${this.#address(2)}`])
    await this.#inRouter(['sh', '-c', 'echo 1 > /proc/sys/net/ipv4/ip_forward'])
    // A pulled cable reports nothing, so the router must not report that a host is unreachable either.
    await this.#filter(['-A OUTPUT -p icmp -j DROP'])
  }

  /**
   * Tries the network out. A firewall of the machine may block it, and the kernel may not be able to lose packets at
   * random.
   */
  async #tryOut(): Promise<void> {
    const server = createServer((socket) => socket.end()).listen(0, this.host)
    await once(server, 'listening')
    try {
      const address = server.address()
      const port = typeof address === 'object' ? address?.port : undefined
      const connect = `require('net').connect(${port}, '${this.host}').on('end', () => process.exit()).resume()`
      await run('nsenter', [`--net=${this.namespaceOf(0)}`, process.execPath, '-e', connect], {
        timeout: 60_000,
      })
    } finally {
      server.close()
    }
    await this.losing([0], ['to the node'], 0.5, async () => undefined)
  }

  #setLinks(nodes: readonly { readonly index: number }[], state: 'up' | 'down'): Promise<string> {
    const commands = nodes.map(({ index }) => `link set n${index + 1} ${state}`)
    return ip(commands, this.#router)
  }

  /** Returns how many packets the rules have dropped. */
  async #dropped(): Promise<number> {
    const lines = (await this.#inRouter(['iptables', '--wait', '-nvxL', 'FORWARD'])).split('\n')
    const counts = lines.map((line) => /^\s*(\d+)\s+\d+\s+DROP\s/.exec(line)?.[1])
    return counts.reduce((sum, count) => sum + Number(count ?? 0), 0)
  }

  /** Applies all rules with one start of a program, which takes long on a busy machine. */
  #filter(rules: readonly string[]): Promise<string> {
    const lines = ['*filter', ...rules, 'COMMIT']
    return this.#inRouter(['iptables-restore', '--wait', '--noflush'], lines)
  }

  #inRouter(command: readonly string[], lines: readonly string[] = []): Promise<string> {
    return told('nsenter', [`--net=${pathOf(this.#router)}`, ...command], lines)
  }

  get #router(): string {
    return `coordination-chaos-${this.#id}-router`
  }

  #name(index: number): string {
    return `coordination-chaos-${this.#id}-n${index + 1}`
  }

  /** The name of the router's link on this machine. Names of devices have at most 15 characters. */
  get #device(): string {
    return `chaos${this.#id}`
  }

  /** The router's end of a node's cable. */
  #gateway(index: number): string {
    return this.#address(4 * (index + 1) + 1)
  }

  #address(last: number): string {
    return [...this.#net, last].join('.')
  }
}

function pathOf(namespace: string): string {
  return `/run/netns/${namespace}`
}

/** Runs commands of `ip` in a namespace, or on this machine. Stops at the first that fails. */
function ip(commands: readonly string[], namespace?: string): Promise<string> {
  const where = namespace === undefined ? [] : ['-netns', namespace]
  return told('ip', [...where, '-batch', '-'], commands)
}

/** Runs a program that reads lines, and returns its output. */
async function told(program: string, args: readonly string[], lines: readonly string[]): Promise<string> {
  const running = run(program, [...args])
  running.child.stdin?.on('error', () => undefined)
  running.child.stdin?.end(lines.map((line) => `${line}\n`).join(''))
  const { stdout } = await running
  return stdout
}

/** How many TCP segments were sent and received so far. */
interface Segments {
  readonly sent: number
  readonly received: number
}

/** Counts for the network namespace of a process; undefined when the process has ended. */
function segmentsOf(pid: number): Segments | undefined {
  try {
    const lines = readFileSync(`/proc/${pid}/net/snmp`, 'utf8').split('\n')
    const [names, values] = lines.filter((line) => line.startsWith('Tcp:')).map((line) => line.split(' '))
    const count = (name: string): number => Number(values?.[names?.indexOf(name) ?? -1])
    return { sent: count('OutSegs'), received: count('InSegs') }
  } catch {
    return undefined
  }
}

function isCutOff(before: Segments | undefined, after: Segments | undefined): boolean {
  if (before === undefined || after === undefined) return false
  return after.sent > before.sent && after.received === before.received
}

function isThere(program: string): boolean {
  return (process.env.PATH ?? '').split(':').some((folder) => existsSync(`${folder}/${program}`))
}

/** Returns the last line of the message, where a program puts its complaint. */
function lastLine(error: unknown): string {
  return String(error instanceof Error ? error.message : error)
    .trim()
    .split('\n')
    .slice(-1)
    .join()
}

/**
 * Starts a process that removes the network when its standard input ends, so at the latest with this process, however
 * that ends. The device goes first, because a namespace lives as long as any process in it.
 */
function guarding(device: string, namespaces: readonly string[]): ChildProcess {
  const script =
    'trap "" HUP INT TERM; read end; ip link delete "$1"; shift; for each; do ip netns delete "$each"; done'
  const guard = spawn('sh', ['-c', script, 'sh', device, ...namespaces], {
    stdio: ['pipe', 'ignore', 'ignore'],
    detached: true,
  })
  guard.stdin?.on('error', () => undefined)
  return guard
}

async function ended(guard: ChildProcess): Promise<void> {
  if (guard.exitCode !== null) return
  const exit = once(guard, 'exit')
  guard.stdin?.end()
  await exit
}

/**
 * Returns a random private range of 256 addresses that no route of this machine covers, apart from the default route.
 */
async function freeNet(): Promise<number[]> {
  const lines = (await told('ip', ['-4', '-o', 'route', 'show', 'table', 'all'], [])).split('\n')
  const taken = lines.flatMap((line) => rangeOf(/(?:^|\s)(\d+(?:\.\d+){3}(?:\/\d+)?)/.exec(line)?.[1]) ?? [])
  for (let attempt = 0; attempt < 1_000; attempt++) {
    const net = [
      [10, randomInt(256), randomInt(256)],
      [172, 16 + randomInt(16), randomInt(256)],
      [192, 168, randomInt(256)],
    ][randomInt(3)]
    const first = numberOf([...(net ?? []), 0])
    if (net !== undefined && !taken.some(([from, to]) => from <= first + 255 && first <= to)) return net
  }
  throw new Error('no private range of addresses is free')
}

function rangeOf(text: string | undefined): [from: number, to: number][] | undefined {
  if (text === undefined) return undefined
  const [address = '', bits = '32'] = text.split('/')
  const size = 2 ** (32 - Number(bits))
  const from = Math.floor(numberOf(address.split('.').map(Number)) / size) * size
  return [[from, from + size - 1]]
}

function numberOf(bytes: readonly number[]): number {
  return bytes.reduce((sum, byte) => sum * 256 + byte, 0)
}
