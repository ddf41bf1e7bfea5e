import type { AgentArchive, AgentMemory, BlockStore, CacheIdentity, ModelRunner, Narrator } from '@kvasir/domain';
import { AbsentAgentMemory, type BatchEngine } from '@kvasir/engine';

/** What the KV behind agents is made of. */
export interface AgentMemoryParts {
  readonly identity: CacheIdentity;
  readonly engine: BatchEngine;
  readonly runner: ModelRunner;
  readonly blocks: BlockStore;
  readonly archive: AgentArchive;
  readonly narrator: Narrator;
}

/** The one place that says which memory agents have. */
export function createAgentMemory({ identity }: AgentMemoryParts): AgentMemory {
  return new AbsentAgentMemory(identity);
}
