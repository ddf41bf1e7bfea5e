import type { Clock } from '@kvasir/domain';

/** How long each of several reads that run at the same time took, as if they had run one after another. */
export class Pace {
  readonly #clock: Pick<Clock, 'now'>;
  #endedAt = Number.NEGATIVE_INFINITY;

  constructor(clock: Pick<Clock, 'now'>) {
    this.#clock = clock;
  }

  /** @returns ends the lap: milliseconds since it started, or since the lap that ended last if that was later */
  start(): () => number {
    const startedAt = this.#clock.now();
    return () => {
      const now = this.#clock.now();
      const elapsed = now - Math.max(startedAt, this.#endedAt);
      this.#endedAt = now;
      return elapsed;
    };
  }
}
