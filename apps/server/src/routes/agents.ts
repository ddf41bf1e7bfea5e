import type { AgentCut, AgentDetails, AgentName, AgentSummary } from '@kvasir/domain';
import { z } from '@hono/zod-openapi';
import type { Context } from 'hono';
import { requireAgents } from '../generation/begin-turn.ts';
import type { AppDependencies, AppEnvironment } from '../http/app-environment.ts';
import { readJson } from '../http/read-body.ts';
import type { RequestProblems } from '../http/request-problems.ts';
import { agentPage, createAgentRequest, forkRequest, pinRequest, rewindRequest } from '../openai/agent-schemas.ts';
import { parseRequest } from '../openai/parse-request.ts';

type AgentContext = Context<AppEnvironment>;

/** POST /v1/agents */
export async function createAgent(context: AgentContext, dependencies: AppDependencies): Promise<Response> {
  const agents = requireAgents(dependencies.model);
  const { name } = await readBody(context, dependencies, createAgentRequest);
  return context.json(toAgentObject(await agents.create({ tenant: context.get('tenant'), name })), 201);
}

/** GET /v1/agents?after=…&limit=… */
export async function listAgents(context: AgentContext, { model }: AppDependencies): Promise<Response> {
  const agents = requireAgents(model);
  const query = Object.fromEntries(Object.entries(context.req.query()));
  const { after, limit } = parse(query, agentPage);
  // One more than asked for tells whether there are more.
  const page = { limit: limit + 1, ...(after === undefined ? {} : { after }) };
  const found = await agents.list(context.get('tenant'), page);
  return context.json({
    object: 'list',
    data: found.slice(0, limit).map(toAgentObject),
    has_more: found.length > limit,
  });
}

/** GET /v1/agents/:name */
export async function inspectAgent(context: AgentContext, { model }: AppDependencies): Promise<Response> {
  return context.json(toDetailsObject(await requireAgents(model).inspect(nameOf(context))));
}

/** DELETE /v1/agents/:name, after the turn that runs */
export async function deleteAgent(context: AgentContext, { model }: AppDependencies): Promise<Response> {
  const agents = requireAgents(model);
  const agent = nameOf(context);
  const { manifest } = await agents.inspect(agent);
  await agents.delete(agent, context.req.raw.signal);
  model.prompts.forget(manifest);
  return context.json({ object: 'agent.deleted', name: agent.name, deleted: true });
}

/** POST /v1/agents/:name/fork */
export async function forkAgent(context: AgentContext, dependencies: AppDependencies): Promise<Response> {
  const agents = requireAgents(dependencies.model);
  const { name, ...cut } = await readBody(context, dependencies, forkRequest, refuseTwoCuts);
  const upTo = toCut(cut) ?? undefined;
  const fork = await agents.fork(nameOf(context), name, upTo, context.req.raw.signal);
  return context.json(toAgentObject(fork), 201);
}

/** POST /v1/agents/:name/rewind */
export async function rewindAgent(context: AgentContext, dependencies: AppDependencies): Promise<Response> {
  const agents = requireAgents(dependencies.model);
  const body = await readBody(context, dependencies, rewindRequest, (request, problems) => {
    refuseTwoCuts(request, problems);
    if (toCut(request) !== null) return;
    problems.add('missing_parameter', 'tokens', 'tokens: expected it or turns, found neither');
  });
  const to = toCut(body) ?? { tokens: 0 };
  return context.json(toAgentObject(await agents.rewind(nameOf(context), to, context.req.raw.signal)));
}

/** POST /v1/agents/:name/pin */
export async function pinAgent(context: AgentContext, dependencies: AppDependencies): Promise<Response> {
  const agents = requireAgents(dependencies.model);
  const { tokens } = await readBody(context, dependencies, pinRequest);
  const pinnedTokens = tokens === 'all' ? Number.MAX_SAFE_INTEGER : tokens;
  return context.json(toAgentObject(await agents.pin(nameOf(context), pinnedTokens)));
}

/** The agent a path names; the directory checks the name. */
export function nameOf(context: AgentContext): AgentName {
  return { tenant: context.get('tenant'), name: context.req.param('name') ?? '' };
}

export function toAgentObject(summary: AgentSummary): object {
  return {
    object: 'agent',
    name: summary.name,
    created_ms: summary.createdAtMs,
    last_used_ms: summary.lastUsedAtMs,
    tokens: summary.numTokens,
    turns: summary.numTurns,
    blocks: summary.numBlocks,
    pinned_tokens: toPinned(summary.pinnedTokens),
    model: toModelObject(summary),
    uses: {
      count: summary.useCount,
      prompt_tokens: summary.promptTokens,
      cached_tokens: summary.cachedTokens,
    },
  };
}

function toDetailsObject({ manifest, tiers, isBusy }: AgentDetails): object {
  const { hot, warm, cold } = tiers;
  return {
    object: 'agent',
    name: manifest.name,
    created_ms: manifest.createdAtMs,
    last_used_ms: manifest.lastUsedAtMs,
    tokens: manifest.tokenIds.length,
    turns: manifest.turns.length,
    blocks: manifest.blocks.map((references) => references.length),
    pinned_tokens: toPinned(manifest.pinnedTokens),
    model: toModelObject(manifest),
    busy: isBusy,
    tiers: { hot, warm, cold },
    turn_ends: manifest.turns.map(({ endTokens, atMs, isCut }) => ({ tokens: endTokens, at_ms: atMs, cut: isCut })),
    uses: {
      count: manifest.uses.count,
      prompt_tokens: manifest.uses.promptTokens,
      cached_tokens: manifest.uses.cachedTokens,
      recent: manifest.uses.recent.map(({ atMs, promptTokens, cachedTokens }) => ({
        at_ms: atMs,
        prompt_tokens: promptTokens,
        cached_tokens: cachedTokens,
      })),
    },
  };
}

function toModelObject({ identity }: Pick<AgentSummary, 'identity'>): object {
  return {
    fingerprint: identity.modelFingerprint,
    kv_dtype: identity.kvDType,
    layout_version: identity.layoutVersion,
    numerics_id: identity.numericsId,
  };
}

function toPinned(tokens: number): number | 'all' {
  return tokens === Number.MAX_SAFE_INTEGER ? 'all' : tokens;
}

interface Cuts {
  readonly tokens?: number | undefined;
  readonly turns?: number | undefined;
}

function toCut({ tokens, turns }: Cuts): AgentCut | null {
  if (tokens !== undefined) return { tokens };
  return turns === undefined ? null : { turns };
}

function refuseTwoCuts({ tokens, turns }: Cuts, problems: RequestProblems): void {
  if (tokens === undefined || turns === undefined) return;
  problems.add('invalid_argument', 'turns', 'turns: expected it or tokens, found both');
}

async function readBody<Shape extends z.ZodRawShape>(
  context: AgentContext,
  { options }: AppDependencies,
  schema: z.ZodObject<Shape>,
  check?: (request: z.output<z.ZodObject<Shape>>, problems: RequestProblems) => void,
): Promise<z.output<z.ZodObject<Shape>>> {
  return parse(await readJson(context, options.maxBodyBytes), schema, check);
}

function parse<Shape extends z.ZodRawShape>(
  value: unknown,
  schema: z.ZodObject<Shape>,
  check: (request: z.output<z.ZodObject<Shape>>, problems: RequestProblems) => void = () => undefined,
): z.output<z.ZodObject<Shape>> {
  const tables = { implemented: new Set(Object.keys(schema.shape)), accepted: new Set<string>(), refused: new Map() };
  return parseRequest(value, tables, schema, check);
}
