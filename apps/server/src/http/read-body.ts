import { KvasirError } from '@kvasir/domain';
import type { Context } from 'hono';
import { HttpProblem } from './http-problem.ts';

/**
 * The request's JSON body.
 * @throws HttpProblem 415 for another content type; InvalidRequest-like `invalid-argument` for malformed JSON
 */
export async function readJson(context: Context): Promise<unknown> {
  const type = context.req.header('content-type') ?? '';
  if (!/^application\/(?:[\w.+-]+\+)?json\s*(?:;|$)/i.test(type)) {
    throw new HttpProblem(
      415,
      'unsupported_media_type',
      `content-type: expected application/json, found ${type || 'none'}`,
    );
  }
  const text = await context.req.text();
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
