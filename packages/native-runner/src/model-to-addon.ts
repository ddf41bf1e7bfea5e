import { BLOCK_TOKENS } from '@kvasir/domain';
import type {
  Activation,
  ActivationMode,
  KvDType,
  LayerDescriptor,
  LoadOptions,
  ModelDescriptor,
  TensorDescriptor,
  TensorDType,
  TensorRole,
} from '@kvasir/domain';
import type { AddonLayer, AddonModel, AddonRunnerOptions, AddonTensor } from './addon.ts';
import { KV_ACTIVATION, KV_ACTIVATION_MODE, KV_DTYPE, KV_ROLE, KV_ROPE_STYLE } from './waist-constants.ts';

/** The descriptor in the waist's terms. Judges nothing: the backend does, with the files before it. */
export function toAddonModel(model: ModelDescriptor): AddonModel {
  return {
    hidden: model.hiddenSize,
    vocab: model.vocabularySize,
    contextLength: model.contextLength,
    nGroups: numGroups(model),
    normEpsilon: model.normEpsilon,
    embeddingScale: model.embeddingScale,
    logitScale: model.logitScale,
    finalLogitSoftcap: model.finalLogitSoftcap ?? 0,
    layers: model.layers.map(toAddonLayer),
    ropes: model.ropes.map((rope) => ({
      style: rope.style === 'halves' ? KV_ROPE_STYLE.KV_ROPE_HALVES : KV_ROPE_STYLE.KV_ROPE_INTERLEAVED,
      rotaryDim: rope.rotaryDim,
      inverseFrequencies: rope.inverseFrequencies,
      attentionFactor: rope.attentionFactor,
    })),
    tensors: model.tensors.map(toAddonTensor),
    files: model.files,
  };
}

export function toAddonOptions(options: LoadOptions, numSamplerSlots: number): AddonRunnerOptions {
  return {
    blockTokens: BLOCK_TOKENS,
    nBlocks: Uint32Array.from(options.numBlocks),
    kvDtype: KV_DTYPES[options.kvDType],
    activationMode: ACTIVATION_MODES[options.activations],
    maxBatchTokens: options.maxBatchTokens,
    maxBatchSequences: options.maxBatchSequences,
    maxBlocksPerSequence: options.maxBlocksPerSequence,
    nSamplerSlots: numSamplerSlots,
    nThreads: options.numThreads,
    poisonPool: options.poisonPool === true ? 1 : 0,
    instructionPath: options.instructionPath,
  };
}

/** Layer groups of a model: they are numbered from 0 without gaps. */
export function numGroups(model: ModelDescriptor): number {
  return model.layers.reduce((most, layer) => Math.max(most, layer.group + 1), 0);
}

// ------------------------------------------------------------------------------------------------ parts

function toAddonLayer(layer: LayerDescriptor): AddonLayer {
  const routed = layer.feedForward.kind === 'routed' ? layer.feedForward : null;
  return {
    group: layer.group,
    nHeads: layer.numHeads,
    nKvHeads: layer.numKvHeads,
    headDim: layer.headDim,
    windowTokens: layer.attention.kind === 'sliding-window' ? layer.attention.windowTokens : 0,
    rope: layer.rope ?? -1,
    softmaxScale: layer.softmaxScale,
    logitSoftcap: layer.logitSoftcap ?? 0,
    activation: ACTIVATIONS[layer.feedForward.activation],
    ffnDim: layer.feedForward.size,
    nExperts: routed?.numExperts ?? 0,
    nExpertsUsed: routed?.numExpertsUsed ?? 0,
  };
}

function toAddonTensor(tensor: TensorDescriptor): AddonTensor {
  return {
    role: ROLES[tensor.role],
    layer: tensor.layer ?? -1,
    dtype: DTYPES[tensor.dtype],
    file: tensor.file,
    shape: Float64Array.from(tensor.shape),
    offset: tensor.offset,
    bytes: tensor.byteLength,
  };
}

const ACTIVATIONS: Readonly<Record<Activation, number>> = {
  silu: KV_ACTIVATION.KV_ACT_SILU,
  'gelu-tanh': KV_ACTIVATION.KV_ACT_GELU_TANH,
  'swiglu-oai': KV_ACTIVATION.KV_ACT_SWIGLU_OAI,
};

