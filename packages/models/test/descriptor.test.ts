import { join } from 'node:path';
import { ModelCacheSpec, type ModelDescriptor } from '@kvasir/domain';
import { describe, expect, it } from 'vitest';
import { openModel } from '../src/index.ts';
import { failureOf, temporaryDirectory, writeFiles } from './support/files.ts';
import { f32, ggufBytes, u32, u64, type GgufSpec, type MetadataEntry } from './support/gguf-bytes.ts';
import { safetensorsBytes, type SafetensorsEntry } from './support/safetensors-bytes.ts';
import { TINY, tinyCheckpoint, tinyGgufSpec, withEntry, withoutEntry, type Family } from './support/tiny-models.ts';

const root = temporaryDirectory();
let count = 0;

async function fromGguf(spec: GgufSpec): Promise<ModelDescriptor> {
  const name = `${count++}.gguf`;
  writeFiles(root, { [name]: ggufBytes(spec) });
  return (await openModel(join(root, name))).descriptor();
}

async function fromCheckpoint(config: object, tensors: readonly SafetensorsEntry[]): Promise<ModelDescriptor> {
  const directory = join(root, `${count++}`);
  writeFiles(directory, { 'config.json': config, 'model.safetensors': safetensorsBytes(tensors) });
  return (await openModel(directory)).descriptor();
}

const rolesOf = ({ tensors }: ModelDescriptor, layer: number | null) =>
  tensors.filter((tensor) => tensor.layer === layer).map(({ role, shape }) => `${role} (${shape.join(', ')})`);

const LAYER = {
  group: 0,
  numHeads: 2,
  numKvHeads: 1,
  headDim: 4,
  attention: { kind: 'full' },
  rope: 0,
  softmaxScale: 0.5,
  feedForward: { kind: 'dense', size: 16, activation: 'silu' },
};
const BASIC_ROLES = [
  'attn-k (4, 8)',
  'attn-norm (8)',
  'attn-output (8, 8)',
  'attn-q (8, 8)',
  'attn-v (4, 8)',
  'ffn-down (8, 16)',
  'ffn-gate (16, 8)',
  'ffn-norm (8)',
  'ffn-up (16, 8)',
];
const OWN_ROLES: Readonly<Record<Family, readonly string[]>> = {
  llama: [],
  qwen2: ['attn-k-bias (4)', 'attn-q-bias (8)', 'attn-v-bias (4)'],
  qwen3: ['attn-k-norm (4)', 'attn-q-norm (4)'],
};

describe.each(['llama', 'qwen2', 'qwen3'] as const)('descriptor of %s', (family) => {
  const { config, tensors } = tinyCheckpoint(family);

  it('is the same from both formats, but for the pairs that RoPE turns', async () => {
    const gguf = await fromGguf(tinyGgufSpec(family));
    const checkpoint = await fromCheckpoint(config, tensors);
    for (const model of [gguf, checkpoint]) {
      expect(model).toMatchObject({
        architecture: family,
        vocabularySize: 6,
        hiddenSize: 8,
        contextLength: 64,
        normEpsilon: expect.closeTo(1e-5, 10),
        embeddingScale: 1,
        logitScale: 1,
        tiedEmbeddings: true,
        layers: [LAYER, LAYER],
      });
      expect(rolesOf(model, null)).toEqual(['token-embedding (6, 8)', 'output-norm (8)']);
      expect(rolesOf(model, 1).sort()).toEqual([...BASIC_ROLES, ...OWN_ROLES[family]].sort());
      expect(model.ropes).toHaveLength(1);
      expect([...(model.ropes[0]?.inverseFrequencies ?? [])]).toEqual([1, 0.01]);
      expect(ModelCacheSpec.fromDescriptor(model, 'f16').bytesPerBlock()).toBe(2 * 2 * 4 * 256 * 2);
    }
    expect([gguf.ropes[0]?.style, checkpoint.ropes[0]?.style]).toEqual([
      family === 'llama' ? 'interleaved' : 'halves',
      'halves',
    ]);
  });

  it('has an output of its own where the file has one', async () => {
    const untied = tinyCheckpoint(family, { tied: false });
    for (const model of [
      await fromGguf(tinyGgufSpec(family, { tied: false })),
      await fromCheckpoint(untied.config, untied.tensors),
    ]) {
      expect(model.tiedEmbeddings).toBe(false);
      expect(rolesOf(model, null)).toContain('output (6, 8)');
    }
  });
});

