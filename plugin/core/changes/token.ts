/**
 * Fencing tokens: each is greater than any before it, for one lease, for ever.
 *
 * A counter alone is not enough: after a failover that lost the last writes it gives the same number twice. The
 * database's clock alone is not enough: it can be set back. The greater of the two is taken, above a floor that is
 * raised whenever writes may have been lost. Where the counter and the floor are lost together and no node remembers
 * them, tokens go by the clock alone, and may be lower than those of a floor that lay ahead of it. All are
 * milliseconds since 1970 or a little more, and fit a JavaScript number for a quarter of a million years.
 */

/**
 * Returns the token for a new claim: above the lease's previous one, above the namespace's floor, and not below the
 * time by the database's clock.
 *
 * @param previous the lease's latest token; 0 before the first
 * @param floor every new token is greater than this
 * @param nowMs now, by the database's clock
 * @throws RangeError when the token would not be a safe integer: no claim is better than two equal tokens.
 */
export function nextToken(previous: number, floor: number, nowMs: number): number {
  return safe(Math.max(previous + 1, floor + 1, Math.floor(nowMs)))
}

/** Eleven days: more than a database's clock is set back without anybody noticing. */
const leapMs = 1_000_000_000

/** More claims of one lease than a failover loses: each takes the next number where the time lies behind. */
const mostLostClaims = 10_000

/**
 * Returns the floor to record with a new server identity: that database may have forgotten claims it had
 * acknowledged.
 *
 * The floor lies ahead of the time, not of the previous floor. The floors of two servers recorded one after another
 * are then as far apart as their times. If the record of one is itself forgotten, and no node that saw its tokens is
 * left, the next record still lies above it, as long as the clock has not been set back in between. Only where
 * something known lies further ahead than the leap, because the clock was set back, the floor goes above that.
 *
 * @param floor the floor so far
 * @param highestToken the highest token of any lease in the database as it is now
 * @param highestSeenHere the highest token the node that records the identity has ever seen
 * @param nowMs now, by the database's clock
 * @throws RangeError when the floor would not be a safe integer.
 */
export function raisedFloor(
  floor: number,
  highestToken: number,
  highestSeenHere: number,
  nowMs: number,
): number {
  const known = Math.max(floor, highestToken, highestSeenHere)
  const leapt = Math.floor(nowMs) + leapMs
  return safe(known < leapt ? leapt : known + mostLostClaims)
}

/** Beyond 2^53 a number plus one can be the same number. */
function safe(token: number): number {
  if (Number.isSafeInteger(token)) return token
  throw new RangeError(
    `A fencing token must be a whole number of at most ${Number.MAX_SAFE_INTEGER}, not ${token}.`,
  )
}
