import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { encode } from './encode.ts';
import { formatNamed } from './formats.ts';
import { writeGguf, type GgufValue, type StoredTensor } from './gguf.ts';
import { Random } from './random.ts';
import { llama3Frequencies, plainFrequencies } from './reference-model.ts';
import { writeSafetensors } from './safetensors.ts';
import { tinyVocabulary, tokenizerMetadata } from './tiny-tokenizer.ts';

export type Family = 'llama' | 'qwen2' | 'qwen3';
export type RopeScaling =
  | { readonly type: 'none' }
  | { readonly type: 'linear'; readonly factor: number }
  | { readonly type: 'llama3'; readonly factor: number; readonly originalContext: number }
  | { readonly type: 'yarn'; readonly factor: number; readonly originalContext: number };

/** A generated model's shape. Every row length is a multiple of 256 by default, so that K-quants apply. */
export interface ModelShape {
  readonly family: Family;
  readonly numLayers: number;
  readonly hiddenSize: number;
  readonly numHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  readonly feedForwardSize: number;
  readonly vocabularySize: number;
  readonly contextLength: number;
  readonly ropeBase: number;
  readonly ropeScaling: RopeScaling;
  readonly tiedEmbeddings: boolean;
}

export const SMALL_SHAPE: ModelShape = {
  family: 'llama',
  numLayers: 2,
  hiddenSize: 256,
  numHeads: 4,
  numKvHeads: 2,
  headDim: 64,
  feedForwardSize: 512,
  vocabularySize: 320,
  contextLength: 8192,
  ropeBase: 10000,
  ropeScaling: { type: 'none' },
  tiedEmbeddings: false,
};

interface Weight {
  readonly name: string;
  readonly shape: readonly number[];
  readonly values: Float64Array;
}

/** Weights drawn so that logits spread and attention is neither uniform nor stuck on one token. */
function weights(shape: ModelShape, random: Random): Weight[] {
  const { hiddenSize, headDim, feedForwardSize } = shape;
  const q = shape.numHeads * headDim;
  const kv = shape.numKvHeads * headDim;
  const list: Weight[] = [];
  const add = (name: string, dimensions: number[], deviation: number, mean = 0) => {
    const count = dimensions.reduce((product, extent) => product * extent, 1);
    list.push({ name, shape: dimensions, values: random.normals(count, deviation, mean) });
  };
  const matrix = (name: string, rows: number, columns: number, gain = 1) =>
    add(name, [rows, columns], gain / Math.sqrt(columns));
  add('token_embd.weight', [shape.vocabularySize, hiddenSize], 1 / Math.sqrt(hiddenSize) + 0.05);
  for (let layer = 0; layer < shape.numLayers; layer++) {
    const at = `blk.${layer}`;
    add(`${at}.attn_norm.weight`, [hiddenSize], 0.1, 1);
    matrix(`${at}.attn_q.weight`, q, hiddenSize);
    matrix(`${at}.attn_k.weight`, kv, hiddenSize);
    matrix(`${at}.attn_v.weight`, kv, hiddenSize);
    matrix(`${at}.attn_output.weight`, hiddenSize, q);
    if (shape.family === 'qwen2') {
      for (const [name, width] of [
        ['q', q],
        ['k', kv],
        ['v', kv],
      ] as const)
        add(`${at}.attn_${name}.bias`, [width], 0.3);
    }
    if (shape.family === 'qwen3') {
      for (const name of ['q', 'k']) add(`${at}.attn_${name}_norm.weight`, [headDim], 0.2, 1.2);
    }
    add(`${at}.ffn_norm.weight`, [hiddenSize], 0.1, 1);
    matrix(`${at}.ffn_gate.weight`, feedForwardSize, hiddenSize);
    matrix(`${at}.ffn_up.weight`, feedForwardSize, hiddenSize);
    matrix(`${at}.ffn_down.weight`, hiddenSize, feedForwardSize);
  }
  add('output_norm.weight', [hiddenSize], 0.1, 1);
  if (!shape.tiedEmbeddings) matrix('output.weight', shape.vocabularySize, hiddenSize, 2);
  return list;
}

/**
 * A GGUF file of a random model, the same bytes for the same shape, format and seed. Matrices are stored in `format`
 * (a K-quant needs row lengths that are multiples of 256), vectors in f32.
 */
