/**
 * What the oracle needs to know of a decoder-only transformer of the Llama family. Weights come by their GGUF name,
 * row-major, as float64.
 */
export interface ReferenceModel {
  readonly numLayers: number;
  readonly hiddenSize: number;
  readonly numHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  readonly feedForwardSize: number;
  readonly vocabularySize: number;
  readonly normEpsilon: number;
  readonly rope: Rope;
  readonly hasWeight: (name: string) => boolean;
  readonly weight: (name: string) => Float64Array;
}

export interface Rope {
  readonly style: 'halves' | 'interleaved';
  /** (rotaryDim / 2) radians per position. */
  readonly frequencies: Float64Array;
  /** Multiplies cos and sin. */
  readonly magnitude: number;
}

/** θ_i = base^(-2i/d). Source: Su et al., "RoFormer" (arXiv 2104.09864), section 3.4.2. */
export function plainFrequencies(rotaryDim: number, base: number): Float64Array {
  return Float64Array.from({ length: rotaryDim / 2 }, (_, i) => base ** ((-2 * i) / rotaryDim));
}

/** Position interpolation: every frequency divided by one factor. Source: Chen et al. (arXiv 2306.15595). */
export function linearFrequencies(frequencies: Float64Array, factor: number): Float64Array {
  return frequencies.map((frequency) => frequency / factor);
}

/**
 * Llama 3.1's scaling: long wavelengths divided by the factor, short ones kept, a linear blend between.
 * Source: the published reference code of Llama 3.1 (`apply_scaling`).
 */
export function llama3Frequencies(
  frequencies: Float64Array,
  options: { factor: number; lowFactor: number; highFactor: number; originalContext: number },
): Float64Array {
  return frequencies.map((frequency) => {
    const turns = (options.originalContext * frequency) / (2 * Math.PI);
    const keep = (turns - options.lowFactor) / (options.highFactor - options.lowFactor);
    const share = Math.min(1, Math.max(0, keep));
    return share * frequency + (1 - share) * (frequency / options.factor);
  });
}

/** YaRN with its default ramp (fast 32, slow 1). Source: Peng et al. (arXiv 2309.00071), section 3. */
export function yarnFrequencies(
  rotaryDim: number,
  base: number,
  options: { factor: number; originalContext: number },
): { frequencies: Float64Array; magnitude: number } {
  const dimensionOfTurns = (turns: number) =>
    (rotaryDim * Math.log(options.originalContext / (turns * 2 * Math.PI))) / (2 * Math.log(base));
  const low = Math.max(0, Math.floor(dimensionOfTurns(32)));
  const high = Math.min(rotaryDim - 1, Math.ceil(dimensionOfTurns(1)));
  const frequencies = plainFrequencies(rotaryDim, base).map((frequency, i) => {
    const ramp = Math.min(1, Math.max(0, (i - low) / Math.max(0.001, high - low)));
    return frequency * (1 - ramp) + (frequency / options.factor) * ramp;
  });
  return { frequencies, magnitude: 0.1 * Math.log(options.factor) + 1 };
}
