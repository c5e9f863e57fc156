/** Puts the routes behind nginx as docs/operations.md does. */
import { readFileSync } from 'node:fs'
import Fastify from 'fastify'
import t from 'tap'
import workerCoordination from '../../plugin/index.js'
import { useNginx, withNginx } from '../support/nginx.js'
import { untilAborted } from '../support/workers.js'

t.test('behind nginx, on a port of its own, pages can read and write', withNginx, async (t) => {
  const app = Fastify({ forceCloseConnections: true })
  t.teardown(() => app.close())
  await app.register(workerCoordination, { database: 'sqlite::memory:', authorize: () => ({ id: 'mira' }) })
  app.coordination.worker(untilAborted('month-close'))
  const origin = await app.listen({ port: 0, host: '127.0.0.1' })
  const front = await useNginx(t, documented().replace('http://127.0.0.1:3101', origin))

  const page = await fetch(`${front}/ops/ui/`)
  t.equal(page.status, 200)
  const files = [...(await page.text()).matchAll(/(?:src|href)="([a-z]+\.[a-z]+)"/g)].map(([, file]) =>
    String(file),
  )
  t.ok(files.length > 2)
  for (const file of files) t.equal((await fetch(`${front}/ops/ui/${file}`)).status, 200, file)

  // Over plain http, to a host that is not the machine itself, browsers send no Sec-Fetch-Site.
  const pauseFrom = (page: string) =>
    fetch(`${front}/ops/workers/global:month-close/pause`, {
      method: 'PUT',
      headers: { origin: page, 'content-type': 'application/json' },
      body: JSON.stringify({ reason: 'bank calls' }),
    })
  t.equal((await pauseFrom('http://attacker.example')).status, 403)
  t.ok((await pauseFrom(front)).ok)
})

/** Returns the location in the page of operations. */
function documented(): string {
  const page = readFileSync('docs/operations.md', 'utf8')
  return /^```nginx\n(.*?)^```$/ms.exec(page)?.[1] ?? ''
}
