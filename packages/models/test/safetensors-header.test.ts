import { describe, expect, it } from 'vitest';
import { readSafetensorsHeader } from '../src/safetensors/safetensors-header.ts';
import { failureOf, memorySource } from './support/files.ts';
import { u64 } from './support/gguf-bytes.ts';
import { safetensorsBytes, safetensorsFile } from './support/safetensors-bytes.ts';

const ENTRY = { name: 'a', dtype: 'BF16', shape: [2, 3], byteLength: 12 };

const read = (bytes: Uint8Array) => readSafetensorsHeader(memorySource(bytes, 'model.safetensors'));
const one = (value: object, dataBytes = 12) => safetensorsFile(JSON.stringify({ a: value }), dataBytes);

describe('readSafetensorsHeader', () => {
  it('lists tensors in the order of their bytes', () => {
    const bytes = safetensorsFile(
      '{"b":{"dtype":"F32","shape":[],"data_offsets":[12,16]},"a":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]}}  ',
      16,
    );
    const start = bytes.length - 16;
    expect(read(bytes).tensors).toEqual([
      { name: 'a', dtype: 'bf16', shape: [2, 3], offset: start, byteLength: 12 },
      { name: 'b', dtype: 'f32', shape: [], offset: start + 12, byteLength: 4 },
    ]);
  });

  it('keeps the metadata and sizes dtypes nobody computes with', () => {
    const header = read(safetensorsBytes([ENTRY, { name: 'b', dtype: 'U8', shape: [5], byteLength: 5 }]));
    expect(header.metadata).toEqual({ format: 'pt' });
    expect(header.tensors.map(({ dtype }) => dtype)).toEqual(['bf16', 'u8']);
  });

  it('reads a tensor named like a property of every object', () => {
    const bytes = safetensorsFile('{"__proto__":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', 1);
    expect(read(bytes).tensors).toMatchObject([{ name: '__proto__', byteLength: 1 }]);
  });

  const good = { dtype: 'BF16', shape: [2, 3], data_offsets: [0, 12] };
  const refused: [what: string, bytes: Uint8Array, code: string, message: RegExp][] = [
    ['an empty file', Buffer.alloc(0), 'file-truncated', /empty file/],
    ['seven bytes', Buffer.from([9, 0, 0, 0, 0, 0, 0]), 'file-truncated', /8 bytes of header length/],
    ['an endless header', safetensorsFile('{}', 0, 2n ** 63n), 'file-corrupt', /header length from 2/],
    ['a header of 99 MB that is not there', safetensorsFile('{}', 0, 99_000_000n), 'file-truncated', /99000000/],
    ['no JSON', safetensorsFile('{"a":', 0), 'file-corrupt', /in JSON/],
    ['bytes that are not UTF-8', Buffer.concat([u64(3n), Buffer.from([0x7b, 0xff, 0x7d])]), 'file-corrupt', /UTF-8/],
    ['a JSON array', Buffer.concat([u64(2n), Buffer.from('[]')]), 'file-corrupt', /to be a JSON object/],
    ['JSON nested without end', safetensorsFile(`{"a":${'['.repeat(1e6)}`, 0), 'file-corrupt', /nested at most 64/],
    ['a repeated name', safetensorsFile('{"a":1,"a":2}', 0), 'file-corrupt', /"a" again/],
    ['a repeated name in disguise', safetensorsFile('{"a":1,"\\u0061":2}', 0), 'file-corrupt', /"a" again/],
    ['an entry that is no object', one([]), 'file-corrupt', /"a".*expected an object/],
    ['no dtype', one({ ...good, dtype: 3 }), 'file-corrupt', /dtype/],
    ['an unknown dtype', one({ ...good, dtype: 'F4' }), 'unsupported-format', /"F4".*F32, F16, BF16/],
    ['a negative extent', one({ ...good, shape: [-2, -3] }), 'file-corrupt', /extents/],
    ['a fraction', one({ ...good, shape: [1.5, 4] }), 'file-corrupt', /extents/],
    ['extents that overflow', one({ ...good, shape: [2 ** 40, 2 ** 40] }), 'file-corrupt', /to take/],
    ['offsets that run backwards', one({ ...good, data_offsets: [12, 0] }), 'file-corrupt', /to take 12/],
    ['a shape that contradicts the bytes', one({ ...good, shape: [2, 4] }), 'file-corrupt', /to take 16 bytes/],
    ['a gap', one({ ...good, data_offsets: [4, 16] }, 16), 'file-corrupt', /gap/],
    ['bytes left over', one(good, 20), 'file-corrupt', /8 more bytes/],
    ['a file that was cut', one(good, 11), 'file-truncated', /incomplete/],
    [
      'an overlap',
      safetensorsFile(JSON.stringify({ a: good, b: { ...good, data_offsets: [6, 18] } }), 18),
      'file-corrupt',
      /overlap/,
    ],
    ['metadata of another kind', safetensorsFile('{"__metadata__":{"a":1}}', 0), 'file-corrupt', /__metadata__/],
  ];
  it.each(refused)('refuses %s', async (_, bytes, code, message) => {
    const found = await failureOf(() => read(bytes));
    expect([found.code, found.message]).toEqual([code, expect.stringMatching(message)]);
    expect(found.message).toMatch(/^model\.safetensors: /);
  });
});
