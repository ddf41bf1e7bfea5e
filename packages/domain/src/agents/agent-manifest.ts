import { KvasirError } from '../errors/kvasir-error.ts';
import type { BlockKey, CacheIdentity } from '../ports/block-store.port.ts';

/** Everything durable about one agent. Immutable: `applyAgentEntry` gives the next one. */
export interface AgentManifest {
  /** Random, 32 lower-case hex digits; never derived from a name. */
  readonly agentId: string;
  readonly tenant: string;
  readonly name: string;
  readonly identity: CacheIdentity;
  readonly createdAtMs: number;
  readonly lastUsedAtMs: number;
  /** (n) every token of the agent, generated ones with the ids they were generated with. */
  readonly tokenIds: Int32Array;
  readonly turns: readonly AgentTurn[];
  /** Leading tokens that are pinned; 0: none, Number.MAX_SAFE_INTEGER: all, those to come included. */
  readonly pinnedTokens: number;
  /** One list a layer group, ascending by `startToken`. */
  readonly blocks: readonly (readonly BlockReference[])[];
  /** Blocks that once held this agent's tokens and may still be stored: rewound, superseded, abandoned. */
  readonly formerBlocks: readonly BlockKey[];
  readonly uses: AgentUses;
}

export interface AgentTurn {
  /** Tokens of the agent when the turn had ended. */
  readonly endTokens: number;
  readonly atMs: number;
  /** Text segments and whatever else belongs to the turn: JSON the archive does not look into. */
  readonly segments: string;
  /** A rewind ended inside it: `segments` says more than the tokens do. */
  readonly isCut: boolean;
}

/** A block that holds KV of the tokens from `startToken` to `startToken + numTokens`. */
export interface BlockReference {
  readonly startToken: number;
  readonly numTokens: number;
  readonly hash: string;
}

export interface AgentUses {
  readonly count: number;
  readonly promptTokens: number;
  readonly cachedTokens: number;
  /** The latest, oldest first, at most MAX_RECENT_USES. */
  readonly recent: readonly AgentUse[];
}

export interface AgentUse {
  readonly atMs: number;
  readonly promptTokens: number;
  /** Prompt tokens whose KV was reused. */
  readonly cachedTokens: number;
}

/** What an index knows of an agent without its manifest. */
export interface AgentSummary {
  readonly agentId: string;
  readonly tenant: string;
  readonly name: string;
  readonly identity: CacheIdentity;
  readonly createdAtMs: number;
  readonly lastUsedAtMs: number;
  readonly numTokens: number;
  readonly numTurns: number;
  readonly pinnedTokens: number;
  /** Blocks per layer group. */
  readonly numBlocks: readonly number[];
  readonly useCount: number;
  readonly promptTokens: number;
  readonly cachedTokens: number;
}

/** Changes an agent's owner is told of when they are flushed. */
export type CommitEntry =
  | {
      readonly kind: 'turn';
      /** Tokens the agent has now: a turn that starts elsewhere is refused, unless it rewinds. */
      readonly startTokens: number;
      /** The agent is rewound to `startTokens` first, in the same entry: both are kept or neither is. */
      readonly rewinds?: boolean;
      readonly tokenIds: Int32Array;
      readonly segments: string;
      readonly atMs: number;
    }
  /** Keeps the first `numTokens` tokens. Blocks that reach beyond become former ones. */
  | { readonly kind: 'rewind'; readonly numTokens: number; readonly atMs: number }
  | { readonly kind: 'pin'; readonly pinnedTokens: number; readonly atMs: number };

/** Changes that follow behind. */
export type NoteEntry =
  /** Of the group's list the first `keep` references stay, `blocks` follow; what is dropped becomes former. */
  | {
      readonly kind: 'blocks';
      readonly group: number;
      readonly keep: number;
      readonly blocks: readonly BlockReference[];
    }
  | ({ readonly kind: 'use' } & AgentUse);

export type AgentEntry = CommitEntry | NoteEntry;

export const MAX_RECENT_USES = 32;
export const MAX_LAYER_GROUPS = 64;

/**
 * The manifest after one change.
 * @throws KvasirError `invalid-argument` when the change does not fit the manifest; nothing has then changed
 * Cost: O(tokens) for a turn, O(blocks) otherwise.
 */
export function applyAgentEntry(manifest: AgentManifest, entry: AgentEntry): AgentManifest {
  switch (entry.kind) {
    case 'turn':
      return appendTurn(entry.rewinds === true ? rewind(manifest, entry.startTokens, entry.atMs) : manifest, entry);
    case 'rewind':
      return rewind(manifest, entry.numTokens, entry.atMs);
    case 'pin':
      requireCount('pinned tokens', entry.pinnedTokens, Number.MAX_SAFE_INTEGER);
      return { ...manifest, pinnedTokens: entry.pinnedTokens };
    case 'blocks':
      return replaceBlocks(manifest, entry);
    case 'use':
      return countUse(manifest, entry);
  }
}

