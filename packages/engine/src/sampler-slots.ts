/** The runner's sampler slots that no running sequence holds. Steps run in order, so a slot is free at once. */
export class SamplerSlots {
  readonly #free: number[] = [];

  constructor(count: number) {
    for (let slot = count - 1; slot >= 0; slot--) this.#free.push(slot);
  }

  /** @returns a free slot, or null */
  take(): number | null {
    return this.#free.pop() ?? null;
  }

  giveBack(slot: number): void {
    this.#free.push(slot);
  }
}
