import { applyAgentEntry, KvasirError, type AgentManifest, type NewAgent } from '@kvasir/domain';

/** Longer names are a mistake somewhere above; the index keeps each of them in memory. */
const MAX_NAME = 1024;

/** @throws KvasirError `invalid-argument` */
export function manifestOfNewAgent(agent: NewAgent, agentId: string): AgentManifest {
  for (const text of [agent.tenant, agent.name]) {
    if (text.length === 0 || text.length > MAX_NAME) {
      throw new KvasirError('invalid-argument', `name: expected 1 to ${MAX_NAME} characters, found ${text.length}`);
    }
  }
  const tokenIds = agent.tokenIds?.slice() ?? new Int32Array();
  const turns = agent.turns ?? [];
  let end = 0;
  for (const { endTokens } of turns) {
    if (!Number.isSafeInteger(endTokens) || endTokens < end || endTokens > tokenIds.length) {
      throw new KvasirError(
        'invalid-argument',
        `turns: expected ascending ends up to ${tokenIds.length} tokens, found ${endTokens}`,
      );
    }
    end = endTokens;
  }
  let manifest: AgentManifest = {
    agentId,
    tenant: agent.tenant,
    name: agent.name,
    identity: agent.identity,
    createdAtMs: agent.atMs,
    lastUsedAtMs: agent.atMs,
    tokenIds,
    turns,
    pinnedTokens: 0,
    blocks: [],
    formerBlocks: [],
    uses: { count: 0, promptTokens: 0, cachedTokens: 0, recent: [] },
  };
  for (const [group, blocks] of (agent.blocks ?? []).entries()) {
    manifest = applyAgentEntry(manifest, { kind: 'blocks', group, keep: 0, blocks });
  }
  return manifest;
}
