import type { Context } from 'hono';
import type { AppDependencies, AppEnvironment } from '../http/app-environment.ts';
import { toSseResponse, type EventWriter } from '../http/sse-response.ts';
import type { ChoiceStream } from '../generation/choice-stream.ts';
import type { TextFinish, TextPiece, TextToken } from '../generation/text-choice.ts';

/** One choice, read to its end. */
export interface FinishedChoice {
  readonly text: string;
  readonly tokens: readonly TextToken[];
  readonly finishReason: string;
  readonly meanLogprob: number;
}

/** Answers with the stream's events; what it generated is counted when it ends, however it does. */
export function respondWithEvents(
  context: Context<AppEnvironment>,
  dependencies: AppDependencies,
  stream: ChoiceStream,
  writer: EventWriter,
): Response {
  const response = toSseResponse(stream, writer, () => countStream(context, dependencies, stream));
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
  const leave = () => stream.abort();
  const { signal } = context.req.raw;
  signal.addEventListener('abort', leave, { once: true });
  if (signal.aborted) leave();
  try {
    return await collect(stream);
  } finally {
    signal.removeEventListener('abort', leave);
    countStream(context, dependencies, stream);
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
  for (const { generation } of stream.choices) {
    const { promptTokens, outputTokens, queuedMs, firstTokenMs, totalMs, preemptions } = generation.stats;
    metrics.countGeneration(promptTokens, outputTokens, firstTokenMs);
    log.info(
      { requestId: context.get('requestId'), promptTokens, outputTokens, queuedMs, firstTokenMs, totalMs, preemptions },
      'generation ended',
    );
  }
}
