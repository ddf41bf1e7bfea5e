import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { isKvasirError } from '@kvasir/domain';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { buildDescriptor } from '../src/architectures/registry.ts';
import { readGgufHeader } from '../src/gguf/gguf-header.ts';
import { openModel, type ModelFile } from '../src/index.ts';
import type { ByteSource } from '../src/files/byte-source.ts';
import { readSafetensorsHeader } from '../src/safetensors/safetensors-header.ts';
import { memorySource, sharedDirectory, temporaryDirectory, writeFiles } from './support/files.ts';
import { tinyCheckpoint, tinyGguf, tinySafetensors, type Family } from './support/tiny-models.ts';

// Damages real files and generated ones thousands of times. Only this file can show that no damage at all leads to a
// crash, a hang or a huge allocation: every mutation parses or is refused with a KvasirError, quickly.

const SEED = Number(process.env['KVASIR_FUZZ_SEED'] ?? 20_251_120);
const RUNS = Number(process.env['KVASIR_FUZZ_RUNS'] ?? 2000);
/** Processor time: what other programs do meanwhile is not the parser's fault. */
const MAX_MS = 100;
/** What one damaged file may take at a time, garbage included, and what all of them may leave. */
const MAX_RUN_BYTES = 32 * 2 ** 20;
const MAX_GROWTH_BYTES = 128 * 2 ** 20;
const FAMILIES: readonly Family[] = ['llama', 'qwen2', 'qwen3'];
/** Values that lengths and counts overflow at. */
const BAD_NUMBERS = [0n, 1n, 0x7fffffffn, 0xffffffffn, 2n ** 31n, 2n ** 53n, 2n ** 62n, 2n ** 63n, 2n ** 64n - 1n];

type Mutation =
  | { readonly kind: 'flip'; readonly at: number; readonly bit: number }
  | { readonly kind: 'truncate'; readonly at: number }
  | { readonly kind: 'number'; readonly at: number; readonly value: bigint; readonly bytes: 4 | 8 }
  | { readonly kind: 'insert' | 'overwrite'; readonly at: number; readonly bytes: Uint8Array }
  | { readonly kind: 'remove'; readonly at: number; readonly count: number }
  | { readonly kind: 'copy'; readonly from: number; readonly at: number; readonly count: number };

/** Positions are fractions of the part that is parsed: damage to weights would be no damage to a header. */
const at = fc.integer({ min: 0, max: 2 ** 30 });
const mutation: fc.Arbitrary<Mutation> = fc.oneof(
  fc.record({ kind: fc.constant('flip' as const), at, bit: fc.integer({ min: 0, max: 7 }) }),
  fc.record({ kind: fc.constant('truncate' as const), at }),
  fc.record({
    kind: fc.constant('number' as const),
    at,
    value: fc.oneof(fc.constantFrom(...BAD_NUMBERS), fc.bigInt({ min: 0n, max: 2n ** 64n - 1n })),
    bytes: fc.constantFrom(4 as const, 8 as const),
  }),
  fc.record({
    kind: fc.constantFrom('insert' as const, 'overwrite' as const),
    at,
    bytes: fc.uint8Array({ minLength: 1, maxLength: 16 }),
  }),
  fc.record({ kind: fc.constant('remove' as const), at, count: fc.integer({ min: 1, max: 64 }) }),
  fc.record({ kind: fc.constant('copy' as const), from: at, at, count: fc.integer({ min: 1, max: 64 }) }),
);

function mutate(bytes: Buffer, change: Mutation): Buffer {
  const position = change.at % Math.max(1, bytes.length);
  const [before, after] = [bytes.subarray(0, position), bytes.subarray(position)];
  switch (change.kind) {
    case 'flip': {
      const copy = Buffer.from(bytes);
      copy[position] = (copy[position] ?? 0) ^ (1 << change.bit);
      return copy;
    }
    case 'truncate':
      return Buffer.from(before);
    case 'number': {
      const number = Buffer.alloc(8);
      number.writeBigUInt64LE(change.value);
      return Buffer.concat([before, number.subarray(0, change.bytes), after.subarray(change.bytes)]);
    }
    case 'insert':
      return Buffer.concat([before, change.bytes, after]);
    case 'overwrite':
      return Buffer.concat([before, change.bytes, after.subarray(change.bytes.length)]);
    case 'remove':
      return Buffer.concat([before, after.subarray(change.count)]);
    case 'copy': {
      const from = change.from % Math.max(1, bytes.length);
      return Buffer.concat([before, bytes.subarray(from, from + change.count), after.subarray(change.count)]);
    }
  }
}

interface Sample {
  readonly header: Buffer;
  /** The weights: zeros that take no memory. */
  readonly tailBytes: number;
}

function sampleOf(bytes: Buffer, headerBytes: number): Sample {
  return { header: bytes.subarray(0, headerBytes), tailBytes: bytes.length - headerBytes };
}

