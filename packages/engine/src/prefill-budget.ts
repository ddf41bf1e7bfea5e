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
