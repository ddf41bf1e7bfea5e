import {
  applyAgentEntry,
  KvasirError,
  summarizeAgent,
  type AgentArchiveUsage,
  type AgentEntry,
  type AgentManifest,
  type AgentSummary,
  type BlockKey,
  type NewAgent,
} from '@kvasir/domain';
import { join } from 'node:path';
import { FOLDERS, isAgentId, type CacheLayout } from '../files/cache-layout.ts';
import { readWhole, type FileSystem } from '../files/file-system.ts';
import { Quarantine } from '../files/quarantine.ts';
import { isFileFailure, toStorageError } from '../files/storage-failure.ts';
import { encodeEntry } from './agent-codec.ts';
import { parseAgentFile } from './agent-file.ts';
import { keysOfManifest } from './agent-index.ts';
import { AgentJournals, type OpenAgent } from './agent-journals.ts';
import { IndexFile, type IndexLimits } from './index-file.ts';
import { manifestOfNewAgent } from './new-agent.ts';
import { frameRecord } from './record-log.ts';

export interface ArchiveContext {
  readonly files: FileSystem;
  readonly layout: CacheLayout;
  readonly now: () => number;
  /** 32 random lower-case hex digits. */
  readonly newAgentId: () => string;
  readonly limits?: ArchiveLimits;
}

export interface ArchiveLimits extends IndexLimits {
  /** A journal longer than this is replaced by a manifest. */
  readonly journalEntries: number;
}

const LIMITS: ArchiveLimits = { touchedAgents: 256, slackBytes: 1 << 20, journalEntries: 512 };

export interface EntryJob {
  readonly agentId: string;
  readonly entry: AgentEntry;
  /** Whether its owner waits for the flush. */
  readonly isCommit: boolean;
}

export type EntryOutcome = { readonly summary: AgentSummary } | { readonly error: unknown };

/** Fewer agents than are held open: none of a group is closed while the group runs. */
export const MAX_GROUP = 64;
/** Of a listing: a message costs more than what is in it, and other calls wait for a page at most. */
const PAGE = 1024;

interface Change {
  readonly agent: OpenAgent;
  manifest: AgentManifest;
  readonly frames: Uint8Array[];
  readonly jobs: number[];
  isCommit: boolean;
}

/**
 * The one writer of agents' files and their index. Lives in a worker thread; its methods are called one after another,
 * each when the one before has resolved.
 */
export class ArchiveKeeper {
  readonly #context: ArchiveContext;
  readonly #journals: AgentJournals;
  readonly #quarantine: Quarantine;
  readonly #index: IndexFile;
  readonly #opening: AgentArchiveUsage['opening'];
  readonly #counters = { commits: 0, flushes: 0, indexRebuilds: 0, deletionsFinished: 0, writeFailures: 0 };

  private constructor(context: ArchiveContext, found: ReturnType<typeof IndexFile.read>) {
    const { files, layout, now, limits = LIMITS } = context;
    this.#context = context;
    this.#quarantine = new Quarantine(files, layout, now);
    this.#journals = new AgentJournals(files, layout, this.#quarantine, limits.journalEntries);
    const none = { agents: new Map(), touched: new Set<string>(), deleting: new Map(), isWhole: false };
    // A damaged index still knows which deletions had begun: those agents must not come back.
    const trusted = found?.isWhole === true ? found : { ...none, deleting: found?.deleting ?? new Map() };
    this.#index = new IndexFile(files, layout, trusted, limits);
    const isEmpty = found === null && FOLDERS.every((folder) => files.list(join(layout.agents, folder)).length === 0);
    if (found?.isWhole === true) this.#opening = found.touched.size === 0 ? 'clean' : 'recovered';
    else this.#opening = isEmpty ? 'new' : 'rebuilt';
  }

  /**
   * Reads the index, and only what it says it cannot vouch for.
   * @throws KvasirError `disk-full`, `disk-unwritable`
   */
  static async open(context: ArchiveContext): Promise<ArchiveKeeper> {
    const { files, layout } = context;
    try {
      for (const directory of [layout.agents, layout.agentsTemporary, layout.quarantine])
        files.makeDirectory(directory);
      await files.flushDirectories([layout.directory]);
      for (const name of files.list(layout.agentsTemporary)) files.remove(join(layout.agentsTemporary, name));
      const keeper = new ArchiveKeeper(context, IndexFile.read(files, layout));
      await keeper.#bringUpToDate();
      return keeper;
    } catch (error) {
      throw toStorageError(error, 'opening the archive of agents');
    }
  }

