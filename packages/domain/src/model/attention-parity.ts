import type { LayerDescriptor, ModelDescriptor } from './model-descriptor.ts';

/**
 * Context length, in tokens, at which attending costs a token as many multiply-adds as its weight products do: a prompt
 * token at position p costs about 1 + p / parity of one at position 0. Windows are left out, so it errs towards small.
 */
export function attentionParityTokens(model: ModelDescriptor): number {
  let weights = 0;
  let perContextToken = 0;
  for (const layer of model.layers) {
    weights += weightProducts(layer, model.hiddenSize);
    // q·k and the weighted sum of v.
    if (layer.attention.kind === 'full') perContextToken += 2 * layer.numHeads * layer.headDim;
  }
  return perContextToken === 0 ? Number.POSITIVE_INFINITY : weights / perContextToken;
}

/** Multiply-adds of one token with the matrices of a layer. */
function weightProducts(layer: LayerDescriptor, hiddenSize: number): number {
  const { numHeads, numKvHeads, headDim, feedForward } = layer;
  const attention = (2 * numHeads + 2 * numKvHeads) * headDim * hiddenSize;
  const networks = feedForward.kind === 'routed' ? feedForward.numExpertsUsed : 1;
  return attention + 3 * networks * feedForward.size * hiddenSize;
}
