import { KvasirError, type RopeDescriptor } from '@kvasir/domain';

/** How positions beyond the trained context are squeezed into it. */
export type RopeScaling =
  | { readonly kind: 'none' }
  /** Positions divided by `factor` (position interpolation, arXiv 2306.15595). */
  | { readonly kind: 'linear'; readonly factor: number }
  /** Long wavelengths interpolated, short ones kept, a ramp between (Llama 3.1 model card, `rope_scaling`). */
  | {
      readonly kind: 'llama3';
      readonly factor: number;
      readonly lowFrequencyFactor: number;
      readonly highFrequencyFactor: number;
      readonly originalContextLength: number;
    }
  /** NTK by parts with attention scaling (YaRN, arXiv 2309.00071, section 3.2 and 3.4). */
  | {
      readonly kind: 'yarn';
      readonly factor: number;
      readonly originalContextLength: number;
      readonly betaFast: number;
      readonly betaSlow: number;
      /** Multiplies cos and sin; by the paper 0.1 ln(factor) + 1. */
      readonly attentionFactor: number;
      /** Whether the ramp's ends are rounded to whole dimensions. */
      readonly truncate: boolean;
    };

export interface RopeRecipe {
  readonly style: RopeDescriptor['style'];
  /** Even, ≤ headDim. */
  readonly rotaryDim: number;
  readonly base: number;
  readonly scaling: RopeScaling;
  /** (rotaryDim / 2) divisors of the unscaled frequencies that a file carries (`rope_freqs.weight`). */
  readonly divisors?: ArrayLike<number>;
}

/**
 * Works a recipe out to its table of frequencies, in double precision.
 * @param path for messages
 * @throws KvasirError `file-corrupt` when a frequency is not a positive finite number
 */
export function buildRope(path: string, recipe: RopeRecipe): RopeDescriptor {
  const { style, rotaryDim, base, scaling, divisors } = recipe;
  const unscaled = Float64Array.from({ length: rotaryDim / 2 }, (_, pair) => {
    return base ** ((-2 * pair) / rotaryDim) / (divisors?.[pair] ?? 1);
  });
  const inverseFrequencies = scale(unscaled, rotaryDim, base, scaling);
  const attentionFactor = scaling.kind === 'yarn' ? scaling.attentionFactor : 1;
  const wrong = inverseFrequencies.findIndex((frequency) => !(frequency > 0 && frequency < Number.POSITIVE_INFINITY));
  if (wrong >= 0 || !(attentionFactor > 0 && attentionFactor < Number.POSITIVE_INFINITY)) {
    throw new KvasirError(
      'file-corrupt',
      `${path}: RoPE: expected positive finite frequencies, found ${wrong >= 0 ? inverseFrequencies[wrong] : attentionFactor} at pair ${wrong}`,
      { facts: { path } },
    );
  }
  return { style, rotaryDim, inverseFrequencies, attentionFactor };
}

/** YaRN's attention factor as the paper has it. */
export function yarnAttentionFactor(factor: number, multiplier = 1): number {
  return factor <= 1 ? 1 : 0.1 * multiplier * Math.log(factor) + 1;
}

// ------------------------------------------------------------------------------------------------------------- recipes

function scale(unscaled: Float64Array, rotaryDim: number, base: number, scaling: RopeScaling): Float64Array {
  switch (scaling.kind) {
    case 'none':
      return unscaled;
    case 'linear':
      return unscaled.map((frequency) => frequency / scaling.factor);
    case 'llama3':
      return unscaled.map((frequency) => scaleLlama3(frequency, scaling));
    case 'yarn': {
      const ramp = yarnRamp(rotaryDim, base, scaling);
      return unscaled.map((frequency, pair) => {
        const kept = 1 - ramp(pair);
        return (frequency / scaling.factor) * (1 - kept) + frequency * kept;
      });
    }
  }
}

function scaleLlama3(frequency: number, scaling: Extract<RopeScaling, { kind: 'llama3' }>): number {
  const { factor, lowFrequencyFactor, highFrequencyFactor, originalContextLength } = scaling;
  const turns = (originalContextLength * frequency) / (2 * Math.PI);
  if (turns > highFrequencyFactor) return frequency;
  if (turns < lowFrequencyFactor) return frequency / factor;
  const kept = (turns - lowFrequencyFactor) / (highFrequencyFactor - lowFrequencyFactor);
  return (1 - kept) * (frequency / factor) + kept * frequency;
}

/** How far the frequency of a pair is interpolated: 0 fast pairs, 1 slow ones. */
function yarnRamp(
  rotaryDim: number,
  base: number,
  scaling: Extract<RopeScaling, { kind: 'yarn' }>,
): (pair: number) => number {
  const { originalContextLength, betaFast, betaSlow, truncate } = scaling;
  /** Dimension whose pair makes `turns` turns over the original context. */
  const dimensionOf = (turns: number) =>
    (rotaryDim * Math.log(originalContextLength / (turns * 2 * Math.PI))) / (2 * Math.log(base));
  const first = dimensionOf(betaFast);
  const last = dimensionOf(betaSlow);
  const low = Math.max(truncate ? Math.floor(first) : first, 0);
  const high = Math.min(truncate ? Math.ceil(last) : last, rotaryDim - 1);
  const width = Math.max(high - low, 0.001);
  return (pair) => Math.min(Math.max((pair - low) / width, 0), 1);
}
