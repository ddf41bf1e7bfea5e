import { KvasirError } from '@kvasir/domain';
import { LIMITS, type ParameterReader } from './parameter-reader.ts';
import type { RopeScaling } from './rope.ts';

/** Hyperparameters that every plain decoder has, whatever format they came in. */
export interface DecoderParameters {
  readonly contextLength: number;
  readonly hiddenSize: number;
  /** One a layer, as the two below. */
  readonly numHeads: readonly number[];
  readonly numKvHeads: readonly number[];
  readonly feedForwardSize: readonly number[];
  readonly headDim: number;
  readonly normEpsilon: number;
  /** null where the format leaves it to the embedding's rows. */
  readonly vocabularySize: number | null;
  readonly rotaryDim: number;
  readonly ropeBase: number;
  readonly ropeScaling: RopeScaling;
}

/**
 * Width of one head: what the file says, or the hidden size shared out.
 * @throws KvasirError `file-corrupt`
 */
export function headDimOf(
  reader: ParameterReader,
  key: string,
  hidden: { readonly key: string; readonly size: number },
  numHeads: readonly number[],
): number {
  const explicit = reader.optionalCount(key, LIMITS.headDim);
  if (explicit !== undefined) return explicit;
  const heads = numHeads[0] as number;
  if (
    hidden.size % heads !== 0 ||
    hidden.size / heads < LIMITS.headDim.min ||
    numHeads.some((count) => count !== heads)
  ) {
    throw reader.refuse(hidden.key, `a multiple of the number of heads (${heads}), or ${key}`, hidden.size);
  }
  return hidden.size / heads;
}

/** @throws KvasirError `file-corrupt` when query heads cannot share the KV heads evenly */
export function checkHeads(path: string, numHeads: readonly number[], numKvHeads: readonly number[]): void {
  const layer = numHeads.findIndex((heads, index) => heads % (numKvHeads[index] as number) !== 0);
  if (layer < 0) return;
  throw new KvasirError(
    'file-corrupt',
    `${path}: layer ${layer}: expected query heads that are a multiple of the KV heads, found ${numHeads[layer]} and ${numKvHeads[layer]}`,
    { facts: { path, layer } },
  );
}

/** @throws KvasirError `file-corrupt` */
export function checkRotaryDim(reader: ParameterReader, key: string, rotaryDim: number, headDim: number): void {
  if (rotaryDim % 2 === 0 && rotaryDim >= 2 && rotaryDim <= headDim) return;
  throw reader.refuse(key, `an even number of rotated dimensions up to the head's ${headDim}`, rotaryDim);
}
