import { describe, expect, it } from 'vitest';
import { readGgufHeader } from '../src/gguf/gguf-header.ts';
import { GgufStringList } from '../src/gguf/gguf-value.ts';
import { failureOf, memorySource } from './support/files.ts';
import { ggufBytes, text, u32, u64, type GgufSpec, type MetadataEntry, type TensorSpec } from './support/gguf-bytes.ts';

const TENSOR: TensorSpec = { name: 'a', extents: [4, 2], byteLength: 32 };
const ENTRY: MetadataEntry = ['general.architecture', 'string', 'llama'];

const read = (bytes: Uint8Array) => readGgufHeader(memorySource(bytes));
const build = (spec: Partial<GgufSpec>) => ggufBytes({ metadata: [ENTRY], tensors: [TENSOR], ...spec });
const failure = (bytes: Uint8Array) => failureOf(() => read(bytes));

describe('readGgufHeader', () => {
  it('reads every kind of value', () => {
    const raw = (type: number, ...bytes: Uint8Array[]) => ({ type, bytes: Buffer.concat(bytes) });
    const { metadata, tensors, version } = read(
      build({
        metadata: [
          ['text', 'string', 'grüß'],
          ['count', 'uint32', 7],
          ['negative', 'int32', -3],
          ['yes', 'bool', 1],
          ['real', 'float32', 0.5],
          ['small64', 'uint64', 5],
          ['large64', 'raw', raw(10, u64(2n ** 63n))],
          ['negative64', 'raw', raw(11, u64(2n ** 64n - 2n))],
          ['double', 'raw', raw(12, u64(0x3ff8_0000_0000_0000n))],
          ['byte', 'raw', raw(1, Buffer.from([0xff]))],
          ['tokens', 'strings', ['a', '', 'ü']],
          ['ids', 'int32s', [1, -1]],
          ['flags', 'raw', raw(9, u32(7), u64(2n), Buffer.from([1, 0]))],
          ['nested', 'raw', raw(9, u32(9), u64(1n), u32(8), u64(1n), text('deep'))],
          ['empty', 'strings', []],
        ],
      }),
    );
    const tokens = metadata.get('tokens') as GgufStringList;
    const nested = metadata.get('nested') as readonly GgufStringList[];
    expect(version).toBe(3);
    expect(tensors).toEqual([{ name: 'a', dtype: 'f32', shape: [2, 4], offset: expect.any(Number), byteLength: 32 }]);
    expect((tensors[0]?.offset ?? 1) % 32).toBe(0);
    expect([tokens.length, tokens.toArray(), tokens.at(3), [...(tokens.bytesAt(2) ?? [])]]).toEqual([
      3,
      ['a', '', 'ü'],
      undefined,
      [0xc3, 0xbc],
    ]);
    expect(nested[0]?.toArray()).toEqual(['deep']);
    expect((metadata.get('empty') as GgufStringList).length).toBe(0);
    expect(metadata.get('ids')).toEqual(Int32Array.of(1, -1));
    expect(metadata.get('flags')).toEqual(Uint8Array.of(1, 0));
    const scalars = ['text', 'count', 'negative', 'yes', 'real', 'small64', 'large64', 'negative64', 'double', 'byte'];
    expect(scalars.map((key) => metadata.get(key))).toEqual(['grüß', 7, -3, true, 0.5, 5, 2n ** 63n, -2, 1.5, -1]);
  });

  it('reads version 2, another alignment, and a vocabulary without tensors', () => {
    expect(read(build({ version: 2 })).version).toBe(2);
    const aligned = build({
      alignment: 256,
      metadata: [ENTRY, ['general.alignment', 'uint32', 256]],
      tensors: [TENSOR, { ...TENSOR, name: 'b' }],
    });
    expect(read(aligned).tensors.map(({ offset }) => offset % 256)).toEqual([0, 0]);
    expect(read(build({ tensors: [] })).tensors).toEqual([]);
  });

  it('keeps bytes of a vocabulary that are not UTF-8', () => {
    const value = { type: 9, bytes: Buffer.concat([u32(8), u64(1n), u64(2n), Buffer.from([0xff, 0x41])]) };
    const tokens = read(build({ metadata: [['tokens', 'raw', value]] })).metadata.get('tokens') as GgufStringList;
    expect([...(tokens.bytesAt(0) ?? [])]).toEqual([0xff, 0x41]);
    expect(tokens.at(0)).toBe('\ufffdA');
  });

  it('reads across the edges of its window', () => {
    const words = Array.from({ length: 60_000 }, (_, index) => `token ${index} ${'x'.repeat(index % 23)}`);
    const { metadata, tensors } = read(build({ metadata: [['tokens', 'strings', words], ENTRY] }));
    expect((metadata.get('tokens') as GgufStringList).toArray()).toEqual(words);
    expect([metadata.get('general.architecture'), tensors.length]).toEqual(['llama', 1]);
  });

  it('sizes block-quantized tensors by whole blocks', () => {
    const q4k = { name: 'q', type: 12, extents: [512, 3], byteLength: 3 * 2 * 144 };
    const iq4 = { name: 'i', type: 23, extents: [256], byteLength: 136 };
    expect(read(build({ tensors: [q4k, iq4] })).tensors).toMatchObject([
      { name: 'q', dtype: 'q4_k', shape: [3, 512], byteLength: 864 },
      { name: 'i', dtype: 'iq4_xs', byteLength: 136 },
    ]);
  });

  const refused: [what: string, bytes: Uint8Array, code: string, message: RegExp][] = [
    ['an empty file', Buffer.alloc(0), 'file-truncated', /empty file/],
    ['three bytes of magic', Buffer.from('GGU'), 'file-truncated', /incomplete/],
    ['magic alone', Buffer.from('GGUF'), 'file-truncated', /expected 4 more bytes, found 0/],
    ['version 1', build({ version: 1 }), 'unsupported-format', /version 2 or 3, found 1/],
    ['version 4', build({ version: 4 }), 'unsupported-format', /version 2 or 3, found 4/],
    ['a big-endian file', build({ version: 0x0300_0000 }), 'unsupported-format', /big-endian/],
    ['nonsense for a version', build({ version: 0xdead_beef }), 'file-corrupt', /version/],
    ['too many tensors', build({ numTensors: 2n ** 40n }), 'file-corrupt', /tensor count of at most/],
    ['too many entries', build({ numEntries: 2n ** 64n - 1n }), 'file-corrupt', /metadata entry count of at most/],
    ['more tensors than bytes', build({ numTensors: 200_000n }), 'file-truncated', /more bytes/],
    ['a repeated key', build({ metadata: [ENTRY, ENTRY] }), 'file-corrupt', /general.architecture.*every key once/],
    ['an empty key', build({ metadata: [['', 'uint32', 1]] }), 'file-corrupt', /empty one/],
    ['a bool of 2', build({ metadata: [['flag', 'bool', 2]] }), 'file-corrupt', /"flag".*bool of 0 or 1, found 2/],
    ['a value type 13', rawEntry(13), 'file-corrupt', /value type from 0 to 12, found 13/],
    ['an endless string', rawEntry(8, u64(2n ** 62n)), 'file-corrupt', /string length of at most/],
    ['a string past the end', rawEntry(8, u64(50_000n)), 'file-truncated', /expected 50000 more bytes/],
    ['an endless array', rawEntry(9, u32(0), u64(2n ** 40n)), 'file-corrupt', /array length of at most/],
    ['a long array of strings', rawEntry(9, u32(8), u64(2n ** 24n)), 'file-truncated', /more bytes/],
    ['arrays nested too deep', rawEntry(9, ...nesting(6)), 'file-corrupt', /nested at most 3/],
    ['a million empty arrays', rawEntry(9, u32(9), u64(2n ** 20n)), 'file-corrupt', /array of arrays of at most/],
    ['an odd alignment', alignedTo(48), 'file-corrupt', /general.alignment.*power of two/],
    ['an alignment of 4', alignedTo(4), 'file-corrupt', /general.alignment.*power of two/],
    ['an alignment of 0', alignedTo(0), 'file-corrupt', /general.alignment.*power of two/],
    ['a repeated tensor', build({ tensors: [TENSOR, TENSOR] }), 'file-corrupt', /tensor "a".*once/],
    ['rank 0', build({ tensors: [{ ...TENSOR, extents: [] }] }), 'file-corrupt', /rank from 1 to 4, found 0/],
    ['rank 5', build({ tensors: [{ ...TENSOR, extents: [1, 1, 1, 1, 1] }] }), 'file-corrupt', /rank.*found 5/],
    ['an extent of 0', build({ tensors: [{ ...TENSOR, extents: [4, 0] }] }), 'file-corrupt', /extents ≥ 1/],
    [
      'extents that overflow',
      build({ tensors: [{ ...TENSOR, extents: [2 ** 40, 2 ** 40] }] }),
      'file-corrupt',
      /2\^53/,
    ],
    ['half a block', build({ tensors: [{ ...TENSOR, type: 8, extents: [48] }] }), 'file-corrupt', /multiple of 32.*48/],
    ['a dropped type', build({ tensors: [{ ...TENSOR, type: 4 }] }), 'unsupported-format', /"a".*type 4.*Q4_K/],
    ['nonsense for a type', build({ tensors: [{ ...TENSOR, type: 70_000 }] }), 'file-corrupt', /type 70000/],
    ['an unaligned offset', build({ tensors: [{ ...TENSOR, offset: 8 }] }), 'file-corrupt', /aligned to 32.*found 8/],
    ['a cut tensor', build({}).subarray(0, -1), 'file-truncated', /tensor "a".*32 bytes/],
    [
      'overlapping tensors',
      build({
        tensors: [
          { ...TENSOR, extents: [16], byteLength: 64 },
          { ...TENSOR, name: 'b', offset: 32 },
        ],
      }),
      'file-corrupt',
      /tensors apart.*"b"/,
    ],
  ];
  it.each(refused)('refuses %s', async (_, bytes, code, message) => {
    const found = await failure(bytes);
    expect([found.code, found.message]).toEqual([code, expect.stringMatching(message)]);
    expect(found.message).toMatch(/^memory\.gguf: /);
  });

  it('says at which byte it stopped', async () => {
    const bytes = build({ metadata: [['flag', 'bool', 2]] });
    const offset = bytes.indexOf('flag') + 'flag'.length + 4;
    expect((await failure(bytes)).message).toContain(`at byte ${offset}: expected a bool`);
  });

  it('names a line-ending conversion in either direction of its damage', async () => {
    const lines = Array.from({ length: 200 }, (_, index) => ['token\n', `${index}`]).flat();
    const whole = build({ metadata: [ENTRY, ['tokens', 'strings', lines]] });
    const expanded = Buffer.from(whole.toString('latin1').replaceAll('\n', '\r\n'), 'latin1');
    const decoded = Buffer.from(
      Buffer.concat([whole, Buffer.alloc(400, 0xc5)])
        .toString('utf8')
        .slice(0, -1),
    );
    expect((await failure(expanded)).message).toMatch(/line-ending conversion/);
    expect((await failure(Buffer.from(decoded.subarray(0, 200)))).code).toBe('file-truncated');
    const floats = build({ metadata: [['scores', 'float32s', Array<number>(300).fill(-1.7e-5)], ENTRY] });
    expect((await failure(Buffer.from(floats.toString('utf8')))).message).toMatch(/conversion of text.*EF BF BD/);
  });
});

function rawEntry(type: number, ...bytes: Uint8Array[]): Buffer {
  return build({ metadata: [['key', 'raw', { type, bytes: Buffer.concat(bytes) }]] });
}

function nesting(depth: number): Buffer[] {
  return Array.from({ length: depth }, () => Buffer.concat([u32(9), u64(1n)]));
}

function alignedTo(alignment: number): Buffer {
  return build({ metadata: [['general.alignment', 'uint32', alignment]] });
}
