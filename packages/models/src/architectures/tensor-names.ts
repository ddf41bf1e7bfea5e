import type { TensorRole } from '@kvasir/domain';

/** How a format spells the tensors of a plain decoder. */
export interface TensorNames {
  readonly model: Readonly<Record<'token-embedding' | 'output-norm' | 'output', string>>;
  layer(layer: number, role: TensorRole): string;
  /** One tensor in place of three: rows of Q, K and V. */
  fusedQueryKeyValue(layer: number): string;
  /** One tensor in place of two: rows of gate and up. */
  fusedGateUp(layer: number): string;
  /** Tensors some converters write that repeat what the hyperparameters say. */
  isRedundant(name: string): boolean;
}

const GGUF_PARTS: Readonly<Partial<Record<TensorRole, string>>> = {
  'attn-norm': 'attn_norm.weight',
  'attn-q': 'attn_q.weight',
  'attn-k': 'attn_k.weight',
  'attn-v': 'attn_v.weight',
  'attn-q-bias': 'attn_q.bias',
  'attn-k-bias': 'attn_k.bias',
  'attn-v-bias': 'attn_v.bias',
  'attn-q-norm': 'attn_q_norm.weight',
  'attn-k-norm': 'attn_k_norm.weight',
  'attn-output': 'attn_output.weight',
  'attn-output-bias': 'attn_output.bias',
  'ffn-norm': 'ffn_norm.weight',
  'ffn-gate': 'ffn_gate.weight',
  'ffn-up': 'ffn_up.weight',
  'ffn-down': 'ffn_down.weight',
  'ffn-gate-bias': 'ffn_gate.bias',
  'ffn-up-bias': 'ffn_up.bias',
  'ffn-down-bias': 'ffn_down.bias',
};

const HUGGING_FACE_PARTS: Readonly<Partial<Record<TensorRole, string>>> = {
  'attn-norm': 'input_layernorm.weight',
  'attn-q': 'self_attn.q_proj.weight',
  'attn-k': 'self_attn.k_proj.weight',
  'attn-v': 'self_attn.v_proj.weight',
  'attn-q-bias': 'self_attn.q_proj.bias',
  'attn-k-bias': 'self_attn.k_proj.bias',
  'attn-v-bias': 'self_attn.v_proj.bias',
  'attn-q-norm': 'self_attn.q_norm.weight',
  'attn-k-norm': 'self_attn.k_norm.weight',
  'attn-output': 'self_attn.o_proj.weight',
  'attn-output-bias': 'self_attn.o_proj.bias',
  'ffn-norm': 'post_attention_layernorm.weight',
  'ffn-gate': 'mlp.gate_proj.weight',
  'ffn-up': 'mlp.up_proj.weight',
  'ffn-down': 'mlp.down_proj.weight',
  'ffn-gate-bias': 'mlp.gate_proj.bias',
  'ffn-up-bias': 'mlp.up_proj.bias',
  'ffn-down-bias': 'mlp.down_proj.bias',
};

/** Source: the GGUF specification, standardized tensor names. */
export const GGUF_NAMES: TensorNames = {
  model: { 'token-embedding': 'token_embd.weight', 'output-norm': 'output_norm.weight', output: 'output.weight' },
  layer: (layer, role) => `blk.${layer}.${GGUF_PARTS[role] ?? role}`,
  fusedQueryKeyValue: (layer) => `blk.${layer}.attn_qkv.weight`,
  fusedGateUp: (layer) => `blk.${layer}.ffn_gate_up.weight`,
  isRedundant: (name) => name === 'rope_freqs.weight' || /^blk\.\d+\.attn_rot_embd$/.test(name),
};

/** Source: parameter names of the Transformers modelling files of the Llama and Qwen families. */
export const HUGGING_FACE_NAMES: TensorNames = {
  model: {
    'token-embedding': 'model.embed_tokens.weight',
    'output-norm': 'model.norm.weight',
    output: 'lm_head.weight',
  },
  layer: (layer, role) => `model.layers.${layer}.${HUGGING_FACE_PARTS[role] ?? role}`,
  fusedQueryKeyValue: (layer) => `model.layers.${layer}.self_attn.qkv_proj.weight`,
  fusedGateUp: (layer) => `model.layers.${layer}.mlp.gate_up_proj.weight`,
  isRedundant: (name) => name.endsWith('.rotary_emb.inv_freq'),
};
