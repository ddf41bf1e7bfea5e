import { randomUUID } from 'node:crypto';
import type { CancellationSignal } from '@kvasir/domain';
import type { Context } from 'hono';
import type { AppDependencies, AppEnvironment } from '../http/app-environment.ts';
import { readJson } from '../http/read-body.ts';
import { toEvent, type EventWriter } from '../http/sse-response.ts';
import { agentOf, checkAgent } from '../http/request-agent.ts';
import { beginTurn, withTurn } from '../generation/begin-turn.ts';
import { encodeText, type PromptOwner } from '../generation/encode-prompt.ts';
import type { EncodedPrompt } from '../generation/prompt-encoder.ts';
import type { ServedModel } from '../generation/served-model.ts';
import { startGeneration } from '../generation/start-generation.ts';
import type { TextChoice, TextPiece } from '../generation/text-choice.ts';
import { toCacheHeader, toCacheReport, type CacheReport } from '../openai/cache-report.ts';
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
  const request = parseRequest(body, COMPLETION_FIELDS, completionRequestSchema, (parsed, problems) => {
    checkCompletion(parsed, model.facts, problems);
    const runs = { n: parsed.n ?? 1, best_of: parsed.best_of ?? 1, prompt: itemsOf(parsed.prompt).length };
    checkAgent(context, parsed, runs, problems);
  });
  requireModel(model, request.model);
  const n = request.n ?? 1;
  const numChoices = request.best_of ?? n;
  const logprobs = request.logprobs ?? null;
  const tenant = context.get('tenant');
  const { signal } = context.req.raw;
  const begun = await beginTurn(model, tenant, agentOf(context, request), signal);
  const { stream, prompts, seed } = await withTurn(begun, async (turn) => {
    const encoded = await encodePrompts(model, request.prompt, { tenant, agent: turn?.manifest ?? null }, signal);
    const plan = {
      // Ranking needs the log-probabilities even where the client does not.
      ...toPlan(request, numChoices > n ? (logprobs ?? 0) : logprobs),
      prompts: encoded.map(({ prompt }) => prompt),
      numChoices,
      maxTokens: request.max_tokens ?? DEFAULT_MAX_TOKENS,
      continues: true,
      tenant,
      turn,
    };
    return { stream: startGeneration(model, plan), prompts: encoded, seed: plan.seed };
  });
  const usage = () =>
    toUsage(
      stream.choices.map((choice) => choice.generation),
      numChoices,
    );
  const report = (choice: number): CacheReport => {
    const { generation } = stream.choices[choice] as TextChoice;
    const { prompt } = prompts[Math.floor(choice / numChoices)] as PromptToComplete;
    return toCacheReport(generation, prompt, [], model.tokenizer);
  };
  const writer = new CompletionWriter(model, request, seed, prompts, report);
  if (request.stream === true) {
    return respondWithEvents(context, dependencies, stream, writer.events(usage), () => toCacheHeader(report(0)));
  }
  const choices = await readChoices(context, dependencies, stream);
  const best = prompts.flatMap((_, prompt) =>
    selectBest(choices.slice(prompt * numChoices, (prompt + 1) * numChoices), n),
  );
  context.header('x-kvasir-cache', toCacheHeader(report(0)));
  const reports = prompts.map((_, prompt) => report(prompt * numChoices));
  return context.json(writer.response(best, usage(), reports));
}

interface PromptToComplete {
  readonly prompt: EncodedPrompt;
  /** What echo repeats. */
  readonly text: string;
}

function itemsOf(prompt: CompletionRequest['prompt']): readonly (string | readonly number[])[] {
  const items = typeof prompt === 'string' || typeof prompt[0] === 'number' ? [prompt] : prompt;
  return items as readonly (string | readonly number[])[];
}

async function encodePrompts(
  model: ServedModel,
  prompt: CompletionRequest['prompt'],
  owner: PromptOwner,
  signal: CancellationSignal,
): Promise<PromptToComplete[]> {
  const encoded: PromptToComplete[] = [];
  for (const item of itemsOf(prompt)) {
    encoded.push(
      typeof item === 'string'
        ? { prompt: await encodeText(model, item, owner, signal), text: item }
        : { prompt: model.prompts.encodeIds(item), text: model.tokenizer.decode(item) },
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
  readonly #prompts: readonly PromptToComplete[];
  readonly #report: (choice: number) => CacheReport;
  readonly #head: object;

  constructor(
    model: ServedModel,
    request: CompletionRequest,
    seed: number,
    prompts: readonly PromptToComplete[],
    report: (choice: number) => CacheReport,
  ) {
    this.#report = report;
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

  response(choices: readonly FinishedChoice[], usage: Usage, reports: readonly CacheReport[]): object {
    return {
      ...this.#head,
      choices: choices.map((choice, index) =>
        this.#choice(index, this.#echo(index) + choice.text, choice.tokens, choice.finishReason),
      ),
      usage,
      kvasir: reports.length === 1 ? reports[0] : reports,
    };
  }

  events(usage: () => Usage): EventWriter {
    const hasUsage = this.#request.stream_options?.include_usage === true;
    const event = (choices: readonly object[], rest: object) => toEvent({ ...this.#head, choices, ...rest });
    const noUsage = hasUsage ? { usage: null } : {};
    const reported = new Set<number>();
    // The first event of each prompt after the opening one also says what of it was reused.
    const reuse = (choice: number): object => {
      const prompt = Math.floor(choice / this.#n);
      if (reported.has(prompt)) return {};
      reported.add(prompt);
      return { kvasir: this.#report(choice) };
    };
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
            event([this.#choice(choice, text, tokens, finish === null ? null : finishReasonOf(finish))], {
              ...reuse(choice),
              ...noUsage,
            }),
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
