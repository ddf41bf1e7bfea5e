import { randomUUID } from 'node:crypto';
import type { Context } from 'hono';
import type { AppDependencies, AppEnvironment } from '../http/app-environment.ts';
import { readJson } from '../http/read-body.ts';
import type { EventWriter } from '../http/sse-response.ts';
import { agentOf, checkAgent } from '../http/request-agent.ts';
import { beginTurn, withTurn } from '../generation/begin-turn.ts';
import type { ChoiceStream } from '../generation/choice-stream.ts';
import { encodeConversation } from '../generation/encode-prompt.ts';
import type { ServedModel } from '../generation/served-model.ts';
import { startGeneration } from '../generation/start-generation.ts';
import type { TextChoice, TextPiece } from '../generation/text-choice.ts';
import { toTemplateMessages } from '../openai/chat-messages.ts';
import { toCacheHeader, toCacheReport, type CacheReport } from '../openai/cache-report.ts';
import { CHAT_FIELDS } from '../openai/fields.ts';
import { toChatLogprobs } from '../openai/logprobs.ts';
import { parseRequest } from '../openai/parse-request.ts';
import { chatRequestSchema, type ChatRequest } from '../openai/request-schemas.ts';
import { checkChat, toPlan } from '../openai/to-plan.ts';
import { toUsage } from '../openai/usage.ts';
import { requireModel } from './find-model.ts';
import { finishReasonOf, readChoices, respondWithEvents } from './respond.ts';

/** POST /v1/chat/completions */
export async function chatCompletions(
  context: Context<AppEnvironment>,
  dependencies: AppDependencies,
): Promise<Response> {
  const { model } = dependencies;
  const body = await readJson(context, dependencies.options.maxBodyBytes);
  const request = parseRequest(body, CHAT_FIELDS, chatRequestSchema, (parsed, problems) => {
    checkChat(parsed, model.facts, problems);
    checkAgent(context, parsed, { n: parsed.n ?? 1 }, problems);
  });
  requireModel(model, request.model);
  const messages = toTemplateMessages(request.messages);
  const tenant = context.get('tenant');
  const { signal } = context.req.raw;
  const logprobs = request.logprobs === true ? (request.top_logprobs ?? 0) : null;
  const begun = await beginTurn(model, tenant, agentOf(context, request), signal);
  const { stream, prompt, seed } = await withTurn(begun, async (turn) => {
    const owner = { tenant, agent: turn?.manifest ?? null };
    const variables = request.chat_template_kwargs ?? {};
    const encoded = await encodeConversation(model, messages, variables, owner, signal);
    const plan = {
      ...toPlan(request, logprobs),
      prompts: [encoded],
      numChoices: request.n ?? 1,
      maxTokens: request.max_completion_tokens ?? request.max_tokens ?? null,
      continues: false,
      tenant,
      turn,
    };
    return { stream: startGeneration(model, plan), prompt: encoded, seed: plan.seed };
  });
  const head: Head = {
    id: `chatcmpl-${randomUUID()}`,
    created: Math.floor(Date.now() / 1000),
    model: model.name,
    system_fingerprint: model.facts.numericsId,
    seed,
  };
  const report = (choice: number): CacheReport => {
    const { generation } = stream.choices[choice] as TextChoice;
    const reported = messages.map(({ role, content }) => ({
      role,
      text: typeof content === 'string' ? content : null,
    }));
    return toCacheReport(generation, prompt, reported, model.tokenizer);
  };
  if (request.stream === true) {
    const events = new ChatEvents(model, stream, request, head, report);
    return respondWithEvents(context, dependencies, stream, events, () => toCacheHeader(report(0)));
  }
  const choices = await readChoices(context, dependencies, stream);
  const cache = report(0);
  context.header('x-kvasir-cache', toCacheHeader(cache));
  return context.json({
    ...head,
    object: 'chat.completion',
    choices: choices.map((choice, index) => ({
      index,
      message: { role: 'assistant', content: choice.text, refusal: null },
      logprobs: logprobs === null ? null : { content: toChatLogprobs(choice.tokens, model.tokenizer), refusal: null },
      finish_reason: choice.finishReason,
    })),
    usage: toUsage(
      stream.choices.map((choice) => choice.generation),
      stream.choices.length,
    ),
    kvasir: cache,
  });
}

interface Head {
  readonly id: string;
  readonly created: number;
  readonly model: string;
  readonly system_fingerprint: string;
  readonly seed: number;
}

/** Events of a streamed chat. What all of them share is written once; a token adds its text. */
class ChatEvents implements EventWriter {
  readonly #model: ServedModel;
  readonly #stream: ChoiceStream;
  readonly #hasLogprobs: boolean;
  readonly #hasUsage: boolean;
  /** Up to and with `"choices":`. */
  readonly #prefix: string;
  readonly #suffix: string;
  readonly #report: (choice: number) => CacheReport;
  #isReported = false;

  constructor(
    model: ServedModel,
    stream: ChoiceStream,
    request: ChatRequest,
    head: Head,
    report: (choice: number) => CacheReport,
  ) {
    this.#report = report;
    this.#model = model;
    this.#stream = stream;
    this.#hasLogprobs = request.logprobs === true;
    this.#hasUsage = request.stream_options?.include_usage === true;
    this.#prefix = `data: ${JSON.stringify({ ...head, object: 'chat.completion.chunk' }).slice(0, -1)},"choices":`;
    this.#suffix = this.#hasUsage ? ',"usage":null}\n\n' : '}\n\n';
  }

  opening(): string {
    return this.#stream.choices
      .map(({ index }) => this.#chunk(index, '{"role":"assistant","content":"","refusal":null}', 'null', 'null'))
      .join('');
  }

  pieces(pieces: readonly TextPiece[]): string {
    let events = '';
    for (const piece of pieces) {
      if (piece.text !== '' || piece.tokens.length > 0) {
        const logprobs = this.#hasLogprobs
          ? JSON.stringify({ content: toChatLogprobs(piece.tokens, this.#model.tokenizer), refusal: null })
          : 'null';
        events += this.#chunk(piece.choice, `{"content":${JSON.stringify(piece.text)}}`, logprobs, 'null');
      }
      if (piece.finish !== null) events += this.#chunk(piece.choice, '{}', 'null', `"${finishReasonOf(piece.finish)}"`);
    }
    return this.#reporting(events, pieces[0]?.choice ?? 0);
  }

  closing(): string {
    if (!this.#hasUsage) return '';
    const generations = this.#stream.choices.map((choice) => choice.generation);
    return `${this.#prefix}[],"usage":${JSON.stringify(toUsage(generations, generations.length))}}\n\n`;
  }

  #chunk(index: number, delta: string, logprobs: string, finishReason: string): string {
    const choice = `{"index":${index},"delta":${delta},"logprobs":${logprobs},"finish_reason":${finishReason}}`;
    return `${this.#prefix}[${choice}]${this.#suffix}`;
  }

  /** The first event after the opening one also says what was reused. */
  #reporting(events: string, choice: number): string {
    if (this.#isReported) return events;
    this.#isReported = true;
    return events.replace('"choices":', () => `"kvasir":${JSON.stringify(this.#report(choice))},"choices":`);
  }
}
