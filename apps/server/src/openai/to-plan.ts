import type { RequestProblems } from '../http/request-problems.ts';
import type { GenerationPlan } from '../generation/generation-plan.ts';
import { chooseSeed } from '../generation/start-generation.ts';
import type { ModelFacts } from '../generation/served-model.ts';
import type { ChatRequest, CompletionRequest } from './request-schemas.ts';

type SharedRequest = Omit<ChatRequest, 'messages' | 'logprobs'> | Omit<CompletionRequest, 'prompt' | 'logprobs'>;

/** What both requests say about generating, with OpenAI's defaults. `logprobs` differs between them. */
export function toPlan(
  request: SharedRequest,
  logprobs: number | null,
): Omit<GenerationPlan, 'prompts' | 'numChoices' | 'maxTokens' | 'continues' | 'tenant' | 'turn'> {
  const stop = request.stop ?? [];
  return {
    sampling: {
      temperature: request.temperature ?? 1,
      topK: Math.max(request.top_k ?? 0, 0),
      topP: Math.max(request.top_p ?? 1, SMALLEST_TOP_P),
      minP: request.min_p ?? 0,
      repetitionPenalty: request.repetition_penalty ?? 1,
      frequencyPenalty: request.frequency_penalty ?? 0,
      presencePenalty: request.presence_penalty ?? 0,
      logitBias: new Map(Object.entries(request.logit_bias ?? {}).map(([id, bias]) => [Number(id), bias])),
      logprobs,
    },
    seed: request.seed ?? chooseSeed(),
    stops: typeof stop === 'string' ? [stop] : stop,
    ignoreEos: request.ignore_eos ?? false,
  };
}

/** OpenAI allows 0, which keeps the likeliest token alone, as does any share below its probability. */
const SMALLEST_TOP_P = 1e-6;

/** Rules both requests share that no schema states. */
export function checkShared(request: SharedRequest, model: ModelFacts, problems: RequestProblems): void {
  if (request.stream_options && request.stream !== true) {
    problems.add(
      'invalid_argument',
      'stream_options',
      'stream_options: expected it with stream: true only, found no stream',
    );
  }
  for (const id of Object.keys(request.logit_bias ?? {})) {
    if (Number(id) >= model.vocabularySize) {
      problems.add(
        'invalid_argument',
        `logit_bias.${id}`,
        `logit_bias: expected token ids below ${model.vocabularySize}, found ${id}`,
      );
    }
  }
}

export function checkChat(request: ChatRequest, model: ModelFacts, problems: RequestProblems): void {
  checkShared(request, model, problems);
  if (typeof request.top_logprobs === 'number' && request.logprobs !== true) {
    problems.add('invalid_argument', 'top_logprobs', 'top_logprobs: expected logprobs: true beside it, found it alone');
  }
  const { max_tokens: old, max_completion_tokens: current } = request;
  if (typeof old === 'number' && typeof current === 'number' && old !== current) {
    problems.add(
      'invalid_argument',
      'max_tokens',
      `max_tokens: expected the same as max_completion_tokens (${current}) or neither, found ${old}`,
    );
  }
}

export function checkCompletion(request: CompletionRequest, model: ModelFacts, problems: RequestProblems): void {
  checkShared(request, model, problems);
  const n = request.n ?? 1;
  const bestOf = request.best_of ?? n;
  if (bestOf < n) {
    problems.add('invalid_argument', 'best_of', `best_of: expected at least n (${n}), found ${bestOf}`);
  }
  if (bestOf > n && request.stream === true) {
    problems.add(
      'invalid_argument',
      'best_of',
      'best_of: expected no stream beside it, since the best is known at the end only',
    );
  }
  if (request.echo === true && typeof request.logprobs === 'number') {
    problems.add(
      'unsupported_parameter',
      'echo',
      'echo: expected it without logprobs, since the prompt is not scored; leave one out',
    );
  }
  for (const ids of toTokenPrompts(request.prompt)) {
    const wrong = ids.find((id) => id >= model.vocabularySize);
    if (wrong !== undefined) {
      problems.add(
        'invalid_argument',
        'prompt',
        `prompt: expected token ids below ${model.vocabularySize}, found ${wrong}`,
      );
    }
  }
}

function toTokenPrompts(prompt: CompletionRequest['prompt']): readonly (readonly number[])[] {
  if (typeof prompt === 'string') return [];
  const lists = prompt.filter((item) => typeof item === 'object');
  if (lists.length > 0) return lists;
  return [prompt.filter((item) => typeof item === 'number')];
}
