import {
  type AgentArchive,
  type AgentCut,
  type AgentDetails,
  type AgentDirectory,
  type AgentImport,
  type AgentManifest,
  type AgentMemory,
  type AgentName,
  type AgentSummary,
  type AgentTurnInProgress,
  type CancellationSignal,
  type FinishedTurn,
  isKvasirError,
  KvasirError,
  type Narrator,
} from '@kvasir/domain';
import { commonPrefix, leadingPart, tokensOfCut } from './agent-cut.ts';
import { AgentLocks } from './agent-locks.ts';
import { AgentRoster, checkAgentName } from './agent-roster.ts';
import { exportAgent } from './export-agent.ts';
import { importAgent } from './import-agent.ts';
import type { Checksum } from './portable-format.ts';
import { TurnInProgress } from './turn-in-progress.ts';

export interface AgentServiceParts {
  readonly archive: AgentArchive;
  readonly memory: AgentMemory;
  readonly narrator: Narrator;
  /** Unix milliseconds. */
  readonly now: () => number;
  readonly checksum: Checksum;
  /** Token ids of imported agents lie below. */
  readonly vocabularySize: number;
}

const MAX_PAGE = 1000;

/**
 * The agents of one engine: names and order are kept here, tokens in the archive, KV in the memory. All state belongs to
 * the engine's thread. An agent whose tokens are another model's can be looked at, cut, moved and deleted; it runs no turns,
 * and its KV is left alone.
 */
export class AgentService implements AgentDirectory {
  readonly #parts: AgentServiceParts;
  readonly #roster: AgentRoster;
  readonly #locks = new AgentLocks();
  /** Notes nobody waits for. */
  readonly #notes = new Set<Promise<void>>();
  #isClosed = false;

  private constructor(parts: AgentServiceParts, roster: AgentRoster) {
    this.#parts = parts;
    this.#roster = roster;
  }

  /** One pass over the archive's index; no agent is read. */
  static async open(parts: AgentServiceParts): Promise<AgentService> {
    const summaries: AgentSummary[] = [];
    for await (const page of parts.archive.list()) for (const summary of page) summaries.push(summary);
    const roster = new AgentRoster();
    roster.takeIn(summaries);
    for (const { agentId, pinnedTokens } of summaries) {
      if (pinnedTokens > 0) parts.memory.pin(agentId, pinnedTokens);
    }
    return new AgentService(parts, roster);
  }

  /** Agents of all tenants. */
  get size(): number {
    return this.#roster.size;
  }

  create(agent: AgentName): Promise<AgentSummary> {
    return this.#alone([agent], undefined, () => this.#create(agent));
  }

  async list(
    tenant: string,
    page: { readonly after?: string; readonly limit: number },
  ): Promise<readonly AgentSummary[]> {
    this.#checkOpen();
    if (!Number.isSafeInteger(page.limit) || page.limit < 1 || page.limit > MAX_PAGE) {
      throw new KvasirError('invalid-argument', `limit: expected 1 to ${MAX_PAGE}, found ${page.limit}`, {
        facts: { param: 'limit' },
      });
    }
    return this.#roster.page(tenant, page.after, page.limit);
  }

  async inspect(agent: AgentName): Promise<AgentDetails> {
    this.#check([agent]);
    const { agentId } = this.#roster.require(agent);
    const manifest = await this.#parts.archive.read(agentId);
    if (this.#isOurs(manifest)) this.#parts.memory.adopt(manifest);
    const tiers = this.#parts.memory.tiersOf(agentId);
    return { manifest, tiers, isBusy: this.#locks.isHeld(keyOf(agent)) };
  }

  fork(agent: AgentName, to: string, upTo?: AgentCut, signal?: CancellationSignal): Promise<AgentSummary> {
    const target = { tenant: agent.tenant, name: to };
    return this.#alone([agent, target], signal, async () => {
      const source = await this.#read(agent);
      this.#roster.requireAbsent(target);
      const numTokens = upTo === undefined ? source.tokenIds.length : tokensOfCut(source, upTo);
      const part = leadingPart(source, numTokens);
      const { archive, memory, now } = this.#parts;
      const summary = await archive.create({ ...target, identity: source.identity, atMs: now(), ...part });
      this.#roster.put(summary);
      if (this.#isOurs(source)) {
        memory.adopt(await archive.read(summary.agentId));
        memory.follow(summary, part.tokenIds);
      }
      return summary;
    });
  }

