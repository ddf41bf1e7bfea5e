import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { decode } from './formats.ts';
import { readGguf, type GgufMetadata, type StoredTensor } from './gguf.ts';
import {
  linearFrequencies,
  llama3Frequencies,
  plainFrequencies,
  yarnFrequencies,
  type ReferenceModel,
  type Rope,
} from './reference-model.ts';
import { readSafetensors } from './safetensors.ts';

/** A `.gguf` file or a Hugging Face directory as the oracle's model. Weights are decoded when first asked for. */
export function loadReferenceModel(file: string): ReferenceModel {
  return file.endsWith('.gguf') ? fromGguf(readFileSync(file)) : fromHuggingFace(file);
}

function withWeights(tensors: ReadonlyMap<string, StoredTensor>): Pick<ReferenceModel, 'hasWeight' | 'weight'> {
  const decoded = new Map<string, Float64Array>();
  return {
    hasWeight: (name) => tensors.has(name),
    weight: (name) => {
      const tensor = tensors.get(name);
      if (tensor === undefined) throw new Error(`weight: the file has no ${name}`);
      const count = tensor.shape.reduce((product, extent) => product * extent, 1);
      const values = decoded.get(name) ?? decode(tensor.format, tensor.bytes, count);
      decoded.set(name, values);
      return values;
    },
  };
}

export function fromGguf(file: Uint8Array): ReferenceModel {
  const { metadata, tensors } = readGguf(file);
  const architecture = metadata.get('general.architecture') as string;
  const number = (key: string) => metadata.get(`${architecture}.${key}`) as number | undefined;
  const required = (key: string) => {
    const value = number(key);
    if (value === undefined) throw new Error(`GGUF: expected ${architecture}.${key}`);
    return value;
  };
  const weights = withWeights(tensors);
  const hiddenSize = required('embedding_length');
  const numHeads = required('attention.head_count');
  const headDim = number('attention.key_length') ?? hiddenSize / numHeads;
  const rotaryDim = number('rope.dimension_count') ?? headDim;
  const embedding = tensors.get('token_embd.weight') as StoredTensor;
  return {
    numLayers: required('block_count'),
    hiddenSize,
    numHeads,
    numKvHeads: number('attention.head_count_kv') ?? numHeads,
    headDim,
    feedForwardSize: required('feed_forward_length'),
    vocabularySize: embedding.shape[0] as number,
    normEpsilon: required('attention.layer_norm_rms_epsilon'),
    // The llama family's files have Q and K rows reordered so that a pair lies side by side.
    rope: {
      ...ggufRope(metadata, architecture, rotaryDim, weights),
      style: architecture === 'llama' ? 'interleaved' : 'halves',
    },
    ...weights,
  };
}

function ggufRope(
  metadata: GgufMetadata,
  architecture: string,
  rotaryDim: number,
  weights: Pick<ReferenceModel, 'hasWeight' | 'weight'>,
): Omit<Rope, 'style'> {
  const base = (metadata.get(`${architecture}.rope.freq_base`) as number | undefined) ?? 10000;
  const scaling = metadata.get(`${architecture}.rope.scaling.type`) as string | undefined;
  const factor = (metadata.get(`${architecture}.rope.scaling.factor`) as number | undefined) ?? 1;
  const originalContext = metadata.get(`${architecture}.rope.scaling.original_context_length`) as number;
  if (scaling === 'yarn') return yarnFrequencies(rotaryDim, base, { factor, originalContext });
  let frequencies = plainFrequencies(rotaryDim, base);
  if (scaling === 'linear') frequencies = linearFrequencies(frequencies, factor);
  if (weights.hasWeight('rope_freqs.weight')) {
    const factors = weights.weight('rope_freqs.weight');
    frequencies = frequencies.map((frequency, i) => frequency / (factors[i] as number));
  }
  return { frequencies, magnitude: 1 };
}

