/**
 * Runs an example by its name: `npm run example quick-start`.
 */
import { existsSync, readdirSync } from 'node:fs'

const here = new URL('.', import.meta.url)
const names = readdirSync(here).filter((name) => existsSync(new URL(`${name}/main.js`, here)))
const name = process.argv[2] ?? ''
if (names.includes(name)) await import(`./${name}/main.js`)
else {
  console.error(`Which example? ${names.join(', ')}`)
  process.exitCode = 2
}
