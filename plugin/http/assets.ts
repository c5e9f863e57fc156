/**
 * The dashboard: a handful of files, read once when the application starts and served from memory. Each has a route
 * of its own; nothing in a request ever becomes the name of a file.
 *
 * They lie beside the compiled plugin. Where that has been moved without them, the page says so and everything else
 * works.
 */
import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { promisify } from 'node:util'
import { gzip } from 'node:zlib'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { sendTagged } from './etag.js'
import { HttpProblem } from './http-problems.js'
import { routeConfig, routeSchema } from './route.js'
import { reads } from './schemas/common.js'

/** The files there are, and what they are. */
export const assetTypes = {
  'index.html': 'text/html; charset=utf-8',
  'style.css': 'text/css; charset=utf-8',
  'icon.svg': 'image/svg+xml',
  'main.js': 'text/javascript; charset=utf-8',
} as const satisfies Readonly<Record<string, string>>

type AssetName = keyof typeof assetTypes

/** As it is, and compressed for the many who take it so. */
interface Asset {
  readonly plain: Version
  readonly packed: Version
}

interface Version {
  readonly content: Buffer
  readonly tag: string
}

/**
 * What the page may do is what it needs and no more: run and look like these files, and talk to where it comes from.
 * An application's own headers, those of `@fastify/helmet` say, give way to these.
 */
export const assetHeaders = {
  'content-security-policy': [
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self'",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
    "trusted-types 'none'",
  ].join('; '),
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
  'referrer-policy': 'no-referrer',
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
  'x-robots-tag': 'noindex',
  'cache-control': 'no-cache',
} as const

/**
 * Adds the routes. `/ui` leads to `/ui/`, and so does the prefix itself, by relative addresses, which are right under any
 * prefix and behind any proxy; but for the prefix without a slash behind one that renames its last part.
 */
export async function registerAssets(scope: FastifyInstance, files = besideThePlugin()): Promise<void> {
  const assets = files === undefined ? undefined : await readAssets(files)
  const route = (
    url: string,
    handler: (request: FastifyRequest, reply: FastifyReply) => FastifyReply,
  ): void => {
    scope.route({
      method: 'GET',
      url,
      config: routeConfig('read', { uncounted: true }),
      logLevel: 'warn',
      schema,
      handler,
    })
  }
  for (const name of Object.keys(assetTypes) as AssetName[])
    route(name === 'index.html' ? '/ui/' : `/ui/${name}`, (request, reply) => {
      if (/\/ui(\?|$)/.test(request.url)) return redirect(reply)
      const { plain, packed } = found(assets)[name]
      const takesPacked = /\bgzip\b(?!\s*;\s*q=0)/.test(request.headers['accept-encoding'] ?? '')
      const { content, tag } = takesPacked ? packed : plain
      reply.headers(assetHeaders).type(assetTypes[name]).header('vary', 'accept-encoding')
      if (takesPacked) reply.header('content-encoding', 'gzip')
      return sendTagged(request, reply, tag, content)
    })
  // Where a slash at the end makes no difference to the application, there is this route already.
  if (!scope.hasRoute({ method: 'GET', url: `${scope.prefix}/ui` }))
    route('/ui', (_request, reply) => redirect(reply))
  const folder = scope.prefix.slice(scope.prefix.lastIndexOf('/') + 1)
  route('/', ({ url }, reply) => redirect(reply, /^[^?]*\/(\?|$)/.test(url) ? 'ui/' : `${folder}/ui/`))
}

function redirect(reply: FastifyReply, to = 'ui/'): FastifyReply {
  return reply.headers(assetHeaders).redirect(to, 308)
}

const schema = routeSchema({
  hide: true,
  response: reads({ 200: { description: 'A file of the dashboard' } }),
})

/** Undefined in a bundle of CommonJS, where no module knows its place. */
function besideThePlugin(): URL | undefined {
  const here: string | undefined = import.meta.url
  return here === undefined ? undefined : new URL('../../dashboard/', here)
}

/** Undefined when they are not there. */
async function readAssets(folder: URL): Promise<Record<AssetName, Asset> | undefined> {
  const names = Object.keys(assetTypes) as AssetName[]
  try {
    const read = names.map(
      async (name) => [name, await assetOf(await readFile(new URL(name, folder)))] as const,
    )
    return Object.fromEntries(await Promise.all(read)) as Record<AssetName, Asset>
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined
    throw error
  }
}

async function assetOf(content: Buffer): Promise<Asset> {
  const packed = await promisify(gzip)(content, { level: 9 })
  return { plain: versionOf(content), packed: versionOf(packed) }
}

function versionOf(content: Buffer): Version {
  return { content, tag: `"${createHash('sha256').update(content).digest('base64url').slice(0, 22)}"` }
}

function found(assets: Record<AssetName, Asset> | undefined): Record<AssetName, Asset> {
  if (assets !== undefined) return assets
  throw new HttpProblem('not-installed', 'The files of the dashboard are not beside the compiled plugin.')
}
