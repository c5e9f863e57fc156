/**
 * Log lines for people: a destination for Fastify's logger that prints each entry as one line of text. What the
 * coordinator says of each lease by itself is left out here, because every node sums it up in a line of its own.
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
