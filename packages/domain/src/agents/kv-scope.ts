import type { AgentManifest } from './agent-manifest.ts';

/**
 * Among whom an agent's KV is shared: its tenant's prompts. KV that other numerics made, taken by an import that said so,
 * stays the agent's own: what others are answered must not depend on it. No tenant's name has a line break.
 */
export function kvScopeOf(agent: Pick<AgentManifest, 'tenant' | 'agentId' | 'identity'>): string {
  const { tenant, agentId, identity } = agent;
  return identity.numericsId.includes(IMPORTING) ? `${tenant}\n${agentId}` : tenant;
}

/** The numerics of an agent whose KV was taken over from others'. */
export function importedNumerics(own: string, found: string): string {
  return `${own}${IMPORTING}${found}`;
}

const IMPORTING = ' importing ';
