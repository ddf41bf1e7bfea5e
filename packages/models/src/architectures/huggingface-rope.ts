import type { HuggingFaceModelFile } from '../model-file.ts';
import { LIMITS, ParameterReader } from './parameter-reader.ts';
import { yarnAttentionFactor, type RopeScaling } from './rope.ts';

const ANY_FACTOR = { min: 0, max: 1e6 };

/** `rope_scaling`, or `rope_parameters` that newer configurations have in its place; empty when there is neither. */
export function ropeParametersOf(file: HuggingFaceModelFile): { readonly reader: ParameterReader } {
  const key = isRecord(file.metadata['rope_parameters']) ? 'rope_parameters' : 'rope_scaling';
  const value = file.metadata[key] ?? {};
  const path = `${file.path}/config.json: ${key}`;
  const record = isRecord(value) ? value : null;
  const reader = new ParameterReader({
    path,
    lookup: (name) => (record !== null && Object.hasOwn(record, name) ? record[name] : undefined),
  });
  if (record === null) throw reader.refuse(key, 'an object', value);
  // One table a kind of layer: models that mix windows.
  const nested = Object.entries(record).find(([, item]) => isRecord(item));
  if (nested !== undefined) throw reader.unsupported(nested[0], 'one RoPE for all layers', nested[1]);
  return { reader };
}

/**
 * The scaling that `rope_type` names, and the context it makes.
 *
 * Source: the parameter functions of modeling_rope_utils in Transformers.
 * @param declared `max_position_embeddings`
 * @throws KvasirError `unsupported-model` for recipes that depend on the length of each request
 */
export function readRopeScaling(
  rope: ParameterReader,
  declared: number,
  config: ParameterReader,
): { readonly scaling: RopeScaling; readonly contextLength: number } {
  const type = rope.optionalText('rope_type') ?? rope.optionalText('type') ?? 'default';
  switch (type) {
    case 'default':
      return { scaling: { kind: 'none' }, contextLength: declared };
    case 'linear':
      return {
        scaling: { kind: 'linear', factor: rope.real('factor', LIMITS.scalingFactor) },
        contextLength: declared,
      };
    case 'llama3':
      return { scaling: readLlama3(rope), contextLength: declared };
    case 'yarn':
      return readYarn(rope, declared, config);
    default:
      throw rope.unsupported('rope_type', 'default, linear, llama3 or yarn', type);
  }
}

// -------------------------------------------------------------------------------------------------------------- pieces

function readLlama3(rope: ParameterReader): RopeScaling {
  const lowFrequencyFactor = rope.real('low_freq_factor', LIMITS.scalingFactor);
  const highFrequencyFactor = rope.real('high_freq_factor', LIMITS.scalingFactor);
  if (highFrequencyFactor <= lowFrequencyFactor) {
    throw rope.refuse('high_freq_factor', `more than low_freq_factor = ${lowFrequencyFactor}`, highFrequencyFactor);
  }
  return {
    kind: 'llama3',
    factor: rope.real('factor', LIMITS.scalingFactor),
    lowFrequencyFactor,
    highFrequencyFactor,
    originalContextLength: rope.count('original_max_position_embeddings', LIMITS.context),
  };
}

function readYarn(
  rope: ParameterReader,
  declared: number,
  config: ParameterReader,
): { readonly scaling: RopeScaling; readonly contextLength: number } {
  const originalContextLength =
    rope.optionalCount('original_max_position_embeddings', LIMITS.context) ??
    config.optionalCount('original_max_position_embeddings', LIMITS.context) ??
    declared;
  const factor = rope.optionalReal('factor', LIMITS.scalingFactor) ?? declared / originalContextLength;
  const scaling: RopeScaling = {
    kind: 'yarn',
    factor,
    originalContextLength,
    betaFast: rope.optionalReal('beta_fast', ANY_FACTOR) ?? 32,
    betaSlow: rope.optionalReal('beta_slow', ANY_FACTOR) ?? 1,
    attentionFactor: rope.optionalReal('attention_factor', ANY_FACTOR) ?? defaultAttentionFactor(rope, factor),
    truncate: rope.flag('truncate', true),
  };
  // Checkpoints whose users add YaRN by hand keep the trained length as the declared one.
  return { scaling, contextLength: Math.max(declared, Math.floor(originalContextLength * factor)) };
}

function defaultAttentionFactor(rope: ParameterReader, factor: number): number {
  const mscale = rope.optionalReal('mscale', ANY_FACTOR) ?? 0;
  const mscaleAllDim = rope.optionalReal('mscale_all_dim', ANY_FACTOR) ?? 0;
  if (mscale > 0 && mscaleAllDim > 0) {
    return yarnAttentionFactor(factor, mscale) / yarnAttentionFactor(factor, mscaleAllDim);
  }
  return yarnAttentionFactor(factor);
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
