/** What the engine counts over its life; `EngineStats` shows them. */
export class EngineCounters {
  steps = 0;
  failedSteps = 0;
  prefillTokens = 0;
  outputTokens = 0;
  discardedTokens = 0;
  preemptions = 0;
  executeMs = 0;
  /** Element n: steps that carried n sequences. */
  readonly batchSizes: Uint32Array;

  constructor(maxBatchSequences: number) {
    this.batchSizes = new Uint32Array(maxBatchSequences + 1);
  }
}
