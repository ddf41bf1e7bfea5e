import type { BlockKey, BlockReference } from '@kvasir/domain';
import { blockOf, hashOf, IDENTITY, requestOf } from '@kvasir/port-contracts';
import { ArchiveKeeper, type ArchiveContext, type EntryJob } from '../../src/agents/archive-keeper.ts';
import { BlockKeeper } from '../../src/blocks/block-keeper.ts';
import { readBlock } from '../../src/blocks/block-reader.ts';
import { CacheLayout } from '../../src/files/cache-layout.ts';
import { makeDurableDirectory } from '../../src/files/file-system.ts';
import type { FaultFileSystem, Operation } from './fault-file-system.ts';

/** What a caller was told, and what it had asked for by then: the yardstick for a disk after a crash. */
export interface Told {
  /** Token histories: `states[0]` at creation, then one a commit. `known` and `asked` index into it; -1: not created. */
  readonly agents: Map<string, { states: readonly number[][]; known: number; asked: number; fate: Fate }>;
  /** Seeds of blocks that were reported stored and not yet asked to be removed. */
  readonly stored: Set<number>;
}

type Fate = 'alive' | 'being-deleted' | 'deleted';

export const LAYOUT = new CacheLayout('/cache');
const BUDGETS = { keptBytes: Infinity, writtenBytes: Infinity, periodMs: 1000 };
/** Small, so that a short story rewrites journals and the index. */
const LIMITS = { touchedAgents: 2, slackBytes: 1200, journalEntries: 5 };

export interface OpenedCores {
  readonly archive: ArchiveKeeper;
  readonly blocks: BlockKeeper;
}

/** The cold tier without its threads. */
export async function openCores(files: FaultFileSystem): Promise<OpenedCores> {
  await makeDurableDirectory(files, LAYOUT.directory);
  let nextId = files.list(LAYOUT.agents).length + files.log.length;
  const context: ArchiveContext = {
    files,
    layout: LAYOUT,
    now: () => 1000,
    newAgentId: () => hashOf(nextId++).slice(0, 32),
    limits: LIMITS,
  };
  const archive = await ArchiveKeeper.open(context);
  const blocks = await BlockKeeper.open({ files, layout: LAYOUT, budgets: BUDGETS, now: () => 1000 });
  for (const agentId of archive.deletions) {
    await blocks.remove(await archive.removeFiles(agentId));
    await archive.finishDeletion(agentId, true);
  }
  return { archive, blocks };
}

export async function closeCores({ archive, blocks }: OpenedCores): Promise<void> {
  await blocks.close();
  await archive.close();
}

/** Tokens no other agent has: `owner` in the upper half makes every one of them recognisable in a file. */
export function tokensOf(owner: number, start: number, count: number): number[] {
  return Array.from({ length: count }, (_, index) => 0x5a000000 + owner * 0x10000 + start + index);
}

/** Lives through everything the cold tier does, telling the log what its callers were told. */
export class Story {
  readonly #files: FaultFileSystem;
  #cores: OpenedCores;
  readonly #ids = new Map<string, string>();
  readonly #tokens = new Map<string, number[]>();

  private constructor(files: FaultFileSystem, cores: OpenedCores) {
    this.#files = files;
    this.#cores = cores;
  }

