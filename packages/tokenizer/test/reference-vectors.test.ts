import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { createTokenizer, type TextTokenizer } from '../src/index.ts';
import { readGgufMetadata } from './support/gguf-metadata.ts';
import { sharedData } from './support/shared-data.ts';

const tokenizers = sharedData('tokenizers');
const texts = sharedData('text');
const SEPARATOR = '\n__ggml_vocab_test__\n';
const plain = { special: false, addBosEos: false };

/** Vectors by name, the vocabulary they are for, and that vocabulary's name among the counts of whole texts. */
const VOCABULARIES = [
  ['gpt-2', 'vocab-gpt-2.gguf.gz', null],
  ['gpt-4o', 'vocab-gpt-oss.gguf.gz', 'gpt-oss'],
  ['llama-bpe', 'vocab-llama-3.1.gguf.gz', 'llama-3.1'],
  ['llama-spm', 'vocab-llama-spm.gguf.gz', null],
  ['phi-3', 'vocab-phi-3.gguf.gz', null],
  ['qwen2', 'vocab-qwen2-qwen3.gguf.gz', 'qwen2.5-qwen3'],
] as const;

interface WholeText {
  readonly n_tokens: number;
  readonly sha256_u32le: string;
}

describe.skipIf(tokenizers === null)('reference vectors', () => {
  it.each(VOCABULARIES)(
    '%s: every vector and every whole text is exact, and comes back',
    async (vectors, file, counts) => {
      const tokenizer = await createTokenizer({ kind: 'gguf', metadata: readGgufMetadata(`${tokenizers}/${file}`) });
      expect(await checkVectors(tokenizer, vectors)).toBe(47);
      if (counts !== null && texts !== null) await expectWholeTexts(tokenizer, counts);
      await tokenizer.dispose();
    },
  );

  it('tokenizer.json: every vector and every whole text is exact', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'kvasir-tokenizer-'));
    await writeFile(
      join(directory, 'tokenizer.json'),
      gunzipSync(readFileSync(`${tokenizers}/hf/qwen2.5-tokenizer.json.gz`)),
    );
    const tokenizer = await createTokenizer({ kind: 'huggingface', directory });
    expect(await checkVectors(tokenizer, 'qwen2')).toBe(47);
    if (texts !== null) await expectWholeTexts(tokenizer, 'qwen2.5-qwen3');
    await tokenizer.dispose();
    await rm(directory, { recursive: true });
  });
});

/** Number of texts that came out exact, all of them or the test has failed. */
async function checkVectors(tokenizer: TextTokenizer, name: string): Promise<number> {
  const inputs = readFileSync(`${tokenizers}/vectors/${name}.inp`, 'utf8').split(SEPARATOR);
  const lines = readFileSync(`${tokenizers}/vectors/${name}.out`, 'utf8').split('\n');
  for (const [index, text] of inputs.entries()) {
    const ids = await tokenizer.encode(text, plain);
    expect([...ids], JSON.stringify(text)).toEqual((lines[index] ?? '').split(/\s+/).filter(Boolean).map(Number));
    expect(tokenizer.decode(ids)).toBe(text);
  }
  return inputs.length;
}

async function expectWholeTexts(tokenizer: TextTokenizer, name: string): Promise<void> {
  const counts = JSON.parse(readFileSync(`${tokenizers}/golden_token_counts.json`, 'utf8')) as Record<
    string,
    Record<string, WholeText>
  >;
  for (const [path, expected] of Object.entries(counts[name] ?? {})) {
    const file = `${texts}/${path.split('/').at(-1)}`;
    const text = existsSync(file)
      ? readFileSync(file, 'utf8')
      : gunzipSync(readFileSync(`${file}.gz`)).toString('utf8');
    const ids = await tokenizer.encode(text, plain);
    expect(ids.length, path).toBe(expected.n_tokens);
    expect(createHash('sha256').update(ids).digest('hex'), path).toBe(expected.sha256_u32le);
    expect(tokenizer.decode(ids) === text, path).toBe(true);
  }
}