/** Damages one file `runs` times and checks what comes of it. */
function fuzz(sample: Sample, runs: number, parse: (source: ByteSource) => void): void {
  const times: number[] = [];
  const unclear: string[] = [];
  let accepted = 0;
  let largest = 0;
  const heapBefore = heapBytes();
  const property = fc.property(fc.array(mutation, { minLength: 1, maxLength: 3 }), (changes) => {
    const damaged = changes.reduce(mutate, sample.header);
    const isCut = changes.some(({ kind }) => kind === 'truncate');
    const source = memorySource(damaged, 'damaged', isCut ? 0 : sample.tailBytes);
    const heapAtStart = heapBytes();
    const start = process.cpuUsage();
    try {
      parse(source);
      accepted++;
    } catch (error) {
      if (!isKvasirError(error)) throw error;
      if (!/^damaged: .*expected .*found/s.test(error.message)) unclear.push(error.message);
    }
    const { user, system } = process.cpuUsage(start);
    times.push((user + system) / 1000);
    largest = Math.max(largest, heapBytes() - heapAtStart);
  });
  fc.assert(property, { seed: SEED, numRuns: runs });
  times.sort((a, b) => a - b);
  const [median, slowest] = [times[times.length >> 1] as number, times.at(-1) as number];
  const growth = heapBytes() - heapBefore;
  const mebibytes = (bytes: number) => (bytes / 2 ** 20).toFixed(1);
  console.log(
    `${runs} runs: ${accepted} parsed, median ${median.toFixed(2)} ms, slowest ${slowest.toFixed(1)} ms, largest ${mebibytes(largest)} MiB, left ${mebibytes(growth)} MiB`,
  );
  expect(slowest).toBeLessThan(MAX_MS);
  expect(largest).toBeLessThan(MAX_RUN_BYTES);
  expect(growth).toBeLessThan(MAX_GROWTH_BYTES);
  expect(unclear).toEqual([]);
  expect(accepted).toBeLessThan(runs);
}

function heapBytes(): number {
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
}

/** As openModel puts a GGUF file together, from memory. */
function describeGguf(source: ByteSource, original: ModelFile): void {
  const { metadata, tensors } = readGgufHeader(source);
  const architecture = metadata.get('general.architecture');
  buildDescriptor({
    ...original,
    path: 'damaged',
    format: 'gguf',
    architecture: typeof architecture === 'string' ? architecture : '',
    metadata,
    tokenizerSource: { kind: 'gguf', metadata },
    tensors: tensors.map((tensor) => ({ ...tensor, file: 0 })),
  });
}

const headerOfSafetensors = (bytes: Buffer) => 8 + Number(bytes.readBigUInt64LE());

describe(`damaged files (KVASIR_FUZZ_SEED=${SEED}, KVASIR_FUZZ_RUNS=${RUNS})`, () => {
  const directory = temporaryDirectory();

  it.each(FAMILIES)('are described or refused: generated GGUF, %s', async (family) => {
    const bytes = tinyGguf(family);
    writeFiles(directory, { [`${family}.gguf`]: bytes });
    const original = await openModel(join(directory, `${family}.gguf`));
    const headerBytes = original.tensors[0]?.offset ?? bytes.length;
    const sample = sampleOf(bytes, headerBytes);
    expect(() => describeGguf(memorySource(sample.header, 'whole', sample.tailBytes), original)).not.toThrow();
    fuzz(sample, RUNS, (source) => describeGguf(source, original));
  });

  it('are parsed or refused: generated safetensors', () => {
    for (const family of FAMILIES) {
      const bytes = tinySafetensors(family);
      expect(() => readSafetensorsHeader(memorySource(bytes))).not.toThrow();
      fuzz(sampleOf(bytes, headerOfSafetensors(bytes)), RUNS, readSafetensorsHeader);
    }
  });

  it('are described or refused: hyperparameters of config.json', async () => {
    const { config } = tinyCheckpoint('llama');
    const path = writeFiles(join(directory, 'hf'), {
      'config.json': config,
      'model.safetensors': tinySafetensors('llama'),
    });
    const original = await openModel(path);
    const value = fc.oneof(
      fc.jsonValue({ maxDepth: 3 }),
      fc.double(),
      fc.integer(),
      fc.constantFrom(0, -1, 2 ** 40, 1e308, 'silu', null, true, []),
    );
    const scaling = fc.dictionary(
      fc.constantFrom('rope_type', 'type', 'factor', 'low_freq_factor', 'high_freq_factor', 'beta_fast', 'mscale'),
      fc.oneof(value, fc.constantFrom('linear', 'llama3', 'yarn', 'default', 2, 8)),
    );
    const property = fc.property(
      fc.dictionary(fc.constantFrom(...Object.keys(config), 'head_dim', 'sliding_window', 'layer_types'), value, {
        maxKeys: 3,
      }),
      fc.option(scaling),
      (changes, rope_scaling) => {
        const metadata = { ...config, ...changes, rope_scaling };
        try {
          buildDescriptor({ ...original, metadata } as ModelFile);
        } catch (error) {
          if (!isKvasirError(error)) throw error;
        }
      },
    );
    expect(() => fc.assert(property, { seed: SEED, numRuns: RUNS })).not.toThrow();
  });

  const data = sharedDirectory();
  describe.skipIf(data === null)('of the reference data', () => {
    const models = join(data ?? '', 'models');
    const quantized =
      data === null ? [] : readdirSync(join(models, 'quantized-llama')).filter((n) => n.endsWith('.gguf'));
    const ggufs = [
      ...quantized.map((name) => join(models, 'quantized-llama', name)),
      join(models, 'stories260K', 'stories260K-F32.gguf'),
    ];
    it.each(ggufs)('are described or refused: %s', async (path) => {
      const bytes = readFileSync(path);
      const original = await openModel(path);
      const sample = sampleOf(bytes, original.tensors[0]?.offset ?? bytes.length);
      expect(() => describeGguf(memorySource(bytes), original)).not.toThrow();
      fuzz(sample, RUNS / 4, (source) => describeGguf(source, original));
    });

    const checkpoints = ['llama', 'qwen3', 'gpt_oss_mxfp4'].map((name) =>
      join(models, 'tiny-random', name, 'model.safetensors'),
    );
    it.each(checkpoints)('are parsed or refused: %s', (path) => {
      const bytes = readFileSync(path);
      expect(() => readSafetensorsHeader(memorySource(bytes))).not.toThrow();
      fuzz(sampleOf(bytes, headerOfSafetensors(bytes)), RUNS / 4, readSafetensorsHeader);
    });
  });
});
