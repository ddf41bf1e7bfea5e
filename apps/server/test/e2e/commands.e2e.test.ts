import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import {
  compareLogits,
  forward,
  loadReferenceModel,
  readSafetensors,
  tinyVocabulary,
  type TinyVocabulary,
} from '@kvasir/reference';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startHub } from './hub.ts';
import { runCli, Workbench, type Finished } from './processes.ts';

const bench = new Workbench();
const VOCABULARY = 320;
let model = '';
beforeAll(() => {
  model = bench.generateModel('generated', {}, 'f32');
});
afterAll(() => bench.remove());

function json<T>({ code, stdout, stderr }: Finished): T {
  expect(code, stderr).toBe(0);
  return JSON.parse(stdout) as T;
}

/** The generated models' vocabulary in the form Hugging Face keeps it. */
function toTokenizerJson({ tokens, types, merges }: TinyVocabulary): object {
  const entries = tokens.map((content, id) => ({ content, id }));
  return {
    version: '1.0',
    added_tokens: entries
      .filter(({ id }) => types[id] === 3)
      .map((entry) => ({
        ...entry,
        special: true,
        single_word: false,
        lstrip: false,
        rstrip: false,
        normalized: false,
      })),
    normalizer: null,
    pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
    decoder: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
    post_processor: null,
    model: {
      type: 'BPE',
      vocab: Object.fromEntries(entries.map(({ content, id }) => [content, id])),
      merges,
    },
  };
}

describe('kvasir run', () => {
  it('streams the answer to standard output and the rate to standard error', async () => {
    const run = await runCli(['run', '--model', model, '--raw', '--max-tokens', '12', '--seed', '3', 'Once', 'upon']);
    expect(run.code, run.stderr).toBe(0);
    expect(run.stdout.length).toBeGreaterThan(5);
    expect(run.stderr).toMatch(
      /^\[\d+ prompt tokens \([\d.]+ tokens\/s\), 12 generated \([\d.]+ tokens\/s\), seed 3\]\n$/,
    );
    const piped = await runCli(['run', '--model', model, '--raw', '--max-tokens', '12', '--seed', '3'], {
      input: 'Once upon',
    });
    expect(piped.stdout).toBe(run.stdout);
  });

  it('refuses a temperature that is none', async () => {
    const run = await runCli(['run', '--model', model, '--temperature', 'hot', 'x']);
    expect([run.code, run.stderr]).toEqual([2, expect.stringMatching(/^error usage: --temperature: /)]);
  });
});

describe('kvasir inspect', () => {
  it('shows what a model holds and what of it fits', async () => {
    const report = json<Record<string, unknown>>(await runCli(['inspect', model, '--json', '--memory', '64MiB']));
    const bytesPerBlock = 2 * 2 * 2 * 64 * 256 * 2;
    const weightBytes = (report['model'] as { fits: { weightBytes: number } }).fits.weightBytes;
    const blocks = Math.floor((64 * 2 ** 20 - weightBytes) / bytesPerBlock);
    expect(report).toMatchObject({
      architecture: 'llama',
      format: 'gguf',
      fileBytes: statSync(model).size,
      chatTemplates: ['default'],
      tokenizer: { vocabularySize: VOCABULARY },
      error: null,
      model: {
        contextLength: 8192,
        layers: 2,
        heads: [4],
        kvHeads: [2],
        headDim: [64],
        blockTokens: 256,
        bytesPerBlock,
        bytesPerToken: bytesPerBlock / 256,
        fits: { memoryBytes: 64 * 2 ** 20, blocks, tokens: blocks * 256 },
      },
    });
    const text = await runCli(['inspect', '--model', model]);
    expect(text.stdout).toMatch(/architecture +llama\n/);
    expect(text.stdout).toMatch(/KV +256\.00 KiB a block of 256 tokens/);
  });

  it('says in one line what is wrong with a file, and where only when asked', async () => {
    const bad = bench.write('bad.gguf', 'GGUFnonsense');
    const quiet = await runCli(['inspect', bad]);
    expect([quiet.code, quiet.stdout]).toEqual([1, '']);
    expect(quiet.stderr).toMatch(/^error [a-z-]+: .+\n$/);
    expect((await runCli(['inspect', bad, '--verbose'])).stderr).toMatch(/\n +at /);
    expect((await runCli(['inspect', bench.path('absent.gguf')])).stderr).toMatch(/^error file-not-found: /);
  });
});

