import { ggufBytes, type GgufSpec, type MetadataEntry, type TensorSpec } from './gguf-bytes.ts';
import { safetensorsBytes, type SafetensorsEntry } from './safetensors-bytes.ts';

/** Two layers a reader can count: hidden 8, heads 2 of 4, one KV head, feed-forward 16, six tokens. */
export const TINY = { layers: 2, hidden: 8, heads: 2, kvHeads: 1, headDim: 4, feedForward: 16, vocabulary: 6 } as const;

export type Family = 'llama' | 'qwen2' | 'qwen3';

export function tinyGgufSpec(family: Family, changes: { readonly tied?: boolean } = {}): GgufSpec {
  const key = (name: string) => `${family}.${name}`;
  const metadata: MetadataEntry[] = [
    ['general.architecture', 'string', family],
    ['general.name', 'string', `tiny ${family}`],
    [key('context_length'), 'uint32', 64],
    [key('embedding_length'), 'uint32', TINY.hidden],
    [key('block_count'), 'uint32', TINY.layers],
    [key('feed_forward_length'), 'uint32', TINY.feedForward],
    [key('attention.head_count'), 'uint32', TINY.heads],
    [key('attention.head_count_kv'), 'uint32', TINY.kvHeads],
    [key('attention.layer_norm_rms_epsilon'), 'float32', 1e-5],
    [key('rope.freq_base'), 'float32', 10_000],
    ['tokenizer.ggml.model', 'string', 'llama'],
    ['tokenizer.ggml.tokens', 'strings', ['<unk>', '<s>', '</s>', 'a', 'b', 'ü']],
    ['tokenizer.ggml.scores', 'float32s', [0, 0, 0, -1, -2, -3]],
    ['tokenizer.ggml.token_type', 'int32s', [2, 3, 3, 1, 1, 1]],
    ['tokenizer.ggml.bos_token_id', 'uint32', 1],
    ['tokenizer.ggml.eos_token_id', 'uint32', 2],
    ['tokenizer.ggml.add_bos_token', 'bool', 1],
    ['tokenizer.chat_template', 'string', '{{ messages[0].content }}'],
  ];
  const shapes = shapesOf(family, changes.tied ?? true);
  const names = { 'token-embedding': 'token_embd', 'output-norm': 'output_norm', output: 'output' } as const;
  const tensors = shapes.map(({ role, layer, shape }): TensorSpec => {
    const part = role.replaceAll('-', '_');
    const isBias = role.endsWith('-bias');
    const name =
      layer === null
        ? `${names[role as keyof typeof names]}.weight`
        : `blk.${layer}.${isBias ? part.slice(0, -5) : part}.${isBias ? 'bias' : 'weight'}`;
    return { name, extents: [...shape].reverse(), byteLength: 4 * shape.reduce((a, b) => a * b, 1) };
  });
  return { metadata, tensors };
}

export function tinyGguf(family: Family, change: (spec: GgufSpec) => GgufSpec = (spec) => spec): Buffer {
  return ggufBytes(change(tinyGgufSpec(family)));
}

/** Replaces or adds one metadata entry. */
export function withEntry(spec: GgufSpec, entry: MetadataEntry): GgufSpec {
  return { ...spec, metadata: [...spec.metadata.filter(([key]) => key !== entry[0]), entry] };
}

export function withoutEntry(spec: GgufSpec, key: string): GgufSpec {
  return { ...spec, metadata: spec.metadata.filter(([name]) => name !== key) };
}

export interface TinyCheckpoint {
  readonly config: Record<string, unknown>;
  readonly tensors: readonly SafetensorsEntry[];
}

const CHECKPOINT_ARCHITECTURES = { llama: 'LlamaForCausalLM', qwen2: 'Qwen2ForCausalLM', qwen3: 'Qwen3ForCausalLM' };