describe('hyperparameters', () => {
  const base = tinyGgufSpec('llama');
  const refusedMetadata: [entry: MetadataEntry, code: string, message: RegExp][] = [
    [['llama.attention.head_count', 'uint32', 0], 'file-corrupt', /head_count: expected an integer from 1 .* found 0/],
    [['llama.attention.head_count_kv', 'uint32', 0], 'file-corrupt', /head_count_kv/],
    [['llama.attention.head_count', 'uint32', 3], 'file-corrupt', /multiple of the number of heads \(3\)/],
    [['llama.attention.head_count_kv', 'uint32', 4], 'file-corrupt', /multiple of the KV heads, found 2 and 4/],
    [['llama.attention.head_count', 'int32s', [2]], 'file-corrupt', /a list of 2, found a list of 1/],
    [['llama.block_count', 'uint64', 2 ** 40], 'file-corrupt', /block_count.*found 1099511627776/],
    [['llama.block_count', 'uint32', 3], 'file-corrupt', /"blk\.2\.attn_norm\.weight".*found none/],
    [['llama.block_count', 'uint32', 1], 'unsupported-model', /found 9 others/],
    [['llama.block_count', 'string', '2'], 'file-corrupt', /block_count.*found "2"/],
    [['llama.embedding_length', 'uint32', 0xffff_ffff], 'file-corrupt', /embedding_length/],
    [['llama.embedding_length', 'uint32', 16], 'file-corrupt', /expected shape \(6, 16\).*found \(6, 8\)/],
    [['llama.feed_forward_length', 'int32s', [16, 24]], 'file-corrupt', /"blk\.1\.ffn_gate\.weight".*\(24, 8\)/],
    [['llama.attention.layer_norm_rms_epsilon', 'float32', Number.NaN], 'file-corrupt', /epsilon.*found NaN/],
    [['llama.attention.layer_norm_rms_epsilon', 'float32', -1], 'file-corrupt', /epsilon/],
    [['llama.context_length', 'uint32', 0], 'file-corrupt', /context_length/],
    [
      ['llama.rope.dimension_count', 'uint32', 3],
      'file-corrupt',
      /even number of rotated dimensions up to.*4, found 3/,
    ],
    [['llama.rope.dimension_count', 'uint32', 6], 'file-corrupt', /even number/],
    [['llama.rope.freq_base', 'float32', Number.POSITIVE_INFINITY], 'file-corrupt', /freq_base/],
    [['llama.rope.scaling.type', 'string', 'longrope'], 'unsupported-model', /none, linear or yarn, found "longrope"/],
    [['llama.vocab_size', 'uint32', 7], 'file-corrupt', /number of tokens in tokenizer\.ggml\.tokens, 6, found 7/],
    [['tokenizer.ggml.tokens', 'strings', ['a', 'b']], 'file-corrupt', /expected 2 rows, one a token.*found 6/],
    [['llama.expert_count', 'uint32', 8], 'unsupported-model', /expert_count: expected a dense feed-forward/],
    [['llama.attention.sliding_window', 'uint32', 16], 'unsupported-model', /sliding_window/],
    [['llama.attention.value_length', 'uint32', 8], 'unsupported-model', /value_length/],
    [['general.architecture', 'string', 'mamba'], 'unsupported-model', /llama \(GGUF\), LlamaForCausalLM.*"mamba"/],
  ];
  it.each(refusedMetadata)('refuses %j', async (entry, code, message) => {
    const found = await failureOf(() => fromGguf(withEntry(base, entry)));
    expect([found.code, found.message]).toEqual([code, expect.stringMatching(message)]);
  });

  it('refuses what is missing by its name', async () => {
    const failure = (key: string) => failureOf(() => fromGguf(withoutEntry(base, key)));
    expect((await failure('llama.block_count')).message).toMatch(/llama\.block_count: expected a value/);
    expect((await failure('general.architecture')).message).toMatch(/found no name/);
  });

  it('takes one number for all layers or one a layer', async () => {
    const listed = withEntry(base, ['llama.attention.head_count_kv', 'int32s', [1, 2]]);
    const tensors = listed.tensors.map((tensor) =>
      /^blk\.1\.attn_[kv]/.test(tensor.name) ? { ...tensor, extents: [8, 8], byteLength: 256 } : tensor,
    );
    expect((await fromGguf({ ...listed, tensors })).layers.map(({ numKvHeads }) => numKvHeads)).toEqual([1, 2]);
  });

  it('takes the width of a head from the file where it is not the hidden size shared out', async () => {
    const wide = withEntry(withEntry(base, ['llama.attention.key_length', 'uint32', 8]), [
      'llama.attention.value_length',
      'uint32',
      8,
    ]);
    const sizes: Record<string, [number, number]> = {
      attn_q: [8, 16],
      attn_k: [8, 8],
      attn_v: [8, 8],
      attn_output: [16, 8],
    };
    const tensors = wide.tensors.map((tensor) => {
      const extents = sizes[tensor.name.split('.')[2] ?? ''];
      return extents === undefined ? tensor : { ...tensor, extents, byteLength: 4 * extents[0] * extents[1] };
    });
    const model = await fromGguf({ ...wide, tensors });
    expect([model.layers[0]?.headDim, model.ropes[0]?.rotaryDim]).toEqual([8, 8]);
  });

  const { config, tensors } = tinyCheckpoint('llama');
  const refusedConfig: [changes: object, code: string, message: RegExp][] = [
    [{ num_attention_heads: 0 }, 'file-corrupt', /num_attention_heads/],
    [{ num_hidden_layers: 1e12 }, 'file-corrupt', /num_hidden_layers/],
    [{ num_hidden_layers: 2.5 }, 'file-corrupt', /num_hidden_layers.*2\.5/],
    [{ rms_norm_eps: null }, 'file-corrupt', /rms_norm_eps: expected a value/],
    [{ rms_norm_eps: '1e-5' }, 'file-corrupt', /rms_norm_eps/],
    [{ vocab_size: 7 }, 'file-corrupt', /expected 7 rows.*found 6/],
    [{ hidden_act: 'gelu' }, 'unsupported-model', /hidden_act: expected silu, found "gelu"/],
    [{ tie_word_embeddings: false }, 'file-corrupt', /"lm_head\.weight".*found none/],
    [{ tie_word_embeddings: 'yes' }, 'file-corrupt', /true or false/],
    [{ attention_bias: true }, 'file-corrupt', /q_proj\.bias.*found none/],
    [{ quantization_config: { quant_method: 'gptq' } }, 'unsupported-format', /quantization "gptq"/],
    [{ architectures: ['MistralForCausalLM'], sliding_window: 16 }, 'unsupported-model', /sliding_window/],
    [{ rope_scaling: { rope_type: 'dynamic', factor: 2 } }, 'unsupported-model', /rope_type.*"dynamic"/],
    [{ rope_scaling: { type: 'linear' } }, 'file-corrupt', /factor: expected a value/],
    [{ rope_scaling: 'linear' }, 'file-corrupt', /rope_scaling: expected an object/],
    [{ rope_parameters: { full_attention: { rope_theta: 1 } } }, 'unsupported-model', /one RoPE for all layers/],
    [{ partial_rotary_factor: 0.1 }, 'file-corrupt', /even number/],
    [{ head_dim: 8 }, 'file-corrupt', /q_proj\.weight.*\(16, 8\)/],
    [{ layer_types: ['full_attention', 'sliding_attention'] }, 'unsupported-model', /layer_types/],
    [{ architectures: ['PhiForCausalLM'] }, 'unsupported-model', /Qwen3ForCausalLM, found "PhiForCausalLM"/],
  ];
  it.each(refusedConfig)('refuses %j', async (changes, code, message) => {
    const found = await failureOf(() => fromCheckpoint({ ...config, ...changes }, tensors));
    expect([found.code, found.message]).toEqual([code, expect.stringMatching(message)]);
  });

  it('lets the weights tell whether embeddings are tied where the configuration does not', async () => {
    for (const tied of [true, false]) {
      const checkpoint = tinyCheckpoint('qwen2', { tied });
      const { tie_word_embeddings: _, ...rest } = checkpoint.config;
      expect((await fromCheckpoint(rest, checkpoint.tensors)).tiedEmbeddings).toBe(tied);
    }
  });

  it('accepts a window that is not used or as long as the context', async () => {
    const qwen = tinyCheckpoint('qwen2');
    const unused = { ...qwen.config, sliding_window: 16, use_sliding_window: false };
    expect((await fromCheckpoint(unused, qwen.tensors)).layers).toHaveLength(2);
    const whole = { ...config, architectures: ['MistralForCausalLM'], sliding_window: 64 };
    expect((await fromCheckpoint(whole, tensors)).architecture).toBe('llama');
  });
});

