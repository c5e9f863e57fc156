/**
 * Compares texts by their code points. The operators of JavaScript compare halves of characters; as UTF-8, texts are in the order of
 * their code points.
 */
export function byCodePoints(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b))
}
