import { KvasirError, type RopeDescriptor } from '@kvasir/domain';
import type { HuggingFaceModelFile } from '../model-file.ts';
import { checkHeads, checkRotaryDim, headDimOf, type DecoderParameters } from './decoder-parameters.ts';
import { readRopeScaling, ropeParametersOf } from './huggingface-rope.ts';
import { LIMITS, ParameterReader } from './parameter-reader.ts';
import { buildRope } from './rope.ts';
import { HUGGING_FACE_NAMES } from './tensor-names.ts';

/** config.json behind the checks of ParameterReader. */
export function readerOf(file: HuggingFaceModelFile): ParameterReader {
  return new ParameterReader({
    path: `${file.path}/config.json`,
    lookup: (key) => (Object.hasOwn(file.metadata, key) ? file.metadata[key] : undefined),
  });
}

/**
 * A plain decoder's hyperparameters from config.json.
 *
 * Source: the configuration classes of Transformers for the Llama and Qwen families.
 * @throws KvasirError `file-corrupt`, `unsupported-model`, `unsupported-format` (weights quantized by another tool)
 */
export function readHuggingFaceParameters(file: HuggingFaceModelFile): DecoderParameters {
  const reader = readerOf(file);
  refuseOtherFeatures(file, reader);
  const hiddenSize = reader.count('hidden_size', LIMITS.hidden);
  const numLayers = reader.count('num_hidden_layers', LIMITS.layers);
  const numHeads = reader.perLayer('num_attention_heads', LIMITS.heads, numLayers);
  const numKvHeads = reader.optionalPerLayer('num_key_value_heads', LIMITS.heads, numLayers) ?? numHeads;
  checkHeads(file.path, numHeads, numKvHeads);
  const headDim = headDimOf(reader, 'head_dim', { key: 'hidden_size', size: hiddenSize }, numHeads);
  const rope = ropeParametersOf(file);
  const share =
    reader.optionalReal('partial_rotary_factor', { min: 0, max: 1 }) ??
    rope.reader.optionalReal('partial_rotary_factor', { min: 0, max: 1 }) ??
    1;
  const rotaryDim = Math.trunc(headDim * share);
  checkRotaryDim(reader, 'partial_rotary_factor', rotaryDim, headDim);
  const declared = reader.count('max_position_embeddings', LIMITS.context);
  const { scaling, contextLength } = readRopeScaling(rope.reader, declared, reader);
  return {
    contextLength,
    hiddenSize,
    numHeads,
    numKvHeads,
    feedForwardSize: reader.perLayer('intermediate_size', LIMITS.feedForward, numLayers),
    headDim,
    normEpsilon: reader.real('rms_norm_eps', LIMITS.epsilon),
    vocabularySize: reader.count('vocab_size', LIMITS.vocabulary),
    rotaryDim,
    ropeBase:
      rope.reader.optionalReal('rope_theta', LIMITS.ropeBase) ??
      reader.optionalReal('rope_theta', LIMITS.ropeBase) ??
      10_000,
    ropeScaling: scaling,
  };
}

/** Whether the embedding is also the output: as config.json says, or, where it says nothing, as the weights show. */
export function areEmbeddingsTied(file: HuggingFaceModelFile): boolean {
  const hasOutput = file.tensors.some(({ name }) => name === HUGGING_FACE_NAMES.model.output);
  return readerOf(file).flag('tie_word_embeddings', !hasOutput);
}

/** Checkpoints keep the two halves of a head apart. */
export function huggingFaceRope(file: HuggingFaceModelFile, parameters: DecoderParameters): RopeDescriptor {
  const { rotaryDim, ropeBase: base, ropeScaling: scaling } = parameters;
  return buildRope(file.path, { style: 'halves', rotaryDim, base, scaling });
}

// -------------------------------------------------------------------------------------------------------------- pieces

function refuseOtherFeatures(file: HuggingFaceModelFile, reader: ParameterReader): void {
  const quantization = file.metadata['quantization_config'];
  if (quantization !== undefined && quantization !== null) {
    const { quant_method: method } = quantization as { quant_method?: unknown };
    throw new KvasirError(
      'unsupported-format',
      `${file.path}/config.json: quantization_config: expected plain F32, F16 or BF16 weights, found quantization ${JSON.stringify(method ?? null).slice(0, 60)}; use the original weights or a GGUF file`,
      { facts: { path: file.path, key: 'quantization_config' } },
    );
  }
  const activation = reader.optionalText('hidden_act') ?? 'silu';
  if (activation !== 'silu' && activation !== 'swish') throw reader.unsupported('hidden_act', 'silu', activation);
  const layerTypes = file.metadata['layer_types'];
  if (Array.isArray(layerTypes)) {
    const other: unknown = layerTypes.find((type) => type !== 'full_attention');
    if (other !== undefined) throw reader.unsupported('layer_types', 'full_attention in every layer', other);
  }
  // Mistral has the window alone; Qwen writes one and says whether it is used.
  const window = reader.optionalCount('sliding_window', { min: 0, max: 2 ** 31 }) ?? 0;
  const isUsed = reader.flag('use_sliding_window', !file.architecture.startsWith('Qwen'));
  if (window > 0 && isUsed && window < reader.count('max_position_embeddings', LIMITS.context)) {
    throw reader.unsupported('sliding_window', 'attention to the whole context', window);
  }
}