const HUGGING_FACE_NAMES: readonly (readonly [RegExp, string])[] = [
  [/^model\.embed_tokens\.weight$/, 'token_embd.weight'],
  [/^model\.norm\.weight$/, 'output_norm.weight'],
  [/^lm_head\.weight$/, 'output.weight'],
  [/^model\.layers\.(\d+)\.input_layernorm\.weight$/, 'blk.$1.attn_norm.weight'],
  [/^model\.layers\.(\d+)\.post_attention_layernorm\.weight$/, 'blk.$1.ffn_norm.weight'],
  [/^model\.layers\.(\d+)\.self_attn\.([qkv])_proj\.(weight|bias)$/, 'blk.$1.attn_$2.$3'],
  [/^model\.layers\.(\d+)\.self_attn\.([qk])_norm\.weight$/, 'blk.$1.attn_$2_norm.weight'],
  [/^model\.layers\.(\d+)\.self_attn\.o_proj\.weight$/, 'blk.$1.attn_output.weight'],
  [/^model\.layers\.(\d+)\.mlp\.(gate|up|down)_proj\.weight$/, 'blk.$1.ffn_$2.weight'],
];

interface HuggingFaceConfig {
  hidden_size: number;
  num_hidden_layers: number;
  num_attention_heads: number;
  num_key_value_heads?: number;
  head_dim?: number;
  intermediate_size: number;
  vocab_size: number;
  rms_norm_eps: number;
  rope_theta?: number;
  tie_word_embeddings?: boolean;
  rope_scaling?: Record<string, number | string> | null;
}

function fromHuggingFace(directory: string): ReferenceModel {
  const config = JSON.parse(readFileSync(path.join(directory, 'config.json'), 'utf8')) as HuggingFaceConfig;
  const tensors = new Map<string, StoredTensor>();
  for (const file of readdirSync(directory).filter((name) => /^model.*\.safetensors$/.test(name))) {
    for (const tensor of readSafetensors(readFileSync(path.join(directory, file))).values()) {
      const [pattern, replacement] = HUGGING_FACE_NAMES.find(([candidate]) => candidate.test(tensor.name)) ?? [];
      if (pattern === undefined) throw new Error(`safetensors: the oracle does not know ${tensor.name}`);
      tensors.set(tensor.name.replace(pattern, replacement as string), tensor);
    }
  }
  if (config.tie_word_embeddings === true) tensors.delete('output.weight');
  const headDim = config.head_dim ?? config.hidden_size / config.num_attention_heads;
  return {
    numLayers: config.num_hidden_layers,
    hiddenSize: config.hidden_size,
    numHeads: config.num_attention_heads,
    numKvHeads: config.num_key_value_heads ?? config.num_attention_heads,
    headDim,
    feedForwardSize: config.intermediate_size,
    vocabularySize: config.vocab_size,
    normEpsilon: config.rms_norm_eps,
    rope: { style: 'halves', ...huggingFaceRope(config, headDim) },
    ...withWeights(tensors),
  };
}

function huggingFaceRope(config: HuggingFaceConfig, headDim: number): Omit<Rope, 'style'> {
  const base = config.rope_theta ?? 10000;
  const scaling = config.rope_scaling;
  const frequencies = plainFrequencies(headDim, base);
  if (scaling === undefined || scaling === null) return { frequencies, magnitude: 1 };
  const number = (key: string) => scaling[key] as number;
  const originalContext = number('original_max_position_embeddings');
  switch (scaling['rope_type'] ?? scaling['type']) {
    case 'linear':
      return { frequencies: linearFrequencies(frequencies, number('factor')), magnitude: 1 };
    case 'yarn':
      return yarnFrequencies(headDim, base, { factor: number('factor'), originalContext });
    case 'llama3':
      return {
        frequencies: llama3Frequencies(frequencies, {
          factor: number('factor'),
          lowFactor: number('low_freq_factor'),
          highFactor: number('high_freq_factor'),
          originalContext,
        }),
        magnitude: 1,
      };
    default:
      throw new Error(`rope scaling: the oracle does not know ${JSON.stringify(scaling)}`);
  }
}
