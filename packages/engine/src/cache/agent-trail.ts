import type { BlockReference } from '@kvasir/domain';
import type { PrefixNode } from './prefix-node.ts';

/** Where one agent's tokens lie in the trie, and which of its blocks the archive has been told of. */
export class AgentTrail {
  readonly agentId: string;
  readonly tenant: string;
  /** From the first block on, as far as the trie knows them. */
  nodes: readonly PrefixNode[] = [];
  /** What the archive's manifest says, per layer group alike, and the nodes it says it of. */
  noted: readonly BlockReference[] = [];
  notedNodes: readonly PrefixNode[] = [];
  /** Nodes it had or its requests computed, and has no more: a deletion takes them along where nobody else has them. */
  readonly left = new Set<PrefixNode>();
  pinnedTokens = 0;
  /** Its deletion has begun: nothing of it is saved any more. */
  isQuiesced = false;
  /** Counts changes, so that a save that began before one does not go on after it. */
  version = 0;

  constructor(agentId: string, tenant: string) {
    this.agentId = agentId;
    this.tenant = tenant;
  }
}