const ACTIVATION_MODES: Readonly<Record<ActivationMode, number>> = {
  quantized: KV_ACTIVATION_MODE.KV_ACTIVATIONS_QUANTIZED,
  float: KV_ACTIVATION_MODE.KV_ACTIVATIONS_FLOAT,
  fast: KV_ACTIVATION_MODE.KV_ACTIVATIONS_FAST,
};

const KV_DTYPES: Readonly<Record<KvDType, number>> = {
  f32: KV_DTYPE.KV_F32,
  f16: KV_DTYPE.KV_F16,
  bf16: KV_DTYPE.KV_BF16,
  q8: KV_DTYPE.KV_Q8,
  q4: KV_DTYPE.KV_Q4,
};

const DTYPES: Readonly<Record<TensorDType, number>> = {
  f32: KV_DTYPE.KV_F32,
  f16: KV_DTYPE.KV_F16,
  bf16: KV_DTYPE.KV_BF16,
  q8_0: KV_DTYPE.KV_Q8_0,
  q4_0: KV_DTYPE.KV_Q4_0,
  q4_1: KV_DTYPE.KV_Q4_1,
  q5_0: KV_DTYPE.KV_Q5_0,
  q5_1: KV_DTYPE.KV_Q5_1,
  q4_k: KV_DTYPE.KV_Q4_K,
  q5_k: KV_DTYPE.KV_Q5_K,
  q6_k: KV_DTYPE.KV_Q6_K,
  mxfp4: KV_DTYPE.KV_MXFP4,
};

const ROLES: Readonly<Record<TensorRole, number>> = {
  'token-embedding': KV_ROLE.KV_ROLE_TOKEN_EMBEDDING,
  'output-norm': KV_ROLE.KV_ROLE_OUTPUT_NORM,
  output: KV_ROLE.KV_ROLE_OUTPUT,
  'attn-norm': KV_ROLE.KV_ROLE_ATTN_NORM,
  'attn-q': KV_ROLE.KV_ROLE_ATTN_Q,
  'attn-k': KV_ROLE.KV_ROLE_ATTN_K,
  'attn-v': KV_ROLE.KV_ROLE_ATTN_V,
  'attn-q-bias': KV_ROLE.KV_ROLE_ATTN_Q_BIAS,
  'attn-k-bias': KV_ROLE.KV_ROLE_ATTN_K_BIAS,
  'attn-v-bias': KV_ROLE.KV_ROLE_ATTN_V_BIAS,
  'attn-q-norm': KV_ROLE.KV_ROLE_ATTN_Q_NORM,
  'attn-k-norm': KV_ROLE.KV_ROLE_ATTN_K_NORM,
  'attn-output': KV_ROLE.KV_ROLE_ATTN_OUTPUT,
  'attn-output-bias': KV_ROLE.KV_ROLE_ATTN_OUTPUT_BIAS,
  'attn-sinks': KV_ROLE.KV_ROLE_ATTN_SINKS,
  'attn-post-norm': KV_ROLE.KV_ROLE_ATTN_POST_NORM,
  'ffn-norm': KV_ROLE.KV_ROLE_FFN_NORM,
  'ffn-gate': KV_ROLE.KV_ROLE_FFN_GATE,
  'ffn-up': KV_ROLE.KV_ROLE_FFN_UP,
  'ffn-down': KV_ROLE.KV_ROLE_FFN_DOWN,
  'ffn-gate-bias': KV_ROLE.KV_ROLE_FFN_GATE_BIAS,
  'ffn-up-bias': KV_ROLE.KV_ROLE_FFN_UP_BIAS,
  'ffn-down-bias': KV_ROLE.KV_ROLE_FFN_DOWN_BIAS,
  'ffn-router': KV_ROLE.KV_ROLE_FFN_ROUTER,
  'ffn-router-bias': KV_ROLE.KV_ROLE_FFN_ROUTER_BIAS,
  'ffn-post-norm': KV_ROLE.KV_ROLE_FFN_POST_NORM,
};
