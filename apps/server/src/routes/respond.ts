import type { Context } from 'hono';
import type { AppDependencies, AppEnvironment } from '../http/app-environment.ts';
import { toSseResponse, type EventWriter } from '../http/sse-response.ts';
import type { ChoiceStream } from '../generation/choice-stream.ts';
import type { TextChoice, TextFinish, TextPiece, TextToken } from '../generation/text-choice.ts';

/** One choice, read to its end. */
export interface FinishedChoice {
  readonly text: string;
  readonly tokens: readonly TextToken[];
  readonly finishReason: string;
  readonly meanLogprob: number;
}

/** What the headers of a stream wait for at most. */
const HEADERS_WAIT_MS = 1000;

/**
 * Answers with the stream's events; what it generated is counted when it ends, however it does.
 *
 * The headers say what was reused, which is known with the first token: they leave then, or after a second without that
 * header. No token is later for it; the opening event is, and what fails before the first token gets its own status.
 */
export async function respondWithEvents(
  context: Context<AppEnvironment>,
  dependencies: AppDependencies,
  stream: ChoiceStream,
  writer: EventWriter,
  cacheHeader: () => string,
): Promise<Response> {
  const count = () => countStream(context, dependencies, stream);
  try {
    await whileConnected(context, stream, () => stream.begun(HEADERS_WAIT_MS));
  } catch (error) {
    count();
    throw error;
  }
  const { reuse, stats } = (stream.choices[0] as TextChoice).generation;
  if (reuse !== null || stats.outputTokens > 0) context.header('x-kvasir-cache', cacheHeader());
  const response = toSseResponse(stream, writer, count);
  for (const [name, value] of context.res.headers) response.headers.set(name, value);
  return response;
}

/**
 * Reads all choices to their ends. A client that leaves meanwhile aborts them.
 * @throws KvasirError a choice failed with, `aborted` when the client left
 */
export async function readChoices(
  context: Context<AppEnvironment>,
  dependencies: AppDependencies,
  stream: ChoiceStream,
): Promise<FinishedChoice[]> {
  try {
    return await whileConnected(context, stream, () => collect(stream));
  } finally {
    countStream(context, dependencies, stream);
  }
}

/** A client that leaves meanwhile aborts the stream. */
async function whileConnected<Value>(
  context: Context<AppEnvironment>,
  stream: ChoiceStream,
  work: () => Promise<Value>,
): Promise<Value> {
  const leave = () => stream.abort();
  const { signal } = context.req.raw;
  signal.addEventListener('abort', leave, { once: true });
  if (signal.aborted) leave();
  try {
    return await work();
  } finally {
    signal.removeEventListener('abort', leave);
  }
}

async function collect(stream: ChoiceStream): Promise<FinishedChoice[]> {
  const texts = stream.choices.map(() => [] as string[]);
  const tokens = stream.choices.map(() => [] as TextToken[]);
  const finishes = stream.choices.map((): TextFinish | null => null);
  for (let pieces = await stream.next(); pieces !== null; pieces = await stream.next()) {
    for (const piece of pieces) {
      texts[piece.choice]?.push(piece.text);
      tokens[piece.choice]?.push(...piece.tokens);
      if (piece.finish !== null) finishes[piece.choice] = piece.finish;
    }
  }
  return stream.choices.map((choice) => ({
    text: texts[choice.index]?.join('') ?? '',
    tokens: tokens[choice.index] ?? [],
    finishReason: finishReasonOf(finishes[choice.index] ?? null),
    meanLogprob: choice.meanLogprob,
  }));
}

/** How OpenAI names an end; a choice that has none ended with the stream. */
export function finishReasonOf(finish: TextPiece['finish']): string {
  return finish === null || finish.reason === 'failed' ? 'stop' : finish.reason;
}

function countStream(context: Context<AppEnvironment>, { metrics, log }: AppDependencies, stream: ChoiceStream): void {
  metrics.countTurns(stream.numTurns);
  for (const { generation } of stream.choices) {
    const { promptTokens, outputTokens, queuedMs, firstTokenMs, totalMs, preemptions } = generation.stats;
    metrics.countGeneration(promptTokens, outputTokens, firstTokenMs);
    metrics.countReuse(generation.reuse);
    log.info(
      { requestId: context.get('requestId'), promptTokens, outputTokens, queuedMs, firstTokenMs, totalMs, preemptions },
      'generation ended',
    );
  }
}
