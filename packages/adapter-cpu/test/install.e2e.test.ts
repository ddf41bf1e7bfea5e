// Packed tarballs in an empty project: npm installs them, the install script compiles the native sources they carry, and
// a model runs with the same bits as in the checkout. What only this catches: a file missing from a tarball, a dependency
// that only the workspace provides, an install script that needs the repository.
import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { generateGguf, SMALL_SHAPE } from '@kvasir/reference';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { startLoopbackRegistry } from '../../../tools/loopback-registry.mjs';
import { packAll } from '../../../tools/pack-all.mjs';
import { goodBatch } from './hostile-batches.ts';
import { loadOnCpu } from './support/load.ts';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../../..');
const scratch = mkdtempSync(path.join(tmpdir(), 'kvasir-install-'));
const project = path.join(scratch, 'project');
const modelFile = path.join(scratch, 'model.gguf');
afterAll(() => rmSync(scratch, { recursive: true }));

const CONSUMER = `
import { GREEDY, ROW_FLAGS } from '@kvasir/domain';
import type { ModelRunner } from '@kvasir/domain';
import { cpuBackendInfo, createCpuModelLoader } from '@kvasir/adapter-cpu';
import { openModel } from '@kvasir/models';

const descriptor = await (await openModel(process.argv[2] ?? '')).descriptor();
const runner: ModelRunner = await createCpuModelLoader().load(descriptor, {
  numBlocks: [8], kvDType: 'f16', activations: 'quantized', maxBatchTokens: 256, maxBatchSequences: 8,
  maxBlocksPerSequence: 4, numThreads: 0, instructionPath: 'auto',
});
const { hashes, sampledIds } = await runner.submit({
  tokenIds: Int32Array.of(1, 2, 3), positions: Int32Array.of(0, 1, 2), cuSeqlensQ: Int32Array.of(0, 3),
  contextLengths: Int32Array.of(3),
  groups: [{ blockTables: Int32Array.of(5), blockTableWidth: 1, slotMapping: Int32Array.of(1280, 1281, 1282) }],
  inputRows: Int32Array.of(-1), samplerSlots: Int32Array.of(0), outputIndexes: Int32Array.of(0),
  rowFlags: Uint8Array.of(ROW_FLAGS.sample | ROW_FLAGS.hash),
  admissions: [{ slot: 0, params: GREEDY, history: Int32Array.of(1, 2, 3), numPromptTokens: 3,
                 stopIds: new Int32Array(), maxOutputs: 0 }],
}).result;
await runner.dispose();
console.log(JSON.stringify({ backend: cpuBackendInfo().backend, hash: String(hashes[0]), id: sampledIds[0] }));
`;

beforeAll(async () => {
  mkdirSync(project);
  writeFileSync(modelFile, generateGguf({ ...SMALL_SHAPE, family: 'llama' }, 'q8_0', 3));
  writeFileSync(path.join(project, 'package.json'), '{ "private": true, "type": "module" }');
  writeFileSync(path.join(project, 'consumer.ts'), CONSUMER);
  const tarballs = await packAll(path.join(scratch, 'tarballs'), ['@kvasir/adapter-cpu', '@kvasir/models']);
  const registry = await startLoopbackRegistry(tarballs);
  try {
    const quiet = ['--no-audit', '--no-fund', '--registry', registry.url, '--cache', path.join(scratch, 'cache')];
    await run('npm', ['install', '--foreground-scripts', ...quiet, '@kvasir/adapter-cpu', '@kvasir/models']);
  } finally {
    await registry.close();
  }
}, 1_200_000);

it('compiles where it is installed and runs a model with the same bits as in the checkout', async () => {
  const tsc = path.join(root, 'node_modules/typescript/bin/tsc');
  const types = ['--typeRoots', path.join(root, 'node_modules/@types'), '--types', 'node'];
  await run(process.execPath, [tsc, 'consumer.ts', '--module', 'nodenext', '--target', 'es2023', '--strict', ...types]);
  const found = JSON.parse(await run(process.execPath, ['consumer.js', modelFile])) as object;

  await using runner = await loadOnCpu(modelFile);
  const batch = goodBatch(256);
  const expected = await runner.submit({
    ...batch,
    tokenIds: Int32Array.of(1, 2, 3),
    positions: Int32Array.of(0, 1, 2),
    cuSeqlensQ: Int32Array.of(0, 3),
    contextLengths: Int32Array.of(3),
    groups: [{ blockTables: Int32Array.of(0), blockTableWidth: 1, slotMapping: Int32Array.of(0, 1, 2) }],
    inputRows: Int32Array.of(-1),
    samplerSlots: Int32Array.of(0),
    outputIndexes: Int32Array.of(0),
    rowFlags: batch.rowFlags.subarray(1),
  }).result;
  expect(found).toEqual({ backend: 'cpu', hash: String(expected.hashes[0]), id: expected.sampledIds[0] });
});

it('has nothing left to build afterwards', async () => {
  const builder = path.join(project, 'node_modules/@kvasir/adapter-cpu/scripts/build-native.mjs');
  expect(await run(process.execPath, [builder])).toContain('is current');
});

/** Output of a command in the project; rejects with it when the command fails. */
function run(command: string, args: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { cwd: project, shell: process.platform === 'win32' });
    let output = '';
    child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()));
    child.stderr.on('data', (chunk: Buffer) => (output += chunk.toString()));
    child.on('error', reject);
    child.on('close', (code) => {
      if (code === 0) resolve(output);
      else reject(new Error(`\`${[command, ...args].join(' ')}\` exited with ${code}:\n${output}`));
    });
  });
}
