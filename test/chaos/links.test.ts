/**
 * The network of a campaign: its faults have their effects, and nothing of it is left behind. Where it cannot be built,
 * the reason is given.
 */
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import { createServer } from 'node:net'
import { createInterface } from 'node:readline'
import t, { type Test } from 'tap'
import { eventually } from '../support/eventually.js'
import { type Laid, Links } from './links.js'
import { Undo } from './world.js'

t.setTimeout(300_000)

const probe = new Undo()
const laid = await Links.lay(1, probe)
await probe.undo()
const skip = 'why' in laid && laid.why

t.test('packets get lost, cables are out, and all is as before when it is over', { skip }, async (t) => {
  const links = linksOf(await Links.lay(2, t))
  const host = await useHost(t, links)
  await host.comesThrough()
  const lost = await links.losing([0, 1], ['to the database', 'to the node'], 1, host.triesAgain)
  t.ok(lost > 0, `${lost} packets were lost`)
  await host.comesThrough()
  const other = await links.losing([1], ['to the database', 'to the node'], 1, host.triesAgain)
  t.equal(other, 0, 'those of a node that sends nothing are not')
  await host.comesThrough()
  t.equal(await links.unplugged([{ index: 0, pid: host.pid }], host.triesAgain), 1)
  await host.comesThrough()
})

t.test('campaigns may run side by side, and nothing of their networks is left', { skip }, async (t) => {
  const lifetime = new Undo()
  const [one, other] = (await Promise.all([1, 2].map(() => Links.lay(2, lifetime)))).map(linksOf)
  t.not(one?.host, other?.host)
  const names = [one, other].flatMap((links) => links?.namespaceOf(1) ?? [])
  t.equal(names.filter(isThere).length, 2)
  await lifetime.undo()
  t.strictSame(names.filter(isThere), [])
  const routes = execFileSync('ip', ['-4', 'route'], { encoding: 'utf8' })
  for (const links of [one, other]) t.notMatch(routes, links?.host)
})

t.test('a campaign that is killed leaves nothing either', { skip }, async (t) => {
  const program = `
    const { Links } = await import('${new URL('./links.js', import.meta.url).href}')
    const { links } = await Links.lay(1, { teardown() {} })
    console.log(links.namespaceOf(0))
    setInterval(() => undefined, 1000)`
  const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const [name] = await once(createInterface(child.stdout), 'line')
  t.ok(isThere(name))
  child.kill('SIGKILL')
  await eventually(() => !isThere(name), { timeoutMs: 120_000 })
})

t.test('a machine without what the links need is told what is missing', async (t) => {
  const { PATH } = process.env
  process.env.PATH = '/nowhere'
  const laid = await Links.lay(1, t).finally(() => {
    process.env.PATH = PATH
  })
  t.strictSame(laid, { why: 'ip, iptables, iptables-restore, nsenter cannot be found' })
  t.match(await Links.lay(63, t), { why: 'room for 62 nodes' })
})

function linksOf(laid: Laid): Links {
  if ('why' in laid) throw new Error(laid.why)
  return laid.links
}

function isThere(namespace: string): boolean {
  const name = namespace.split('/').at(-1) ?? ''
  return readdirSync('/run/netns').includes(name)
}

/** Starts a process in the first namespace that connects to this one again and again. */
async function useHost(
  t: Test,
  links: Links,
): Promise<{ pid: number; comesThrough: () => Promise<void>; triesAgain: () => Promise<void> }> {
  let connections = 0
  const server = createServer((socket) => {
    connections += 1
    socket.on('error', () => undefined).end()
  }).listen(0, links.host)
  await once(server, 'listening')
  t.teardown(() => server.close())
  const address = server.address()
  const port = typeof address === 'object' ? address?.port : undefined
  const program = `setInterval(() => {
      console.log('try')
      require('net').connect(${port}, '${links.host}').on('error', () => undefined).resume()
    }, 50)`
  const child = spawn('nsenter', [`--net=${links.namespaceOf(0)}`, process.execPath, '-e', program], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let tries = 0
  createInterface(child.stdout).on('line', () => {
    tries += 1
  })
  t.teardown(async () => {
    child.kill('SIGKILL')
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
  })
  const growsBy = async (count: () => number, by: number): Promise<void> => {
    const before = count()
    await eventually(() => count() >= before + by, { timeoutMs: 120_000 })
  }
  return {
    pid: child.pid ?? 0,
    comesThrough: () => growsBy(() => connections, 2),
    triesAgain: () => growsBy(() => tries, 5),
  }
}
