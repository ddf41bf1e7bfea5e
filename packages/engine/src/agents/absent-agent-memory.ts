import type {
  AgentMemory,
  AgentTiers,
  CacheIdentity,
  MemoryBlock,
  MemoryBlockListing,
  TierHolding,
} from '@kvasir/domain';

const NOTHING: TierHolding = { blocks: 0, tokens: 0, bytes: 0 };

/** For an engine that keeps no prefixes: agents have their tokens, and their KV is computed at every turn. */
export class AbsentAgentMemory implements AgentMemory {
  readonly identity: CacheIdentity;

  constructor(identity: CacheIdentity) {
    this.identity = identity;
  }

  adopt(): void {}

  follow(): void {}

  pin(): void {}

  quiesce(): Promise<void> {
    return Promise.resolve();
  }

  forget(): void {}

  tiersOf(): AgentTiers {
    return { hot: NOTHING, warm: NOTHING, cold: NOTHING };
  }

  listBlocks(): readonly MemoryBlockListing[] {
    return [];
  }

  async *readBlocks(): AsyncGenerator<MemoryBlock> {}

  writeBlock(): Promise<boolean> {
    return Promise.resolve(false);
  }

  flush(): Promise<void> {
    return Promise.resolve();
  }
}
