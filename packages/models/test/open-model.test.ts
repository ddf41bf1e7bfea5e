import { execFileSync } from 'node:child_process';
import { chmodSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { openModel } from '../src/index.ts';
import { failureOf, temporaryDirectory, writeFiles } from './support/files.ts';
import { ggufBytes, type GgufSpec } from './support/gguf-bytes.ts';
import { safetensorsBytes } from './support/safetensors-bytes.ts';
import { tinyCheckpoint, tinyGguf, tinyGgufSpec, tinySafetensors, withEntry } from './support/tiny-models.ts';

const root = temporaryDirectory();
let folders = 0;
const folder = (files: Parameters<typeof writeFiles>[1]) => writeFiles(join(root, `${folders++}`), files);

describe('openModel on GGUF files', () => {
  it('tells what the file holds', async () => {
    const path = join(folder({ 'tiny.gguf': tinyGguf('llama') }), 'tiny.gguf');
    const model = await openModel(path);
    expect(model).toMatchObject({
      format: 'gguf',
      path,
      name: 'tiny llama',
      architecture: 'llama',
      files: [path],
      fileSizes: [tinyGguf('llama').length],
      generationConfig: { eosTokenIds: [2], bosTokenId: 1 },
    });
    expect([...model.chatTemplates]).toEqual([['default', '{{ messages[0].content }}']]);
    expect(model.tensors).toHaveLength(20);
    expect(model.tokenizerSource).toEqual({ kind: 'gguf', metadata: model.metadata });
  });

  it('knows a GGUF file by its content, whatever it is called', async () => {
    const directory = folder({ 'sha256-0123': tinyGguf('llama') });
    symlinkSync('sha256-0123', join(directory, 'linked.bin'));
    expect((await openModel(join(directory, 'linked.bin'))).architecture).toBe('llama');
  });

  it('lists named chat templates and leaves out ids that are none', async () => {
    const spec = withEntry(tinyGgufSpec('llama'), ['tokenizer.chat_template.tool_use', 'string', 'T']);
    const bytes = ggufBytes(withEntry(spec, ['tokenizer.ggml.eos_token_id', 'uint32', 0xffff_ffff]));
    const model = await openModel(join(folder({ 'm.gguf': bytes }), 'm.gguf'));
    expect([...model.chatTemplates.keys()].sort()).toEqual(['default', 'tool_use']);
    expect(model.generationConfig.eosTokenIds).toEqual([]);
  });

  it('opens a split model by any of its shards', async () => {
    const directory = folder(splitModel(tinyGgufSpec('llama')));
    for (const name of ['m-00001-of-00003.gguf', 'm-00003-of-00003.gguf']) {
      const model = await openModel(join(directory, name));
      expect(model.path).toBe(join(directory, 'm-00001-of-00003.gguf'));
      expect(model.files).toHaveLength(3);
      expect(new Set(model.tensors.map(({ file }) => file))).toEqual(new Set([1, 2]));
      expect(model.descriptor().tensors).toHaveLength(20);
    }
  });

  it('names the shard that is missing, misplaced or doubled', async () => {
    const shards = splitModel(tinyGgufSpec('llama'));
    const { 'm-00002-of-00003.gguf': second, ...rest } = shards;
    const first = (directory: string) => failureOf(() => openModel(join(directory, 'm-00001-of-00003.gguf')));
    expect(await first(folder(rest))).toEqual({
      code: 'file-not-found',
      message: expect.stringMatching(/m-00002-of-00003\.gguf: expected shard 2 of 3/),
    });
    expect((await first(folder({ ...shards, 'm-00003-of-00003.gguf': second as Buffer }))).message).toMatch(
      /split\.no/,
    );
    const renamed = folder({ 'renamed.gguf': shards['m-00001-of-00003.gguf'] as Buffer });
    expect((await failureOf(() => openModel(join(renamed, 'renamed.gguf')))).message).toMatch(/original names/);
  });

  const mistakes: [what: string, bytes: Uint8Array | string, code: string, message: RegExp][] = [
    ['an HTML page', '\n<!DOCTYPE html><html></html>', 'file-foreign', /HTML page/],
    ['an LFS pointer', 'version https://git-lfs.github.com/spec/v1\noid', 'file-foreign', /git lfs pull/],
    ['a PyTorch zip', Buffer.from('PK\u0003\u0004abcdefgh'), 'file-foreign', /zip archive/],
    ['a pickle', Buffer.from([0x80, 2, 0x8a, 10, 1, 2, 3, 4, 5, 6]), 'file-foreign', /pickle/],
    ['a gzip', Buffer.from([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0]), 'file-foreign', /unpack it/],
    ['zeros', Buffer.alloc(4096), 'file-truncated', /zero bytes/],
    ['a GGML file before GGUF', Buffer.from('tjgg\u0003\u0000\u0000\u0000'), 'unsupported-format', /before GGUF/],
    ['a big-endian magic', Buffer.from('FUGG\u0000\u0000\u0000\u0003'), 'unsupported-format', /big-endian/],
    ['JSON', '{"error":"not found"}', 'file-foreign', /JSON text/],
    ['text', 'hello there', 'file-foreign', /found bytes 68 65 6c 6c 6f/],
    ['nothing', '', 'file-truncated', /empty file/],
  ];
  it.each(mistakes)('says that %s is not a model', async (_, bytes, code, message) => {
    const path = join(folder({ 'm.gguf': bytes }), 'm.gguf');
    expect(await failureOf(() => openModel(path))).toEqual({ code, message: expect.stringMatching(message) });
  });

  it('refuses a path that leads nowhere, to a pipe, or holds a zero byte', async () => {
    const directory = folder({});
    writeFiles(directory, { a: 'a' });
    execFileSync('mkfifo', [join(directory, 'pipe.gguf')]);
    expect((await failureOf(() => openModel(join(directory, 'none.gguf')))).code).toBe('file-not-found');
    expect((await failureOf(() => openModel(join(directory, 'a', 'b.gguf')))).code).toBe('file-not-found');
    expect((await failureOf(() => openModel(join(directory, 'pipe.gguf')))).message).toMatch(/pipe/);
    expect((await failureOf(() => openModel('a\0b'))).code).toBe('invalid-argument');
  });

  it.skipIf(process.getuid?.() === 0)('says when a file may not be read', async () => {
    const path = join(folder({ 'm.gguf': tinyGguf('llama') }), 'm.gguf');
    chmodSync(path, 0);
    expect((await failureOf(() => openModel(path))).code).toBe('file-unreadable');
  });
});

describe('openModel on Hugging Face directories', () => {
  const { config, tensors } = tinyCheckpoint('llama');
  const weights = tinySafetensors('llama');

  it('opens the directory or a file in it', async () => {
    const directory = folder({
      'config.json': config,
      'model.safetensors': weights,
      'generation_config.json': { eos_token_id: [2, 5], bos_token_id: null },
      'tokenizer_config.json': {
        chat_template: [
          { name: 'default', template: 'D' },
          { name: 'rag', template: 'R' },
        ],
      },
      'chat_template.jinja': 'J',
      'additional_chat_templates/tool_use.jinja': 'T',
    });
    for (const path of ['', 'config.json', 'model.safetensors'].map((name) => join(directory, name))) {
      const model = await openModel(path);
      expect(model).toMatchObject({
        format: 'safetensors',
        path: directory,
        architecture: 'LlamaForCausalLM',
        files: [join(directory, 'model.safetensors')],
        fileSizes: [weights.length],
        metadata: { hidden_size: 8 },
        tokenizerSource: { kind: 'huggingface', directory },
        generationConfig: { eosTokenIds: [2, 5], bosTokenId: 1 },
      });
      expect(Object.fromEntries(model.chatTemplates)).toEqual({ default: 'J', rag: 'R', tool_use: 'T' });
    }
  });

  it('takes a weight file of another name alone', async () => {
    const directory = folder({ 'config.json': config, 'tuned.safetensors': weights });
    const model = await openModel(join(directory, 'tuned.safetensors'));
    expect(model.files).toEqual([join(directory, 'tuned.safetensors')]);
    expect(model.descriptor().layers).toHaveLength(2);
  });

  it('opens a directory that holds a tokenizer alone', async () => {
    const model = await openModel(folder({ 'tokenizer.json': {}, 'tokenizer_config.json': { chat_template: 'D' } }));
    expect([model.tensors, [...model.chatTemplates]]).toEqual([[], [['default', 'D']]]);
    expect((await failureOf(() => model.descriptor())).message).toMatch(/vocabulary alone/);
  });

  it('joins shards by their index', async () => {
    const half = tensors.length / 2;
    const shards = {
      'model-00001-of-00002.safetensors': safetensorsBytes(tensors.slice(0, half)),
      'model-00002-of-00002.safetensors': safetensorsBytes(tensors.slice(half)),
    };
    const names = Object.keys(shards);
    const weight_map = Object.fromEntries(tensors.map(({ name }, index) => [name, names[index < half ? 0 : 1]]));
    const index = { metadata: { total_size: 1 }, weight_map };
    const files = { 'config.json': config, 'model.safetensors.index.json': index, ...shards };
    const model = await openModel(folder(files));
    expect([model.files.length, model.tensors.length, model.descriptor().tensors.length]).toEqual([2, 20, 20]);

    const failure = (changes: object) => failureOf(() => openModel(folder({ ...files, ...changes })));
    const outside = { ...index, weight_map: { ...weight_map, 'model.norm.weight': '../model.safetensors' } };
    expect((await failure({ 'model.safetensors.index.json': outside })).message).toMatch(/same directory.*\.\.\/model/);
    const elsewhere = { ...index, weight_map: { ...weight_map, 'model.norm.weight': names[0] } };
    expect((await failure({ 'model.safetensors.index.json': elsewhere })).message).toMatch(/model\.norm\.weight in/);
    const doubled = { 'model-00002-of-00002.safetensors': shards['model-00001-of-00002.safetensors'] };
    expect((await failure(doubled)).message).toMatch(/every tensor in one file/);
    const { 'model-00002-of-00002.safetensors': _, ...incomplete } = files;
    expect(await failureOf(() => openModel(folder(incomplete)))).toEqual({
      code: 'file-not-found',
      message: expect.stringMatching(/model-00002-of-00002\.safetensors: expected a shard/),
    });
  });

  it('says what a directory without a model holds instead', async () => {
    const failure = (files: Parameters<typeof folder>[0]) => failureOf(() => openModel(folder(files)));
    expect((await failure({ 'a.gguf': tinyGguf('llama') })).message).toMatch(/GGUF files \(a\.gguf\)/);
    expect((await failure({ 'config.json': config, 'pytorch_model.bin': '' })).message).toMatch(/PyTorch/);
    expect((await failure({ 'model.safetensors': weights })).message).toMatch(/config\.json.*weights without it/);
    expect((await failure({ 'readme.txt': 'x' })).message).toMatch(/no model files/);
    expect((await failure({ 'config.json': '[1]', 'model.safetensors': weights })).code).toBe('file-corrupt');
    expect((await failure({ 'config.json': '{', 'model.safetensors': weights })).code).toBe('file-corrupt');
    const pointer = { 'config.json': config, 'model.safetensors': 'version https://git-lfs.github.com/spec/v1' };
    expect(await failure(pointer)).toMatchObject({ code: 'file-foreign', message: expect.stringMatching(/git lfs/) });
  });
});

/** Three shards: metadata alone, then the tensors in two halves. */
function splitModel(spec: GgufSpec): Record<string, Buffer> {
  const half = spec.tensors.length / 2;
  const parts = [[], spec.tensors.slice(0, half), spec.tensors.slice(half)];
  return Object.fromEntries(
    parts.map((tensors, index) => {
      const split: GgufSpec['metadata'] = [
        ['split.no', 'uint32', index],
        ['split.count', 'uint32', 3],
        ['split.tensors.count', 'int32', spec.tensors.length],
      ];
      const metadata = index === 0 ? [...spec.metadata, ...split] : split;
      return [`m-0000${index + 1}-of-00003.gguf`, ggufBytes({ metadata, tensors })];
    }),
  );
}
