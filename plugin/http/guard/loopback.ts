/**
 * Whether a request comes from this very machine.
 *
 * Nothing here asks Fastify for the client's address or host name: with `trustProxy` those come from headers,
 * which anybody can write.
 */
import type { IncomingMessage } from 'node:http'

/** What is asked about a request. */
export type Connection = Pick<IncomingMessage, 'socket' | 'headers'>

/**
 * Whether nobody stands in between, as far as can be told: a reverse proxy that says nothing of itself looks
 * just like it. The `Host` counts because a web page from elsewhere can have its own name resolve to this
 * machine, and would then be read by the browser as its own.
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

/** What the request calls this server, with the port; HTTP/2 has a word of its own for it. */
export function hostsOf({ headers }: Pick<Connection, 'headers'>): string[] {
  return [headers.host, headers[':authority']].flatMap((host) => host ?? []).map(String)
}

/** A name that cannot have been pointed here by somebody else: a numeric address, or this machine's own. */
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

/** Any of the headers by which proxies, balancers and tunnels tell of the client behind them, or of themselves. */
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
