import { type EngineLimits, type GenerationRequest, KvasirError, type SamplingParams } from '@kvasir/domain';

/** @throws KvasirError `invalid-argument` naming every problem */
export function checkRequest(request: GenerationRequest, limits: EngineLimits): void {
  const problems = [
    ...idProblems('promptIds', request.promptIds, limits.vocabularySize),
    ...idProblems('stopIds', request.stopIds, limits.vocabularySize),
    ...samplingProblems(request.sampling, limits.vocabularySize),
  ];
  if (request.promptIds.length === 0) problems.push('promptIds: expected at least one token, found none');
  const { maxTokens } = request;
  if (maxTokens !== null && !(Number.isSafeInteger(maxTokens) && maxTokens >= 1)) {
    problems.push(`maxTokens: expected a positive integer or null, found ${maxTokens}`);
  }
  refuse(problems);
}

/** @throws KvasirError `invalid-argument` */
export function checkTokenIds(tokenIds: Int32Array, fewest: number, limits: EngineLimits): void {
  const problems = idProblems('tokenIds', tokenIds, limits.vocabularySize);
  if (tokenIds.length < fewest) {
    problems.push(`tokenIds: expected at least ${fewest} tokens, found ${tokenIds.length}`);
  }
  refuse(problems);
}

/**
 * Outputs a sequence may have: the last one needs no slot.
 * @throws KvasirError `context-length-exceeded`, `pool-too-small` when it could never run to its end
 */
export function resolveMaxOutputs(numPromptTokens: number, maxTokens: number | null, limits: EngineLimits): number {
  const needed = numPromptTokens + (maxTokens ?? 1) - 1;
  checkFits(needed, limits);
  return maxTokens ?? Math.min(limits.contextLength, limits.poolTokens) - numPromptTokens + 1;
}

/** @throws KvasirError `context-length-exceeded`, `pool-too-small` */
export function checkFits(numTokens: number, limits: EngineLimits): void {
  const { contextLength, poolTokens } = limits;
  if (numTokens > contextLength) {
    throw new KvasirError(
      'context-length-exceeded',
      `context: expected at most ${contextLength} tokens of prompt and output, found ${numTokens}; shorten the prompt or ask for fewer tokens`,
      { facts: { contextLength, numTokens } },
    );
  }
  if (numTokens > poolTokens) {
    throw new KvasirError(
      'pool-too-small',
      `KV pool: expected room for ${numTokens} tokens, found a pool of ${poolTokens}; enlarge the pool or ask for fewer tokens`,
      { facts: { poolTokens, numTokens } },
    );
  }
}

function idProblems(name: string, ids: ArrayLike<number>, vocabularySize: number): string[] {
  for (let index = 0; index < ids.length; index++) {
    const id = ids[index] as number;
    if (!Number.isInteger(id) || id < 0 || id >= vocabularySize) {
      return [`${name}[${index}]: expected a token id from 0 to ${vocabularySize - 1}, found ${id}`];
    }
  }
  return [];
}

function samplingProblems(sampling: SamplingParams, vocabularySize: number): string[] {
  const problems: string[] = [];
  const expect = (holds: boolean, name: string, expected: string, found: unknown): void => {
    if (!holds) problems.push(`sampling.${name}: expected ${expected}, found ${String(found)}`);
  };
  const { temperature, topK, topP, minP, repetitionPenalty, frequencyPenalty, presencePenalty } = sampling;
  expect(Number.isFinite(temperature) && temperature >= 0, 'temperature', 'a number from 0 on', temperature);
  expect(Number.isSafeInteger(topK) && topK >= 0, 'topK', 'an integer from 0 on', topK);
  expect(topP > 0 && topP <= 1, 'topP', 'a number above 0, at most 1', topP);
  expect(minP >= 0 && minP <= 1, 'minP', 'a number from 0 to 1', minP);
  expect(
    Number.isFinite(repetitionPenalty) && repetitionPenalty > 0,
    'repetitionPenalty',
    'a number above 0',
    repetitionPenalty,
  );
  expect(Number.isFinite(frequencyPenalty), 'frequencyPenalty', 'a number', frequencyPenalty);
  expect(Number.isFinite(presencePenalty), 'presencePenalty', 'a number', presencePenalty);
  const { seed, logprobs, logitBias } = sampling;
  expect(seed >= 0n && seed < 1n << 64n, 'seed', 'an integer from 0 to 2^64 - 1', seed);
  expect(
    logprobs === null || (Number.isSafeInteger(logprobs) && logprobs >= 0 && logprobs <= vocabularySize),
    'logprobs',
    `null or an integer from 0 to ${vocabularySize}`,
    logprobs,
  );
  for (const [id, bias] of logitBias) {
    const isValid = Number.isInteger(id) && id >= 0 && id < vocabularySize && Number.isFinite(bias);
    expect(isValid, 'logitBias', `token ids below ${vocabularySize} with numbers`, `${id}: ${bias}`);
  }
  return problems;
}

function refuse(problems: readonly string[]): void {
  if (problems.length > 0) throw new KvasirError('invalid-argument', problems.join('; '), { facts: { problems } });
}
