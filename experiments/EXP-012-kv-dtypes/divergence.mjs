// How far the distributions of one model lie apart when its KV is held in another dtype.
import { openModel } from '../../packages/models/dist/index.js';
import { createCpuModelLoader } from '../../packages/adapter-cpu/dist/index.js';

const LOGITS_ALL = 4;
const CHUNK = 256;

/** Runners of one model file, one for each KV dtype, that read windows of `context` tokens in step. */
export async function openRunners(file, dtypes, context, threads) {
  const descriptor = await (await openModel(file)).descriptor();
  const blocks = Math.ceil(context / 256);
  const open = (kvDType) =>
    createCpuModelLoader().load(descriptor, {
      numBlocks: [blocks],
      kvDType,
      activations: 'quantized',
      maxBatchTokens: CHUNK,
      maxBatchSequences: 1,
      maxBlocksPerSequence: blocks,
      numThreads: threads,
      instructionPath: 'auto',
    });
  return Promise.all(dtypes.map(open));
}

/** Logits (n, V) of n tokens at `position`, or null when they only fill the pool. */
async function feed(runner, ids, position, wantsLogits) {
  const n = ids.length;
  const width = Math.ceil((position + n) / 256);
  const { result } = runner.submit({
    tokenIds: ids,
    positions: Int32Array.from({ length: n }, (_, i) => position + i),
    cuSeqlensQ: Int32Array.of(0, n),
    contextLengths: Int32Array.of(position + n),
    inputRows: Int32Array.of(-1),
    samplerSlots: Int32Array.of(-1),
    outputIndexes: Int32Array.of(0),
    rowFlags: Uint8Array.of(wantsLogits ? LOGITS_ALL : 0),
    admissions: [],
    groups: [
      {
        blockTables: Int32Array.from({ length: width }, (_, i) => i),
        blockTableWidth: width,
        slotMapping: Int32Array.from({ length: n }, (_, i) => position + i),
      },
    ],
  });
  const { logits } = await result;
  return wantsLogits ? logits : null;
}

/**
 * Scores the second half of a window as llama-perplexity does: tokens context / 2 + 1 on.
 * @returns per runner { nll, divergence, same }: a value a scored token; the first runner is what the others are held to
 */
export async function scoreWindow(runners, ids) {
  const half = ids.length / 2;
  const scores = runners.map(() => ({ nll: [], divergence: [], same: [] }));
  for (let position = 0; position < ids.length; position += CHUNK) {
    const chunk = ids.slice(position, position + CHUNK);
    const isScored = position + chunk.length > half;
    const logits = [];
    for (const runner of runners) logits.push(await feed(runner, chunk, position, isScored));
    if (!isScored) continue;
    for (let i = Math.max(0, half - position); i < chunk.length && position + i + 1 < ids.length; i++) {
      scoreToken(logits, i, ids[position + i + 1], scores);
    }
  }
  return scores;
}

function scoreToken(logits, row, next, scores) {
  let reference = null;
  for (const [index, all] of logits.entries()) {
    const size = all.length / CHUNK;
    const values = all.subarray(row * size, (row + 1) * size);
    let top = 0;
    for (let i = 1; i < size; i++) if (values[i] > values[top]) top = i;
    let sum = 0;
    for (let i = 0; i < size; i++) sum += Math.exp(values[i] - values[top]);
    const shift = values[top] + Math.log(sum); // log-probability = value - shift
    reference ??= { values, shift, top };
    let divergence = 0;
    for (let i = 0; i < size; i++) {
      const expected = reference.values[i] - reference.shift;
      divergence += Math.exp(expected) * (expected - (values[i] - shift));
    }
    scores[index].nll.push(shift - values[next]);
    scores[index].divergence.push(divergence);
    scores[index].same.push(top === reference.top ? 1 : 0);
  }
}

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

/** What is published of a dtype's scores, beside those of the reference. */
export function summarize(scores, reference) {
  const ratios = scores.nll.map((nll, i) => nll - reference.nll[i]);
  const logRatio = mean(ratios);
  const spread = Math.sqrt(mean(ratios.map((ratio) => (ratio - logRatio) ** 2)) / (ratios.length - 1));
  const sorted = [...scores.divergence].sort((a, b) => a - b);
  const at = (share) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
  return {
    perplexity: Math.exp(mean(scores.nll)),
    ratio: Math.exp(logRatio),
    ratioStandardError: Math.exp(logRatio) * spread,
    meanDivergence: mean(scores.divergence),
    medianDivergence: at(0.5),
    divergence99: at(0.99),
    maxDivergence: sorted.at(-1),
    sameTopToken: mean(scores.same),
    tokens: scores.nll.length,
  };
}
