import type { Generation } from '@kvasir/domain';

export interface Usage {
  readonly prompt_tokens: number;
  readonly completion_tokens: number;
  readonly total_tokens: number;
  readonly prompt_tokens_details: { readonly cached_tokens: number };
}

/**
 * @param generations prompt by prompt, `numChoices` each: a prompt counts once however many choices it has
 */
export function toUsage(generations: readonly Generation[], numChoices: number): Usage {
  const prompts = generations.filter((_, index) => index % numChoices === 0);
  const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);
  const promptTokens = sum(prompts.map(({ stats }) => stats.promptTokens));
  const completionTokens = sum(generations.map(({ stats }) => stats.outputTokens));
  return {
    prompt_tokens: promptTokens,
    completion_tokens: completionTokens,
    total_tokens: promptTokens + completionTokens,
    prompt_tokens_details: { cached_tokens: sum(prompts.map(({ stats }) => stats.cachedTokens)) },
  };
}
