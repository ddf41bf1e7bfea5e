// The ends of a runner's life and the edges of its contract, on the real kernels. What only whole processes show (exits,
// workers, collection) is tested on the binding itself, in native-runner.
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { serialize } from 'node:v8';
import { ROW_FLAGS } from '@kvasir/domain';
import type { KvasirError, LoadOptions, ModelDescriptor, ModelRunner } from '@kvasir/domain';
import { openModel } from '@kvasir/models';
import { toAddonModel, toAddonOptions } from '@kvasir/native-runner';
import { generateGguf, SMALL_SHAPE } from '@kvasir/reference';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { CPU_ADDON_FILE } from '../src/addon.ts';
import { cpuBackendInfo, createCpuModelLoader } from '../src/index.ts';
import { HOSTILE_BATCHES, goodBatch } from './hostile-batches.ts';

const scratch = mkdtempSync(path.join(tmpdir(), 'kvasir-lifetimes-'));
afterAll(() => rmSync(scratch, { recursive: true }));

const OPTIONS: LoadOptions = {
  numBlocks: [8],
  kvDType: 'f16',
  activations: 'quantized',
  maxBatchTokens: 256,
  maxBatchSequences: 8,
  maxBlocksPerSequence: 4,
  numThreads: 2,
  instructionPath: 'auto',
  poisonPool: true,
};

const gguf = generateGguf({ ...SMALL_SHAPE, family: 'llama' }, 'q8_0', 3);
let model: ModelDescriptor;
beforeAll(async () => {
  model = await describeFile('model.gguf');
});

/** The generated model in a file of its own. */
async function describeFile(name: string): Promise<ModelDescriptor> {
  const file = path.join(scratch, name);
  writeFileSync(file, gguf);
  return (await openModel(file)).descriptor();
}

const load = (more: Partial<LoadOptions> = {}, descriptor = model): Promise<ModelRunner> =>
  createCpuModelLoader().load(descriptor, { ...OPTIONS, ...more });

describe('the CPU backend', () => {
  it('names the processor and at least one instruction path, each of which loads', async () => {
    const { backend, device, instructionPaths } = cpuBackendInfo();
    expect(backend).toBe('cpu');
    expect(device.length).toBeGreaterThan(0);
    expect(instructionPaths).toContain('scalar');
    for (const instructionPath of instructionPaths) {
      await using runner = await load({ instructionPath });
      expect(runner.info.instructionPath).toBe(instructionPath);
    }
  });

  it('runs two runners at once as it runs one', async () => {
    await using alone = await load();
    const batch = goodBatch(alone.info.cacheSpec.blockTokens);
    const expected = await alone.submit(batch).result;
    expect(expected.sampledIds[1]).toBeGreaterThanOrEqual(0);
    await using one = await load({ numThreads: 1 });
    await using other = await load();
    const results = await Promise.all([one.submit(batch).result, other.submit(batch).result]);
    expect(results.map(({ hashes }) => hashes)).toEqual([expected.hashes, expected.hashes]);
  });

  it('settles or rejects every call when it is disposed in flight, and is disposed afterwards', async () => {
    const runner = await load();
    const batch = goodBatch(256);
    const calls = [
      runner.submit(batch).result,
      runner.submit(batch).result,
      runner.readBlocks(0, Int32Array.of(1)),
      runner.copyBlocks(0, [{ source: 1, destination: 2, numTokens: 256 }]),
    ];
    const outcomes = Promise.allSettled(calls);
    await Promise.all([runner.dispose(), runner.dispose()]);
    const codes = (await outcomes).map((outcome) =>
      outcome.status === 'fulfilled' ? 'settled' : (outcome.reason as KvasirError).code,
    );
    expect(codes.filter((code) => code !== 'settled' && code !== 'disposed')).toEqual([]);
    expect(() => runner.submit(batch)).toThrow(expect.objectContaining({ code: 'disposed' }));
    expect(() => runner.memory()).toThrow(expect.objectContaining({ code: 'disposed' }));
  });

  it('allocates nothing while decoding', async () => {
    await using runner = await load();
    const batch = goodBatch(256);
    for (let i = 0; i < 3; i += 1) await runner.submit(batch).result;
    const { allocations } = runner.memory();
    for (let i = 0; i < 20; i += 1) await runner.submit(batch).result;
    expect(runner.memory().allocations).toBe(allocations);
  });

  it('gives blocks back as they were written', async () => {
    await using runner = await load();
    const bytes = runner.info.cacheSpec.bytesPerBlock();
    const payload = Uint8Array.from({ length: 2 * bytes }, (_, i) => (i * 37 + (i >> 8)) & 0x3f);
    await runner.writeBlocks(0, Int32Array.of(6, 2), payload);
    await runner.copyBlocks(0, [{ source: 6, destination: 5, numTokens: 256 }]);
    expect(Buffer.compare(await runner.readBlocks(0, Int32Array.of(5, 2)), payload)).toBe(0);
  });
});

