import { KvasirError, type AgentManifest } from '@kvasir/domain';
import { join } from 'node:path';
import type { CacheLayout } from '../files/cache-layout.ts';
import { readWhole, writeAtomically, type FileSystem } from '../files/file-system.ts';
import type { Quarantine } from '../files/quarantine.ts';
import { isFileFailure } from '../files/storage-failure.ts';
import { blockSubject } from '../files/quarantine.ts';
import { encodeAgentFile, parseAgentFile } from './agent-file.ts';

/** Agents whose manifests and descriptors are held. */
const MAX_OPEN = 128;
export interface OpenAgent {
  manifest: AgentManifest;
  /** Open for appending, null until somebody does. */
  file: number | null;
  bytes: number;
  numEntries: number;
  /** A write or flush failed: what the file holds is not known, and it is written anew before anything else. */
  isSuspect: boolean;
}

export interface JournalCounters {
  tornTails: number;
  damagedJournals: number;
}

/** The agents' own files: read when first needed, cut where a crash left them unfinished, appended to, written anew. */
export class AgentJournals {
  readonly counters: JournalCounters = { tornTails: 0, damagedJournals: 0 };
  readonly #files: FileSystem;
  readonly #layout: CacheLayout;
  readonly #quarantine: Quarantine;
  readonly #maxEntries: number;
  /** In the order of use, latest last. */
  readonly #open = new Map<string, OpenAgent>();
  /** Agents with noted entries that were written and not flushed. */
  readonly #unflushed = new Set<string>();
  #nextTemporary = 0;

  /** @param maxEntries a journal longer than this is replaced by a manifest */
  constructor(files: FileSystem, layout: CacheLayout, quarantine: Quarantine, maxEntries: number) {
    this.#files = files;
    this.#layout = layout;
    this.#quarantine = quarantine;
    this.#maxEntries = maxEntries;
  }

