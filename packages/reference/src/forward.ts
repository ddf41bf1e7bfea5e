import type { StoreHead } from './kv-rounding.ts';
import type { ReferenceModel, Rope } from './reference-model.ts';

export interface ForwardOptions {
  /** Applied to every K and V value before attention reads it, as a pool of that format would. Default: none. */
  readonly storeKv?: (value: number) => number;
  /** The same for formats that round a head as a whole; applied after `storeKv`. */
  readonly storeHead?: StoreHead;
}

/**
 * Logits (T, vocabulary) of every token, in float64, the whole sequence at once: no cache, no blocks, no batching.
 *
 * Llama: Touvron et al. (arXiv 2302.13971): pre-normalisation (RMSNorm), rotary positions, SwiGLU; grouped query heads:
 * Ainslie et al. (arXiv 2305.13245). Qwen2 adds biases to Q, K, V (arXiv 2407.10671), Qwen3 a norm on each head of Q
 * and K before the rotation (arXiv 2505.09388). Which of these apply is read off the weights that are there.
 */
export function forward(
  model: ReferenceModel,
  tokenIds: ArrayLike<number>,
  options: ForwardOptions = {},
): Float64Array {
  const T = tokenIds.length;
  const { hiddenSize } = model;
  const embedding = model.weight('token_embd.weight');
  const x = new Float64Array(T * hiddenSize);
  for (let t = 0; t < T; t++) {
    const id = tokenIds[t] as number;
    if (!(id >= 0 && id < model.vocabularySize))
      throw new Error(`token ${t}: expected an id below ${model.vocabularySize}, found ${id}`);
    x.set(embedding.subarray(id * hiddenSize, (id + 1) * hiddenSize), t * hiddenSize);
  }
  for (let layer = 0; layer < model.numLayers; layer++) {
    add(
      x,
      attention(model, layer, normalise(x, model.weight(`blk.${layer}.attn_norm.weight`), model.normEpsilon), options),
    );
    add(x, feedForward(model, layer, normalise(x, model.weight(`blk.${layer}.ffn_norm.weight`), model.normEpsilon)));
  }
  const output = model.hasWeight('output.weight') ? model.weight('output.weight') : embedding;
  return multiply(normalise(x, model.weight('output_norm.weight'), model.normEpsilon), output, hiddenSize);
}

function attention(model: ReferenceModel, layer: number, x: Float64Array, options: ForwardOptions): Float64Array {
  const { numHeads, numKvHeads, headDim, hiddenSize } = model;
  const project = (name: string) => {
    const y = multiply(x, model.weight(`blk.${layer}.attn_${name}.weight`), hiddenSize);
    const bias = `blk.${layer}.attn_${name}.bias`;
    return model.hasWeight(bias) ? addRow(y, model.weight(bias)) : y;
  };
  const perHead = (y: Float64Array, name: string) => {
    const norm = `blk.${layer}.attn_${name}_norm.weight`;
    return model.hasWeight(norm) ? normalise(y, model.weight(norm), model.normEpsilon) : y;
  };
  const T = x.length / hiddenSize;
  const q = rotate(perHead(project('q'), 'q'), numHeads, headDim, model.rope);
  const store = options.storeKv ?? ((value) => value);
  const { storeHead = (head) => head } = options;
  const positioned = rotate(perHead(project('k'), 'k'), numKvHeads, headDim, model.rope);
  const stored = (y: Float64Array, component: 'k' | 'v') =>
    eachHead(y.map(store), headDim, (head, index) =>
      storeHead(head, component, { layer, token: Math.floor(index / numKvHeads), kvHead: index % numKvHeads }),
    );
  const k = stored(positioned, 'k');
  const v = stored(project('v'), 'v');

  const mixed = new Float64Array(T * numHeads * headDim);
  const weights = new Float64Array(T);
  for (let head = 0; head < numHeads; head++) {
    const kvHead = Math.floor(head / (numHeads / numKvHeads));
    for (let t = 0; t < T; t++) {
      const query = (t * numHeads + head) * headDim;
      let largest = -Infinity;
      for (let s = 0; s <= t; s++) {
        const key = (s * numKvHeads + kvHead) * headDim;
        let score = 0;
        for (let d = 0; d < headDim; d++) score += (q[query + d] as number) * (k[key + d] as number);
        weights[s] = score / Math.sqrt(headDim);
        largest = Math.max(largest, weights[s] as number);
      }
      let total = 0;
      for (let s = 0; s <= t; s++) {
        weights[s] = Math.exp((weights[s] as number) - largest);
        total += weights[s] as number;
      }
      for (let s = 0; s <= t; s++) {
        const share = (weights[s] as number) / total;
        const value = (s * numKvHeads + kvHead) * headDim;
        for (let d = 0; d < headDim; d++)
          mixed[query + d] = (mixed[query + d] as number) + share * (v[value + d] as number);
      }
    }
  }
  return multiply(mixed, model.weight(`blk.${layer}.attn_output.weight`), numHeads * headDim);
}

