/** Limits on what one process serves. */
export interface Limits {
  /** Open streams in total, and per actor. */
  readonly streams: number
  readonly streamsPerActor: number
  /** Interventions per actor: how many in a burst, and how many a minute on average. */
  readonly writesAtOnce: number
  readonly writesPerMinute: number
}

export const usualLimits: Limits = { streams: 50, streamsPerActor: 4, writesAtOnce: 30, writesPerMinute: 30 }
