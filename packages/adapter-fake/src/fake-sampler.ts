import type { SamplerAdmission } from '@kvasir/domain';
import { mix } from './fake-kv-pool.ts';

/** A sequence's sampling state in a slot: its admission, and what has been sampled since. */
export class FakeSampler {
  readonly admission: SamplerAdmission;
  readonly #promptCounts = new Map<number, number>();
  readonly #outputCounts = new Map<number, number>();

  constructor(admission: SamplerAdmission) {
    this.admission = admission;
    for (const [index, tokenId] of admission.history.entries()) {
      count(index < admission.numPromptTokens ? this.#promptCounts : this.#outputCounts, tokenId);
    }
  }

  /** Bias, penalties, temperature, top-k, top-p, min-p, one draw keyed by (seed, output index). */
  sample(logits: Float32Array, outputIndex: number): number {
    const { params } = this.admission;
    const scores = Float64Array.from(logits);
    for (const [tokenId, bias] of params.logitBias) scores[tokenId] = (scores[tokenId] as number) + bias;
    this.#penalize(scores);
    const tokenId = params.temperature === 0 ? argmax(scores) : this.#draw(scores, outputIndex);
    count(this.#outputCounts, tokenId);
    return tokenId;
  }

  /** STOP_REASONS index of an output. */
  stopOf(tokenId: number, outputIndex: number): number {
    if (this.admission.stopIds.includes(tokenId)) return 1;
    return outputIndex + 1 === this.admission.maxOutputs ? 2 : 0;
  }

  #penalize(scores: Float64Array): void {
    const { repetitionPenalty, frequencyPenalty, presencePenalty } = this.admission.params;
    for (const tokenId of new Set([...this.#promptCounts.keys(), ...this.#outputCounts.keys()])) {
      const score = scores[tokenId] as number;
      scores[tokenId] = score > 0 ? score / repetitionPenalty : score * repetitionPenalty;
    }
    for (const [tokenId, times] of this.#outputCounts) {
      scores[tokenId] = (scores[tokenId] as number) - frequencyPenalty * times - presencePenalty;
    }
  }

  #draw(scores: Float64Array, outputIndex: number): number {
    const { temperature, topK, topP, minP, seed } = this.admission.params;
    const highest = Math.max(...scores);
    let kept = [...scores.entries()]
      .map(([tokenId, score]) => ({ tokenId, weight: Math.exp((score - highest) / temperature) }))
      .sort((a, b) => b.weight - a.weight || a.tokenId - b.tokenId);
    if (topK > 0) kept = kept.slice(0, topK);
    let total = kept.reduce((sum, { weight }) => sum + weight, 0);
    let reached = 0;
    kept = kept.filter(({ weight }, index) => {
      const isKept = index === 0 || reached < topP * total;
      reached += weight;
      return isKept;
    });
    kept = kept.filter(({ weight }) => weight >= minP * (kept[0]?.weight ?? 0));
    total = kept.reduce((sum, { weight }) => sum + weight, 0);
    let left = uniform(seed, outputIndex) * total;
    for (const { tokenId, weight } of kept) {
      left -= weight;
      if (left < 0) return tokenId;
    }
    return kept.at(-1)?.tokenId ?? 0;
  }
}

function count(counts: Map<number, number>, tokenId: number): void {
  counts.set(tokenId, (counts.get(tokenId) ?? 0) + 1);
}

function uniform(seed: bigint, outputIndex: number): number {
  const folded = Number(BigInt.asIntN(32, seed)) ^ Number(BigInt.asIntN(32, seed >> 32n));
  return (mix(mix(folded) ^ Math.imul(outputIndex + 1, 0x27d4eb2f)) >>> 0) / 2 ** 32;
}

function argmax(scores: Float64Array): number {
  let best = 0;
  for (let tokenId = 1; tokenId < scores.length; tokenId++) {
    if ((scores[tokenId] as number) > (scores[best] as number)) best = tokenId;
  }
  return best;
}
