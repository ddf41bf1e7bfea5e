import { KvasirError, type RopeDescriptor } from '@kvasir/domain';
import { withFile } from '../files/byte-source.ts';
import { GgufStringList } from '../gguf/gguf-value.ts';
import type { GgufModelFile } from '../model-file.ts';
import { checkHeads, checkRotaryDim, headDimOf, type DecoderParameters } from './decoder-parameters.ts';
import { LIMITS, ParameterReader } from './parameter-reader.ts';
import { buildRope, yarnAttentionFactor, type RopeScaling } from './rope.ts';

/**
 * A plain decoder's hyperparameters from GGUF metadata.
 *
 * Source: the GGUF specification, standardized keys; defaults as llama.cpp loads them.
 * @throws KvasirError `file-corrupt`, `unsupported-model`
 */
export function readGgufParameters(file: GgufModelFile): DecoderParameters {
  const reader = new ParameterReader({ path: file.path, lookup: (key) => file.metadata.get(key) });
  const key = (name: string) => `${file.architecture}.${name}`;
  refuseOtherFeatures(reader, key);
  const hiddenSize = reader.count(key('embedding_length'), LIMITS.hidden);
  const numLayers = reader.count(key('block_count'), LIMITS.layers);
  const numHeads = reader.perLayer(key('attention.head_count'), LIMITS.heads, numLayers);
  const numKvHeads = reader.optionalPerLayer(key('attention.head_count_kv'), LIMITS.heads, numLayers) ?? numHeads;
  checkHeads(file.path, numHeads, numKvHeads);
  const hidden = { key: key('embedding_length'), size: hiddenSize };
  const headDim = headDimOf(reader, key('attention.key_length'), hidden, numHeads);
  const valueDim = reader.optionalCount(key('attention.value_length'), LIMITS.headDim) ?? headDim;
  if (valueDim !== headDim) {
    throw reader.unsupported(key('attention.value_length'), `the key length ${headDim}`, valueDim);
  }
  const rotaryDim = reader.optionalCount(key('rope.dimension_count'), LIMITS.headDim) ?? headDim;
  checkRotaryDim(reader, key('rope.dimension_count'), rotaryDim, headDim);
  const contextLength = reader.count(key('context_length'), LIMITS.context);
  return {
    contextLength,
    hiddenSize,
    numHeads,
    numKvHeads,
    feedForwardSize: reader.perLayer(key('feed_forward_length'), LIMITS.feedForward, numLayers),
    headDim,
    normEpsilon: reader.real(key('attention.layer_norm_rms_epsilon'), LIMITS.epsilon),
    vocabularySize: vocabularySizeOf(file, reader, key('vocab_size')),
    rotaryDim,
    ropeBase: reader.optionalReal(key('rope.freq_base'), LIMITS.ropeBase) ?? 10_000,
    ropeScaling: readScaling(reader, key, contextLength),
  };
}

/** The RoPE of a GGUF model, with the divisors its `rope_freqs.weight` holds. */
export function readGgufRope(
  file: GgufModelFile,
  parameters: DecoderParameters,
  style: RopeDescriptor['style'],
): RopeDescriptor {
  const { rotaryDim, ropeBase: base, ropeScaling: scaling } = parameters;
  const divisors = readDivisors(file, rotaryDim / 2);
  return buildRope(file.path, { style, rotaryDim, base, scaling, ...(divisors === null ? {} : { divisors }) });
}

// -------------------------------------------------------------------------------------------------------------- pieces

type KeyOf = (name: string) => string;

function refuseOtherFeatures(reader: ParameterReader, key: KeyOf): void {
  const experts = reader.optionalCount(key('expert_count'), { min: 0, max: 2 ** 20 }) ?? 0;
  if (experts > 0) throw reader.unsupported(key('expert_count'), 'a dense feed-forward (0 experts)', experts);
  const window = reader.optionalCount(key('attention.sliding_window'), { min: 0, max: 2 ** 31 }) ?? 0;
  if (window > 0 && window < reader.count(key('context_length'), LIMITS.context)) {
    throw reader.unsupported(key('attention.sliding_window'), 'attention to the whole context', window);
  }
}

