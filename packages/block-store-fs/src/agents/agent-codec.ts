import type { AgentEntry, AgentManifest, BlockKey, BlockReference, CacheIdentity } from '@kvasir/domain';
import { ByteReader, ByteWriter, DecodeFault } from './binary.ts';

/** First byte of a record in an agent's file. */
const KINDS = { manifest: 1, turn: 2, rewind: 3, pin: 4, blocks: 5, use: 6, rewindingTurn: 7 } as const;

export function encodeManifest(manifest: AgentManifest): Uint8Array {
  const writer = new ByteWriter().u8(KINDS.manifest).hex(manifest.agentId).text(manifest.tenant).text(manifest.name);
  writeIdentity(writer, manifest.identity);
  writer.f64(manifest.createdAtMs).f64(manifest.lastUsedAtMs).f64(manifest.pinnedTokens).tokens(manifest.tokenIds);
  writer.u32(manifest.turns.length);
  for (const turn of manifest.turns) {
    writer
      .u32(turn.endTokens)
      .f64(turn.atMs)
      .u8(turn.isCut ? 1 : 0)
      .text(turn.segments);
  }
  writer.u32(manifest.blocks.length);
  for (const references of manifest.blocks) writeReferences(writer, references);
  writeKeys(writer, manifest.formerBlocks);
  const { uses } = manifest;
  writer.f64(uses.count).f64(uses.promptTokens).f64(uses.cachedTokens).u32(uses.recent.length);
  for (const use of uses.recent) writer.f64(use.atMs).f64(use.promptTokens).f64(use.cachedTokens);
  return writer.finish();
}

/** @throws DecodeFault */
export function decodeManifest(body: Uint8Array): AgentManifest {
  const reader = new ByteReader(body);
  if (reader.u8() !== KINDS.manifest) throw new DecodeFault('expected a manifest');
  const manifest: AgentManifest = {
    agentId: reader.hex(32),
    tenant: reader.text(),
    name: reader.text(),
    identity: readIdentity(reader),
    createdAtMs: reader.f64(),
    lastUsedAtMs: reader.f64(),
    pinnedTokens: reader.f64(),
    tokenIds: reader.tokens(),
    turns: Array.from({ length: reader.count(17) }, () => ({
      endTokens: reader.u32(),
      atMs: reader.f64(),
      isCut: reader.u8() === 1,
      segments: reader.text(),
    })),
    blocks: Array.from({ length: reader.count(4) }, () => readReferences(reader)),
    formerBlocks: readKeys(reader),
    uses: {
      count: reader.f64(),
      promptTokens: reader.f64(),
      cachedTokens: reader.f64(),
      recent: Array.from({ length: reader.count(24) }, () => ({
        atMs: reader.f64(),
        promptTokens: reader.f64(),
        cachedTokens: reader.f64(),
      })),
    },
  };
  return endOf(reader, manifest);
}

export function encodeEntry(entry: AgentEntry): Uint8Array {
  const isRewinding = entry.kind === 'turn' && entry.rewinds === true;
  const writer = new ByteWriter().u8(KINDS[isRewinding ? 'rewindingTurn' : entry.kind]);
  switch (entry.kind) {
    case 'turn':
      return writer.f64(entry.startTokens).f64(entry.atMs).tokens(entry.tokenIds).text(entry.segments).finish();
    case 'rewind':
      return writer.f64(entry.numTokens).f64(entry.atMs).finish();
    case 'pin':
      return writer.f64(entry.pinnedTokens).f64(entry.atMs).finish();
    case 'use':
      return writer.f64(entry.atMs).f64(entry.promptTokens).f64(entry.cachedTokens).finish();
    case 'blocks':
      writeReferences(writer.u32(entry.group).u32(entry.keep), entry.blocks);
      return writer.finish();
  }
}

/** @throws DecodeFault */
export function decodeEntry(body: Uint8Array): AgentEntry {
  const reader = new ByteReader(body);
  return endOf(reader, readEntry(reader, reader.u8()));
}

function readEntry(reader: ByteReader, kind: number): AgentEntry {
  switch (kind) {
    case KINDS.turn:
    case KINDS.rewindingTurn: {
      const [startTokens, atMs] = [reader.f64(), reader.f64()];
      const turn = { kind: 'turn', startTokens, atMs, tokenIds: reader.tokens(), segments: reader.text() } as const;
      return kind === KINDS.turn ? turn : { ...turn, rewinds: true };
    }
    case KINDS.rewind:
      return { kind: 'rewind', numTokens: reader.f64(), atMs: reader.f64() };
    case KINDS.pin:
      return { kind: 'pin', pinnedTokens: reader.f64(), atMs: reader.f64() };
    case KINDS.use:
      return { kind: 'use', atMs: reader.f64(), promptTokens: reader.f64(), cachedTokens: reader.f64() };
    case KINDS.blocks:
      return { kind: 'blocks', group: reader.u32(), keep: reader.u32(), blocks: readReferences(reader) };
    default:
      throw new DecodeFault(`expected a kind of record up to ${KINDS.rewindingTurn}, found ${kind}`);
  }
}

// --------------------------------------------------------------------------------------------------------------- shared

export function writeIdentity(writer: ByteWriter, identity: CacheIdentity): void {
  writer.text(identity.modelFingerprint).text(identity.kvDType).text(identity.layoutVersion).text(identity.numericsId);
}

const IDENTITY_TEXTS = 4;

export function readIdentity(reader: ByteReader): CacheIdentity {
  return {
    modelFingerprint: reader.text(),
    kvDType: reader.text(),
    layoutVersion: reader.text(),
    numericsId: reader.text(),
  };
}

/** Most agents of a directory have the same identity: it is decoded once, and theirs are one object. */
export class IdentityDecoder {
  #bytes: Uint8Array = new Uint8Array();
  #identity: CacheIdentity | null = null;

  /** @throws DecodeFault */
  read(reader: ByteReader): CacheIdentity {
    const bytes = reader.textBytes(IDENTITY_TEXTS);
    if (this.#identity !== null && Buffer.compare(bytes, this.#bytes) === 0) return this.#identity;
    this.#bytes = bytes;
    this.#identity = readIdentity(new ByteReader(bytes));
    return this.#identity;
  }
}

export function writeKeys(writer: ByteWriter, keys: readonly BlockKey[]): void {
  writer.u32(keys.length);
  for (const { hash, group } of keys) writer.u32(group).hex(hash);
}

export function readKeys(reader: ByteReader): readonly BlockKey[] {
  return Array.from({ length: reader.count(36) }, () => ({ group: reader.u32(), hash: reader.hex(64) }));
}

export function endOf<Value>(reader: ByteReader, value: Value): Value {
  if (reader.remaining > 0) throw new DecodeFault(`expected the record to end, found ${reader.remaining} more bytes`);
  return value;
}

function writeReferences(writer: ByteWriter, references: readonly BlockReference[]): void {
  writer.u32(references.length);
  for (const { startToken, numTokens, hash } of references) writer.u32(startToken).u32(numTokens).hex(hash);
}

function readReferences(reader: ByteReader): readonly BlockReference[] {
  return Array.from({ length: reader.count(40) }, () => ({
    startToken: reader.u32(),
    numTokens: reader.u32(),
    hash: reader.hex(64),
  }));
}
