import { randomUUID } from 'node:crypto';
import type { CancellationSignal } from '@kvasir/domain';
import type { Context } from 'hono';
import type { AppDependencies, AppEnvironment } from '../http/app-environment.ts';
import { readJson } from '../http/read-body.ts';
import { toEvent, type EventWriter } from '../http/sse-response.ts';
import { encodeText } from '../generation/encode-prompt.ts';
import type { ServedModel } from '../generation/served-model.ts';
import { startGeneration } from '../generation/start-generation.ts';
import type { TextPiece } from '../generation/text-choice.ts';
import { COMPLETION_FIELDS } from '../openai/fields.ts';
import { toCompletionLogprobs } from '../openai/logprobs.ts';
import { parseRequest } from '../openai/parse-request.ts';
import { completionRequestSchema, type CompletionRequest } from '../openai/request-schemas.ts';
import { checkCompletion, toPlan } from '../openai/to-plan.ts';
import { toUsage, type Usage } from '../openai/usage.ts';
import { requireModel } from './find-model.ts';
import { finishReasonOf, readChoices, respondWithEvents, type FinishedChoice } from './respond.ts';

/** OpenAI's default for this endpoint. */
const DEFAULT_MAX_TOKENS = 16;

/** POST /v1/completions */
export async function completions(context: Context<AppEnvironment>, dependencies: AppDependencies): Promise<Response> {
  const { model } = dependencies;
  const body = await readJson(context, dependencies.options.maxBodyBytes);
  const request = parseRequest(body, COMPLETION_FIELDS, completionRequestSchema, (parsed, problems) =>
    checkCompletion(parsed, model.facts, problems),
  );
  requireModel(model, request.model);
  const prompts = await encodePrompts(model, request.prompt, context.req.raw.signal);
  const n = request.n ?? 1;
  const numChoices = request.best_of ?? n;
  const logprobs = request.logprobs ?? null;
  const plan = {
    // Ranking needs the log-probabilities even where the client does not.
    ...toPlan(request, numChoices > n ? (logprobs ?? 0) : logprobs),
    prompts: prompts.map((prompt) => prompt.ids),
    numChoices,
    maxTokens: request.max_tokens ?? DEFAULT_MAX_TOKENS,
    continues: true,
  };
  const writer = new CompletionWriter(model, request, plan.seed, prompts);
  const stream = startGeneration(model, plan);
  const usage = () =>
    toUsage(
      stream.choices.map((choice) => choice.generation),
      numChoices,
    );
  if (request.stream === true) {
    return respondWithEvents(context, dependencies, stream, writer.events(usage));
  }
  const choices = await readChoices(context, dependencies, stream);
  const best = prompts.flatMap((_, prompt) =>
    selectBest(choices.slice(prompt * numChoices, (prompt + 1) * numChoices), n),
  );
  return context.json(writer.response(best, usage()));
}

interface EncodedPrompt {
  readonly ids: Int32Array;
  /** What echo repeats. */
  readonly text: string;
}

async function encodePrompts(
  model: ServedModel,
  prompt: CompletionRequest['prompt'],
  signal: CancellationSignal,
): Promise<EncodedPrompt[]> {
  const items = typeof prompt === 'string' || typeof prompt[0] === 'number' ? [prompt] : prompt;
  const encoded: EncodedPrompt[] = [];
  for (const item of items as readonly (string | readonly number[])[]) {
    encoded.push(
      typeof item === 'string'
        ? { ids: await encodeText(model, item, signal), text: item }
        : { ids: Int32Array.from(item), text: model.tokenizer.decode(item) },
    );
  }
  return encoded;
}

/** The `count` choices the model finds likeliest a token, best first. */
function selectBest(choices: readonly FinishedChoice[], count: number): readonly FinishedChoice[] {
  if (choices.length === count) return choices;
  return [...choices].sort((a, b) => b.meanLogprob - a.meanLogprob).slice(0, count);
}

/** Puts choices into the shapes of this endpoint, whole or as events. */
class CompletionWriter {
  readonly #model: ServedModel;
  readonly #request: CompletionRequest;
  readonly #prompts: readonly EncodedPrompt[];
  readonly #head: object;

  constructor(model: ServedModel, request: CompletionRequest, seed: number, prompts: readonly EncodedPrompt[]) {
    this.#model = model;
    this.#request = request;
    this.#prompts = prompts;
    this.#head = {
      id: `cmpl-${randomUUID()}`,
      object: 'text_completion',
      created: Math.floor(Date.now() / 1000),
      model: model.name,
      system_fingerprint: model.facts.numericsId,
      seed,
    };
  }

  response(choices: readonly FinishedChoice[], usage: Usage): object {
    return {
      ...this.#head,
      choices: choices.map((choice, index) =>
        this.#choice(index, this.#echo(index) + choice.text, choice.tokens, choice.finishReason),
      ),
      usage,
    };
  }

  events(usage: () => Usage): EventWriter {
    const hasUsage = this.#request.stream_options?.include_usage === true;
    const event = (choices: readonly object[], rest: object) => toEvent({ ...this.#head, choices, ...rest });
    const noUsage = hasUsage ? { usage: null } : {};
    return {
      opening: () => {
        if (this.#request.echo !== true) return '';
        const indexes = this.#prompts.flatMap((_, prompt) =>
          Array.from({ length: this.#n }, (__, i) => prompt * this.#n + i),
        );
        return indexes.map((index) => event([this.#choice(index, this.#echo(index), [], null)], noUsage)).join('');
      },
      pieces: (pieces: readonly TextPiece[]) =>
        pieces
          .map(({ choice, text, tokens, finish }) =>
            event([this.#choice(choice, text, tokens, finish === null ? null : finishReasonOf(finish))], noUsage),
          )
          .join(''),
      closing: () => (hasUsage ? event([], { usage: usage() }) : ''),
    };
  }

  get #n(): number {
    return this.#request.n ?? 1;
  }

  #echo(index: number): string {
    return this.#request.echo === true ? (this.#prompts[Math.floor(index / this.#n)]?.text ?? '') : '';
  }

  #choice(index: number, text: string, tokens: FinishedChoice['tokens'], finishReason: string | null): object {
    const wantsLogprobs = typeof this.#request.logprobs === 'number';
    const logprobs = wantsLogprobs ? toCompletionLogprobs(tokens, this.#model.tokenizer) : null;
    return { index, text, logprobs, finish_reason: finishReason };
  }
}
