/** Tests the files of the dashboard: their size and contents, and how they are served. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { gunzipSync, gzipSync } from 'node:zlib'
import helmet from '@fastify/helmet'
import Fastify from 'fastify'
import t from 'tap'
import { assetHeaders, assetTypes, registerAssets } from '../../plugin/http/assets.js'
import { answerHttpProblem } from '../../plugin/http/http-problems.js'
import { listening, mira, over, useApp } from '../http/application.js'

const built = fileURLToPath(new URL('../../dashboard/', import.meta.url))
const names = Object.keys(assetTypes) as (keyof typeof assetTypes)[]
const contents = new Map(names.map((name) => [name as string, readFileSync(join(built, name), 'utf8')]))

t.test('all files together stay small', async (t) => {
  const all = [...contents.values()].join('')
  t.ok(all.length > 20_000, 'they are there')
  t.ok(Buffer.byteLength(all) <= 60_000, `${Buffer.byteLength(all)} bytes`)
  const packed = [...contents.values()].reduce((sum, text) => sum + gzipSync(text, { level: 9 }).length, 0)
  t.ok(packed <= 22_000, `${packed} bytes compressed`)
})

t.test('the script is one file: it asks for no other', async (t) => {
  const script = contents.get('main.js') ?? ''
  t.match(script, /getElementById/, 'it is there')
  t.notMatch(script, /\bimport\b|sourceMappingURL/)
})

t.test('nothing makes markup of texts, runs texts, or asks anybody else for anything', async (t) => {
  const forbidden =
    /innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|srcdoc|setAttribute\('style|createContextualFragment|DOMParser/
  for (const [name, text] of contents) {
    t.notMatch(text, forbidden, name)
    const addresses = text.match(/(https?:)?\/\/[a-z][\w.]+/gi) ?? []
    t.strictSame(
      addresses.filter((address) => !address.startsWith('http://www.w3.org')),
      [],
      name,
    )
  }
})

t.test('the page itself has no script, style or handler in it, and only relative addresses', async (t) => {
  const page = contents.get('index.html') ?? ''
  t.notMatch(page, /<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)/)
  for (const [, address = ''] of page.matchAll(/(?:href|src)="([^"]*)"/g))
    t.match(address, /^(#|\.\.\/\w|\w+\.\w+$)/)
})

t.test('the page is served with everything it may do written down', async (t) => {
  const app = await useApp(t)
  const page = await app.inject('/coordination/ui/')
  t.equal(page.statusCode, 200)
  t.equal(page.headers['content-type'], 'text/html; charset=utf-8')
  t.match(page.body, /<!doctype html>/)
  for (const [name, value] of Object.entries(assetHeaders)) t.equal(page.headers[name], value, name)
  t.match(page.headers['content-security-policy'], /require-trusted-types-for 'script'; trusted-types 'none'/)
  for (const name of names.filter((each) => each !== 'index.html')) {
    const reply = await app.inject(`/coordination/ui/${name}`)
    t.equal(reply.statusCode, 200, name)
    t.equal(reply.headers['content-type'], assetTypes[name], name)
    t.equal(reply.body, contents.get(name), name)
  }
})

t.test('who takes files compressed is sent them so', async (t) => {
  const app = await useApp(t)
  const url = '/coordination/ui/main.js'
  const asked = (accepted: string) => app.inject({ url, headers: { 'accept-encoding': accepted } })
  const packed = await asked('br, gzip')
  t.match(packed.headers.vary, /accept-encoding/)
  for (const accepted of [
    'br, gzip',
    'gzip;q=0.5',
    'GZIP ; Q=0.001',
    'br;q=1.0, *;q=0.1',
    'identity;q=0, *',
  ]) {
    const { headers, rawPayload } = await asked(accepted)
    t.equal(headers['content-encoding'], 'gzip', accepted)
    t.equal(gunzipSync(rawPayload).toString(), contents.get('main.js'))
  }
  for (const accepted of [
    'br',
    '',
    'gzip;q=0',
    'gzip; q=0.000',
    '*, gzip;q=0',
    'identity, gzip;q=0.5',
    'gzip;q=x',
  ]) {
    const plain = await asked(accepted)
    t.equal(plain.headers['content-encoding'], undefined, accepted)
    t.equal(plain.body, contents.get('main.js'))
    t.not(plain.headers.etag, packed.headers.etag)
  }
})

t.test('what the application says that its answers depend on stays true of the files', async (t) => {
  const app = await useApp(t, {
    before: (app) => {
      app.addHook('onRequest', async (_request, reply) => void reply.header('vary', 'Origin'))
    },
  })
  t.equal((await app.inject('/coordination/ui/main.js')).headers.vary, 'Origin, accept-encoding')
})

t.test('who has a file already is not sent it again', async (t) => {
  const app = await useApp(t)
  const { headers } = await app.inject('/coordination/ui/main.js')
  t.match(headers.etag, /^"[\w-]+"$/)
  const again = await app.inject({
    url: '/coordination/ui/main.js',
    headers: { 'if-none-match': String(headers.etag) },
  })
  t.equal(again.statusCode, 304)
  t.equal(again.body, '')
  t.equal(again.headers['cache-control'], 'no-cache')
})

t.test('the way to the page is relative, under any prefix', async (t) => {
  for (const prefix of ['/coordination', '/a/b']) {
    const app = await useApp(t, { options: { authorize: mira, prefix } })
    const reply = await app.inject(`${prefix}/ui`)
    t.equal(reply.statusCode, 308)
    t.equal(reply.headers.location, 'ui/')
    for (const path of ['/ui/', '/ui/?back=/ui', '/ui/main.js?back=/ui'])
      t.equal((await app.inject(`${prefix}${path}`)).statusCode, 200, path)
  }
})

t.test('there are no other files, however they are asked for', async (t) => {
  const app = await useApp(t)
  const origin = await listening(app)
  const paths = [
    'index.html',
    'model.js.map',
    'tsconfig.json',
    '../status/',
    '%2e%2e/package.json',
    '..%2fpackage.json',
    'main.js/',
    'MAIN.JS',
  ]
  for (const path of paths) {
    const { status } = await over(origin, { path: `/coordination/ui/${path}` })
    t.equal(status, 404, path)
  }
})

t.test('a stranger gets none of it', async (t) => {
  const app = await useApp(t, { options: { authorize: () => false } })
  for (const path of ['', '/', ...names.map((name) => `/${name}`)])
    t.ok([403, 404].includes((await app.inject(`/coordination/ui${path}`)).statusCode), path)
  t.equal((await app.inject('/coordination/ui/')).statusCode, 403)
  t.equal((await app.inject('/coordination/ui/main.js')).statusCode, 403)
})

t.test('the headers of @fastify/helmet give way on the page, and nowhere else', async (t) => {
  const app = await useApp(t, {
    before: async (app) => {
      await app.register(helmet)
      app.get('/theirs', async () => 'theirs')
    },
  })
  const origin = await listening(app)
  const { headers } = await over(origin, { path: '/coordination/ui/' })
  for (const [name, value] of Object.entries(assetHeaders)) t.equal(headers[name], value, name)
  const theirs = await over(origin, { path: '/theirs' })
  t.not(theirs.headers['content-security-policy'], assetHeaders['content-security-policy'])
  t.equal(theirs.headers['x-frame-options'], 'SAMEORIGIN')
})

t.test('the prefix alone leads to the page, with and without a slash', async (t) => {
  const app = await useApp(t)
  for (const from of ['/coordination', '/coordination/', '/coordination?x=1']) {
    const { statusCode, headers } = await app.inject(from)
    t.equal(statusCode, 308, from)
    t.equal(new URL(headers.location ?? '', `http://localhost${from}`).pathname, '/coordination/ui/', from)
  }
})

t.test(
  'where the files are not beside the plugin the page says so, and the application starts',
  async (t) => {
    const app = Fastify()
    t.teardown(() => app.close())
    app.setErrorHandler(answerHttpProblem)
    app.addHook('onRoute', ({ config }) => void t.equal(config?.coordinationAction, 'read'))
    await registerAssets(app, pathToFileURL(`${built}elsewhere/`))
    const reply = await app.inject('/ui/')
    t.equal(reply.statusCode, 501)
    t.match(reply.json().detail, /not beside the compiled plugin/)
  },
)