export function generateGguf(shape: ModelShape, format: string, seed: number): Uint8Array {
  const random = new Random(seed);
  const tensors: StoredTensor[] = weights(shape, random).map(({ name, shape: dimensions, values }) => {
    const stored = dimensions.length === 1 ? 'f32' : format;
    const columns = dimensions.at(-1) as number;
    if (columns % formatNamed(stored).elements !== 0)
      throw new Error(`${name}: rows of ${columns} do not hold whole ${stored} blocks`);
    // GGUF files of the llama family store the rows of Q and K so that a rotary pair lies side by side.
    const reorder = shape.family === 'llama' && /attn_[qk]\.weight$/.test(name);
    return {
      name,
      shape: dimensions,
      format: stored,
      bytes: encode(stored, reorder ? interleave(values, shape.headDim, columns) : values, random),
    };
  });
  if (shape.ropeScaling.type === 'llama3') tensors.push(ropeFactors(shape, shape.ropeScaling));
  return writeGguf(ggufMetadata(shape, format, seed), tensors);
}

/** Row i of a head goes to 2i, row i + headDim/2 to 2i + 1. */
function interleave(values: Float64Array, headDim: number, columns: number): Float64Array {
  const out = new Float64Array(values.length);
  const half = headDim / 2;
  for (let row = 0; row < values.length / columns; row++) {
    const head = Math.floor(row / headDim);
    const i = row % headDim;
    const target = head * headDim + (i < half ? 2 * i : 2 * (i - half) + 1);
    out.set(values.subarray(row * columns, (row + 1) * columns), target * columns);
  }
  return out;
}

function ropeFactors(shape: ModelShape, scaling: { factor: number; originalContext: number }): StoredTensor {
  const plain = plainFrequencies(shape.headDim, shape.ropeBase);
  const scaled = llama3Frequencies(plain, { ...scaling, lowFactor: 1, highFactor: 4 });
  const factors = plain.map((frequency, i) => frequency / (scaled[i] as number));
  return {
    name: 'rope_freqs.weight',
    shape: [factors.length],
    format: 'f32',
    bytes: encode('f32', factors, new Random(0)),
  };
}

const FILE_TYPES: Readonly<Record<string, number>> = {
  f32: 0,
  f16: 1,
  q4_0: 2,
  q4_1: 3,
  q8_0: 7,
  q5_0: 8,
  q5_1: 9,
  q4_k: 14,
  q5_k: 16,
  q6_k: 18,
  bf16: 32,
  mxfp4: 38,
};

function ggufMetadata(shape: ModelShape, format: string, seed: number): Map<string, GgufValue> {
  const { family } = shape;
  const u32 = (value: number): GgufValue => ({ type: 'u32', value });
  const f32 = (value: number): GgufValue => ({ type: 'f32', value });
  const metadata = new Map<string, GgufValue>([
    ['general.architecture', { type: 'string', value: family }],
    ['general.name', { type: 'string', value: `random ${family} ${seed}` }],
    ['general.file_type', u32(FILE_TYPES[format] as number)],
    [`${family}.context_length`, u32(shape.contextLength)],
    [`${family}.embedding_length`, u32(shape.hiddenSize)],
    [`${family}.block_count`, u32(shape.numLayers)],
    [`${family}.feed_forward_length`, u32(shape.feedForwardSize)],
    [`${family}.attention.head_count`, u32(shape.numHeads)],
    [`${family}.attention.head_count_kv`, u32(shape.numKvHeads)],
    [`${family}.attention.key_length`, u32(shape.headDim)],
    [`${family}.attention.value_length`, u32(shape.headDim)],
    [`${family}.attention.layer_norm_rms_epsilon`, f32(1e-5)],
    [`${family}.rope.dimension_count`, u32(shape.headDim)],
    [`${family}.rope.freq_base`, f32(shape.ropeBase)],
    [`${family}.vocab_size`, u32(shape.vocabularySize)],
    ...tokenizerMetadata(tinyVocabulary(shape.vocabularySize)),
  ]);
  const scaling = shape.ropeScaling;
  if (scaling.type === 'linear' || scaling.type === 'yarn') {
    metadata.set(`${family}.rope.scaling.type`, { type: 'string', value: scaling.type });
    metadata.set(`${family}.rope.scaling.factor`, f32(scaling.factor));
  }
  if (scaling.type === 'yarn')
    metadata.set(`${family}.rope.scaling.original_context_length`, u32(scaling.originalContext));
  return metadata;
}