const CHECKPOINT_NAMES: Readonly<Record<string, string>> = {
  'attn-norm': 'input_layernorm.weight',
  'attn-output': 'self_attn.o_proj.weight',
  'attn-q-norm': 'self_attn.q_norm.weight',
  'attn-k-norm': 'self_attn.k_norm.weight',
  'ffn-norm': 'post_attention_layernorm.weight',
};

export function tinyCheckpoint(family: Family, changes: { readonly tied?: boolean } = {}): TinyCheckpoint {
  const tied = changes.tied ?? true;
  const tensors = shapesOf(family, tied).map(({ role, layer, shape }): SafetensorsEntry => {
    const projection = /^(?<block>attn|ffn)-(?<part>[a-z]+?)(?<bias>-bias)?$/.exec(role)?.groups;
    const name =
      layer === null
        ? { 'token-embedding': 'model.embed_tokens', 'output-norm': 'model.norm', output: 'lm_head' }[role] + '.weight'
        : `model.layers.${layer}.${
            CHECKPOINT_NAMES[role] ??
            `${projection?.['block'] === 'attn' ? 'self_attn' : 'mlp'}.${projection?.['part']}_proj.${projection?.['bias'] === undefined ? 'weight' : 'bias'}`
          }`;
    return { name, dtype: 'BF16', shape, byteLength: 2 * shape.reduce((a, b) => a * b, 1) };
  });
  const config = {
    architectures: [CHECKPOINT_ARCHITECTURES[family]],
    model_type: family,
    hidden_size: TINY.hidden,
    num_hidden_layers: TINY.layers,
    num_attention_heads: TINY.heads,
    num_key_value_heads: TINY.kvHeads,
    intermediate_size: TINY.feedForward,
    vocab_size: TINY.vocabulary,
    max_position_embeddings: 64,
    rms_norm_eps: 1e-5,
    rope_theta: 10_000,
    hidden_act: 'silu',
    tie_word_embeddings: tied,
    bos_token_id: 1,
    eos_token_id: 2,
  };
  return { config, tensors };
}

export function tinySafetensors(family: Family): Buffer {
  return safetensorsBytes(tinyCheckpoint(family).tensors);
}

function shapesOf(family: Family, tied: boolean): { role: string; layer: number | null; shape: number[] }[] {
  const { hidden, heads, kvHeads, headDim, feedForward, vocabulary } = TINY;
  const q = heads * headDim;
  const kv = kvHeads * headDim;
  const layers = Array.from({ length: TINY.layers }, (_, layer) => [
    { role: 'attn-norm', layer, shape: [hidden] },
    { role: 'attn-q', layer, shape: [q, hidden] },
    { role: 'attn-k', layer, shape: [kv, hidden] },
    { role: 'attn-v', layer, shape: [kv, hidden] },
    ...(family === 'qwen2'
      ? [
          { role: 'attn-q-bias', layer, shape: [q] },
          { role: 'attn-k-bias', layer, shape: [kv] },
          { role: 'attn-v-bias', layer, shape: [kv] },
        ]
      : []),
    ...(family === 'qwen3'
      ? [
          { role: 'attn-q-norm', layer, shape: [headDim] },
          { role: 'attn-k-norm', layer, shape: [headDim] },
        ]
      : []),
    { role: 'attn-output', layer, shape: [hidden, q] },
    { role: 'ffn-norm', layer, shape: [hidden] },
    { role: 'ffn-gate', layer, shape: [feedForward, hidden] },
    { role: 'ffn-up', layer, shape: [feedForward, hidden] },
    { role: 'ffn-down', layer, shape: [hidden, feedForward] },
  ]);
  return [
    { role: 'token-embedding', layer: null, shape: [vocabulary, hidden] },
    ...layers.flat(),
    { role: 'output-norm', layer: null, shape: [hidden] },
    ...(tied ? [] : [{ role: 'output', layer: null, shape: [vocabulary, hidden] }]),
  ];
}