describe('tensors', () => {
  const base = tinyGgufSpec('llama');

  it('slices fused projections by rows', async () => {
    const { config, tensors } = tinyCheckpoint('llama');
    const isSplit = ({ name }: SafetensorsEntry) => /layers\.0\.(?:self_attn\.[qkv]|mlp\.(?:gate|up))_proj/.test(name);
    const fused: SafetensorsEntry[] = [
      { name: 'model.layers.0.self_attn.qkv_proj.weight', dtype: 'BF16', shape: [16, 8], byteLength: 256 },
      { name: 'model.layers.0.mlp.gate_up_proj.weight', dtype: 'BF16', shape: [32, 8], byteLength: 512 },
    ];
    const model = await fromCheckpoint(config, [...fused, ...tensors.filter((tensor) => !isSplit(tensor))]);
    const start = model.tensors.find(({ role, layer }) => role === 'attn-q' && layer === 0)?.offset ?? Number.NaN;
    const places = Object.fromEntries(
      model.tensors
        .filter(({ layer }) => layer === 0)
        .map(({ role, offset, byteLength }) => [role, [offset - start, byteLength]]),
    );
    expect(places).toMatchObject({
      'attn-q': [0, 128],
      'attn-k': [128, 64],
      'attn-v': [192, 64],
      'ffn-gate': [256, 256],
      'ffn-up': [512, 256],
    });
  });

  it('takes biases a Llama file has, and refuses half a set', async () => {
    const bias = (name: string, length: number) => ({
      name: `blk.0.${name}.bias`,
      extents: [length],
      byteLength: 4 * length,
    });
    const whole = [bias('attn_q', 8), bias('attn_k', 4), bias('attn_v', 4)];
    const model = await fromGguf({ ...base, tensors: [...base.tensors, ...whole] });
    expect(rolesOf(model, 0)).toEqual(expect.arrayContaining(OWN_ROLES.qwen2 as string[]));
    const half = await failureOf(() => fromGguf({ ...base, tensors: [...base.tensors, whole[0] as never] }));
    expect(half.message).toMatch(/attn_k\.bias.*found none/);
  });

  it('refuses weights that nothing uses', async () => {
    const extra = { name: 'blk.0.attn_sinks.weight', extents: [2], byteLength: 8 };
    const found = await failureOf(() => fromGguf({ ...base, tensors: [...base.tensors, extra] }));
    expect(found).toEqual({ code: 'unsupported-model', message: expect.stringMatching(/blk\.0\.attn_sinks\.weight/) });
  });

  it('refuses dtypes no backend computes with, by tensor', async () => {
    const as = (name: string, type: number, byteLength: number) => ({
      ...base,
      tensors: base.tensors.map((tensor) => (tensor.name === name ? { ...tensor, type, byteLength } : tensor)),
    });
    const matrix = await failureOf(() => fromGguf(as('blk.0.attn_q.weight', 28, 512)));
    expect(matrix).toEqual({
      code: 'unsupported-format',
      message: expect.stringMatching(/"blk\.0\.attn_q\.weight": expected a dtype of F32, F16, .*MXFP4, found F64/),
    });
    expect((await failureOf(() => fromGguf(as('output_norm.weight', 24, 8)))).message).toMatch(
      /F32, F16, BF16, found I8/,
    );
  });
});

