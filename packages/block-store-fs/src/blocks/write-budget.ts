/** Limits of one store. Infinity: none. */
export interface BlockBudgets {
  /** Bytes of block files kept at any time. */
  readonly keptBytes: number;
  /** Bytes written in a period. Periods follow each other; what is left at a period's end is not carried over. */
  readonly writtenBytes: number;
  readonly periodMs: number;
}

export interface PeriodUse {
  readonly startMs: number;
  readonly bytes: number;
}

/** Counts what was written against a limit per period. A clock that went back begins a new period. */
export class WriteBudget {
  readonly #budgets: BlockBudgets;
  #use: PeriodUse;

  constructor(budgets: BlockBudgets, use: PeriodUse) {
    this.#budgets = budgets;
    this.#use = use;
  }

  use(nowMs: number): PeriodUse {
    const age = nowMs - this.#use.startMs;
    if (age < 0 || age >= this.#budgets.periodMs) this.#use = { startMs: nowMs, bytes: 0 };
    return this.#use;
  }

  allows(bytes: number, nowMs: number): boolean {
    return this.use(nowMs).bytes + bytes <= this.#budgets.writtenBytes;
  }

  count(bytes: number, nowMs: number): void {
    const { startMs, bytes: before } = this.use(nowMs);
    this.#use = { startMs, bytes: before + bytes };
  }
}
