import type { AgentManifest, AgentSummary, BlockKey } from '@kvasir/domain';
import { endOf, IdentityDecoder, readKeys, writeIdentity, writeKeys } from './agent-codec.ts';
import { ByteReader, ByteWriter, DecodeFault } from './binary.ts';
import { frameRecord, scanRecords } from './record-log.ts';

export const INDEX_MAGIC = 'KVINDEX1';

const KINDS = { agent: 1, removed: 2, touched: 3, deleting: 4, settled: 5 } as const;

/** What the index holds of one agent. Keys are decoded when somebody asks: 10,000 agents have 160,000 of them. */
export interface IndexedAgent {
  readonly summary: AgentSummary;
  /** Of its record in the index. */
  readonly recordBytes: number;
  keys(): readonly BlockKey[];
}

/** The state an index file describes. */
export interface IndexState {
  readonly agents: Map<string, IndexedAgent>;
  /** Changed since the index was last settled: the agents' own files know better. */
  readonly touched: Set<string>;
  /** Deletions that have begun, with every key the agent referred to. */
  readonly deleting: Map<string, readonly BlockKey[]>;
  /** False: a part could not be read; agents may be missing. */
  readonly isWhole: boolean;
}

export function encodeAgent(summary: AgentSummary, keys: readonly BlockKey[]): Uint8Array {
  const writer = new ByteWriter().u8(KINDS.agent).hex(summary.agentId).text(summary.tenant).text(summary.name);
  writeIdentity(writer, summary.identity);
  writer.f64(summary.createdAtMs).f64(summary.lastUsedAtMs).f64(summary.numTokens).f64(summary.numTurns);
  writer.f64(summary.pinnedTokens).f64(summary.useCount).f64(summary.promptTokens).f64(summary.cachedTokens);
  writer.u32(summary.numBlocks.length);
  for (const count of summary.numBlocks) writer.u32(count);
  writeKeys(writer, keys);
  return frameRecord(writer.finish());
}

export function encodeRemoved(agentId: string): Uint8Array {
  return frameRecord(new ByteWriter().u8(KINDS.removed).hex(agentId).finish());
}

export function encodeTouched(agentId: string): Uint8Array {
  return frameRecord(new ByteWriter().u8(KINDS.touched).hex(agentId).finish());
}

export function encodeDeleting(agentId: string, keys: readonly BlockKey[]): Uint8Array {
  const writer = new ByteWriter().u8(KINDS.deleting).hex(agentId);
  writeKeys(writer, keys);
  return frameRecord(writer.finish());
}

/** Everything before it holds: what was touched has been written to the index and flushed. */
export function encodeSettled(): Uint8Array {
  return frameRecord(new ByteWriter().u8(KINDS.settled).finish());
}

/** Replays an index. Records after a fault are not trusted. */
export function parseIndex(bytes: Uint8Array): IndexState {
  const { bodies, ending } = scanRecords(bytes, INDEX_MAGIC);
  const state = { agents: new Map<string, IndexedAgent>(), touched: new Set<string>(), deleting: new Map() };
  const identities = new IdentityDecoder();
  try {
    for (const body of bodies) replay(state, body, identities);
  } catch (error) {
    if (error instanceof DecodeFault) return { ...state, isWhole: false };
    throw error;
  }
  return { ...state, isWhole: ending === 'whole' };
}

function replay(state: Omit<IndexState, 'isWhole'>, body: Uint8Array, identities: IdentityDecoder): void {
  const reader = new ByteReader(body);
  const kind = reader.u8();
  if (kind === KINDS.settled) {
    state.touched.clear();
    return;
  }
  const agentId = reader.hex(32);
  if (kind === KINDS.agent) state.agents.set(agentId, readAgent(reader, agentId, body.length, identities));
  else if (kind === KINDS.removed) {
    state.agents.delete(agentId);
    state.deleting.delete(agentId);
    state.touched.delete(agentId);
  } else if (kind === KINDS.touched) state.touched.add(agentId);
  else if (kind === KINDS.deleting) {
    state.deleting.set(agentId, endOf(reader, readKeys(reader)));
    state.agents.delete(agentId);
  } else throw new DecodeFault(`expected a kind of index record, found ${kind}`);
}

function readAgent(
  reader: ByteReader,
  agentId: string,
  recordBytes: number,
  identities: IdentityDecoder,
): IndexedAgent {
  const [tenant, name, identity] = [reader.text(), reader.text(), identities.read(reader)];
  const summary: AgentSummary = {
    agentId,
    tenant,
    name,
    identity,
    createdAtMs: reader.f64(),
    lastUsedAtMs: reader.f64(),
    numTokens: reader.f64(),
    numTurns: reader.f64(),
    pinnedTokens: reader.f64(),
    useCount: reader.f64(),
    promptTokens: reader.f64(),
    cachedTokens: reader.f64(),
    numBlocks: Array.from({ length: reader.count(4) }, () => reader.u32()),
  };
  let keys: readonly BlockKey[] | null = null;
  return { summary, recordBytes, keys: () => (keys ??= endOf(reader, readKeys(reader))) };
}

/** Every key an agent's deletion has to think of. */
export function keysOfManifest(manifest: AgentManifest): readonly BlockKey[] {
  const current = manifest.blocks.flatMap((references, group) => references.map(({ hash }) => ({ hash, group })));
  return [...current, ...manifest.formerBlocks];
}
