import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { LoadOptions, ModelDescriptor } from '@kvasir/domain';
import { openAddon } from '../src/index.ts';
import type { KvasirAddon } from '../src/index.ts';
import { buildAddon } from '../scripts/build-addon.mjs';

const packageDirectory = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');

/** Builds the addon over native/tests/fake_backend.c where needed; `sanitize` is CMake's KVASIR_SANITIZE. */
export async function buildFakeAddon(sanitize = ''): Promise<string> {
  const { file } = await buildAddon({
    projectDirectory: path.join(packageDirectory, 'test/fake-addon'),
    outputDirectory: path.join(packageDirectory, '.native', sanitize === '' ? 'fake' : 'fake-sanitized'),
    nativeDirectory: path.resolve(packageDirectory, '../../native'),
    sources: ['abi', 'napi', 'cmake', 'tests/fake_backend.c'],
    backend: 'fake',
    definitions: sanitize === '' ? {} : { KVASIR_SANITIZE: sanitize },
  });
  return file;
}

export async function openFakeAddon(): Promise<KvasirAddon> {
  return openAddon(await buildFakeAddon(), 'pnpm vitest run --project native packages/native-runner');
}

/** Two layers, two KV heads of 8, 100 tokens of vocabulary: 2 * 2 * 2 * 8 values a token. */
export const FAKE_MODEL: ModelDescriptor = {
  architecture: 'fake',
  name: 'fake',
  vocabularySize: 100,
  hiddenSize: 32,
  contextLength: 4096,
  normEpsilon: 1e-5,
  embeddingScale: 1,
  logitScale: 1,
  tiedEmbeddings: true,
  layers: [0, 1].map(() => ({
    group: 0,
    numHeads: 4,
    numKvHeads: 2,
    headDim: 8,
    attention: { kind: 'full' },
    rope: null,
    softmaxScale: 1,
    feedForward: { kind: 'dense', size: 64, activation: 'silu' },
  })),
  ropes: [],
  tensors: [],
  files: [],
};

/** `settings` as the head of native/tests/fake_backend.c explains them, e.g. `step_us=5000`. */
export function fakeOptions(settings = '', more: Partial<LoadOptions> = {}): LoadOptions {
  return {
    numBlocks: [16],
    kvDType: 'f16',
    activations: 'quantized',
    maxBatchTokens: 512,
    maxBatchSequences: 64,
    maxBlocksPerSequence: 16,
    numThreads: 0,
    instructionPath: settings === '' ? 'auto' : `fake:${settings}`,
    ...more,
  };
}
