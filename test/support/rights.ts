/** The rights that the documentation says a user needs, so that tests can try exactly these. */
import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'

/**
 * Returns the grants on the page of a database that are made `to` a user, rewritten for a user of a test.
 *
 * @param database the database of the tables, if the page names one.
 */
export async function documentedGrants(
  page: 'mssql' | 'mysql',
  to: 'app' | 'reports',
  user: string,
  database = '',
): Promise<string[]> {
  const path = fileURLToPath(new URL(`../../../docs/databases/${page}.md`, import.meta.url))
  const text = await readFile(path, 'utf8')
  return text
    .split('\n')
    .filter((line) => /^grant .* to /.test(line))
    .map((line) => line.replace(/;$/, '').replace(/ on app\./, ` on ${database}.`))
    .map((line) => line.split(' to '))
    .filter(([, whom]) => whom === to || whom === `'${to}'@'%'`)
    .map(([grant]) => `${grant} to ${user}`)
}