  rewind(agent: AgentName, to: AgentCut, signal?: CancellationSignal): Promise<AgentSummary> {
    return this.#alone([agent], signal, async () => {
      const manifest = await this.#read(agent);
      const numTokens = tokensOfCut(manifest, to);
      const { archive, memory, now } = this.#parts;
      const summary = await archive.commit(manifest.agentId, { kind: 'rewind', numTokens, atMs: now() });
      this.#roster.put(summary);
      if (this.#isOurs(manifest)) {
        memory.adopt(manifest);
        memory.follow(manifest, manifest.tokenIds.slice(0, numTokens));
      }
      return summary;
    });
  }

  pin(agent: AgentName, pinnedTokens: number): Promise<AgentSummary> {
    return this.#alone([agent], undefined, async () => {
      const { agentId } = this.#roster.require(agent);
      const { archive, memory, now } = this.#parts;
      const summary = await archive.commit(agentId, { kind: 'pin', pinnedTokens, atMs: now() });
      this.#roster.put(summary);
      memory.pin(agentId, pinnedTokens);
      return summary;
    });
  }

  delete(agent: AgentName, signal?: CancellationSignal): Promise<void> {
    return this.#alone([agent], signal, async () => {
      const { agentId } = this.#roster.require(agent);
      await this.#remove(agent, agentId);
    });
  }

  async export(agent: AgentName, signal?: CancellationSignal): Promise<AsyncIterable<Uint8Array>> {
    // The line is left before the first byte: blocks never change, and a slow reader must not hold the next turn.
    return this.#alone([agent], signal, async () => {
      const manifest = await this.#read(agent);
      const { memory, checksum } = this.#parts;
      if (this.#isOurs(manifest)) memory.adopt(manifest);
      const blocks = this.#isOurs(manifest) ? memory.listBlocks(manifest, manifest.tokenIds) : [];
      return exportAgent(manifest, memory, blocks, checksum, signal);
    });
  }

  import(
    agent: AgentName,
    stream: AsyncIterable<Uint8Array>,
    options: { readonly acceptNumerics?: boolean; readonly signal?: CancellationSignal } = {},
  ): Promise<AgentImport> {
    const { acceptNumerics = false, signal } = options;
    return this.#alone([agent], signal, async () => {
      this.#roster.requireAbsent(agent);
      const imported = await importAgent(agent, stream, this.#parts, { acceptNumerics, signal });
      this.#roster.put(imported.agent);
      return imported;
    });
  }

  async beginTurn(
    agent: AgentName,
    options: { readonly createAbsent: boolean; readonly signal?: CancellationSignal },
  ): Promise<AgentTurnInProgress> {
    this.#check([agent]);
    const release = await this.#locks.acquire(keyOf(agent), options.signal);
    try {
      this.#checkOpen();
      if (options.createAbsent && this.#roster.find(agent) === null) await this.#create(agent);
      const manifest = await this.#read(agent);
      this.#requireOurs(manifest);
      this.#parts.memory.adopt(manifest);
      return new TurnInProgress(manifest, (turn) => this.#commitTurn(manifest, turn), release);
    } catch (error) {
      release();
      throw error;
    }
  }

  /** Refuses everything from now on with `disposed` and waits for what was noted. The archive and the memory stay. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await Promise.allSettled(this.#notes);
  }

  async #create(agent: AgentName): Promise<AgentSummary> {
    this.#roster.requireAbsent(agent);
    const { archive, memory, now } = this.#parts;
    const { tenant, name } = agent;
    const summary = await archive.create({ tenant, name, identity: memory.identity, atMs: now() });
    this.#roster.put(summary);
    return summary;
  }

  async #commitTurn(manifest: AgentManifest, turn: FinishedTurn): Promise<AgentSummary> {
    const { archive, memory, now } = this.#parts;
    const { agentId, tokenIds: before } = manifest;
    const atMs = now();
    const startTokens = commonPrefix(before, turn.tokenIds);
    const summary = await archive.commit(agentId, {
      kind: 'turn',
      startTokens,
      ...(startTokens < before.length ? { rewinds: true } : {}),
      tokenIds: turn.tokenIds.slice(startTokens),
      segments: turn.segments,
      atMs,
    });
    memory.follow(manifest, turn.tokenIds);
    const { promptTokens, cachedTokens } = turn;
    this.#note(agentId, archive.note(agentId, { kind: 'use', atMs, promptTokens, cachedTokens }));
    const used = {
      ...summary,
      useCount: summary.useCount + 1,
      promptTokens: summary.promptTokens + promptTokens,
      cachedTokens: summary.cachedTokens + cachedTokens,
    };
    this.#roster.put(used);
    return used;
  }

  async #remove(agent: AgentName, agentId: string): Promise<void> {
    const { archive, memory } = this.#parts;
    await memory.quiesce(agentId);
    try {
      await archive.delete(agentId);
    } catch (error) {
      if (await this.#isStored(agentId)) throw error;
      // Gone for every caller; what is left of its files goes at the next opening.
      memory.forget(agentId);
      this.#roster.remove(agent);
      throw error;
    }
    memory.forget(agentId);
    this.#roster.remove(agent);
  }

  async #isStored(agentId: string): Promise<boolean> {
    try {
      await this.#parts.archive.read(agentId);
      return true;
    } catch (error) {
      if (isKvasirError(error) && error.code === 'agent-not-found') return false;
      throw error;
    }
  }

  /** What follows behind is told of when it fails: nobody waits for it. */
  #note(agentId: string, noting: Promise<void>): void {
    const settled = noting.then(
      () => undefined,
      (error: unknown) => {
        const code = isKvasirError(error) ? error.code : 'internal';
        this.#parts.narrator.narrate({ level: 'warn', name: 'agent-note-failed', facts: { agentId, code } });
      },
    );
    this.#notes.add(settled);
    void settled.then(() => this.#notes.delete(settled));
  }

  /** Runs `work` when nobody else has any of the agents. */
  async #alone<Value>(
    agents: readonly AgentName[],
    signal: CancellationSignal | undefined,
    work: () => Promise<Value>,
  ): Promise<Value> {
    this.#check(agents);
    const release = await this.#locks.acquireAll(agents.map(keyOf), signal);
    try {
      this.#checkOpen();
      return await work();
    } finally {
      release();
    }
  }

  #read(agent: AgentName): Promise<AgentManifest> {
    return this.#parts.archive.read(this.#roster.require(agent).agentId);
  }

  #check(agents: readonly AgentName[]): void {
    this.#checkOpen();
    for (const agent of agents) checkAgentName(agent);
  }

  #checkOpen(): void {
    if (this.#isClosed) throw new KvasirError('disposed', 'agents: expected an open directory, it is closed');
  }

  #isOurs(manifest: AgentManifest): boolean {
    return manifest.identity.modelFingerprint === this.#parts.memory.identity.modelFingerprint;
  }

  #requireOurs(manifest: AgentManifest): void {
    if (this.#isOurs(manifest)) return;
    const expected = this.#parts.memory.identity.modelFingerprint;
    const found = manifest.identity.modelFingerprint;
    throw new KvasirError(
      'agent-other-model',
      `agent ${JSON.stringify(manifest.name)}: expected one of the loaded model (${shortOf(expected)}), found tokens of another (${shortOf(found)}); load that model or use another agent`,
      { facts: { expected, found } },
    );
  }
}

/** No name holds a line feed. */
function keyOf({ tenant, name }: AgentName): string {
  return `${tenant}\n${name}`;
}

export function shortOf(fingerprint: string): string {
  return fingerprint.length > 24 ? `${fingerprint.slice(0, 24)}…` : fingerprint;
}
