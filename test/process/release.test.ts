/**
 * A holder whose process is well and whose work hangs. It renews its session, so only a person finds out. That person
 * has `curl`, and any other node.
 */
import t, { type Test } from 'tap'
import type { Status } from '../../plugin/index.js'
import { type Database, eachDatabase } from '../support/databases.js'
import { NodeProcess, type Observer, observe, shortTtlMs } from './processes.js'

t.setTimeout(300_000)

const key = 'global/report'
const reason = 'stuck since 03:10'
const workers = [{ name: 'report', kind: 'single', scope: 'global' }] as const

t.test('a holder that hangs is put out, and the next begins in the moment in which it has stopped', (t) =>
  eachDatabase(t, async (t, database) => {
    const { observer, stuck, other, desk } = await useStuckHolder(t, database)
    const { tag, token } = await desk.lease()
    const before = await observer.status()
    const refused = await desk.release('"1"')
    t.match(refused, { status: 412, body: { type: /token-mismatch$/, current: { key, token } } })
    t.equal((await observer.status()).revision, before.revision, 'another token: nothing happens')
    await renewed(observer, stuck, before)

    const { status, body } = await desk.release(tag)
    t.equal(status, 200)
    t.match(body, { released: true, acknowledged: false, previousToken: token })
    t.equal((await stuck.heard('aborted')).reason, 'revoked', 'its signal says why')
    const [event] = (await observer.events()).filter(({ type }) => type === 'lease.revoked')
    t.match(event, { subject: key, token, node: stuck.id, actor: 'loopback', reason })

    const after = await observer.status()
    t.strictSame(await desk.release(tag), { status, body }, 'repeated, it answers the same')
    t.equal((await observer.status()).revision, after.revision, 'and changes nothing')
    await other.allHeard()
    t.strictSame(other.said('worked'), [], 'nobody begins while the old work might go on')

    stuck.tell({ command: 'go-on' })
    const work = await other.heard('worked')
    t.ok(work.token > token)
    const { acquiredAt } = await desk.lease()
    t.ok(Date.parse(acquiredAt) < Date.parse(body.safeAt), 'nobody has waited for longer than needed')
    const late = await desk.release(tag)
    t.match(late, { status: 412, body: { current: { token: work.token, holder: { id: other.id } } } })

    await renewed(observer, stuck, await observer.status())
    t.strictSame(
      stuck.said('hangs').map((pass) => pass.token),
      [token],
      'it lives, and has not won again',
    )
  }),
)

t.test('a holder that never stops is waited for until safeAt, though it lives and renews', (t) =>
  eachDatabase(t, async (t, database) => {
    const { observer, stuck, other, desk } = await useStuckHolder(t, database)
    const { tag, token } = await desk.lease()
    const { body } = await desk.release(tag)
    await stuck.heard('aborted')
    await renewed(observer, stuck, await observer.status())
    const work = await other.heard('worked')
    t.ok(work.token > token)
    const { acquiredAt } = await desk.lease()
    const earlyMs = Date.parse(body.safeAt) - Date.parse(acquiredAt)
    t.ok(earlyMs < 500, `the other one holds it from about safeAt on (${earlyMs} ms before)`)
    await renewed(observer, stuck, await observer.status())
    const gone = (await observer.events()).filter(({ type }) => type === 'node.gone')
    t.strictSame(gone, [], 'nobody was taken for dead')
  }),
)

/** Starts one node that holds the lease and hangs, and another that waits and serves HTTP. */
async function useStuckHolder(t: Test, database: Database) {
  const observer = await observe(t, database)
  const order = {
    ...{ database: database.url, namespace: 'default', cluster: 'c1', workers },
    timing: { ttlMs: shortTtlMs(database), handoverTimeoutMs: 60_000 },
  }
  const stuck = await NodeProcess.start(t, { ...order, node: 'n1', hangs: true })
  await stuck.heard('hangs')
  const other = await NodeProcess.start(t, { ...order, node: 'n2' })
  other.tell({ command: 'listen' })
  const { origin } = await other.heard('listening')
  return { observer, stuck, other, desk: deskAt(origin) }
}

/** The requests that an operator makes, over a socket. */
function deskAt(origin: string) {
  const path = `${origin}/coordination/leases/global:report`
  return {
    async lease(): Promise<{ tag: string; token: number; acquiredAt: string }> {
      const reply = await fetch(path)
      const { token, acquiredAt } = (await reply.json()) as { token: number; acquiredAt: string }
      return { tag: reply.headers.get('etag') ?? '', token, acquiredAt }
    },
    async release(tag: string): Promise<{ status: number; body: { safeAt: string } }> {
      const reply = await fetch(`${path}/release`, {
        method: 'POST',
        headers: { 'if-match': tag, 'content-type': 'application/json' },
        body: JSON.stringify({ reason }),
      })
      return { status: reply.status, body: (await reply.json()) as { safeAt: string } }
    },
  }
}

async function renewed(observer: Observer, { id }: NodeProcess, before: Status): Promise<void> {
  const atMs = ({ nodes }: Status): number => nodes.find((node) => node.id === id)?.heartbeatAtMs ?? 0
  await observer.until('it has renewed its session', (now) => atMs(now) > atMs(before))
}
