/**
 * Serves the dashboard: a few files, read once when the application starts and served from memory. Each file has its
 * own route, so no part of a request is ever used as a file name.
 *
 * The files lie beside the compiled plugin. When the plugin has been moved without them, the dashboard's routes say so
 * and everything else works.
 */
import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { promisify } from 'node:util'
import { gzip } from 'node:zlib'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { sendTagged } from './etag.js'
import { HttpProblem } from './http-problems.js'
import { routeConfig, routeSchema } from './route.js'
import { serves } from './schemas/common.js'

/** The files of the dashboard and their media types. */
export const assetTypes = {
  'index.html': 'text/html; charset=utf-8',
  'style.css': 'text/css; charset=utf-8',
  'icon.svg': 'image/svg+xml',
  'main.js': 'text/javascript; charset=utf-8',
} as const satisfies Readonly<Record<string, string>>

type AssetName = keyof typeof assetTypes

/** One file, plain and compressed with gzip. */
interface Asset {
  readonly plain: Version
  readonly packed: Version
}

interface Version {
  readonly content: Buffer
  readonly tag: string
}

/**
 * Security headers: the page may run and use only these files and may talk only to its own origin. They override
 * headers that the application sets, for example through `@fastify/helmet`.
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
 * Adds the routes. `/ui` and the prefix itself redirect to `/ui/`. The redirects are relative, so they are right under
 * any prefix and behind any proxy, with one exception: the prefix without a trailing slash, behind a proxy that renames
 * its last segment.
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
      // From an address without the slash, the page would look for its files in the wrong place.
      if (name === 'index.html' && !endsInSlash(request.url)) return redirect(reply)
      const { plain, packed } = found(assets)[name]
      const takesPacked = takesGzip(request.headers['accept-encoding'])
      const { content, tag } = takesPacked ? packed : plain
      const vary = [reply.getHeader('vary') ?? [], 'accept-encoding'].flat().join(', ')
      reply.headers(assetHeaders).type(assetTypes[name]).header('vary', vary)
      if (takesPacked) reply.header('content-encoding', 'gzip')
      return sendTagged(request, reply, tag, content)
    })
  // An application that ignores trailing slashes has this route already.
  if (!scope.hasRoute({ method: 'GET', url: `${scope.prefix}/ui` }))
    route('/ui', (_request, reply) => redirect(reply))
  const folder = scope.prefix.slice(scope.prefix.lastIndexOf('/') + 1)
  route('/', ({ url }, reply) => redirect(reply, endsInSlash(url) ? 'ui/' : `${folder}/ui/`))
}

function endsInSlash(url: string): boolean {
  return /^[^?]*\/(\?|$)/.test(url)
}

/** Returns whether a client accepts gzip, and does not prefer the plain file (RFC 9110, 12.5.3). */
function takesGzip(accepted = ''): boolean {
  const weights = new Map(accepted.toLowerCase().split(',').map(weightOf))
  const weight = weights.get('gzip') ?? weights.get('*') ?? 0
  return weight > 0 && weight >= (weights.get('identity') ?? 0)
}

/** Parses one coding and its weight, such as `gzip;q=0.5`. */
function weightOf(text: string): [coding: string, weight: number] {
  const [coding = '', weight = 'q=1'] = text.split(';').map((part) => part.trim())
  return [coding, Number(weight.replace(/^q=/, ''))]
}

function redirect(reply: FastifyReply, to = 'ui/'): FastifyReply {
  return reply.headers(assetHeaders).redirect(to, 308)
}

const schema = routeSchema({
  hide: true,
  response: serves({ 200: { description: 'A file of the dashboard' } }),
})

/** Returns undefined in a CommonJS bundle, where a module does not know its own location. */
function besideThePlugin(): URL | undefined {
  const here: string | undefined = import.meta.url
  return here === undefined ? undefined : new URL('../../dashboard/', here)
}

/** Returns undefined when a file is missing. */
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
