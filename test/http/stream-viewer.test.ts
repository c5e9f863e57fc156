/** Tests one open stream, over a real socket. */
import { once } from 'node:events'
import { createServer, type ServerResponse } from 'node:http'
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
