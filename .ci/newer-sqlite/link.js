/**
 * Puts the newer driver of SQLite before the older one for everything in `build/`, where this Node can run it.
 *
 * No version of better-sqlite3 runs on all versions of Node that this package does (docs/package.md tells why). npm
 * cannot choose by the version of Node once a lock file names one, but it leaves out what is optional and does not fit.
 */
import { existsSync, mkdirSync, rmSync, symlinkSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const newer = fileURLToPath(new URL('node_modules/better-sqlite3', import.meta.url))
const folder = fileURLToPath(new URL('../../build/node_modules', import.meta.url))

rmSync(folder, { recursive: true, force: true })
if (existsSync(newer) && Number(process.versions.napi) >= 10) {
  mkdirSync(folder, { recursive: true })
  symlinkSync(newer, `${folder}/better-sqlite3`, 'junction')
}
