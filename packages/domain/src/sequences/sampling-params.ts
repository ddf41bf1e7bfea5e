/** How the next token is chosen. The order of operations is fixed and documented at the C waist. */
export interface SamplingParams {
  /** 0 is greedy: the highest logit, lowest id on ties. */
  readonly temperature: number;
  /** Keep the `topK` likeliest; 0 is off. */
  readonly topK: number;
  /** Keep the smallest set whose probability reaches `topP`; 1 is off. */
  readonly topP: number;
  /** Drop tokens less likely than `minP` times the likeliest; 0 is off. */
  readonly minP: number;
  /** Over prompt and output; 1 is off. */
  readonly repetitionPenalty: number;
  /** Per occurrence in the output; 0 is off. */
  readonly frequencyPenalty: number;
  /** Once per token that occurs in the output; 0 is off. */
  readonly presencePenalty: number;
  /** Added to the logits of these token ids before penalties. */
  readonly logitBias: ReadonlyMap<number, number>;
  /** Stream of random numbers: a draw depends on the seed and the output's index alone. */
  readonly seed: bigint;
  /** Report the sampled token's log-probability and this many alternatives; null reports nothing. */
  readonly logprobs: number | null;
}

export const GREEDY: SamplingParams = {
  temperature: 0,
  topK: 0,
  topP: 1,
  minP: 0,
  repetitionPenalty: 1,
  frequencyPenalty: 0,
  presencePenalty: 0,
  logitBias: new Map(),
  seed: 0n,
  logprobs: null,
};