describe('a hostile batch', () => {
  let runner: ModelRunner;
  let expected: BigUint64Array;
  beforeAll(async () => {
    runner = await load();
    expected = (await runner.submit(goodBatch(256)).result).hashes;
  });
  afterAll(() => runner.dispose());

  it.each(HOSTILE_BATCHES)('with $name is refused as invalid-argument and changes nothing', async ({ apply }) => {
    expect(() => runner.submit(apply(goodBatch(256)))).toThrow(
      expect.objectContaining({ name: 'KvasirError', code: 'invalid-argument' }),
    );
    expect((await runner.submit(goodBatch(256)).result).hashes).toEqual(expected);
  });
});

describe('a load that cannot succeed', () => {
  it.each<[string, Partial<LoadOptions>, string]>([
    ['more blocks than any memory', { numBlocks: [8_000_000] }, 'out-of-memory'],
    ['batches of more tokens than memory', { maxBatchTokens: 2_000_000_000 }, 'out-of-memory'],
    ['more blocks than ids', { numBlocks: [4_000_000_000] }, 'invalid-argument'],
    ['no tokens at all', { maxBatchTokens: 0 }, 'invalid-argument'],
    ['an instruction path of another world', { instructionPath: 'z80' }, 'unsupported-model'],
  ])('says so with %s', async (_, more, code) => {
    await expect(load(more)).rejects.toMatchObject({ name: 'KvasirError', code });
  });

  it('calls a missing file unreadable', async () => {
    const descriptor = await describeFile('gone.gguf');
    rmSync(descriptor.files[0] ?? '');
    await expect(load({}, descriptor)).rejects.toMatchObject({ code: 'file-unreadable' });
  });

  it('calls a file that has become too short truncated', async () => {
    const descriptor = await describeFile('short.gguf');
    truncateSync(descriptor.files[0] ?? '', gguf.byteLength - 1);
    await expect(load({}, descriptor)).rejects.toMatchObject({ code: 'file-truncated' });
  });

  it('is aborted by its signal', async () => {
    const controller = new AbortController();
    const loading = load({ signal: controller.signal });
    controller.abort();
    await expect(loading).rejects.toMatchObject({ code: 'aborted' });
  });
});

it('fails running and later steps with file-truncated when a weight file shrinks while it is mapped', async () => {
  const descriptor = await describeFile('shrinking.gguf');
  await using runner = await load({}, descriptor);
  await runner.submit(goodBatch(256)).result;
  truncateSync(descriptor.files[0] ?? '', 4096);
  await expect(runner.submit(goodBatch(256)).result).rejects.toMatchObject({ code: 'file-truncated' });
  await expect(async () => runner.submit(goodBatch(256)).result).rejects.toMatchObject({ code: 'file-truncated' });
});

it('survives workers that are terminated while it loads, computes and is destroyed in them', async () => {
  const tokens = Array.from({ length: 200 }, (_, i) => (i * 7) % SMALL_SHAPE.vocabularySize);
  const batch = {
    tokenIds: Int32Array.from(tokens),
    positions: Int32Array.from(tokens.keys()),
    cuSeqlensQ: Int32Array.of(0, tokens.length),
    contextLengths: Int32Array.of(tokens.length),
    groups: [
      {
        blockTables: Int32Array.of(2),
        blockTableWidth: 1,
        slotMapping: Int32Array.from(tokens.keys(), (at) => 512 + at),
      },
    ],
    inputRows: Int32Array.of(-1),
    samplerSlots: Int32Array.of(-1),
    outputIndexes: Int32Array.of(0),
    rowFlags: Uint8Array.of(ROW_FLAGS.hash),
    admissions: [],
  };
  const { groups, admissions, ...arrays } = batch;
  const inWaistTerms = {
    ...arrays,
    blockTableWidth: Uint32Array.from(groups, (group) => group.blockTableWidth),
    blockTables: groups.map((group) => group.blockTables),
    slotMapping: groups.map((group) => group.slotMapping),
    samplers: admissions,
  };
  const file = path.join(scratch, 'worker-teardown.v8');
  const toServe = { addonFile: CPU_ADDON_FILE, model: toAddonModel(model), options: toAddonOptions(OPTIONS, 8) };
  writeFileSync(file, serialize({ ...toServe, batch: inWaistTerms }));
  const script = path.join(path.dirname(fileURLToPath(import.meta.url)), 'worker-teardown.mjs');
  const { stdout } = await promisify(execFile)(process.execPath, [script, file], { timeout: 120_000 });

  await using runner = await load();
  const { hashes } = await runner.submit(batch).result;
  expect(stdout).toBe(`hash ${hashes[0]}\n`);
});