/** The declared size and the token list must agree: an id without a token, or a token without a row, fails later. */
function vocabularySizeOf(file: GgufModelFile, reader: ParameterReader, key: string): number | null {
  const declared = reader.optionalCount(key, LIMITS.vocabulary) ?? null;
  const tokens = file.metadata.get('tokenizer.ggml.tokens');
  if (!(tokens instanceof GgufStringList)) return declared;
  if (declared !== null && declared !== tokens.length) {
    throw reader.refuse(key, `the number of tokens in tokenizer.ggml.tokens, ${tokens.length}`, declared);
  }
  return tokens.length;
}

function readScaling(reader: ParameterReader, key: KeyOf, contextLength: number): RopeScaling {
  const type = reader.optionalText(key('rope.scaling.type')) ?? 'linear';
  const range = { ...LIMITS.scalingFactor, min: 0 };
  const factor =
    reader.optionalReal(key('rope.scaling.factor'), range) ?? reader.optionalReal(key('rope.scale_linear'), range) ?? 0;
  switch (type) {
    case 'none':
      return { kind: 'none' };
    case 'linear':
      return factor === 0 ? { kind: 'none' } : { kind: 'linear', factor };
    case 'yarn':
      return factor === 0 ? { kind: 'none' } : readYarn(reader, key, contextLength, factor);
    default:
      throw reader.unsupported(key('rope.scaling.type'), 'none, linear or yarn', type);
  }
}

function readYarn(reader: ParameterReader, key: KeyOf, contextLength: number, factor: number): RopeScaling {
  const real = (name: string) => reader.optionalReal(key(`rope.scaling.${name}`), { min: 0, max: 1e6 });
  const extrapolation = real('yarn_ext_factor') ?? 1;
  if (extrapolation !== 1) {
    throw reader.unsupported(key('rope.scaling.yarn_ext_factor'), '1', extrapolation);
  }
  return {
    kind: 'yarn',
    factor,
    originalContextLength:
      reader.optionalCount(key('rope.scaling.original_context_length'), LIMITS.context) ?? contextLength,
    betaFast: real('yarn_beta_fast') ?? 32,
    betaSlow: real('yarn_beta_slow') ?? 1,
    attentionFactor: (real('attn_factor') ?? 1) * yarnAttentionFactor(factor),
    truncate: true,
  };
}

/** The one place where weights are read here: at most a few hundred float32. */
function readDivisors(file: GgufModelFile, count: number): Float32Array | null {
  const tensor = file.tensors.find(({ name }) => name === 'rope_freqs.weight');
  if (tensor === undefined) return null;
  if (tensor.dtype !== 'f32' || tensor.shape.length !== 1 || tensor.shape[0] !== count) {
    throw new KvasirError(
      'file-corrupt',
      `${file.path}: tensor "rope_freqs.weight": expected F32 (${count}), found ${tensor.dtype.toUpperCase()} (${tensor.shape.join(', ')})`,
      { facts: { path: file.path, tensor: tensor.name } },
    );
  }
  const path = file.files[tensor.file] as string;
  return withFile(path, (source) => {
    if (tensor.offset + tensor.byteLength > source.size) {
      throw new KvasirError(
        'file-truncated',
        `${path}: tensor "rope_freqs.weight": expected ${tensor.byteLength} bytes at byte ${tensor.offset}, found a file of ${source.size}`,
        { facts: { path, tensor: tensor.name, offset: tensor.offset } },
      );
    }
    const bytes = Buffer.alloc(tensor.byteLength);
    source.read(tensor.offset, bytes);
    return Float32Array.from({ length: count }, (_, index) => bytes.readFloatLE(index * 4));
  });
}
