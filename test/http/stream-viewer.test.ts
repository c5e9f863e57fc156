/** Tests one open stream, over a real socket. */
import { once } from 'node:events'
import { createServer, type ServerResponse } from 'node:http'
import { createServer as createServerOfHttp2, connect as openSession } from 'node:http2'
import { type AddressInfo, connect } from 'node:net'
import t from 'tap'
import { usualPace, Viewer } from '../../plugin/http/stream/viewer.js'

t.test('a stream that ends is closed soon, also when its reader takes nothing', async (t) => {
  const server = createServer()
  const asked = once(server, 'request')
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const reader = connect((server.address() as AddressInfo).port, '127.0.0.1')
  t.teardown(() => {
    reader.destroy()
    server.close()
  })
  reader.pause()
  reader.write('GET / HTTP/1.1\r\nhost: x\r\n\r\n')
  const [, response] = (await asked) as [unknown, ServerResponse]
  const viewer = new Viewer(response, usualPace, 60_000)
  const gone = new Promise<void>((resolve) => viewer.whenGone(resolve))
  // More than the sockets of both sides can hold.
  viewer.open({ 'content-type': 'text/event-stream' }, 'x'.repeat(64 * 1_024 * 1_024))
  viewer.end()
  t.ok(response.writableLength > 0)
  await gone
  t.ok(response.destroyed)
})

t.test('who has left before the stream is opened is known to be gone, with HTTP/2 as well', async (t) => {
  const server = createServerOfHttp2()
  t.teardown(() => server.close())
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const session = openSession(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
  t.teardown(() => session.destroy())
  const asked = once(server, 'request')
  const reader = session.request()
  reader.on('error', () => undefined)
  const [, response] = (await asked) as [unknown, ServerResponse]
  const closed = once(response, 'close')
  reader.destroy()
  await closed
  const viewer = new Viewer(response, usualPace, 60_000)
  let gone = 0
  viewer.whenGone(() => {
    gone += 1
  })
  t.equal(gone, 1)
  viewer.open({ 'content-type': 'text/event-stream' }, 'nobody reads this')
  viewer.send('nor this')
  viewer.end()
})