/** down(silu(gate(x)) * up(x)). Source: Shazeer, "GLU Variants Improve Transformer" (arXiv 2002.05202). */
function feedForward(model: ReferenceModel, layer: number, x: Float64Array): Float64Array {
  const gate = multiply(x, model.weight(`blk.${layer}.ffn_gate.weight`), model.hiddenSize);
  const up = multiply(x, model.weight(`blk.${layer}.ffn_up.weight`), model.hiddenSize);
  const inner = gate.map((value, i) => (value / (1 + Math.exp(-value))) * (up[i] as number));
  return multiply(inner, model.weight(`blk.${layer}.ffn_down.weight`), model.feedForwardSize);
}

/**
 * y = x · Wᵀ for rows of x of length `columns` and W (rows, columns). Four tokens side by side only to keep the
 * processor busy: each sum still runs over the columns in order.
 */
export function multiply(x: Float64Array, weight: Float64Array, columns: number): Float64Array {
  const T = x.length / columns;
  const rows = weight.length / columns;
  const y = new Float64Array(T * rows);
  for (let t = 0; t < T; t += 4) {
    const width = Math.min(4, T - t);
    const [x0, x1, x2, x3] = [0, 1, 2, 3].map((i) => (t + Math.min(i, width - 1)) * columns) as [
      number,
      number,
      number,
      number,
    ];
    for (let r = 0; r < rows; r++) {
      let [s0, s1, s2, s3] = [0, 0, 0, 0];
      for (let c = 0; c < columns; c++) {
        const w = weight[r * columns + c] as number;
        s0 += (x[x0 + c] as number) * w;
        s1 += (x[x1 + c] as number) * w;
        s2 += (x[x2 + c] as number) * w;
        s3 += (x[x3 + c] as number) * w;
      }
      for (const [i, sum] of [s0, s1, s2, s3].entries()) if (i < width) y[(t + i) * rows + r] = sum;
    }
  }
  return y;
}

/** x / sqrt(mean(x²) + ε) * w over runs of w's length. Source: Zhang, Sennrich, "RMSNorm" (arXiv 1910.07467). */
function normalise(x: Float64Array, weight: Float64Array, epsilon: number): Float64Array {
  const width = weight.length;
  const y = new Float64Array(x.length);
  for (let at = 0; at < x.length; at += width) {
    let squares = 0;
    for (let i = 0; i < width; i++) squares += (x[at + i] as number) ** 2;
    const scale = 1 / Math.sqrt(squares / width + epsilon);
    for (let i = 0; i < width; i++) y[at + i] = (x[at + i] as number) * scale * (weight[i] as number);
  }
  return y;
}

/** Turns each pair of a head's dimensions by position times frequency. Source: RoFormer (arXiv 2104.09864). */
function rotate(x: Float64Array, heads: number, headDim: number, rope: Rope): Float64Array {
  const half = rope.frequencies.length;
  const y = x.slice();
  const T = x.length / (heads * headDim);
  for (let t = 0; t < T; t++) {
    for (let i = 0; i < half; i++) {
      const angle = t * (rope.frequencies[i] as number);
      const cos = Math.cos(angle) * rope.magnitude;
      const sin = Math.sin(angle) * rope.magnitude;
      for (let head = 0; head < heads; head++) {
        const start = (t * heads + head) * headDim;
        const first = start + (rope.style === 'halves' ? i : 2 * i);
        const second = start + (rope.style === 'halves' ? i + half : 2 * i + 1);
        const a = x[first] as number;
        const b = x[second] as number;
        y[first] = a * cos - b * sin;
        y[second] = a * sin + b * cos;
      }
    }
  }
  return y;
}

function eachHead(
  x: Float64Array,
  headDim: number,
  change: (head: Float64Array, index: number) => Float64Array,
): Float64Array {
  const y = new Float64Array(x.length);
  for (let at = 0; at < x.length; at += headDim) y.set(change(x.slice(at, at + headDim), at / headDim), at);
  return y;
}

function add(x: Float64Array, y: Float64Array): void {
  for (let i = 0; i < x.length; i++) x[i] = (x[i] as number) + (y[i] as number);
}

function addRow(x: Float64Array, row: Float64Array): Float64Array {
  return x.map((value, i) => value + (row[i % row.length] as number));
}
