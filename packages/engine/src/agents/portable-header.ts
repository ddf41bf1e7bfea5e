import {
  type AgentTurn,
  type CacheIdentity,
  isBlockHash,
  KvasirError,
  MAX_LAYER_GROUPS,
  type PayloadShape,
} from '@kvasir/domain';
import {
  FORMAT,
  FORMAT_VERSION,
  MAX_BLOCK_BYTES,
  MAX_BLOCKS,
  payloadBytes,
  type PortableAgent,
  type PortableBlock,
  tensorsOf,
} from './portable-format.ts';

type Fields = Readonly<Record<string, unknown>>;

/**
 * The header of an agent file, every field checked: a file may come from anybody.
 * @throws KvasirError `file-foreign` (no agent of a version known here), `file-corrupt` (fields that make no sense)
 */
export function parseHeader(bytes: Uint8Array): PortableAgent {
  const header = toFields(parseJson(bytes), 'header');
  const metadata = toFields(header['__metadata__'] ?? {}, 'metadata');
  if (metadata['format'] !== FORMAT || metadata['version'] !== FORMAT_VERSION) {
    throw new KvasirError(
      'file-foreign',
      `agent file: expected format ${FORMAT} ${FORMAT_VERSION}, found ${shown(metadata['format'])} ${shown(metadata['version'])}`,
    );
  }
  const agent = toAgent(toFields(parseText(metadata['agent']), 'agent'));
  const { __metadata__: _, ...tensors } = header;
  // What the metadata says decides where every byte lies; a header that says otherwise is not ours.
  if (!isSameTable(tensors, tensorsOf(agent) as unknown as Fields)) throw corrupt('tensors that follow from the agent');
  return agent;
}

function toAgent(fields: Fields): PortableAgent {
  const numTokens = toCount(fields['numTokens'], 'token count', 2 ** 30);
  const blocks = toList(fields['blocks'], 'blocks').map((block) => toBlock(toFields(block, 'block'), numTokens));
  if (blocks.length > MAX_BLOCKS) throw corrupt(`at most ${MAX_BLOCKS} blocks`);
  if (new Set(blocks.map(({ group, startToken }) => `${group}.${startToken}`)).size < blocks.length) {
    throw corrupt('blocks that start at different tokens');
  }
  return {
    name: toText(fields['name'], 'name'),
    createdAtMs: toTime(fields['createdAtMs']),
    identity: toIdentity(toFields(fields['identity'], 'identity')),
    numTokens,
    turns: toTurns(toList(fields['turns'], 'turns'), numTokens),
    blocks,
  };
}

function toTurns(list: readonly unknown[], numTokens: number): AgentTurn[] {
  let end = 0;
  return list.map((item) => {
    const turn = toFields(item, 'turn');
    const endTokens = toCount(turn['endTokens'], 'turn end', numTokens);
    if (endTokens < end) throw corrupt('turns in order');
    end = endTokens;
    if (typeof turn['isCut'] !== 'boolean') throw corrupt('turns that say whether they are cut');
    return {
      endTokens,
      atMs: toTime(turn['atMs']),
      isCut: turn['isCut'],
      segments: toText(turn['segments'], 'segments'),
    };
  });
}

function toBlock(fields: Fields, numTokens: number): PortableBlock {
  const shape = toShape(toFields(fields['shape'], 'shape'));
  const group = toCount(fields['group'], 'layer group', MAX_LAYER_GROUPS - 1);
  const startToken = toCount(fields['startToken'], 'block start', numTokens);
  const length = toCount(fields['numTokens'], 'tokens of a block', shape.blockTokens);
  const hash = toText(fields['hash'], 'hash');
  if (length === 0 || startToken + length > numTokens || !isBlockHash(hash)) {
    throw corrupt(`blocks within ${numTokens} tokens, with a hash`);
  }
  return { group, hash, startToken, numTokens: length, shape };
}

function toShape(fields: Fields): PayloadShape {
  const { dtype, isSliceable } = fields;
  if (dtype !== 'F32' && dtype !== 'F16' && dtype !== 'BF16' && dtype !== 'U8') throw corrupt('a dtype of blocks');
  if (typeof isSliceable !== 'boolean') throw corrupt('shapes that say whether they can be sliced');
  const extent = (name: string): number => {
    const value = toCount(fields[name], name, 2 ** 31);
    if (value === 0) throw corrupt(`${name} above 0`);
    return value;
  };
  const shape: PayloadShape = {
    dtype,
    layers: extent('layers'),
    components: extent('components'),
    heads: extent('heads'),
    blockTokens: extent('blockTokens'),
    dim: extent('dim'),
    isSliceable,
  };
  if (!(payloadBytes(shape) <= MAX_BLOCK_BYTES)) throw corrupt(`blocks of at most ${MAX_BLOCK_BYTES} bytes`);
  return shape;
}

function toIdentity(fields: Fields): CacheIdentity {
  const part = (name: keyof CacheIdentity): string => toText(fields[name], name);
  return {
    modelFingerprint: part('modelFingerprint'),
    kvDType: part('kvDType'),
    layoutVersion: part('layoutVersion'),
    numericsId: part('numericsId'),
  };
}

// ---------------------------------------------------------------------------------------------------------------- values

/** The engine knows no platform's decoder; ours writes ASCII, and what else comes is read byte by byte. */
function parseJson(bytes: Uint8Array): unknown {
  const parts: string[] = [];
  for (let start = 0; start < bytes.length; start += 8192) {
    const piece = bytes.subarray(start, start + 8192);
    if (piece.some((byte) => byte > 0x7f)) throw foreign('a header in ASCII');
    parts.push(String.fromCharCode(...piece));
  }
  return parseText(parts.join(''));
}

function parseText(text: unknown): unknown {
  if (typeof text !== 'string') throw foreign('JSON text');
  try {
    return JSON.parse(text) as unknown;
  } catch (error) {
    if (error instanceof SyntaxError) throw foreign('JSON');
    throw error;
  }
}

function toFields(value: unknown, what: string): Fields {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Fields;
  throw corrupt(`${what}: an object`);
}

function toList(value: unknown, what: string): readonly unknown[] {
  if (Array.isArray(value)) return value;
  throw corrupt(`${what}: a list`);
}

function toText(value: unknown, what: string): string {
  if (typeof value === 'string') return value;
  throw corrupt(`${what}: text`);
}

function toCount(value: unknown, what: string, most: number): number {
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 && value <= most) return value;
  throw corrupt(`${what}: an integer from 0 to ${most}`);
}

function toTime(value: unknown): number {
  if (typeof value === 'number' && Number.isFinite(value)) return value;
  throw corrupt('times in milliseconds');
}

function isSameTable(found: Fields, expected: Fields): boolean {
  const names = Object.keys(expected);
  if (Object.keys(found).length !== names.length) return false;
  return names.every((name) => {
    const [a, b] = [found[name], expected[name]] as [Fields | undefined, Fields];
    return ['dtype', 'shape', 'data_offsets'].every((field) => JSON.stringify(a?.[field]) === JSON.stringify(b[field]));
  });
}

function shown(value: unknown): string {
  return typeof value === 'string' ? JSON.stringify(value.slice(0, 40)) : 'none';
}

function foreign(expected: string): KvasirError {
  return new KvasirError('file-foreign', `agent file: expected ${expected}, found something else`);
}

function corrupt(expected: string): KvasirError {
  return new KvasirError('file-corrupt', `agent file: expected ${expected}, found something else`);
}
