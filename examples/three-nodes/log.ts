/**
 * A destination for Fastify's logger that prints each entry as one readable line of text. It omits what the coordinator
 * logs about individual leases, because every node summarises that in a line of its own.
 */
export const readableLog = {
  write(entry: string): void {
    const { time, level, msg, lease, err } = JSON.parse(entry) as Entry
    if (level <= info && lease !== undefined) return
    const clock = new Date(time).toISOString().slice(11, 23)
    const about = lease === undefined ? '' : ` (${lease})`
    const why = err === undefined ? '' : `: ${err.message}`
    process.stdout.write(`${clock} ${level > info ? '! ' : ''}${msg}${about}${why}\n`)
  },
}

const info = 30

interface Entry {
  readonly time: number
  readonly level: number
  readonly msg: string
  readonly lease?: string
  readonly err?: { readonly message: string }
}
