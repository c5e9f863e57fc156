/** Writes the generated parts of the documents anew: `npm run docs`. */
import { readFileSync, writeFileSync } from 'node:fs'
import { documents, filled, reference } from './http-reference.js'

const parts = await reference()
for (const name of documents) {
  const path = new URL(`../../../${name}`, import.meta.url)
  writeFileSync(path, filled(readFileSync(path, 'utf8'), parts))
}