  /** @throws KvasirError `file-corrupt` when not even the manifest can be read; file system errors */
  async load(agentId: string): Promise<OpenAgent> {
    const held = this.#open.get(agentId);
    if (held !== undefined) {
      this.#open.delete(agentId);
      this.#open.set(agentId, held);
      return held;
    }
    const path = this.#layout.agentFile(agentId);
    const bytes = readWhole(this.#files, path) ?? new Uint8Array();
    const parsed = parseAgentFile(bytes, agentId);
    if (parsed === null) {
      throw new KvasirError(
        'file-corrupt',
        `${path}: expected an agent's manifest, found other bytes; delete the agent or restore the file`,
        { facts: { path, agentId } },
      );
    }
    const agent: OpenAgent = {
      manifest: this.#withoutGoneBlocks(parsed.manifest),
      file: null,
      bytes: parsed.goodBytes,
      numEntries: parsed.numEntries,
      isSuspect: false,
    };
    if (parsed.ending !== 'whole') await this.#cut(agentId, agent, bytes, parsed.ending);
    await this.#makeRoom();
    this.#open.set(agentId, agent);
    return agent;
  }

  /** A file for a new agent. Flushed when it resolves. */
  async create(manifest: AgentManifest): Promise<void> {
    await this.#writeWhole(manifest);
  }

  /** Appends without a flush. The caller handles failures by marking the agent as suspect. */
  append(agentId: string, agent: OpenAgent, frames: readonly Uint8Array[]): void {
    agent.file ??= this.#files.open(this.#layout.agentFile(agentId), 'append');
    this.#files.write(agent.file, frames);
    for (const frame of frames) agent.bytes += frame.length;
    agent.numEntries += frames.length;
    this.#unflushed.add(agentId);
  }

  /** One flush for each of these agents that needs it, all at once. */
  async flush(agentIds: readonly string[]): Promise<void> {
    const waiting = agentIds.filter((agentId) => this.#unflushed.has(agentId));
    const files = waiting.flatMap((agentId) => this.#open.get(agentId)?.file ?? []);
    if (files.length > 0) await this.#files.flush(files);
    for (const agentId of waiting) this.#unflushed.delete(agentId);
  }

  get unflushed(): readonly string[] {
    return [...this.#unflushed];
  }

  /** Replaces the file by one that holds `manifest` and no journal. Flushed when it resolves. */
  async rewrite(agentId: string, agent: OpenAgent, manifest: AgentManifest): Promise<void> {
    this.#closeFile(agent);
    agent.isSuspect = true;
    agent.bytes = await this.#writeWhole(manifest);
    agent.manifest = manifest;
    agent.numEntries = 0;
    agent.isSuspect = false;
    this.#unflushed.delete(agentId);
  }

  /** Whether what the journal holds is mostly history. */
  isLong(agent: OpenAgent): boolean {
    const needed = agent.manifest.tokenIds.length * 4 + agent.manifest.turns.length * 256;
    return agent.numEntries > this.#maxEntries || agent.bytes > 4 * needed + (1 << 18);
  }

  /** After this nobody can read the agent again; flushed when it resolves. */
  async remove(agentId: string): Promise<void> {
    this.forget(agentId);
    this.#files.remove(this.#layout.agentFile(agentId));
    const kept = this.#quarantine.forget(new Set([agentId]));
    const folder = this.#layout.agentFolder(agentId);
    this.#files.makeDirectory(folder);
    await this.#files.flushDirectories(kept.size > 0 ? [folder, this.#layout.quarantine] : [folder]);
  }

  forget(agentId: string): void {
    const agent = this.#open.get(agentId);
    if (agent !== undefined) this.#closeFile(agent);
    this.#open.delete(agentId);
    this.#unflushed.delete(agentId);
  }

  closeAll(): void {
    for (const agentId of this.#open.keys()) this.forget(agentId);
  }

  // ------------------------------------------------------------------------------------------------------------- pieces

  async #writeWhole(manifest: AgentManifest): Promise<number> {
    const bytes = encodeAgentFile(manifest);
    const directory = this.#layout.agentFolder(manifest.agentId);
    const isNew = this.#files.describe(directory) === null;
    this.#files.makeDirectory(directory);
    if (isNew) await this.#files.flushDirectories([this.#layout.agents]);
    const temporary = join(this.#layout.agentsTemporary, String(this.#nextTemporary++));
    const path = this.#layout.agentFile(manifest.agentId);
    await writeAtomically(this.#files, { directory, path, temporary }, [bytes]);
    return bytes.length;
  }

  /** Makes the file end with its last whole record; what is cut is kept aside, for it may be more than a torn write. */
  async #cut(agentId: string, agent: OpenAgent, bytes: Uint8Array, ending: 'torn' | 'damaged'): Promise<void> {
    if (ending === 'torn') this.counters.tornTails++;
    else this.counters.damagedJournals++;
    try {
      this.#quarantine.keepCopy(bytes.subarray(agent.bytes), agentId, ending);
      agent.file = this.#files.open(this.#layout.agentFile(agentId), 'append');
      this.#files.truncate(agent.file, agent.bytes);
      await this.#files.flush([agent.file]);
    } catch (error) {
      // A disk that refuses: the part that is whole can be read; before anything is added the file is written anew.
      if (!isFileFailure(error)) throw error;
      this.#closeFile(agent);
      agent.isSuspect = true;
    }
  }

  async #makeRoom(): Promise<void> {
    if (this.#open.size < MAX_OPEN) return;
    await this.flush(this.unflushed);
    for (const [agentId, agent] of this.#open) {
      if (this.#open.size < MAX_OPEN) return;
      if (!agent.isSuspect) this.forget(agentId);
    }
  }

  /**
   * Former blocks whose files are gone need no longer be remembered. Decided when an agent is loaded and not later: a block
   * is noted, which loads its agent, before it is put, so none of these is on its way to the disk.
   */
  #withoutGoneBlocks(manifest: AgentManifest): AgentManifest {
    if (manifest.formerBlocks.length === 0) return manifest;
    const kept = this.#quarantine.subjects();
    const formerBlocks = manifest.formerBlocks.filter(({ hash, group }) => {
      const isThere = this.#files.describe(this.#layout.blockFile(hash, group)) !== null;
      return isThere || kept.has(blockSubject(hash, group));
    });
    return { ...manifest, formerBlocks };
  }

  #closeFile(agent: OpenAgent): void {
    const { file } = agent;
    agent.file = null;
    if (file !== null) this.#files.close(file);
  }
}
