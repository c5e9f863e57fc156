/** How much one process serves. */
export interface Limits {
  /** Open streams altogether, and of one actor. */
  readonly streams: number
  readonly streamsPerActor: number
  /** Interventions of one actor: so many at once, and so many a minute in the long run. */
  readonly writesAtOnce: number
  readonly writesPerMinute: number
}

export const usualLimits: Limits = { streams: 50, streamsPerActor: 4, writesAtOnce: 30, writesPerMinute: 30 }
