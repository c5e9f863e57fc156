/**
 * Compares texts by their code points. The operators of JavaScript compare UTF-16 code units instead. The byte order
 * of UTF-8 is the order of code points.
 */
export function byCodePoints(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b))
}
