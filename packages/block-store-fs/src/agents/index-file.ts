import type { AgentSummary, BlockKey } from '@kvasir/domain';
import { join } from 'node:path';
import type { CacheLayout } from '../files/cache-layout.ts';
import { readWhole, writeAtomically, type FileSystem } from '../files/file-system.ts';
import { toStorageError } from '../files/storage-failure.ts';
import {
  encodeAgent,
  encodeDeleting,
  encodeRemoved,
  encodeSettled,
  encodeTouched,
  INDEX_MAGIC,
  parseIndex,
  type IndexedAgent,
  type IndexState,
} from './agent-index.ts';
import { ReferenceCounts } from './reference-counts.ts';

export interface IndexLimits {
  /** Agents that a crash makes the next opening read one by one. */
  readonly touchedAgents: number;
  /** The index is written anew when it is longer than three times what it says, and this. */
  readonly slackBytes: number;
}

const SLACK_FACTOR = 3;

/**
 * The one index, in memory and as a log on disk. The rule that lets it be trusted after a crash: before an agent's own file
 * is changed for the first time since the index was settled, the index says so (`touched`) and is flushed. Everything else
 * is appended without a flush; what a crash loses of it belongs to touched agents, whose files are read again.
 */
export class IndexFile {
  readonly agents: Map<string, IndexedAgent>;
  readonly deleting: Map<string, readonly BlockKey[]>;
  /** Ids in the order they came, those of deleted agents included: a position in it stays what it is. */
  readonly order: string[];
  readonly #files: FileSystem;
  readonly #layout: CacheLayout;
  readonly #limits: IndexLimits;
  readonly #counts = new ReferenceCounts();
  /** Made when the first agent is created: starting does not wait for it. */
  #names: Map<string, string> | null = null;
  #touched: Set<string>;
  #file: number | null = null;
  #bytes = 0;
  #liveBytes = 0;
  #nextTemporary = 0;

  constructor(files: FileSystem, layout: CacheLayout, state: IndexState, limits: IndexLimits) {
    this.#limits = limits;
    this.#files = files;
    this.#layout = layout;
    this.agents = state.agents;
    this.deleting = state.deleting;
    this.#touched = state.touched;
    this.order = [...state.agents.keys()];
  }

  static read(files: FileSystem, layout: CacheLayout): IndexState | null {
    const bytes = readWhole(files, layout.index);
    return bytes === null ? null : parseIndex(bytes);
  }

  get touched(): ReadonlySet<string> {
    return this.#touched;
  }

