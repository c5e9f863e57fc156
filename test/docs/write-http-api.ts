/** Writes the tables of `docs/http-api.md` anew: `npm run docs`. */
import { readFileSync, writeFileSync } from 'node:fs'
import { filled, reference } from './http-reference.js'

const path = new URL('../../../docs/http-api.md', import.meta.url)
writeFileSync(path, filled(readFileSync(path, 'utf8'), await reference()))
