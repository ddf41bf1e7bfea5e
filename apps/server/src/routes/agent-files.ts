import { isKvasirError } from '@kvasir/domain';
import type { Context } from 'hono';
import { requireAgents } from '../generation/begin-turn.ts';
import type { AppDependencies, AppEnvironment } from '../http/app-environment.ts';
import { toWireCode } from '../http/error-table.ts';
import { HttpProblem } from '../http/http-problem.ts';
import { importQuery } from '../openai/agent-schemas.ts';
import { parseRequest } from '../openai/parse-request.ts';
import { nameOf, toAgentObject } from './agents.ts';

/** GET /v1/agents/:name/export: a safetensors file, written as it is read. */
export async function exportAgent(
  context: Context<AppEnvironment>,
  { model, log }: AppDependencies,
): Promise<Response> {
  const agent = nameOf(context);
  const controller = new AbortController();
  const stream = await requireAgents(model).export(agent, controller.signal);
  const pieces = stream[Symbol.asyncIterator]();
  const body = new ReadableStream<Uint8Array>(
    {
      async pull(sink) {
        try {
          const { done, value } = await pieces.next();
          if (done === true) sink.close();
          else sink.enqueue(value);
        } catch (error) {
          // The status has left: the connection breaks off, and whoever imports the file finds it truncated.
          log.error({ requestId: context.get('requestId'), agent: agent.name, err: error }, 'export failed');
          sink.error(error);
        }
      },
      async cancel() {
        controller.abort();
        await pieces.return?.();
      },
    },
    { highWaterMark: 0 },
  );
  return context.body(body, 200, {
    'content-type': 'application/octet-stream',
    'content-disposition': `attachment; filename="${agent.name.replaceAll(':', '_')}.safetensors"`,
  });
}

/** POST /v1/agents/:name/import: takes the file as it comes; at most one block of it is in memory. */
export async function importAgent(
  context: Context<AppEnvironment>,
  { model, options }: AppDependencies,
): Promise<Response> {
  const tables = { implemented: new Set(['accept_numerics']), accepted: new Set<string>(), refused: new Map() };
  const { accept_numerics } = parseRequest(context.req.query(), tables, importQuery, () => undefined);
  const body = limited(context.req.raw.body, context.req.header('content-length'), options.maxImportBytes);
  try {
    const imported = await requireAgents(model).import(nameOf(context), body, {
      acceptNumerics: accept_numerics === 'true',
      signal: context.req.raw.signal,
    });
    const { agent, blocks, refused } = imported;
    return context.json({ agent: toAgentObject(agent), blocks, refused }, 201);
  } catch (error) {
    // Damage in a file the client sent is the client's; the same codes of our own files are not.
    if (!isKvasirError(error) || !/^file-(corrupt|foreign|truncated)$/.test(error.code)) throw error;
    throw new HttpProblem(400, toWireCode(error.code), error.message);
  }
}

async function* limited(
  body: ReadableStream<Uint8Array> | null,
  announced: string | undefined,
  maxBytes: number,
): AsyncGenerator<Uint8Array> {
  const tooLarge = (found: string) =>
    new HttpProblem(413, 'request_too_large', `body: expected at most ${maxBytes} bytes, found ${found}`);
  if (announced !== undefined && Number(announced) > maxBytes) throw tooLarge(`${announced} announced`);
  let bytes = 0;
  for await (const piece of body ?? []) {
    bytes += piece.length;
    if (bytes > maxBytes) throw tooLarge('more');
    yield piece;
  }
}
