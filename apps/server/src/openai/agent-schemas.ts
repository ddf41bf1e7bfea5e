import { z } from '@hono/zod-openapi';

/** Requests and answers of /v1/agents. Which names and cuts are right the agents' directory knows. */

const name = z.string().describe('1 to 128 of A-Z a-z 0-9 . _ : @ - with a letter or digit first.');
const tokens = z.int().min(0).describe('Tokens from the agent’s start.');
const turns = z.int().min(0).describe('Turns from the agent’s start.');

export const createAgentRequest = z.strictObject({ name }).openapi('CreateAgentRequest');
export const forkRequest = z
  .strictObject({ name, tokens: tokens.optional(), turns: turns.optional() })
  .openapi('ForkAgentRequest');
export const rewindRequest = z
  .strictObject({ tokens: tokens.optional(), turns: turns.optional() })
  .openapi('RewindAgentRequest');
export const pinRequest = z.strictObject({ tokens: z.union([tokens, z.literal('all')]) }).openapi('PinAgentRequest');

const MAX_LISTED = 500;

/** Of the query, where numbers are text. */
export const agentPage = z.strictObject({
  after: z.string().optional().describe('The last name of the page before.'),
  limit: z.coerce.number().int().min(1).max(MAX_LISTED).default(100),
});

export const importQuery = z.strictObject({
  accept_numerics: z
    .enum(['true', 'false'])
    .optional()
    .describe('Takes KV that another backend computed; the agent is then marked.'),
});

const count = z.int();
const use = { prompt_tokens: count, cached_tokens: count };
const agentFields = {
  object: z.literal('agent'),
  name,
  created_ms: z.number(),
  last_used_ms: z.number(),
  tokens: count,
  turns: count,
  blocks: z.array(count).describe('Stored blocks, one number a layer group.'),
  pinned_tokens: z.union([count, z.literal('all')]),
  model: z.object({
    fingerprint: z.string(),
    kv_dtype: z.string(),
    layout_version: z.string(),
    numerics_id: z.string().describe('Names two numerics where KV of another backend was imported.'),
  }),
};

export const agentObject = z.object({ ...agentFields, uses: z.object({ count, ...use }) }).openapi('Agent');

const tier = z.object({ blocks: count, tokens: count, bytes: count });
export const agentDetails = z
  .object({
    ...agentFields,
    busy: z.boolean().describe('Whether a turn runs.'),
    tiers: z.object({ hot: tier, warm: tier, cold: tier }),
    turn_ends: z.array(z.object({ tokens: count, at_ms: z.number(), cut: z.boolean() })),
    uses: z.object({ count, ...use, recent: z.array(z.object({ at_ms: z.number(), ...use })) }),
  })
  .openapi('AgentDetails');

export const agentList = z.object({
  object: z.literal('list'),
  data: z.array(agentObject),
  has_more: z.boolean(),
});
export const agentDeleted = z.object({
  object: z.literal('agent.deleted'),
  name: z.string(),
  deleted: z.literal(true),
});
export const agentImported = z
  .object({
    agent: agentObject,
    blocks: count.describe('Blocks of KV that were taken.'),
    refused: z.array(z.object({ reason: z.string(), blocks: count })),
  })
  .openapi('AgentImported');
