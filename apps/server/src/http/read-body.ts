import { KvasirError } from '@kvasir/domain';
import type { Context } from 'hono';
import { HttpProblem } from './http-problem.ts';

/**
 * The request's JSON body.
 * @throws HttpProblem 415 for another content type, 413 for more than `maxBytes`
 * @throws KvasirError `invalid-argument` for malformed JSON
 */
export async function readJson(context: Context, maxBytes: number): Promise<unknown> {
  const type = context.req.header('content-type') ?? '';
  if (!/^application\/(?:[\w.+-]+\+)?json\s*(?:;|$)/i.test(type)) {
    throw new HttpProblem(
      415,
      'unsupported_media_type',
      `content-type: expected application/json, found ${type || 'none'}`,
    );
  }
  const text = await readText(context, maxBytes);
  try {
    return JSON.parse(text) as unknown;
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw new KvasirError('invalid-argument', `body: expected JSON, found ${error.message}`, {
      facts: { param: 'body' },
      cause: error,
    });
  }
}

async function readText(context: Context, maxBytes: number): Promise<string> {
  const announced = context.req.header('content-length');
  if (announced === undefined) return countText(context, maxBytes);
  if (Number(announced) > maxBytes) throw tooLarge(maxBytes, `${announced} announced`);
  return context.req.text();
}

/** A body without a length is counted as it comes */
async function countText(context: Context, maxBytes: number): Promise<string> {
  const decoder = new TextDecoder();
  let text = '';
  let left = maxBytes;
  for await (const chunk of context.req.raw.body ?? []) {
    left -= chunk.length;
    // Up to twice the limit is read all the same: leaving early closes the connection before the answer is sent.
    if (left >= 0) text += decoder.decode(chunk, { stream: true });
    else if (left < -maxBytes) break;
  }
  if (left < 0) throw tooLarge(maxBytes, 'more');
  return text + decoder.decode();
}

function tooLarge(maxBytes: number, found: string): HttpProblem {
  return new HttpProblem(413, 'request_too_large', `body: expected at most ${maxBytes} bytes, found ${found}`);
}
