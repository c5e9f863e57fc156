/**
 * How the migrations come from the schemas: one configuration for every database, which one is chosen by
 * an environment variable.
 *
 *     DIALECT=sqlite npx drizzle-kit generate --name what_changes
 *
 * With `--explain` nothing is written, and it is said what would be: nothing, unless a schema and its
 * migrations have drifted apart.
 */
import { type Config, defineConfig } from 'drizzle-kit'

const configs = new Map<string, Config>([
  ['postgres', defineConfig({ dialect: 'postgresql', ...pathsOf('postgres') })],
  ['mysql', defineConfig({ dialect: 'mysql', ...pathsOf('mysql') })],
  ['mssql', defineConfig({ dialect: 'mssql', ...pathsOf('mssql') })],
  ['sqlite', defineConfig({ dialect: 'sqlite', ...pathsOf('sqlite') })],
])

const { DIALECT = '' } = process.env
const config = configs.get(DIALECT)
if (config === undefined) {
  throw new Error(`DIALECT must be one of ${[...configs.keys()].join(', ')}, but is "${DIALECT}"`)
}

export default config

function pathsOf(dialect: string) {
  return { schema: `./plugin/stores/${dialect}/schema.ts`, out: `./migrations/${dialect}` }
}
