/**
 * A network of the campaign's own: each node lives in a network namespace, as on a host of its own, and every packet it exchanges
 * with its database goes through a router, which is a namespace as well. There links go down and packets get lost, in the
 * kernel's own TCP, and nothing of it touches the machine's rules for packets.
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

/** Which way packets go. */
export type Heading = 'to the database' | 'to the node'

/** As the router sees it. */
const deviceIn: Readonly<Record<Heading, string>> = { 'to the database': '-i', 'to the node': '-o' }

/** A network that was laid, or why there is none. */
export type Laid = { readonly links: Links } | { readonly why: string }

/** Each node has four addresses of the 256, and the first four are those between the machine and the router. */
const mostNodes = 62

export class Links {
  /** Where this machine is reached from all namespaces. */
  readonly host: string
  readonly #net: readonly number[]
  readonly #id: string

  private constructor(net: readonly number[]) {
    this.#net = net
    this.#id = Buffer.from(net).toString('hex')
    this.host = this.#address(1)
  }

  /** Lays it for so many nodes; it is taken up with the lifetime, and with this process however that ends. */
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

  /** Two campaigns never have one range: the name of the router's namespace is made of it, and can be made once. */
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

  /** The namespace of a node, as a file. */
  namespaceOf(index: number): string {
    return pathOf(this.#name(index))
  }

  /** Loses this share of the packets of some nodes, for as long as the work takes. Answers how many were lost. */
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
   * Pulls the cables of some nodes, for as long as the work takes. Answers how many have sent something meanwhile, and heard
   * nothing. The processes are one in the namespace of each.
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
    // A cable that is out says nothing: nobody is told either that a host cannot be reached.
    await this.#filter(['-A OUTPUT -p icmp -j DROP'])
  }

  /** A firewall of the machine may stand in between, and a kernel may not know how to lose at random. */
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

  /** By the rules that lose packets. */
  async #dropped(): Promise<number> {
    const lines = (await this.#inRouter(['iptables', '--wait', '-nvxL', 'FORWARD'])).split('\n')
    const counts = lines.map((line) => /^\s*(\d+)\s+\d+\s+DROP\s/.exec(line)?.[1])
    return counts.reduce((sum, count) => sum + Number(count ?? 0), 0)
  }

  /** All rules at once: on a busy machine each start of a program takes its time. */
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

  /** On this machine. Names of devices have 15 characters at most. */
  get #device(): string {
    return `chaos${this.#id}`
  }

  /** Of a node: the router's end of its cable. */
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

/** Commands of `ip`, in a namespace, or on this machine. The first that fails is the last. */
function ip(commands: readonly string[], namespace?: string): Promise<string> {
  const where = namespace === undefined ? [] : ['-netns', namespace]
  return told('ip', [...where, '-batch', '-'], commands)
}

/** Runs a program that reads lines, and answers what it says. */
async function told(program: string, args: readonly string[], lines: readonly string[]): Promise<string> {
  const running = run(program, [...args])
  running.child.stdin?.on('error', () => undefined)
  running.child.stdin?.end(lines.map((line) => `${line}\n`).join(''))
  const { stdout } = await running
  return stdout
}

/** Segments of TCP so far. */
interface Segments {
  readonly sent: number
  readonly received: number
}

/** Of the network namespace a process lives in; undefined when it has ended. */
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

/** The complaint of a program stands in the last line of the message. */
function lastLine(error: unknown): string {
  return String(error instanceof Error ? error.message : error)
    .trim()
    .split('\n')
    .slice(-1)
    .join()
}

/**
 * Takes the network up when its standard input ends, so at most with this process, however that ends. The device goes
 * first: a namespace lives for as long as a process does that is in it.
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

/** A private range of 256 addresses that no route of this machine leads to, but the one to everywhere. */
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
