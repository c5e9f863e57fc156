/**
 * Tells whether a request comes from this machine.
 *
 * Nothing here uses Fastify's client address or host name. With `trustProxy` these come from headers, which any client
 * can forge.
 */
import type { IncomingMessage } from 'node:http'

/** The parts of a request that are examined. */
export type Connection = Pick<IncomingMessage, 'socket' | 'headers'>

/**
 * Returns whether the request comes directly from this machine, as far as can be determined: a reverse proxy that adds
 * no headers looks the same. The `Host` is checked because a foreign web page can make its own name resolve to this
 * machine; the browser would then treat the responses as that page's own.
 */
export function isDirectLoopback({ socket, headers }: Connection): boolean {
  const hosts = hostsOf({ headers })
  return (
    isLoopbackAddress(socket.remoteAddress) &&
    hosts.length > 0 &&
    hosts.every(isLoopbackHost) &&
    !Object.keys(headers).some(isForwarding)
  )
}

/** Returns the host names by which the request addresses this server, with ports. HTTP/2 uses `:authority` for it. */
export function hostsOf({ headers }: Pick<Connection, 'headers'>): string[] {
  return [headers.host, headers[':authority']].flatMap((host) => host ?? []).map(String)
}

/**
 * Returns whether the host is a numeric address or this machine's own name, which no third party can have pointed here.
 */
export function cannotBeRebound(host: string): boolean {
  return isLoopbackHost(host) || /^(\d{1,3}(\.\d{1,3}){3}|\[[0-9a-f:.]+\])(:\d+)?$/i.test(host)
}

export function isProduction(): boolean {
  return process.env.NODE_ENV === 'production'
}

function isLoopbackAddress(address: string | undefined): boolean {
  return address !== undefined && /^(::1|(::ffff:)?127\.\d+\.\d+\.\d+)$/.test(address)
}

function isLoopbackHost(host: string): boolean {
  return /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?$/i.test(host)
}

/** Returns whether a proxy, load balancer or tunnel uses this header to describe the client behind it, or itself. */
function isForwarding(header: string): boolean {
  return forwarding.test(header)
}

const forwarding = new RegExp(
  [
    '^(forwarded|via|cdn-loop|true-client-ip)$',
    '^x-(forwarded|envoy|original|real-ip|client-ip|cluster-client-ip|amzn-|azure-|arr-|varnish)',
    '^(cf|fly|fastly)-',
  ].join('|'),
)
