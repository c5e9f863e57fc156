/**
 * Hashes for plans: the same text gives the same number on every node, for ever.
 *
 * Nodes of different releases plan side by side during a rolling deployment, so the results must never change;
 * `test/core/hash.test.ts` pins them. The hashes are fast and well mixed, not cryptographic: a caller that can
 * choose the texts can make them collide.
 */

/**
 * Returns an unsigned 32-bit hash: FNV-1a over the UTF-16 code units of `text`, the low byte of each first, then the
 * 32-bit finaliser of MurmurHash3. FNV alone leaves texts that differ in their last character (`#1`, `#2`, …) close
 * to each other; the finaliser spreads them.
 */
export function hash32(text: string): number {
  let hash = 0x811c9dc5
  for (let index = 0; index < text.length; index++) {
    const unit = text.charCodeAt(index)
    hash = Math.imul(hash ^ (unit & 0xff), 0x01000193)
    hash = Math.imul(hash ^ (unit >>> 8), 0x01000193)
  }
  return finalised(hash)
}

/**
 * Returns how strongly `node` is preferred for `key`: the greatest score wins. Keys spread evenly over nodes, and a
 * node that comes or goes does not change the order of the others.
 */
export function rendezvousScore(key: string, node: string): number {
  return scoreOfHashes(hash32(key), hash32(node))
}

/** {@link rendezvousScore} for texts hashed before, for callers that compare many keys with many nodes. */
export function scoreOfHashes(keyHash: number, nodeHash: number): number {
  return finalised(Math.imul(keyHash, 0x9e3779b1) ^ nodeHash)
}

/** Flips about half of the bits of the result for each bit that differs in the argument. */
function finalised(hash: number): number {
  let mixed = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35)
  return (mixed ^ (mixed >>> 16)) >>> 0
}
