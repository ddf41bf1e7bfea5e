import { z, type OpenAPIHono } from '@hono/zod-openapi';
import type { AppEnvironment } from '../http/app-environment.ts';
import { documentAgents } from './openapi-agents.ts';
import { chatRequestSchema, completionRequestSchema } from '../openai/request-schemas.ts';

const problem = z
  .object({
    message: z.string(),
    type: z.string(),
    param: z.string().nullable(),
    code: z.string(),
  })
  .openapi('Problem');
const errorBody = z
  .object({ error: problem, errors: z.array(problem).describe('Every problem, the first included.') })
  .openapi('Error');
const usage = z
  .object({
    prompt_tokens: z.int(),
    completion_tokens: z.int(),
    total_tokens: z.int(),
    prompt_tokens_details: z.object({ cached_tokens: z.int() }),
  })
  .openapi('Usage');
const answered = {
  id: z.string(),
  created: z.int(),
  model: z.string(),
  system_fingerprint: z.string().describe('Changes whenever output bits can.'),
  seed: z.int().describe('The seed used; chosen by the server when the request has none.'),
};
const tierTokens = { hot: z.int(), warm: z.int(), cold: z.int() };
const cacheReport = z
  .object({
    prompt_hash: z.string().describe('SHA-256 of the prompt’s ids as little-endian 32-bit integers, in hex.'),
    cache: z.object({
      matched_tokens: z.int().describe('Tokens the cache knew, whether or not their KV was still there.'),
      reused_tokens: z.int(),
      from: z.object(tierTokens),
      restored_bytes: z.object({ warm: z.int(), cold: z.int() }),
      restore_ms: z.number(),
      diverged_at: z.object({
        token: z.int(),
        where: z.enum(['message', 'template', 'end']),
        message_index: z.int().optional(),
      }),
      cause: z.enum([
        'complete',
        'never-seen',
        'evicted',
        'damaged',
        'other-identity',
        'recompute-faster',
        'cache-off',
        'template-stripped',
      ]),
    }),
  })
  .describe('What of the prompt was reused and why no more; in streams with the first event after the opening one.')
  .openapi('CacheReport');
const finishReason = z.enum(['stop', 'length']);
const chatResponse = z
  .object({
    ...answered,
    object: z.literal('chat.completion'),
    choices: z.array(
      z.object({
        index: z.int(),
        message: z.object({ role: z.literal('assistant'), content: z.string(), refusal: z.null() }),
        logprobs: z.object({ content: z.array(z.unknown()), refusal: z.null() }).nullable(),
        finish_reason: finishReason,
      }),
    ),
    usage,
    kvasir: cacheReport,
  })
  .openapi('CreateChatCompletionResponse');
const completionResponse = z
  .object({
    ...answered,
    object: z.literal('text_completion'),
    choices: z.array(
      z.object({ index: z.int(), text: z.string(), logprobs: z.unknown().nullable(), finish_reason: finishReason }),
    ),
    usage,
    kvasir: z.union([cacheReport, z.array(cacheReport)]).describe('A list where there were several prompts.'),
  })
  .openapi('CreateCompletionResponse');
const modelObject = z
  .object({
    id: z.string(),
    object: z.literal('model'),
    created: z.int(),
    owned_by: z.string(),
    context_length: z.int(),
    architecture: z.string(),
  })
  .openapi('Model');

const agentHeader = z.object({ 'X-Agent-ID': z.string().optional().describe('As agent_id in the body.') });
const json = (schema: z.ZodType) => ({ 'application/json': { schema } });
const ok = (description: string, schema: z.ZodType) => ({ 200: { description, content: json(schema) } });
const failed = { default: { description: 'What went wrong, every problem at once', content: json(errorBody) } };

/** Describes the routes and serves the description at /openapi.json. */
export function documentRoutes(app: OpenAPIHono<AppEnvironment>): void {
  const { openAPIRegistry: registry } = app;
  const post = (path: string, summary: string, request: z.ZodType, response: z.ZodType) =>
    registry.registerPath({
      method: 'post',
      path,
      summary,
      request: { headers: agentHeader, body: { required: true, content: json(request) } },
      responses: {
        200: {
          description: 'The answer; with stream: true, server-sent events that end with [DONE]',
          content: { ...json(response), 'text/event-stream': { schema: z.string() } },
        },
        ...failed,
      },
    });
  const get = (path: string, summary: string, responses: object) =>
    registry.registerPath({ method: 'get', path, summary, responses: { ...responses, ...failed } });
  post('/v1/chat/completions', 'Answers a conversation', chatRequestSchema, chatResponse);
  post('/v1/completions', 'Continues a prompt', completionRequestSchema, completionResponse);
  documentAgents(app, failed);
  const list = z.object({ object: z.literal('list'), data: z.array(modelObject) });
  get('/v1/models', 'Lists the loaded model', ok('The models', list));
  get('/v1/models/{id}', 'Describes the loaded model', ok('The model', modelObject));
  const healthBody = z.looseObject({ status: z.string(), live: z.boolean(), ready: z.boolean(), steps: z.int() });
  get('/health', 'Liveness, readiness and the engine’s counters', ok('Ready', healthBody));
  get('/health/live', 'Whether the process answers', ok('Live', z.object({ live: z.boolean() })));
  get('/health/ready', 'Whether the process takes requests', ok('Ready', z.object({ ready: z.boolean() })));
  get('/metrics', 'Counters for Prometheus', {
    200: { description: 'Text exposition format', content: { 'text/plain': { schema: z.string() } } },
  });
  app.doc31('/openapi.json', {
    openapi: '3.1.0',
    info: { title: 'Kvasir', version: '0.1.0', description: 'OpenAI-compatible LLM inference.' },
  });
}
