import {
  applyAgentEntry,
  KvasirError,
  summarizeAgent,
  type AgentArchive,
  type AgentArchiveUsage,
  type AgentEntry,
  type AgentManifest,
  type AgentSummary,
  type BlockKey,
  type BlockStore,
  type CommitEntry,
  type NewAgent,
  type NoteEntry,
} from '@kvasir/domain';

/** Agents in memory, with ids that count up. `blocks` loses what a deletion leaves without a reference. */
export class FakeAgentArchive implements AgentArchive {
  readonly #agents = new Map<string, AgentManifest>();
  readonly #blocks: BlockStore;
  #nextId = 1;
  #commits = 0;
  #isClosed = false;
  #refusal: 'disk-full' | 'disk-unwritable' | null = null;

  constructor(blocks: BlockStore) {
    this.#blocks = blocks;
  }

  /** Every further write fails like this; null: as usual. */
  refuse(refusal: 'disk-full' | 'disk-unwritable' | null): void {
    this.#refusal = refusal;
  }

  async *list(): AsyncGenerator<readonly AgentSummary[]> {
    this.#require();
    const summaries = [...this.#agents.values()].map(summarizeAgent);
    if (summaries.length > 0) yield summaries;
  }

  async create(agent: NewAgent): Promise<AgentSummary> {
    this.#requireWritable();
    const { tenant, name, identity, atMs } = agent;
    for (const text of [tenant, name]) {
      if (text.length === 0) throw new KvasirError('invalid-argument', 'name: expected a character, found none');
    }
    for (const other of this.#agents.values()) {
      if (other.tenant !== tenant || other.name !== name) continue;
      throw new KvasirError('agent-exists', 'agent: expected a name nobody has, found one that is taken');
    }
    const tokenIds = agent.tokenIds?.slice() ?? new Int32Array();
    const turns = agent.turns ?? [];
    if (turns.some((turn) => turn.endTokens > tokenIds.length)) {
      throw new KvasirError('invalid-argument', `turns: expected ends up to ${tokenIds.length} tokens, found more`);
    }
    let manifest: AgentManifest = {
      agentId: (this.#nextId++).toString(16).padStart(32, '0'),
      tenant,
      name,
      identity,
      createdAtMs: atMs,
      lastUsedAtMs: atMs,
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
    this.#agents.set(manifest.agentId, manifest);
    return summarizeAgent(manifest);
  }

  async commit(agentId: string, entry: CommitEntry): Promise<AgentSummary> {
    const summary = this.#apply(agentId, entry);
    this.#commits++;
    return summary;
  }

  async note(agentId: string, entry: NoteEntry): Promise<void> {
    this.#apply(agentId, entry);
  }

  async read(agentId: string): Promise<AgentManifest> {
    this.#require();
    const manifest = this.#agents.get(agentId);
    if (manifest !== undefined) return manifest;
    throw new KvasirError('agent-not-found', `agent ${agentId}: expected one that exists, found none`);
  }

  async delete(agentId: string): Promise<readonly BlockKey[]> {
    const manifest = await this.read(agentId);
    this.#requireWritable();
    this.#agents.delete(agentId);
    const referred = new Set([...this.#agents.values()].flatMap(keysOf).map(textOf));
    const orphans = new Map(
      keysOf(manifest)
        .filter((key) => !referred.has(textOf(key)))
        .map((key) => [textOf(key), key]),
    );
    await this.#blocks.delete([...orphans.values()]);
    return [...orphans.values()];
  }

  async usage(): Promise<AgentArchiveUsage> {
    this.#require();
    return {
      agents: this.#agents.size,
      opening: 'new',
      commits: this.#commits,
      flushes: this.#commits,
      tornTails: 0,
      damagedJournals: 0,
      indexRebuilds: 0,
      deletionsFinished: 0,
      writeFailures: 0,
    };
  }

  async close(): Promise<void> {
    this.#isClosed = true;
  }

  #apply(agentId: string, entry: AgentEntry): AgentSummary {
    this.#requireWritable();
    const manifest = this.#agents.get(agentId);
    if (manifest === undefined) {
      throw new KvasirError('agent-not-found', `agent ${agentId}: expected one that exists, found none`);
    }
    const next = applyAgentEntry(manifest, entry);
    this.#agents.set(agentId, next);
    return summarizeAgent(next);
  }

  #requireWritable(): void {
    this.#require();
    if (this.#refusal !== null) throw new KvasirError(this.#refusal, 'agent archive: told to refuse writes');
  }

  #require(): void {
    if (this.#isClosed) throw new KvasirError('disposed', 'agent archive: expected an open one, it is closed');
  }
}

function keysOf(manifest: AgentManifest): readonly BlockKey[] {
  const current = manifest.blocks.flatMap((references, group) => references.map(({ hash }) => ({ hash, group })));
  return [...current, ...manifest.formerBlocks];
}

function textOf({ hash, group }: BlockKey): string {
  return `${hash}.${group}`;
}
