/** The installed packages, for programs that are run beside copies of this package. */
import { readdir, symlink } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** The folder `node_modules` of the project. */
export const installed = installedPackages()

/**
 * Links every installed package into a folder, as if npm had installed it there. Of the two drivers of SQLite, the one
 * that this Node.js can run is linked.
 */
export async function linkPackages(into: string, without: readonly string[] = []): Promise<void> {
  for (const name of await readdir(installed)) {
    if (name.startsWith('.') || without.includes(name)) continue
    await symlink(name === 'better-sqlite3' ? sqliteDriver() : join(installed, name), join(into, name))
  }
}

function sqliteDriver(): string {
  return dirname(createRequire(import.meta.url).resolve('better-sqlite3/package.json'))
}

function installedPackages(): string {
  const [folder] = fileURLToPath(import.meta.resolve('drizzle-orm')).split('drizzle-orm')
  if (folder === undefined) throw new Error('Where are the packages?')
  return folder.replace(/\/$/, '')
}