describe('kvasir tokenize', () => {
  it('prints ids, special tokens as ids only when asked', async () => {
    const text = bench.write('text.txt', 'the<|im_end|>\n');
    const args = ['tokenize', '--model', model, '--text-file', text];
    const plain = json<number[]>(await runCli(args));
    const special = json<number[]>(await runCli([...args, '--special']));
    expect(plain.length).toBeGreaterThan(special.length);
    expect(special).toHaveLength(3);
    const out = bench.path('ids.json');
    expect((await runCli([...args, '--out', out])).stdout).toBe('');
    expect(JSON.parse(readFileSync(out, 'utf8'))).toEqual(plain);
    expect(json<number[]>(await runCli(['tokenize', '--model', model, '--text-file', '-'], { input: 'the' }))).toEqual(
      plain.slice(0, 1),
    );
  });

  it('works on a tokenizer.json that stands without a model', async () => {
    const directory = bench.path('alone');
    mkdirSync(directory);
    const file = path.join(directory, 'tokenizer.json');
    writeFileSync(file, JSON.stringify(toTokenizerJson(tinyVocabulary(VOCABULARY))));
    const text = bench.write('alone.txt', 'the sea and the wind');
    const ids = await Promise.all(
      [model, directory, file].map(async (source) =>
        json<number[]>(await runCli(['tokenize', '--model', source, '--text-file', text])),
      ),
    );
    expect(ids[0]?.length).toBeGreaterThan(3);
    expect(ids[1]).toEqual(ids[0]);
    expect(ids[2]).toEqual(ids[0]);
  });

  it('refuses text that is no UTF-8', async () => {
    const { code, stderr } = await runCli(['tokenize', '--model', model, '--text-file', model]);
    expect([code, stderr]).toEqual([1, expect.stringMatching(/^error file-foreign: /)]);
  });
});

describe('kvasir logits', () => {
  it('writes what the float64 oracle computes, and the greedy continuation', async () => {
    const ids = Array.from({ length: 300 }, (_, index) => (index * 37) % VOCABULARY);
    const file = bench.write('logits-ids.json', JSON.stringify(ids));
    const out = bench.path('logits.safetensors');
    const run = await runCli(['logits', '--model', model, '--ids', file, '--out', out, '--oracle', '--greedy', '5']);
    expect(run.code, run.stderr).toBe(0);
    const tensors = readSafetensors(readFileSync(out));
    const logits = tensors.get('logits');
    expect(logits?.shape).toEqual([300, VOCABULARY]);
    const expected = forward(loadReferenceModel(model), ids);
    const actual = new Float32Array(Uint8Array.from(logits?.bytes ?? []).buffer);
    expect(compareLogits(actual, expected, VOCABULARY).relativeError).toBeLessThan(1e-4);
    expect(tensors.get('greedy_ids')?.shape).toEqual([5]);
    expect(existsSync(`${out}.incomplete`)).toBe(false);
  });

  it('refuses ids outside the vocabulary and leaves no file', async () => {
    const out = bench.path('none.safetensors');
    const run = await runCli([
      'logits',
      '--model',
      model,
      '--ids',
      bench.write('wrong.json', '[1, 999]'),
      '--out',
      out,
    ]);
    expect([run.code, run.stderr]).toEqual([1, expect.stringMatching(/^error invalid-argument: /)]);
    expect([existsSync(out), existsSync(`${out}.incomplete`)]).toEqual([false, false]);
  });
});

describe('kvasir perplexity', () => {
  it('scores the second half of every chunk as the oracle’s logits say', async () => {
    const text = bench.write('story.txt', 'The moon and the sea and the wind. '.repeat(12));
    const args = [
      'perplexity',
      '--model',
      model,
      '--text-file',
      text,
      '--context',
      '64',
      '--json',
      '--kv-dtype',
      'f32',
      '--activations',
      'float',
    ];
    const result = json<{ perplexity: number; chunks: number; scoredTokens: number; tokens: number }>(
      await runCli(args),
    );
    const ids = json<number[]>(await runCli(['tokenize', '--model', model, '--text-file', text]));
    const chunks = Math.floor(ids.length / 64);
    expect(result).toMatchObject({ tokens: ids.length, chunks, scoredTokens: chunks * 31 });
    const reference = loadReferenceModel(model);
    let nll = 0;
    for (let chunk = 0; chunk < chunks; chunk += 1) {
      const window = ids.slice(chunk * 64, (chunk + 1) * 64);
      const logits = forward(reference, window);
      for (let token = 33; token < 64; token += 1) {
        const row = logits.subarray((token - 1) * VOCABULARY, token * VOCABULARY);
        const logSum = Math.log(row.reduce((sum, logit) => sum + Math.exp(logit), 0));
        nll += logSum - (row[window[token] ?? 0] ?? 0);
      }
    }
    expect(result.perplexity).toBeCloseTo(Math.exp(nll / (chunks * 31)), 1);
  });

  it('says how much text it needs', async () => {
    const run = await runCli(['perplexity', '--model', model, '--text-file', bench.write('short.txt', 'short')]);
    expect([run.code, run.stderr]).toEqual([
      1,
      expect.stringMatching(/^error invalid-argument: text: expected at least --context 2048/),
    ]);
  });
});

