/** Fewest tokens worth a share of their own; below it a chunk's fixed cost outweighs its fairness. */
const SMALLEST_SHARE = 16;

/**
 * Splits a step's prompt tokens over the prompts that want some, oldest first. Each may take half of what is left, so
 * that a short prompt passes a long one; what nobody took goes to the oldest. Equal prompts still finish one after the
 * other and not all at the end.
 * @param wanted tokens each could use, oldest prompt first
 * @returns tokens each gets, in all min(budget, sum of wanted)
 */
export function sharePrefillBudget(wanted: readonly number[], budget: number): number[] {
  let left = budget;
  const shares = wanted.map((tokens) => {
    const share = Math.min(tokens, left, Math.max(SMALLEST_SHARE, Math.ceil(left / 2)));
    left -= share;
    return share;
  });
  for (let index = 0; index < shares.length && left > 0; index++) {
    const more = Math.min(left, (wanted[index] as number) - (shares[index] as number));
    shares[index] = (shares[index] as number) + more;
    left -= more;
  }
  return shares;
}

/** A prompt with tokens to compute. */
export interface PrefillCandidate {
  /** Tokens it could use. */
  readonly wanted: number;
  /** Where the first of them stands: what it attends to. */
  readonly position: number;
}

/**
 * `sharePrefillBudget` where a token deep in its prompt costs more than one at the start, so that a step takes about as
 * long at position 30,000 as at 0. A prompt alone never gets fewer than `SMALLEST_SHARE`, or every step would read all
 * weights for a handful of tokens.
 * @param budget tokens at position 0
 * @param parityTokens position at which a token costs twice as much as at 0
 * @returns tokens each gets, in all at most `budget`
 */
export function sharePrefillTokens(
  candidates: readonly PrefillCandidate[],
  budget: number,
  parityTokens: number,
): number[] {
  const highestCost = Math.max(1, budget / SMALLEST_SHARE);
  const costs = candidates.map(({ position }) => Math.min(highestCost, 1 + position / parityTokens));
  const shares = sharePrefillBudget(
    candidates.map(({ wanted }, index) => Math.ceil(wanted * (costs[index] as number))),
    budget,
  );
  return candidates.map(({ wanted }, index) => {
    const share = shares[index] as number;
    return share === 0 ? 0 : Math.min(wanted, Math.max(1, Math.floor(share / (costs[index] as number))));
  });
}