export function summarizeAgent(manifest: AgentManifest): AgentSummary {
  const { agentId, tenant, name, identity, createdAtMs, lastUsedAtMs, pinnedTokens, uses } = manifest;
  return {
    agentId,
    tenant,
    name,
    identity,
    createdAtMs,
    lastUsedAtMs,
    numTokens: manifest.tokenIds.length,
    numTurns: manifest.turns.length,
    pinnedTokens,
    numBlocks: manifest.blocks.map((references) => references.length),
    useCount: uses.count,
    promptTokens: uses.promptTokens,
    cachedTokens: uses.cachedTokens,
  };
}

// -------------------------------------------------------------------------------------------------------------- entries

function appendTurn(manifest: AgentManifest, entry: CommitEntry & { kind: 'turn' }): AgentManifest {
  const before = manifest.tokenIds.length;
  if (entry.startTokens !== before) {
    throw new KvasirError(
      'invalid-argument',
      `turn: expected it to start at token ${before}, found ${entry.startTokens}; read the agent again`,
      { facts: { agentId: manifest.agentId, numTokens: before, startTokens: entry.startTokens } },
    );
  }
  const tokenIds = new Int32Array(before + entry.tokenIds.length);
  tokenIds.set(manifest.tokenIds);
  tokenIds.set(entry.tokenIds, before);
  const turn = { endTokens: tokenIds.length, atMs: entry.atMs, segments: entry.segments, isCut: false };
  return { ...manifest, tokenIds, turns: [...manifest.turns, turn], lastUsedAtMs: entry.atMs };
}

function rewind(manifest: AgentManifest, numTokens: number, atMs: number): AgentManifest {
  requireCount('rewind', numTokens, manifest.tokenIds.length);
  const turns: AgentTurn[] = [];
  for (const turn of manifest.turns) {
    const start = turns.at(-1)?.endTokens ?? 0;
    if (turn.endTokens <= numTokens) turns.push(turn);
    else {
      if (numTokens > start) turns.push({ ...turn, endTokens: numTokens, isCut: true });
      break;
    }
  }
  let next: AgentManifest = { ...manifest, turns, tokenIds: manifest.tokenIds.slice(0, numTokens) };
  for (const [group, references] of manifest.blocks.entries()) {
    const keep = references.findIndex((reference) => reference.startToken + reference.numTokens > numTokens);
    if (keep >= 0) next = replaceBlocks(next, { kind: 'blocks', group, keep, blocks: [] });
  }
  return { ...next, lastUsedAtMs: atMs };
}

function replaceBlocks(manifest: AgentManifest, entry: NoteEntry & { kind: 'blocks' }): AgentManifest {
  const { group, keep } = entry;
  requireCount('layer group', group, MAX_LAYER_GROUPS - 1);
  const blocks = manifest.blocks.map((references) => references);
  while (blocks.length <= group) blocks.push([]);
  const before = blocks[group] ?? [];
  requireCount('references kept', keep, before.length);
  const after = [...before.slice(0, keep), ...entry.blocks];
  checkReferences(after, manifest.tokenIds.length);
  blocks[group] = after;
  const present = new Set(after.map((reference) => reference.hash));
  const former = manifest.formerBlocks.filter((key) => key.group !== group || !present.has(key.hash));
  const known = new Set(former.filter((key) => key.group === group).map((key) => key.hash));
  for (const { hash } of before.slice(keep)) {
    if (present.has(hash) || known.has(hash)) continue;
    known.add(hash);
    former.push({ hash, group });
  }
  return { ...manifest, blocks, formerBlocks: former };
}

function checkReferences(references: readonly BlockReference[], numTokens: number): void {
  let end = 0;
  for (const { startToken, numTokens: length, hash } of references) {
    const isPlaced =
      Number.isSafeInteger(startToken) && startToken >= end && Number.isSafeInteger(length) && length > 0;
    if (!isPlaced || startToken + length > numTokens || !isBlockHash(hash)) {
      throw new KvasirError(
        'invalid-argument',
        `block reference: expected ascending token ranges up to ${numTokens} with 64-digit hashes, found ${startToken} + ${length}`,
        { facts: { startToken, numTokens: length } },
      );
    }
    end = startToken + length;
  }
}

function countUse(manifest: AgentManifest, entry: NoteEntry & { kind: 'use' }): AgentManifest {
  const { atMs, promptTokens, cachedTokens } = entry;
  requireCount('prompt tokens', promptTokens, Number.MAX_SAFE_INTEGER);
  requireCount('cached tokens', cachedTokens, promptTokens);
  const { uses } = manifest;
  return {
    ...manifest,
    lastUsedAtMs: atMs,
    uses: {
      count: uses.count + 1,
      promptTokens: uses.promptTokens + promptTokens,
      cachedTokens: uses.cachedTokens + cachedTokens,
      recent: [...uses.recent, { atMs, promptTokens, cachedTokens }].slice(-MAX_RECENT_USES),
    },
  };
}

export function isBlockHash(text: string): boolean {
  return /^[0-9a-f]{64}$/.test(text);
}

function requireCount(what: string, found: number, most: number): void {
  if (Number.isSafeInteger(found) && found >= 0 && found <= most) return;
  throw new KvasirError('invalid-argument', `${what}: expected an integer from 0 to ${most}, found ${found}`);
}
