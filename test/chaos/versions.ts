/**
 * Versions of this package side by side. Version 0 is this one. Each later version is a copy that has more migrations
 * than the one before, like the next release of a package. They add only what a release may add without breaking
 * running nodes: columns with a default, and a table.
 */
import { cp, mkdir, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import type { openStore } from '../../plugin/stores/open.js'
import type { Dialect } from '../../plugin/stores/shared/migrate.js'

/** The root of the package. This file is compiled to build/test/chaos/. */
const root = fileURLToPath(new URL('../../../', import.meta.url))

/** The parts of the package that a node needs. */
const parts = ['package.json', 'migrations', 'build/plugin', 'build/test/chaos', 'build/test/support']

/**
 * The migrations of a version. Each is one statement that every database understands; a migration of MySQL cannot have
 * more.
 */
const steps: Readonly<Record<string, (version: number) => string>> = {
  nodes: (version) => `ALTER TABLE coordination_nodes ADD later_${version} integer DEFAULT 0 NOT NULL`,
  leases: (version) => `ALTER TABLE coordination_leases ADD later_${version} integer DEFAULT 0 NOT NULL`,
  table: (version) => `CREATE TABLE coordination_later_${version} (id integer PRIMARY KEY)`,
}

export class Versions {
  readonly #folder: string
  readonly #dialect: Dialect
  #newest = 0

  /** Makes copies in this folder, for a database of this dialect. */
  constructor(folder: string, dialect: Dialect) {
    this.#folder = folder
    this.#dialect = dialect
  }

  get newest(): number {
    return this.#newest
  }

  /** Makes the next version. No node runs it yet. */
  async release(): Promise<number> {
    const version = this.#newest + 1
    const copy = this.#rootOf(version)
    for (const part of parts) {
      await cp(join(root, part), join(copy, part), { recursive: true, filter: isRun })
    }
    await symlink(join(root, 'node_modules'), join(copy, 'node_modules'))
    for (let each = 1; each <= version; each++) {
      for (const [name, sql] of namedSteps(each)) {
        const migration = join(copy, 'migrations', this.#dialect, name)
        await mkdir(migration)
        await writeFile(join(migration, 'migration.sql'), sql)
      }
    }
    this.#newest = version
    return version
  }

  /** Returns the path of a version's file, given its path in the package. */
  fileOf(version: number, path: string): string {
    return join(this.#rootOf(version), path)
  }

  /** Returns the function with which a version opens stores. */
  async openerOf(version: number): Promise<typeof openStore> {
    const file = this.fileOf(version, 'build/plugin/stores/open.js')
    const { openStore: opener } = (await import(pathToFileURL(file).href)) as { openStore: typeof openStore }
    return opener
  }

  /** Returns the oldest version that knows all of these migrations. */
  knowing(names: readonly string[]): number {
    for (let version = this.#newest; version > 0; version--) {
      if (namedSteps(version).some(([name]) => names.includes(name))) return version
    }
    return 0
  }

  /** Whether all migrations that this version adds are among these. */
  isAmong(version: number, names: readonly string[]): boolean {
    return namedSteps(version).every(([name]) => names.includes(name))
  }

  #rootOf(version: number): string {
    return version === 0 ? root : join(this.#folder, `version-${version}`)
  }
}

/** Returns the dialect of the migrations for a URL. */
export function dialectOf(url: string): Dialect {
  const scheme = url.split(':')[0]
  if (scheme === 'sqlite' || scheme === 'mysql' || scheme === 'mssql') return scheme
  return 'postgres'
}

/** Names begin with a time and are applied in its order, so these come after all migrations ever released. */
function namedSteps(version: number): [name: string, sql: string][] {
  return Object.entries(steps).map(([what, sql], index) => {
    const at = new Date(Date.UTC(2999, 0, 1, 0, version, index))
    const digits = at.toISOString().replaceAll(/\D/g, '').slice(0, 14)
    return [`${digits}_later_${version}_${what}`, sql(version)]
  })
}

function isRun(path: string): boolean {
  return !path.endsWith('.map') && !path.endsWith('.d.ts')
}
