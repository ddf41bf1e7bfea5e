import type { Clock } from '@kvasir/domain';

/** Time that moves when told. Turns of the event loop are real: they let other promises run. */
export class FakeClock implements Clock {
  #now = 0;

  now(): number {
    return this.#now;
  }

  advance(milliseconds: number): void {
    this.#now += milliseconds;
  }

  turn(): Promise<void> {
    return new Promise((resolve) => {
      setImmediate(resolve);
    });
  }
}