it('refuses floats at odd places', async () => {
  const { config, tensors } = tinyCheckpoint('llama');
  const directory = join(root, `${count++}`);
  writeFiles(directory, { 'config.json': config, 'model.safetensors': safetensorsBytes(tensors, 1) });
  const model = await openModel(directory);
  expect(await failureOf(() => model.descriptor())).toEqual({
    code: 'unsupported-format',
    message: expect.stringMatching(
      /expected BF16 at a multiple of 2 bytes, found byte \d*[13579]; save the model again/,
    ),
  });
});

describe('RoPE', () => {
  const frequencies = (model: ModelDescriptor) => [...(model.ropes[0]?.inverseFrequencies ?? [])];
  const scaled = (rope_scaling: object, changes: object = {}) => {
    const { config, tensors } = tinyCheckpoint('llama');
    return fromCheckpoint({ ...config, rope_scaling, ...changes }, tensors);
  };

  it('divides frequencies when linear', async () => {
    expect(frequencies(await scaled({ type: 'linear', factor: 4 }))).toEqual([0.25, 0.0025]);
    const spec = withEntry(tinyGgufSpec('llama'), ['llama.rope.scaling.factor', 'float32', 4]);
    expect(frequencies(await fromGguf(spec))).toEqual([0.25, 0.0025]);
    expect(frequencies(await fromGguf(withEntry(spec, ['llama.rope.scaling.type', 'string', 'none'])))).toEqual([
      1, 0.01,
    ]);
  });

  it('keeps fast pairs, divides slow ones and blends between when llama3', async () => {
    const scaling = {
      rope_type: 'llama3',
      factor: 8,
      low_freq_factor: 1,
      high_freq_factor: 4,
      original_max_position_embeddings: 64,
    };
    // 64 positions turn the pairs 64·1/2π = 10.2 and 64·0.01/2π = 0.1 times: above 4, below 1.
    expect(frequencies(await scaled(scaling))).toEqual([1, 0.01 / 8]);
    // Base 16: 64·0.25/2π = 2.546 turns, kept = (2.546 − 1)/3.
    const kept = ((64 * 0.25) / (2 * Math.PI) - 1) / 3;
    const blended = frequencies(await scaled(scaling, { rope_theta: 16 }))[1] ?? Number.NaN;
    expect(blended).toBeCloseTo(0.25 * kept + (0.25 / 8) * (1 - kept), 14);
  });

  it('ramps between dimensions and scales attention when YaRN', async () => {
    const scaling = { rope_type: 'yarn', factor: 4, original_max_position_embeddings: 64 };
    const model = await scaled(scaling, { rope_theta: 10 });
    // Dimensions of 32 and 1 turns over 64 positions at base 10: floor(−0.99) → 0, ceil(2.02) → 3.
    expect(frequencies(model)[0]).toBe(1);
    expect(frequencies(model)[1]).toBeCloseTo(10 ** -0.5 * (2 / 3 + 1 / 3 / 4), 14);
    expect(model.ropes[0]?.attentionFactor).toBeCloseTo(0.1 * Math.log(4) + 1, 14);
    expect(model.contextLength).toBe(256);
    expect((await scaled({ ...scaling, attention_factor: 1.5 })).ropes[0]?.attentionFactor).toBe(1.5);
    const gguf = [
      ['llama.rope.scaling.type', 'string', 'yarn'],
      ['llama.rope.scaling.factor', 'float32', 4],
      ['llama.rope.scaling.original_context_length', 'uint32', 64],
      ['llama.rope.freq_base', 'float32', 10],
    ] as const;
    const same = await fromGguf(gguf.reduce(withEntry, tinyGgufSpec('llama')));
    expect(frequencies(same)).toEqual(frequencies(model));
    expect(same.ropes[0]?.attentionFactor).toBe(model.ropes[0]?.attentionFactor);
  });

  it('reads newer configurations that keep everything in rope_parameters', async () => {
    const { config, tensors } = tinyCheckpoint('llama');
    const { rope_theta: _, ...rest } = config;
    const model = await fromCheckpoint(
      { ...rest, rope_parameters: { rope_type: 'default', rope_theta: 100 } },
      tensors,
    );
    expect(frequencies(model)).toEqual([1, 0.1]);
  });

  it('divides by the factors a GGUF file carries', async () => {
    const spec = tinyGgufSpec('llama');
    const factors = (...values: number[]) => ({
      name: 'rope_freqs.weight',
      extents: [values.length],
      byteLength: 4 * values.length,
      bytes: Buffer.concat(values.map(f32)),
    });
    const model = await fromGguf({ ...spec, tensors: [factors(1, 8), ...spec.tensors] });
    expect(frequencies(model)).toEqual([1, 0.00125]);
    expect(model.tensors.some(({ name }) => name === 'rope_freqs.weight')).toBe(false);
    const wrong = (...values: number[]) =>
      failureOf(() => fromGguf({ ...spec, tensors: [factors(...values), ...spec.tensors] }));
    expect((await wrong(1, 0)).message).toMatch(/positive finite frequencies, found Infinity/);
    expect((await wrong(1, Number.NaN)).message).toMatch(/found NaN/);
    expect((await wrong(1, 2, 3)).message).toMatch(/expected F32 \(2\), found F32 \(3\)/);
  });
});

it('checks 64-bit hyperparameters that no number holds', async () => {
  const value = { type: 10, bytes: u64(2n ** 64n - 1n) };
  const spec = withEntry(tinyGgufSpec('llama'), ['llama.block_count', 'raw', value]);
  expect((await failureOf(() => fromGguf(spec))).message).toMatch(/found 18446744073709551615/);
  const list = { type: 9, bytes: Buffer.concat([u32(9), u64(0n)]) };
  const nested = withEntry(tinyGgufSpec('llama'), ['llama.feed_forward_length', 'raw', list]);
  expect((await failureOf(() => fromGguf(nested))).message).toMatch(/feed_forward_length: expected a number or a list/);
  expect(TINY.layers).toBe(2);
});
