/** Tests the tags of answers: a tag changes whenever something is new, and only then. */
import t from 'tap'
import { contentTag } from '../../plugin/http/etag.js'

t.test('the tag of an answer tells what is in it, and not when it was asked for', async (t) => {
  const tag = contentTag({ now: '2026-01-31T12:00:00.000Z', items: [{ token: 7 }] })
  t.equal(contentTag({ now: '2026-01-31T12:00:01.000Z', items: [{ token: 7 }] }), tag)
  t.not(contentTag({ now: '2026-01-31T12:00:00.000Z', items: [{ token: 8 }] }), tag)
})
