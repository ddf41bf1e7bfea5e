/** Time as the engine sees it. */
export interface Clock {
  /** Monotonic milliseconds, for durations. */
  now(): number;
}