  idOf(tenant: string, name: string): string | null {
    this.#names ??= new Map(
      Array.from(this.agents.values(), ({ summary }) => [nameKey(summary), summary.agentId] as const),
    );
    return this.#names.get(nameKey({ tenant, name })) ?? null;
  }

  /** Begins to append to the file as it was read. */
  resume(): void {
    this.#closeFile();
    this.#open();
  }

  /** Must resolve before these agents' files are changed. @throws KvasirError `disk-full`, `disk-unwritable` */
  async touch(agentIds: Iterable<string>): Promise<void> {
    const asked = [...new Set(agentIds)];
    if (asked.every((agentId) => this.#touched.has(agentId))) return;
    // Settling forgets all of them, those asked for among them.
    if (this.#touched.size >= this.#limits.touchedAgents) await this.settle();
    const fresh = asked.filter((agentId) => !this.#touched.has(agentId));
    await this.#append(fresh.map(encodeTouched), 'flushed');
    for (const agentId of fresh) this.#touched.add(agentId);
  }

  /** Takes over what an agent's file says now. The agent was touched, so a write that fails loses nothing. */
  async put(summary: AgentSummary, keys: readonly BlockKey[]): Promise<void> {
    const record = encodeAgent(summary, keys);
    this.adopt(summary, keys, record.length);
    await this.#append([record], 'written');
  }

  /** As `put`, in memory only: `rewrite` follows. */
  adopt(summary: AgentSummary, keys: readonly BlockKey[], recordBytes = 0): void {
    const { agentId } = summary;
    const before = this.agents.get(agentId);
    if (before === undefined) this.order.push(agentId);
    if (this.#counts.isBuilt) this.#counts.replace(before?.keys() ?? [], keys);
    this.agents.set(agentId, { summary, recordBytes, keys: () => keys });
    this.#liveBytes += recordBytes - (before?.recordBytes ?? 0);
    this.#names?.set(nameKey(summary), agentId);
  }

  /** The agent is gone for everybody; its keys stay known until the deletion is finished. */
  async beginDeletion(agentId: string, keys: readonly BlockKey[]): Promise<void> {
    await this.#append([encodeDeleting(agentId, keys)], 'flushed');
    this.forget(agentId);
    this.deleting.set(agentId, keys);
  }

  async finishDeletion(agentId: string): Promise<void> {
    this.deleting.delete(agentId);
    this.#touched.delete(agentId);
    await this.#append([encodeRemoved(agentId)], 'written');
  }

  forget(agentId: string): void {
    const agent = this.agents.get(agentId);
    if (agent === undefined) return;
    if (this.#counts.isBuilt) this.#counts.replace(agent.keys(), []);
    this.agents.delete(agentId);
    this.#liveBytes -= agent.recordBytes;
    this.#names?.delete(nameKey(agent.summary));
  }

  orphans(keys: readonly BlockKey[]): readonly BlockKey[] {
    return this.#counts.orphans(keys, this.agents);
  }

  /** Everything said so far holds; agents' files must have been flushed before. */
  async settle(): Promise<void> {
    if (this.#touched.size === 0) return;
    await this.#append([encodeSettled()], 'flushed');
    this.#touched = new Set();
  }

  /** Writes the index anew; also the way out after a write that failed halfway. */
  async rewrite(): Promise<void> {
    const pieces: Uint8Array[] = [Buffer.from(INDEX_MAGIC, 'latin1')];
    for (const { summary, keys } of this.agents.values()) {
      const record = encodeAgent(summary, keys());
      this.agents.set(summary.agentId, { summary, recordBytes: record.length, keys });
      pieces.push(record);
    }
    for (const [agentId, keys] of this.deleting) pieces.push(encodeDeleting(agentId, keys));
    for (const agentId of this.#touched) pieces.push(encodeTouched(agentId));
    const temporary = join(this.#layout.agentsTemporary, `index.${this.#nextTemporary++}`);
    this.#closeFile();
    try {
      const place = { directory: this.#layout.directory, path: this.#layout.index, temporary };
      await writeAtomically(this.#files, place, [Buffer.concat(pieces)]);
    } catch (error) {
      throw toStorageError(error, 'writing the index of agents');
    }
    this.resume();
  }

  close(): void {
    this.#closeFile();
  }

  // ------------------------------------------------------------------------------------------------------------- pieces

  /** @throws KvasirError `disk-full`, `disk-unwritable` */
  async #append(records: readonly Uint8Array[], until: 'written' | 'flushed'): Promise<void> {
    // Left closed by a failure: what the file holds is not known, so it is replaced.
    if (this.#file === null || this.#bytes > SLACK_FACTOR * this.#liveBytes + this.#limits.slackBytes)
      await this.rewrite();
    const file = this.#file ?? this.#open();
    try {
      this.#files.write(file, records);
      for (const record of records) this.#bytes += record.length;
      if (until === 'flushed') await this.#files.flush([file]);
    } catch (error) {
      this.#closeFile();
      throw toStorageError(error, 'writing the index of agents');
    }
  }

  #open(): number {
    this.#bytes = this.#files.describe(this.#layout.index)?.bytes ?? 0;
    this.#liveBytes = 0;
    for (const { recordBytes } of this.agents.values()) this.#liveBytes += recordBytes;
    this.#file = this.#files.open(this.#layout.index, 'append');
    return this.#file;
  }

  #closeFile(): void {
    if (this.#file !== null) this.#files.close(this.#file);
    this.#file = null;
  }
}

function nameKey({ tenant, name }: { readonly tenant: string; readonly name: string }): string {
  return JSON.stringify([tenant, name]);
}
