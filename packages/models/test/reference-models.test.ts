import { gunzipSync } from 'node:zlib';
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { GgufStringList, openModel } from '../src/index.ts';
import { readGgufHeader } from '../src/gguf/gguf-header.ts';
import { failureOf, memorySource, sharedDirectory, temporaryDirectory, writeFiles } from './support/files.ts';

const data = sharedDirectory();

describe.skipIf(data === null)('reference models', () => {
  const models = join(data ?? '', 'models');

  it.each(['stories260K-F32.gguf', 'stories260K-F16.gguf', 'stories260K-Q8_0.gguf', 'hf'])(
    'describes stories260K/%s',
    async (name) => {
      const model = (await openModel(join(models, 'stories260K', name))).descriptor();
      expect(model).toMatchObject({ vocabularySize: 512, hiddenSize: 64, contextLength: 512, tiedEmbeddings: true });
      expect(model.layers).toHaveLength(5);
      expect(model.layers[4]).toMatchObject({ numHeads: 8, numKvHeads: 4, headDim: 8, feedForward: { size: 172 } });
      expect(model.ropes[0]?.style).toBe(name === 'hf' ? 'halves' : 'interleaved');
      expect(model.tensors).toHaveLength(47);
      expect(new Set(model.tensors.map(({ dtype }) => dtype))).toEqual(
        new Set(
          { F32: ['f32'], F16: ['f16', 'f32'], Q8_0: ['q8_0', 'f16', 'f32'] }[/-(\w+)\.gguf/.exec(name)?.[1] ?? 'F32'],
        ),
      );
    },
  );

  it('describes every quantized Llama in its own dtypes', async () => {
    const names = readdirSync(join(models, 'quantized-llama')).filter((name) => name.endsWith('.gguf'));
    const dtypes: Record<string, string[]> = {};
    for (const name of names) {
      const model = (await openModel(join(models, 'quantized-llama', name))).descriptor();
      expect(model).toMatchObject({ hiddenSize: 256, vocabularySize: 512, tiedEmbeddings: false });
      expect(model.layers[0]).toMatchObject({ numHeads: 4, numKvHeads: 2, headDim: 64 });
      dtypes[name.slice('tiny-llama-'.length, -'.gguf'.length)] = [
        ...new Set(model.tensors.filter(({ shape }) => shape.length === 2).map(({ dtype }) => dtype)),
      ].sort();
    }
    expect(dtypes).toEqual({
      MXFP4: ['mxfp4', 'q8_0'],
      Q4_0: expect.arrayContaining(['q4_0']),
      Q4_K_M: ['q4_k', 'q6_k'],
      Q5_0: expect.arrayContaining(['q5_0']),
      Q6_K: ['q6_k'],
      Q8_0: ['q8_0'],
    });
  });

  it('describes the published checkpoint layouts of the three families', async () => {
    const open = async (name: string) => (await openModel(join(models, 'tiny-random', name))).descriptor();
    const [llama, qwen2, qwen3] = [await open('llama'), await open('qwen2'), await open('qwen3')];
    expect(llama).toMatchObject({ architecture: 'llama', tiedEmbeddings: false, normEpsilon: 1e-5 });
    expect(qwen2).toMatchObject({ architecture: 'qwen2', tiedEmbeddings: true });
    expect(qwen3).toMatchObject({ architecture: 'qwen3', tiedEmbeddings: true });
    expect([llama, qwen2, qwen3].map(({ layers }) => layers[0]?.headDim)).toEqual([16, 16, 32]);
    expect(qwen2.tensors.filter(({ role }) => role === 'attn-q-bias')).toHaveLength(4);
    expect(qwen3.tensors.filter(({ role }) => role === 'attn-k-norm')).toHaveLength(4);
    // llama3 scaling: the first pair turns fast and keeps its frequency, the last is divided by 8.
    const frequencies = llama.ropes[0]?.inverseFrequencies ?? new Float64Array();
    expect([frequencies[0], frequencies[7]]).toEqual([1, expect.closeTo(500_000 ** (-14 / 16) / 8, 14)]);
  });

  it.each(['phi3', 'gemma3_text', 'gpt_oss_mxfp4'])(
    'opens %s, and refuses to describe it by its name',
    async (name) => {
      const model = await openModel(join(models, 'tiny-random', name));
      expect(model.tensors.length).toBeGreaterThan(0);
      const { code, message } = await failureOf(() => model.descriptor());
      expect([code, message]).toEqual(['unsupported-model', expect.stringContaining(model.architecture)]);
    },
  );

  const vocabularies =
    data === null ? [] : readdirSync(join(data, 'tokenizers')).filter((name) => name.endsWith('.gguf.gz'));
  it.each(vocabularies)('reads the vocabulary %s in well under a second', (name) => {
    const bytes = gunzipSync(readFileSync(join(data ?? '', 'tokenizers', name)));
    const start = performance.now();
    const { metadata, tensors } = readGgufHeader(memorySource(bytes, name));
    const elapsed = performance.now() - start;
    const tokens = metadata.get('tokenizer.ggml.tokens') as GgufStringList;
    const types = metadata.get('tokenizer.ggml.token_type') as Int32Array;
    console.log(`${name}: ${tokens.length} tokens in ${elapsed.toFixed(0)} ms`);
    expect([tensors.length, tokens.length]).toEqual([0, types.length]);
    expect(elapsed).toBeLessThan(1000);
  });

  it('diagnoses the file that a line-ending conversion damaged', async () => {
    const bytes = gunzipSync(readFileSync(join(data ?? '', 'bad-files', 'crlf-damaged.gguf.gz')));
    const directory = writeFiles(temporaryDirectory(), { 'crlf-damaged.gguf': bytes });
    const { code, message } = await failureOf(() => openModel(join(directory, 'crlf-damaged.gguf')));
    expect([code, message]).toEqual([
      'file-corrupt',
      expect.stringMatching(/damaged by a conversion of text \(line endings/),
    ]);
  });
});
