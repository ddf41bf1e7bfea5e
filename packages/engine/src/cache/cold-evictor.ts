import type { AgentArchive, AgentManifest, AgentSummary, BlockKey, BlockStore, Narrator } from '@kvasir/domain';
import type { PrefixNode } from './prefix-node.ts';
import type { Tiers } from './tiers.ts';

/** More is freed than was asked for, so that not every save begins with an eviction. */
const SURPLUS = 1.25;

/**
 * Makes room in the cold tier: what agents no longer need goes first, then the blocks of the agents that were used least
 * recently, from their ends. Pinned tokens stay, and so do blocks that an agent in the trie shares.
 */
export class ColdEvictor {
  readonly #tiers: Tiers;
  readonly #store: BlockStore;
  readonly #archive: AgentArchive;
  readonly #narrator: Narrator;

  constructor(tiers: Tiers, cold: { readonly blocks: BlockStore; readonly agents: AgentArchive }, narrator: Narrator) {
    this.#tiers = tiers;
    this.#store = cold.blocks;
    this.#archive = cold.agents;
    this.#narrator = narrator;
  }

  /** @returns whether anything was freed */
  async makeRoom(bytes: number): Promise<boolean> {
    const wanted = (await this.#store.usage()).bytes - bytes * SURPLUS;
    const summaries: AgentSummary[] = [];
    for await (const page of this.#archive.list()) summaries.push(...page);
    summaries.sort((one, other) => one.lastUsedAtMs - other.lastUsedAtMs);
    const nodes = new Map<string, PrefixNode>();
    for (const node of this.#tiers.trie.nodes()) if (node.hash !== null) nodes.set(node.hash, node);
    let numRemoved = 0;
    for (const { agentId } of summaries) {
      if ((await this.#store.usage()).bytes <= wanted) break;
      const manifest = await this.#archive.read(agentId).catch(() => null);
      if (manifest === null) continue;
      const keys = [
        ...manifest.formerBlocks.filter(({ hash }) => !isShared(nodes.get(hash))),
        ...ends(manifest, nodes),
      ];
      for (const { hash } of keys) {
        const node = nodes.get(hash);
        if (node !== undefined) node.isCold = false;
      }
      numRemoved += (await this.#store.delete(keys)).filter(Boolean).length;
    }
    this.#narrator.narrate({ level: 'info', name: 'cold-evicted', facts: { blocks: numRemoved, wantedBytes: bytes } });
    return numRemoved > 0;
  }
}

/** Its blocks that are not pinned, the last one first. */
function ends(manifest: AgentManifest, nodes: ReadonlyMap<string, PrefixNode>): BlockKey[] {
  const keys: BlockKey[] = [];
  for (const [group, references] of manifest.blocks.entries()) {
    for (const { hash, startToken } of references) {
      if (startToken >= manifest.pinnedTokens && !isShared(nodes.get(hash))) keys.push({ hash, group });
    }
  }
  return keys.reverse();
}

/** Whether an agent used since the start, other than the one it is taken from, has the block, or a sequence runs on it. */
function isShared(node: PrefixNode | undefined): boolean {
  return node !== undefined && (node.numUsers > 0 || node.agents.size > 1);
}
