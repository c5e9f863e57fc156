import t from 'tap'
import { hash32, rendezvousScore, scoreOfHashes } from '../../plugin/core/changes/hash.js'

t.test('a text has the same hash in every release', async (t) => {
  const pinned: readonly [string, number][] = [
    ['', 2_872_998_923],
    ['a', 2_448_022_055],
    ['eu-1/indexing', 501_916_616],
    ['global/consumer#12', 377_021_770],
    ['Zürich 東京 🚀', 3_375_783_078],
  ]
  for (const [text, hash] of pinned) t.equal(hash32(text), hash, text)
  t.equal(rendezvousScore('eu-1/indexing', 'node-a'), 2_652_394_058)
})

t.test('a hash is an unsigned 32-bit number', async (t) => {
  const hashes = texts(10_000).map(hash32)
  t.ok(hashes.every((hash) => Number.isInteger(hash) && hash >= 0 && hash < 2 ** 32))
  t.ok(hashes.some((hash) => hash >= 2 ** 31))
})

t.test('both bytes of a code unit count, and so does their order', async (t) => {
  const different = ['ab', 'ba', 'a', 'a\u0000', '\u6100', '\u0161', 'a\u0001', 'é', 'e\u0301']
  t.equal(new Set(different.map(hash32)).size, different.length)
})

t.test('texts that differ in one character differ in half of the bits', async (t) => {
  const flipped = texts(2_000).map((text) => bitsOf(hash32(`${text}0`) ^ hash32(`${text}1`)))
  const mean = flipped.reduce((sum, bits) => sum + bits, 0) / flipped.length
  t.ok(mean > 15 && mean < 17, `${mean} bits of 32`)
})

t.test('consecutive texts fall evenly into few boxes, by low and by high bits', async (t) => {
  for (const box of [(hash: number) => hash % 16, (hash: number) => hash >>> 28]) {
    const counts = new Array<number>(16).fill(0)
    for (const text of texts(16_000)) counts[box(hash32(text))] = (counts[box(hash32(text))] ?? 0) + 1
    t.ok(Math.min(...counts) > 850 && Math.max(...counts) < 1_150, counts.join(' '))
  }
})

t.test('each of ten nodes wins about a tenth of the keys', async (t) => {
  const nodes = Array.from({ length: 10 }, (_, index) => `node-${index}`)
  const wins = new Map(nodes.map((node) => [node, 0]))
  for (const key of texts(10_000)) {
    const winner = winnerOf(key, nodes)
    wins.set(winner, (wins.get(winner) ?? 0) + 1)
  }
  t.ok(Math.min(...wins.values()) > 850 && Math.max(...wins.values()) < 1_150, [...wins.values()].join(' '))
})

t.test('a node that leaves changes the winner of its own keys only', async (t) => {
  const nodes = Array.from({ length: 10 }, (_, index) => `node-${index}`)
  const rest = nodes.slice(1)
  const changed = texts(1_000).filter((key) => winnerOf(key, nodes) !== winnerOf(key, rest))
  t.ok(changed.length > 0)
  t.ok(changed.every((key) => winnerOf(key, nodes) === 'node-0'))
})

t.test('a score from hashes made before is the same score', async (t) => {
  for (const key of texts(100)) {
    t.equal(scoreOfHashes(hash32(key), hash32('node-a')), rendezvousScore(key, 'node-a'))
  }
})

function texts(count: number): string[] {
  return Array.from({ length: count }, (_, index) => `global/consumer#${index}`)
}

function bitsOf(number: number): number {
  let bits = 0
  for (let rest = number >>> 0; rest > 0; rest >>>= 1) bits += rest & 1
  return bits
}

function winnerOf(key: string, nodes: readonly string[]): string {
  return nodes.reduce((best, node) => (rendezvousScore(key, node) > rendezvousScore(key, best) ? node : best))
}