describe('kvasir bench', () => {
  it('prints a table as llama-bench lays it out', async () => {
    const run = await runCli(['bench', '--model', model, '-p', '32', '-n', '4', '-d', '0,64', '-b', '1,2', '-r', '2']);
    expect(run.code, run.stderr).toBe(0);
    const rows = run.stdout
      .trim()
      .split('\n')
      .map((row) => row.split('|').map((cell) => cell.trim()));
    expect(rows[0]?.slice(1, -1)).toEqual(['model', 'size', 'params', 'backend', 'threads', 'test', 't/s']);
    expect(rows.slice(2).map((row) => row[6])).toEqual([
      'pp32',
      'tg4',
      'tg4 b2',
      'pp32 @ d64',
      'tg4 @ d64',
      'tg4 @ d64 b2',
    ]);
    expect(rows.slice(2).every((row) => /^[\d.]+ ± [\d.]+$/.test(row[7] ?? ''))).toBe(true);
  });

  it('reports hardware, command and every sample as JSON', async () => {
    const run = await runCli(['bench', '--model', model, '-p', '16', '-n', '0', '-r', '3', '--json']);
    expect(json(run)).toMatchObject({
      command: expect.stringContaining('bench'),
      hardware: { node: process.version },
      backend: { name: 'cpu' },
      tests: [
        {
          name: 'pp16',
          kind: 'prefill',
          depth: 0,
          batch: 1,
          tokensPerSecond: [expect.any(Number), expect.any(Number), expect.any(Number)],
        },
      ],
    });
  });

  it('refuses lists that are none', async () => {
    const run = await runCli(['bench', '--model', model, '-p', '1,x']);
    expect([run.code, run.stderr]).toEqual([2, expect.stringMatching(/^error usage: --prompt: /)]);
  });
});

describe('kvasir fetch', () => {
  it('downloads from a mirror with its token and runs what it downloaded', async () => {
    const content = readFileSync(model);
    const hub = await startHub({ repository: 'org/repo', file: 'm.gguf', content });
    const environment = {
      KVASIR_HF_ENDPOINT: hub.url,
      KVASIR_HF_TOKEN: 'hf_secret',
      KVASIR_CACHE_DIR: bench.path('cache'),
    };
    const run = await runCli(['fetch', 'hf:org/repo:m.gguf'], { environment });
    expect(run.code, run.stderr).toBe(0);
    const file = run.stdout.trim();
    expect(path.isAbsolute(file)).toBe(true);
    expect(createHash('sha256').update(readFileSync(file)).digest('hex')).toBe(hub.sha256);
    expect(hub.authorizations).toContain('Bearer hf_secret');
    const inspect = await runCli(['inspect', 'hf:org/repo:m.gguf', '--json'], { environment });
    expect(json(inspect)).toMatchObject({ path: file, architecture: 'llama' });
    await hub.close();
  });

  it('refuses what is no Hub name', async () => {
    const run = await runCli(['fetch', 'model.gguf']);
    expect([run.code, run.stderr]).toEqual([2, expect.stringMatching(/^error usage: model: expected hf:/)]);
  });
});

describe('the command line', () => {
  it('ends with 2 for what it does not know, and with 0 for help', async () => {
    expect((await runCli(['dance'])).code).toBe(2);
    expect((await runCli(['serve', '--colour', 'red'])).code).toBe(2);
    const help = await runCli(['serve', '--help']);
    expect(help.code).toBe(0);
    expect(help.stdout).toContain('KVASIR_PREFILL_CHUNK_TOKENS');
  });
});
