/** Time as the engine sees it. */
export interface Clock {
  /** Monotonic milliseconds, for durations. */
  now(): number;
  /**
   * Resolves on a later turn of the event loop (setImmediate in Node), so that a loop of steps never keeps sockets and
   * timers waiting.
   */
  turn(): Promise<void>;
}
