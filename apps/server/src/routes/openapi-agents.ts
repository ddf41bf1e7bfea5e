import { z, type OpenAPIHono } from '@hono/zod-openapi';
import type { AppEnvironment } from '../http/app-environment.ts';
import {
  agentDeleted,
  agentDetails,
  agentImported,
  agentList,
  agentObject,
  agentPage,
  createAgentRequest,
  forkRequest,
  importQuery,
  pinRequest,
  rewindRequest,
} from '../openai/agent-schemas.ts';

type Responses = Readonly<Record<string, object>>;

const json = (schema: z.ZodType) => ({ 'application/json': { schema } });
const named = { params: z.object({ name: z.string() }) };
const file = { 'application/octet-stream': { schema: z.string().openapi({ format: 'binary' }) } };

/** Describes /v1/agents. */
export function documentAgents({ openAPIRegistry: registry }: OpenAPIHono<AppEnvironment>, failed: Responses): void {
  const describe = (
    method: 'get' | 'post' | 'delete',
    path: string,
    summary: string,
    request: object,
    status: number,
    content: object,
  ) =>
    registry.registerPath({
      method,
      path: `/v1/agents${path}`,
      summary,
      request,
      responses: { [status]: { description: summary, content }, ...failed } as never,
    });
  const body = (schema: z.ZodType) => ({ body: { required: true, content: json(schema) } });
  describe('post', '', 'Makes an agent', body(createAgentRequest), 201, json(agentObject));
  describe('get', '', 'Lists the tenant’s agents by name', { query: agentPage }, 200, json(agentList));
  describe('get', '/{name}', 'Describes an agent: tokens, turns, blocks, tiers, uses', named, 200, json(agentDetails));
  describe(
    'delete',
    '/{name}',
    'Removes an agent and every block no other refers to, after the turn that runs',
    named,
    200,
    json(agentDeleted),
  );
  describe(
    'post',
    '/{name}/fork',
    'Makes an agent that begins with the first tokens or turns of another, or all of them',
    { ...named, ...body(forkRequest) },
    201,
    json(agentObject),
  );
  describe(
    'post',
    '/{name}/rewind',
    'Keeps the first tokens or turns',
    { ...named, ...body(rewindRequest) },
    200,
    json(agentObject),
  );
  describe(
    'post',
    '/{name}/pin',
    'Keeps the KV of the first tokens from being evicted; 0 unpins, "all" pins all',
    { ...named, ...body(pinRequest) },
    200,
    json(agentObject),
  );
  describe('get', '/{name}/export', 'The agent as a safetensors file', named, 200, file);
  describe(
    'post',
    '/{name}/import',
    'Makes an agent of an exported file',
    { ...named, query: importQuery, body: { required: true, content: file } },
    201,
    json(agentImported),
  );
}