  list(position: number): { readonly summaries: readonly AgentSummary[]; readonly next: number | null } {
    const { order, agents } = this.#index;
    const ids = order.slice(position, position + PAGE);
    const next = position + ids.length;
    return {
      summaries: ids.flatMap((agentId) => agents.get(agentId)?.summary ?? []),
      next: next < order.length ? next : null,
    };
  }

  async create(agent: NewAgent): Promise<AgentSummary> {
    const taken = this.#index.idOf(agent.tenant, agent.name);
    if (taken !== null) {
      throw new KvasirError(
        'agent-exists',
        'agent: expected a name nobody has, found one that is taken; choose another',
        {
          facts: { agentId: taken },
        },
      );
    }
    const manifest = manifestOfNewAgent(agent, this.#context.newAgentId());
    return this.#guard('creating an agent', async () => {
      await this.#index.touch([manifest.agentId]);
      await this.#journals.create(manifest);
      const summary = summarizeAgent(manifest);
      await this.#indexAgent(manifest);
      return summary;
    });
  }

  /** Entries of one agent apply in order; one that is refused leaves the others as they are. At most MAX_GROUP. */
  async apply(jobs: readonly EntryJob[]): Promise<readonly EntryOutcome[]> {
    const outcomes: EntryOutcome[] = [];
    const changes = await this.#prepare(jobs, outcomes);
    const failAll = (group: Iterable<Change>, error: unknown): void => {
      const failure = toStorageError(error, 'writing an agent');
      this.#counters.writeFailures++;
      for (const change of group) for (const job of change.jobs) outcomes[job] = { error: failure };
    };
    try {
      await this.#index.touch(changes.keys());
    } catch (error) {
      failAll(changes.values(), error);
      return outcomes;
    }
    const written = new Map<string, Change>();
    for (const [agentId, change] of changes) {
      try {
        if (change.agent.isSuspect) await this.#journals.rewrite(agentId, change.agent, change.manifest);
        else this.#journals.append(agentId, change.agent, change.frames);
        written.set(agentId, change);
      } catch (error) {
        change.agent.isSuspect = true;
        failAll([change], error);
      }
    }
    const awaited = [...written].filter(([, change]) => change.isCommit).map(([agentId]) => agentId);
    try {
      if (awaited.length > 0) {
        await this.#journals.flush(awaited);
        this.#counters.flushes++;
      }
    } catch (error) {
      // What a failed flush has kept cannot be known: the files are written anew from what was promised before.
      for (const agentId of awaited) {
        const change = written.get(agentId);
        if (change === undefined) continue;
        change.agent.isSuspect = true;
        failAll([change], error);
        written.delete(agentId);
      }
    }
    for (const change of written.values()) await this.#conclude(change, jobs, outcomes);
    return outcomes;
  }

  async read(agentId: string): Promise<AgentManifest> {
    return this.#guard('reading an agent', async () => (await this.#require(agentId)).manifest);
  }

  /** Flushes what was noted: blocks that are put from now on are known to their agents after a power cut. */
  async flushNotes(): Promise<void> {
    await this.#guard('flushing agents', async () => {
      await this.#journals.flush(this.#journals.unflushed);
    });
  }

  /** The agent is gone for callers when it resolves; its files go with `removeFiles`. */
  async beginDeletion(agentId: string): Promise<void> {
    const agent = this.#index.agents.get(agentId);
    if (agent === undefined) throw notFound(agentId);
    await this.#guard('deleting an agent', () => this.#index.beginDeletion(agentId, agent.keys()));
  }

  get deletions(): readonly string[] {
    return [...this.#index.deleting.keys()];
  }

  /** @returns blocks that nobody refers to any more: to be removed before `finishDeletion` */
  async removeFiles(agentId: string): Promise<readonly BlockKey[]> {
    const keys = this.#index.deleting.get(agentId) ?? [];
    return this.#guard('deleting an agent', async () => {
      await this.#journals.remove(agentId);
      return this.#index.orphans(keys);
    });
  }

  async finishDeletion(agentId: string, isLeftover: boolean): Promise<void> {
    if (isLeftover) this.#counters.deletionsFinished++;
    await this.#guard('deleting an agent', () => this.#index.finishDeletion(agentId));
  }

  usage(): AgentArchiveUsage {
    return {
      agents: this.#index.agents.size,
      opening: this.#opening,
      ...this.#counters,
      ...this.#journals.counters,
    };
  }

  /** Flushes everything and settles the index, so that the next opening trusts it. */
  async close(): Promise<void> {
    await this.#guard('closing the archive', async () => {
      await this.#journals.flush(this.#journals.unflushed);
      this.#journals.closeAll();
      await this.#index.settle();
      this.#index.close();
    });
  }

  // ------------------------------------------------------------------------------------------------------------ opening

  async #bringUpToDate(): Promise<void> {
    const { files, layout } = this.#context;
    if (this.#opening === 'clean') {
      this.#index.resume();
      return;
    }
    if (this.#opening === 'recovered') {
      this.#index.resume();
      for (const agentId of this.#index.touched) await this.#takeIn(agentId);
      await this.#index.settle();
      return;
    }
    if (this.#opening === 'rebuilt') {
      this.#counters.indexRebuilds++;
      for (const folder of FOLDERS) {
        for (const name of files.list(join(layout.agents, folder))) {
          if (isAgentId(name) && !this.#index.deleting.has(name)) await this.#takeIn(name);
        }
      }
    }
    await this.#index.rewrite();
  }

  /** Believes the agent's own file. */
  async #takeIn(agentId: string): Promise<void> {
    const { files, layout } = this.#context;
    if (this.#index.deleting.has(agentId)) return;
    const path = layout.agentFile(agentId);
    const bytes = readWhole(files, path);
    const parsed = bytes === null ? null : parseAgentFile(bytes, agentId);
    if (parsed === null) {
      this.#index.forget(agentId);
      if (bytes === null) return;
      this.#journals.counters.damagedJournals++;
      this.#quarantine.take(path, agentId, 'unreadable');
      return;
    }
    const { manifest } = parsed;
    if (this.#opening === 'rebuilt') this.#index.adopt(summarizeAgent(manifest), keysOfManifest(manifest));
    else await this.#indexAgent(manifest);
  }

  // ----------------------------------------------------------------------------------------------------------- applying

  async #prepare(jobs: readonly EntryJob[], outcomes: EntryOutcome[]): Promise<Map<string, Change>> {
    const changes = new Map<string, Change>();
    for (const [index, { agentId, entry, isCommit }] of jobs.entries()) {
      try {
        let change = changes.get(agentId);
        if (change === undefined) {
          const agent = await this.#require(agentId);
          change = { agent, manifest: agent.manifest, frames: [], jobs: [], isCommit: false };
        }
        change.manifest = applyAgentEntry(change.manifest, entry);
        change.frames.push(frameRecord(encodeEntry(entry)));
        change.jobs.push(index);
        change.isCommit ||= isCommit;
        changes.set(agentId, change);
      } catch (error) {
        outcomes[index] = { error: toStorageError(error, 'reading an agent') };
      }
    }
    return changes;
  }

  async #conclude(change: Change, jobs: readonly EntryJob[], outcomes: EntryOutcome[]): Promise<void> {
    const { agent, manifest } = change;
    agent.manifest = manifest;
    const summary = summarizeAgent(manifest);
    for (const job of change.jobs) {
      outcomes[job] = { summary };
      if (jobs[job]?.isCommit === true) this.#counters.commits++;
    }
    await this.#indexAgent(manifest);
    if (!this.#journals.isLong(agent)) return;
    try {
      await this.#journals.rewrite(manifest.agentId, agent, manifest);
    } catch (error) {
      // The entry itself is flushed, or written as promised; the agent stays suspect and is rewritten with the next one.
      if (!isFileFailure(error)) throw error;
      this.#counters.writeFailures++;
    }
  }

  /** The index follows the agent's file; when it cannot, the agent stays touched and the next opening looks itself. */
  async #indexAgent(manifest: AgentManifest): Promise<void> {
    try {
      await this.#index.put(summarizeAgent(manifest), keysOfManifest(manifest));
    } catch (error) {
      if (!(error instanceof KvasirError)) throw error;
      this.#counters.writeFailures++;
    }
  }

  async #require(agentId: string): Promise<OpenAgent> {
    if (!this.#index.agents.has(agentId)) throw notFound(agentId);
    return this.#journals.load(agentId);
  }

  async #guard<Value>(what: string, work: () => Promise<Value>): Promise<Value> {
    try {
      return await work();
    } catch (error) {
      if (isFileFailure(error)) this.#counters.writeFailures++;
      throw toStorageError(error, what);
    }
  }
}

function notFound(agentId: string): KvasirError {
  return new KvasirError('agent-not-found', `agent ${agentId}: expected one that exists, found none`, {
    facts: { agentId },
  });
}
