/** Figures of a series, and tables of them. */
import { cpus, loadavg } from 'node:os'

export interface Series {
  readonly n: number
  readonly min: number
  readonly median: number
  readonly p90: number
  readonly max: number
}

export function summarise(values: readonly number[]): Series {
  const sorted = [...values].sort((a, b) => a - b)
  const at = (part: number): number =>
    sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))] ?? Number.NaN
  return { n: sorted.length, min: at(0), median: at(0.5), p90: at(0.9), max: at(1) }
}

/** One row per name; numbers with as many digits as they deserve. */
export function printTable(
  title: string,
  rows: Readonly<Record<string, Readonly<Record<string, number | string>>>>,
): void {
  const load = loadavg()
    .map((each) => each.toFixed(1))
    .join(' / ')
  process.stdout.write(
    `\n${title}\n${new Date().toISOString()}, Node ${process.version}, ${cpus().length} cores, load ${load}\n`,
  )
  console.table(
    Object.fromEntries(
      Object.entries(rows).map(([name, row]) => [
        name,
        Object.fromEntries(Object.entries(row).map(([column, value]) => [column, rounded(value)])),
      ]),
    ),
  )
}

function rounded(value: number | string): number | string {
  return typeof value === 'string' ? value : Number(value.toPrecision(4))
}
