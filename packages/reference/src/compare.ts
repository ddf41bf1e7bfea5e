/** How far one set of logits is from another. */
export interface LogitsComparison {
  /** ‖actual − expected‖ / ‖expected‖ over all tokens; NaN when anything is NaN. */
  readonly relativeError: number;
  /** The same for the worst token. */
  readonly worstTokenError: number;
  readonly maxAbsoluteError: number;
  /** Tokens whose highest logit is at the same id. */
  readonly sameNextToken: number;
  /** Tokens whose expected margin between the two highest logits exceeds four times that token's largest error. */
  readonly decidedTokens: number;
  /** Of those, tokens where the next token still differs: must be 0. */
  readonly decidedButDifferent: number;
  readonly tokens: number;
}

/** @param actual and expected (T, vocabularySize) */
export function compareLogits(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  vocabularySize: number,
): LogitsComparison {
  if (actual.length !== expected.length || expected.length % vocabularySize !== 0) {
    throw new Error(`logits: expected ${expected.length} values, found ${actual.length}`);
  }
  const tokens = expected.length / vocabularySize;
  let differences = 0;
  let squares = 0;
  let worstTokenError = 0;
  let maxAbsoluteError = 0;
  let sameNextToken = 0;
  let decidedTokens = 0;
  let decidedButDifferent = 0;
  for (let token = 0; token < tokens; token++) {
    const at = token * vocabularySize;
    let tokenDifferences = 0;
    let tokenSquares = 0;
    let largest = 0;
    for (let i = at; i < at + vocabularySize; i++) {
      const difference = Math.abs((actual[i] as number) - (expected[i] as number));
      tokenDifferences += difference ** 2;
      tokenSquares += (expected[i] as number) ** 2;
      largest = Math.max(largest, difference);
    }
    differences += tokenDifferences;
    squares += tokenSquares;
    worstTokenError = Math.max(worstTokenError, Math.sqrt(tokenDifferences / tokenSquares));
    maxAbsoluteError = Math.max(maxAbsoluteError, largest);
    const [best, margin] = topTwo(expected, at, vocabularySize);
    const same = topTwo(actual, at, vocabularySize)[0] === best;
    if (same) sameNextToken++;
    if (margin > 4 * largest) {
      decidedTokens++;
      if (!same) decidedButDifferent++;
    }
  }
  const relativeError = Math.sqrt(differences / squares);
  return {
    relativeError,
    worstTokenError,
    maxAbsoluteError,
    sameNextToken,
    decidedTokens,
    decidedButDifferent,
    tokens,
  };
}

/** Id of the highest value (lowest id on ties) and its lead over the second. */
export function topTwo(values: ArrayLike<number>, at: number, count: number): [id: number, margin: number] {
  let best = 0;
  let second = -Infinity;
  for (let i = 1; i < count; i++) {
    const value = values[at + i] as number;
    if (value > (values[at + best] as number)) {
      second = values[at + best] as number;
      best = i;
    } else if (value > second) {
      second = value;
    }
  }
  return [best, (values[at + best] as number) - second];
}