  static async run(files: FaultFileSystem): Promise<void> {
    const story = new Story(files, await openCores(files));
    await story.#create('a', 1, 3);
    await story.#create('b', 2, 0);
    await story.#turns([
      ['a', 5],
      ['b', 20],
    ]);
    await story.#save('a', 1, [10, 11]);
    await story.#turns([['a', 40]]);
    await story.#save('a', 1, [10, 11, 12]);
    await story.#save('b', 2, [10]);
    await story.#create('c', 3, 16);
    await story.#save('c', 3, [30, 31]);
    await story.#turns([
      ['c', 7],
      ['a', 9],
      ['b', 3],
    ]);
    await story.#rewind('a', 8);
    await story.#delete('c', [30, 31]);
    for (let round = 0; round < 4; round++)
      await story.#turns([
        ['b', 2],
        ['a', 1],
      ]);
    await closeCores(story.#cores);
    story.#cores = await openCores(files);
    await story.#turns([['b', 4]]);
    await story.#create('c', 4, 5);
    await story.#turns([
      ['b', 1],
      ['a', 1],
    ]);
    await story.#delete('a', [11, 12]);
    await story.#turns([
      ['c', 6],
      ['b', 1],
    ]);
    await story.#save('c', 4, [10, 40]);
    await closeCores(story.#cores);
  }

  async #create(name: string, owner: number, count: number): Promise<void> {
    const tokens = tokensOf(owner, 0, count);
    this.#tokens.set(name, tokens);
    this.#files.tell(JSON.stringify({ asked: name, tokens, isNew: true }));
    const agent = { tenant: 't', name, identity: IDENTITY, atMs: 1, tokenIds: Int32Array.from(tokens) };
    const { agentId } = await this.#cores.archive.create(agent);
    this.#ids.set(name, agentId);
    this.#files.tell(JSON.stringify({ done: name }));
  }

  async #turns(turns: readonly (readonly [string, number])[]): Promise<void> {
    const jobs: EntryJob[] = turns.map(([name, count]) => {
      const before = this.#tokens.get(name) ?? [];
      const owner = ((before[0] ?? tokensOf({ a: 1, b: 2, c: 3 }[name] ?? 0, 0, 1)[0] ?? 0) >> 16) & 0xff;
      const added = tokensOf(owner, 1000 + before.length, count);
      this.#tokens.set(name, [...before, ...added]);
      this.#files.tell(JSON.stringify({ asked: name, tokens: [...before, ...added] }));
      const tokenIds = Int32Array.from(added);
      const entry = { kind: 'turn', startTokens: before.length, tokenIds, segments: '{}', atMs: 2 } as const;
      return { agentId: this.#idOf(name), entry, isCommit: true };
    });
    const outcomes = await this.#cores.archive.apply(jobs);
    for (const outcome of outcomes) if ('error' in outcome) throw outcome.error;
    for (const [name] of turns) this.#files.tell(JSON.stringify({ done: name }));
  }

  async #rewind(name: string, numTokens: number): Promise<void> {
    const tokens = (this.#tokens.get(name) ?? []).slice(0, numTokens);
    this.#tokens.set(name, tokens);
    this.#files.tell(JSON.stringify({ asked: name, tokens }));
    const entry = { kind: 'rewind', numTokens, atMs: 3 } as const;
    await this.#cores.archive.apply([{ agentId: this.#idOf(name), entry, isCommit: true }]);
    this.#files.tell(JSON.stringify({ done: name }));
  }

  /** References first, then the blocks, as the port asks. */
  async #save(name: string, owner: number, seeds: readonly number[]): Promise<void> {
    const references: BlockReference[] = seeds.map((seed, index) => ({
      startToken: index,
      numTokens: 1,
      hash: hashOf(seed),
    }));
    const entry = { kind: 'blocks', group: 0, keep: 0, blocks: references } as const;
    await this.#cores.archive.apply([{ agentId: this.#idOf(name), entry, isCommit: false }]);
    await this.#cores.archive.flushNotes();
    const results = await this.#cores.blocks.put(
      seeds.map((seed) => storedBlock(seed, seed === 10 ? 9 : owner)),
      () => false,
    );
    for (const [index, result] of results.entries()) {
      if (result === 'stored' || result === 'present') this.#files.tell(JSON.stringify({ stored: seeds[index] }));
    }
  }

  async #delete(name: string, orphanSeeds: readonly number[]): Promise<void> {
    const agentId = this.#idOf(name);
    this.#files.tell(JSON.stringify({ deleting: name, seeds: orphanSeeds }));
    await this.#cores.archive.beginDeletion(agentId);
    await this.#cores.blocks.remove(await this.#cores.archive.removeFiles(agentId));
    await this.#cores.archive.finishDeletion(agentId, false);
    this.#files.tell(JSON.stringify({ deleted: name }));
  }

  #idOf(name: string): string {
    return this.#ids.get(name) ?? '';
  }
}

/** A block of 8 tokens that belong to `owner`; owner 9 is nobody: a shared preamble. */
export function storedBlock(seed: number, owner: number) {
  return {
    ...blockOf(seed, { numTokens: 8, isShared: false }),
    tokenIds: Int32Array.from(tokensOf(owner, 500 + seed, 8)),
  };
}

const OWNERS: Readonly<Record<number, number>> = { 10: 9, 11: 1, 12: 1, 30: 3, 31: 3, 40: 4 };
export const SEEDS = Object.keys(OWNERS).map(Number);
export function blockWithOwner(seed: number) {
  return storedBlock(seed, OWNERS[seed] ?? 0);
}

/** What callers knew when the log had come this far. Two agents called `c` live one after the other: `c` and `c2`. */
export function toldBy(log: readonly Operation[]): Told {
  const told: Told = { agents: new Map(), stored: new Set() };
  const current = new Map<string, string>();
  for (const operation of log) {
    if (operation.kind !== 'told') continue;
    const fact = JSON.parse(operation.fact) as Record<string, unknown>;
    const name = String(fact['asked'] ?? fact['done'] ?? fact['deleting'] ?? fact['deleted']);
    if (fact['isNew'] === true) {
      const label = told.agents.has(name) ? `${name}2` : name;
      current.set(name, label);
      told.agents.set(label, { states: [], known: -1, asked: -1, fate: 'alive' });
    }
    const agent = told.agents.get(current.get(name) ?? '');
    if (agent !== undefined) {
      if ('asked' in fact) {
        (agent.states as number[][]).push(fact['tokens'] as number[]);
        agent.asked = agent.states.length - 1;
      }
      if ('done' in fact) agent.known = agent.asked;
      if ('deleting' in fact) agent.fate = 'being-deleted';
      if ('deleted' in fact) agent.fate = 'deleted';
    }
    if ('stored' in fact) told.stored.add(Number(fact['stored']));
    if ('deleting' in fact) for (const seed of fact['seeds'] as number[]) told.stored.delete(seed);
  }
  return told;
}

export function readStored(files: FaultFileSystem, seed: number) {
  const block = blockWithOwner(seed);
  const request = requestOf(block);
  const key: BlockKey = block.key;
  return { block, request, reading: readBlock(files, LAYOUT.blockFile(key.hash, 0), request, () => false) };
}
