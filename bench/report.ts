/** Summarises series, prints tables, and writes both as JSON. */
import { mkdir, writeFile } from 'node:fs/promises'
import { cpus, loadavg, totalmem } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { busyness } from './machine.js'

export interface Series {
  readonly n: number
  readonly min: number
  readonly median: number
  readonly p90: number
  readonly p99: number
  readonly max: number
}

export type Row = Readonly<Record<string, number | string>>

export function summarise(values: readonly number[]): Series {
  const sorted = [...values].sort((a, b) => a - b)
  const at = (part: number): number =>
    sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))] ?? Number.NaN
  return { n: sorted.length, min: at(0), median: at(0.5), p90: at(0.9), p99: at(0.99), max: at(1) }
}

/** Returns the ratio of `value` to `of` as text for a table; empty without a base. */
export function times(value: number, of: number | undefined): string {
  return of === undefined || of === 0 ? '' : `× ${Number((value / of).toPrecision(2))}`
}

/** The results of one bench: tables while it runs, and a file at its end. */
export class Report {
  readonly #name: string
  readonly #began = new Date()
  readonly #loadBefore = loadavg()
  readonly #busy = busyness()
  readonly #tables: { title: string; rows: Readonly<Record<string, Row>> }[] = []
  readonly #notes: string[] = []
  readonly #versions = new Set([`Node ${process.version}`])

  constructor(name: string) {
    this.#name = name
  }

  version(of: string): void {
    this.#versions.add(of)
  }

  /** Adds a remark to the tables, for example a contestant that was left out or a goal that was missed. */
  note(sentence: string): void {
    this.#notes.push(sentence)
    process.stdout.write(`${sentence}\n`)
  }

  /** Adds and prints a table with one row per name. Fractions are rounded to four digits. */
  table(title: string, rows: Readonly<Record<string, Row>>): void {
    this.#tables.push({ title, rows })
    process.stdout.write(`\n${title}\n`)
    const shown = Object.entries(rows).map(([name, row]) => [
      name,
      Object.fromEntries(Object.entries(row).map(([column, value]) => [column, rounded(value)])),
    ])
    console.table(Object.fromEntries(shown))
  }

  /** Prints the machine, its load and the versions used, and writes the report to its file. */
  async end(): Promise<void> {
    const [{ model = '' } = {}] = cpus()
    const setting = {
      date: this.#began.toISOString(),
      tookS: Math.round((Date.now() - this.#began.getTime()) / 1_000),
      machine: `${cpus().length} × ${model.trim()}, ${Math.round(totalmem() / 2 ** 30)} GiB`,
      loadBefore: this.#loadBefore.map((each) => Number(each.toFixed(1))),
      busyPercent: Math.round(100 * this.#busy()),
      versions: [...this.#versions],
    }
    process.stdout.write(
      `\n${setting.date}, ${setting.tookS} s; ${setting.machine}; load before ${setting.loadBefore.join(' / ')}, ` +
        `${setting.busyPercent} % busy meanwhile\n${setting.versions.join(', ')}\n`,
    )
    const folder = fileURLToPath(new URL('./results/', import.meta.url))
    await mkdir(folder, { recursive: true })
    const file = join(folder, `${this.#name}.json`)
    const report = { bench: this.#name, ...setting, notes: this.#notes, tables: this.#tables }
    await writeFile(file, `${JSON.stringify(report, undefined, 2)}\n`)
  }
}

function rounded(value: number | string): number | string {
  return typeof value === 'string' || Number.isInteger(value) ? value : Number(value.toPrecision(4))
}
