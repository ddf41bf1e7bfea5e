import type { ChoiceStream } from '../generation/choice-stream.ts';
import type { TextPiece } from '../generation/text-choice.ts';
import { toErrorBody, toKvasirError } from './error-table.ts';

/** Turns pieces into the events of one endpoint. */
export interface EventWriter {
  /** What is sent before anything is generated; may be empty. */
  opening(): string;
  /** Never empty. */
  pieces(pieces: readonly TextPiece[]): string;
  /** After the last piece, before `[DONE]`. */
  closing(): string;
}

export function toEvent(data: unknown): string {
  return `data: ${JSON.stringify(data)}\n\n`;
}

const encoder = new TextEncoder();
const HEADERS = {
  'content-type': 'text/event-stream; charset=utf-8',
  'cache-control': 'no-cache',
  'x-accel-buffering': 'no',
  'transfer-encoding': 'chunked',
} as const;

/**
 * Streams a generation as server-sent events, one write for all that a step brought.
 *
 * The next pieces are taken when the socket has drained; a connection that closes first cancels the stream and with it
 * the generation. A failure after the headers becomes an `error` event.
 */
export function toSseResponse(stream: ChoiceStream, writer: EventWriter, onEnd: () => void): Response {
  let isCancelled = false;
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      const opening = writer.opening();
      if (opening !== '') controller.enqueue(encoder.encode(opening));
    },
    async pull(controller) {
      const event = await nextEvent(stream, writer);
      if (isCancelled) return;
      controller.enqueue(encoder.encode(event.text));
      if (!event.isLast) return;
      onEnd();
      controller.close();
    },
    cancel() {
      isCancelled = true;
      stream.abort();
      onEnd();
    },
  });
  return new Response(body, { headers: HEADERS });
}

async function nextEvent(stream: ChoiceStream, writer: EventWriter): Promise<{ text: string; isLast: boolean }> {
  try {
    const pieces = await stream.next();
    if (pieces !== null) return { text: writer.pieces(pieces), isLast: false };
    return { text: `${writer.closing()}data: [DONE]\n\n`, isLast: true };
  } catch (error) {
    return { text: `event: error\n${toEvent(toErrorBody(toKvasirError(error)))}`, isLast: true };
  }
}
