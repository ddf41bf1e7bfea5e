import {
  isKvasirError,
  KvasirError,
  type AgentArchive,
  type AgentArchiveUsage,
  type AgentEntry,
  type AgentManifest,
  type AgentSummary,
  type BlockKey,
  type CommitEntry,
  type Narrator,
  type NewAgent,
  type NoteEntry,
} from '@kvasir/domain';
import { isAgentId } from './files/cache-layout.ts';
import type { ArchiveCalls } from './threads/messages.ts';
import type { WorkerThread } from './threads/worker-thread.ts';

export interface AgentArchiveParts {
  readonly archive: WorkerThread<ArchiveCalls>;
  readonly removeBlocks: (keys: readonly BlockKey[]) => Promise<unknown>;
  readonly narrator: Narrator | undefined;
}

/** AgentArchive over one cache directory: this side checks ids and joins the archive with the block store. */
export class FsAgentArchive implements AgentArchive {
  readonly #parts: AgentArchiveParts;
  readonly #running = new Set<Promise<unknown>>();
  #isClosed = false;

  constructor(parts: AgentArchiveParts) {
    this.#parts = parts;
  }

  async *list(): AsyncGenerator<readonly AgentSummary[]> {
    for (let position: number | null = 0; position !== null; ) {
      const from: number = position;
      const page = await this.#run(() => this.#parts.archive.call('list', from));
      if (page.summaries.length > 0) yield page.summaries;
      position = page.next;
    }
  }

  create(agent: NewAgent): Promise<AgentSummary> {
    return this.#run(() => this.#parts.archive.call('create', agent));
  }

  commit(agentId: string, entry: CommitEntry): Promise<AgentSummary> {
    return this.#apply(agentId, entry, true);
  }

  async note(agentId: string, entry: NoteEntry): Promise<void> {
    await this.#apply(agentId, entry, false);
  }

  read(agentId: string): Promise<AgentManifest> {
    return this.#run(() => this.#parts.archive.call('read', requireId(agentId)));
  }

  delete(agentId: string): Promise<readonly BlockKey[]> {
    return this.#run(async () => {
      await this.#parts.archive.call('beginDeletion', requireId(agentId));
      return this.#removeAll(agentId, false);
    });
  }

  usage(): Promise<AgentArchiveUsage> {
    return this.#run(() => this.#parts.archive.call('usage', null));
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    await Promise.allSettled(this.#running);
    try {
      await this.#parts.archive.call('close', null);
    } finally {
      await this.#parts.archive.end();
    }
  }

  /** What a process that ended midway left; a disk that refuses leaves it for the next opening. */
  async finishDeletions(agentIds: readonly string[]): Promise<void> {
    for (const agentId of agentIds) {
      try {
        await this.#removeAll(agentId, true);
        this.#narrate('info', 'agent-deletion-finished', { agentId });
      } catch (error) {
        if (!isKvasirError(error)) throw error;
        this.#narrate('warn', 'agent-deletion-postponed', { agentId, code: error.code });
      }
    }
  }

  /** References noted so far outlive a power cut when it resolves. */
  async flushReferences(): Promise<void> {
    if (!this.#isClosed) await this.#parts.archive.call('flushNotes', null);
  }

  async #removeAll(agentId: string, isLeftover: boolean): Promise<readonly BlockKey[]> {
    const { archive, removeBlocks } = this.#parts;
    const orphans = await archive.call('removeFiles', agentId);
    await removeBlocks(orphans);
    await archive.call('finishDeletion', { agentId, isLeftover });
    return orphans;
  }

  #apply(agentId: string, entry: AgentEntry, isCommit: boolean): Promise<AgentSummary> {
    return this.#run(() => this.#parts.archive.call('apply', { agentId: requireId(agentId), entry, isCommit }));
  }

  #narrate(level: 'info' | 'warn', name: string, facts: Record<string, string>): void {
    this.#parts.narrator?.narrate({ level, name, facts });
  }

  async #run<Value>(work: () => Promise<Value>): Promise<Value> {
    if (this.#isClosed) throw new KvasirError('disposed', 'agent archive: expected an open one, it is closed');
    const running = work();
    this.#running.add(running);
    try {
      return await running;
    } finally {
      this.#running.delete(running);
    }
  }
}

/** An id becomes a file name, so it is checked here and nowhere trusted. */
function requireId(agentId: string): string {
  if (isAgentId(agentId)) return agentId;
  throw new KvasirError('agent-not-found', 'agent: expected an id of 32 hex digits, found another text');
}
