import { KvasirError, type ModelCacheSpec, type PayloadShape } from '@kvasir/domain';

const DTYPES = { f32: 'F32', f16: 'F16', bf16: 'BF16' } as const;

/** How the cold tier is told what a payload of a layer group looks like: element by element where the layers are alike. */
export function payloadShapeOf(spec: ModelCacheSpec, group: number): PayloadShape {
  const layers = spec.groups[group]?.layers;
  const first = layers?.[0];
  if (layers === undefined || first === undefined) {
    throw new KvasirError('invalid-argument', `layer group: expected < ${spec.groups.length}, found ${group}`);
  }
  const areAlike = layers.every(
    ({ numKvHeads, headDim }) => numKvHeads === first.numKvHeads && headDim === first.headDim,
  );
  const dtype = DTYPES[spec.kvDType as keyof typeof DTYPES] as (typeof DTYPES)[keyof typeof DTYPES] | undefined;
  if (areAlike && dtype !== undefined) {
    return {
      dtype,
      layers: layers.length,
      components: 2,
      heads: first.numKvHeads,
      blockTokens: spec.blockTokens,
      dim: first.headDim,
      isSliceable: true,
    };
  }
  const bytesPerToken = spec.bytesPerBlock(group) / spec.blockTokens;
  return {
    dtype: 'U8',
    layers: 1,
    components: 1,
    heads: 1,
    blockTokens: spec.blockTokens,
    dim: bytesPerToken,
    isSliceable: false,
  };
}