const HUGGING_FACE_ARCHITECTURES = { llama: 'LlamaForCausalLM', qwen2: 'Qwen2ForCausalLM', qwen3: 'Qwen3ForCausalLM' };
const HUGGING_FACE_LAYER_NAMES: Readonly<Record<string, string>> = {
  attn_norm: 'input_layernorm',
  ffn_norm: 'post_attention_layernorm',
  attn_q: 'self_attn.q_proj',
  attn_k: 'self_attn.k_proj',
  attn_v: 'self_attn.v_proj',
  attn_output: 'self_attn.o_proj',
  attn_q_norm: 'self_attn.q_norm',
  attn_k_norm: 'self_attn.k_norm',
  ffn_gate: 'mlp.gate_proj',
  ffn_up: 'mlp.up_proj',
  ffn_down: 'mlp.down_proj',
};

function huggingFaceName(name: string): string {
  const [, layer, part, kind] = /^blk\.(\d+)\.(\w+)\.(weight|bias)$/.exec(name) ?? [];
  if (part !== undefined) return `model.layers.${layer}.${HUGGING_FACE_LAYER_NAMES[part]}.${kind}`;
  return {
    'token_embd.weight': 'model.embed_tokens.weight',
    'output_norm.weight': 'model.norm.weight',
    'output.weight': 'lm_head.weight',
  }[name] as string;
}

/** The same model as `generateGguf` of that seed in a float format, as a Hugging Face directory of `numShards` files. */
export function writeHuggingFaceModel(
  directory: string,
  shape: ModelShape,
  format: 'f32' | 'f16' | 'bf16',
  seed: number,
  numShards = 1,
): void {
  const random = new Random(seed);
  const tensors = weights(shape, random).map(({ name, shape: dimensions, values }) => ({
    name: huggingFaceName(name),
    shape: dimensions,
    format,
    bytes: encode(format, values, random),
  }));
  mkdirSync(directory, { recursive: true });
  const perShard = Math.ceil(tensors.length / numShards);
  const index: Record<string, string> = {};
  for (let shard = 0; shard < numShards; shard++) {
    const part = tensors.slice(shard * perShard, (shard + 1) * perShard);
    const number = (value: number) => String(value).padStart(5, '0');
    const file =
      numShards === 1 ? 'model.safetensors' : `model-${number(shard + 1)}-of-${number(numShards)}.safetensors`;
    writeFileSync(path.join(directory, file), writeSafetensors(part));
    for (const tensor of part) index[tensor.name] = file;
  }
  if (numShards > 1) {
    const total = tensors.reduce((sum, tensor) => sum + tensor.bytes.length, 0);
    writeFileSync(
      path.join(directory, 'model.safetensors.index.json'),
      JSON.stringify({ metadata: { total_size: total }, weight_map: index }),
    );
  }
  writeFileSync(path.join(directory, 'config.json'), JSON.stringify(huggingFaceConfig(shape, format), null, 2));
}

function huggingFaceConfig(shape: ModelShape, format: string): Record<string, unknown> {
  const scaling = shape.ropeScaling;
  const vocabulary = tinyVocabulary(shape.vocabularySize);
  const originalContext =
    'originalContext' in scaling ? { original_max_position_embeddings: scaling.originalContext } : {};
  const bands = scaling.type === 'llama3' ? { low_freq_factor: 1, high_freq_factor: 4 } : {};
  return {
    architectures: [HUGGING_FACE_ARCHITECTURES[shape.family]],
    model_type: shape.family,
    hidden_size: shape.hiddenSize,
    num_hidden_layers: shape.numLayers,
    num_attention_heads: shape.numHeads,
    num_key_value_heads: shape.numKvHeads,
    head_dim: shape.headDim,
    intermediate_size: shape.feedForwardSize,
    hidden_act: 'silu',
    vocab_size: shape.vocabularySize,
    max_position_embeddings: shape.contextLength,
    rms_norm_eps: 1e-5,
    rope_theta: shape.ropeBase,
    rope_scaling:
      scaling.type === 'none'
        ? null
        : { rope_type: scaling.type, factor: scaling.factor, ...bands, ...originalContext },
    tie_word_embeddings: shape.tiedEmbeddings,
    eos_token_id: vocabulary.endOfTurn,
    torch_dtype: { f32: 'float32', f16: 'float16', bf16: 'bfloat16' }[format],
  };
}
