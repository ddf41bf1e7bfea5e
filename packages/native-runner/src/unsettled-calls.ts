import type { AddonError, AddonStepResult } from './addon.ts';

interface Call {
  readonly resolve: (result: AddonStepResult | null) => void;
  readonly reject: (error: AddonError) => void;
}

/**
 * Promises of the calls an addon has accepted and not yet settled, by ticket. Holds no runner, so that the addon's
 * reference to `settle` keeps none alive.
 */
export class UnsettledCalls {
  readonly #calls = new Map<number, Call>();
  #lastTicket = 0;

  get size(): number {
    return this.#calls.size;
  }

  /** Runs `call` with a fresh ticket. What it throws passes through, and nothing waits for the ticket then. */
  start(call: (ticket: number) => void): Promise<AddonStepResult | null> {
    this.#lastTicket = (this.#lastTicket % 0xffff_ffff) + 1;
    const ticket = this.#lastTicket;
    call(ticket);
    return new Promise((resolve, reject) => {
      this.#calls.set(ticket, { resolve, reject });
    });
  }

  /** The addon's onCompletion. */
  readonly settle = (ticket: number, error: AddonError | null, result: AddonStepResult | null): void => {
    const call = this.#calls.get(ticket);
    if (call === undefined) throw new Error(`expected the ticket of an unsettled call, found ${ticket}`);
    this.#calls.delete(ticket);
    if (error === null) call.resolve(result);
    else call.reject(error);
  };
}
