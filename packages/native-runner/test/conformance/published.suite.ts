// Published reference models: the engine's logits against recorded ones, and their greedy continuations.
import { readFileSync } from 'node:fs';
import path from 'node:path';
import type { ModelRunner } from '@kvasir/domain';
import { compareLogits, readSafetensors, sharedData, topTwo } from '@kvasir/reference';
import { describe, expect, it } from 'vitest';
import { logitsOf, type Row } from './drive-runner.ts';
import { type Backend, DEFAULT_MODE, FAST_MODE, LARGE_STEP_TOKENS, ORACLE_MODE } from './modes.ts';
import { report } from './report.ts';

const shared = sharedData();
const models = path.join(shared ?? '', 'models');

function values(file: string, name: string): ArrayLike<number> {
  const tensor = readSafetensors(readFileSync(file)).get(name);
  if (tensor === undefined) throw new Error(`${file}: expected a tensor ${name}`);
  const { buffer } = new Uint8Array(tensor.bytes);
  return tensor.format === 'i32' ? new Int32Array(buffer) : new Float32Array(buffer);
}

/** A stranger's share of the step, for a prompt that alone is no large step. */
const besideOf = (runner: ModelRunner): Row => ({
  ids: Array.from({ length: LARGE_STEP_TOKENS }, (_, i) => (i * 37) % runner.info.vocabularySize),
  position: 0,
  blocks: [5],
});

/** Logits of the prompt, and whether each golden token is the engine's own choice after everything before it. */
async function run(
  runner: ModelRunner,
  prompt: ArrayLike<number>,
  continuation: ArrayLike<number>,
  beside: readonly Row[] = [],
) {
  const ids = [...Array.from(prompt), ...Array.from(continuation)];
  const logits = await logitsOf(runner, ids, [2, 0, 1], [ids.length], () => beside);
  const { vocabularySize } = runner.info;
  const chosen = Array.from(
    continuation,
    (_, i) => topTwo(logits, (prompt.length + i - 1) * vocabularySize, vocabularySize)[0],
  );
  return { logits: logits.subarray(0, prompt.length * vocabularySize), chosen };
}

/** For modes that round no operand of these weights: elsewhere a near tie may tip, and margins say where it must not. */
function expectGreedy(chosen: readonly number[], greedy: ArrayLike<number>): void {
  expect(chosen).toEqual(Array.from(greedy));
}

/** Label, mode, and the bounds of block-quantized and of other weights. */
const modesOf = ({ rounding, hasFastMode }: Backend) => [
  ['oracle mode', ORACLE_MODE, 1e-3, 1e-3] as const,
  ['float activations, f16 KV', { activations: 'float', kvDType: 'f16' }, 1e-3, 1e-3] as const,
  [`${rounding.label}, f16 KV`, DEFAULT_MODE, rounding.ofQuantized, rounding.ofFloats] as const,
  ...(hasFastMode ? [['fast mode, f16 KV', FAST_MODE, 3e-2, 3e-2] as const] : []),
];

/** Recorded logits and greedy continuations; skipped where the reference data is absent. */
export function describePublished(backend: Backend): void {
  describe.runIf(shared !== null && backend.isAvailable)('published models', () => {
    it('tells the story of stories260K exactly, F32 logits within 1e-4', async () => {
      const { greedy_ids: ids } = JSON.parse(readFileSync(path.join(models, 'stories260K/golden.json'), 'utf8')) as {
        greedy_ids: number[];
      };
      const npy = readFileSync(path.join(models, 'stories260K/golden_logits_f32.npy'));
      const expected = new Float32Array(new Uint8Array(npy.subarray(npy.length - 201 * 512 * 4)).buffer);
      await using runner = await backend.load(path.join(models, 'stories260K/stories260K-F32.gguf'), ORACLE_MODE);
      const { logits } = await run(runner, ids, []);
      const comparison = compareLogits(logits, expected, 512);
      const { instructionPath } = runner.info;
      const what = { model: 'stories260K', format: 'f32', mode: 'oracle mode', reference: 'published logits' };
      report({ ...what, instructionPath, bound: 1e-4 }, comparison);
      expect(comparison.maxAbsoluteError).toBeLessThan(1e-4);
      const chosen = ids.slice(1).map((_, i) => topTwo(logits, i * 512, 512)[0]);
      expect(chosen).toEqual(ids.slice(1));
    });

    describe.each(modesOf(backend))('%s', (mode, options, bound, plainBound) => {
      it.each(['llama', 'qwen2', 'qwen3'])('%s in bf16', async (family) => {
        const folder = path.join(models, 'tiny-random', family);
        const golden = path.join(folder, 'golden.safetensors');
        await using runner = await backend.load(folder, options);
        const greedy = values(golden, 'greedy_ids');
        const beside = options.activations === 'fast' ? [besideOf(runner)] : [];
        const { logits, chosen } = await run(runner, values(golden, 'input_ids'), greedy, beside);
        const comparison = compareLogits(logits, values(golden, 'logits'), runner.info.vocabularySize);
        const { instructionPath } = runner.info;
        const what = { model: `tiny-random ${family}`, format: 'bf16', mode, reference: 'published logits' };
        report({ ...what, instructionPath, bound: plainBound }, comparison);
        expect(comparison.relativeError).toBeLessThan(plainBound);
        expect(comparison.decidedButDifferent).toBe(0);
        if (options.activations !== 'fast') expectGreedy(chosen, greedy);
      });

      it.each(['Q4_0', 'Q5_0', 'Q8_0', 'Q4_K_M', 'Q6_K', 'MXFP4'])('llama in %s', async (format) => {
        const golden = path.join(models, 'quantized-llama/golden.safetensors');
        await using runner = await backend.load(
          path.join(models, `quantized-llama/tiny-llama-${format}.gguf`),
          options,
        );
        const greedy = values(golden, `${format}.greedy_ids`);
        const beside = options.activations === 'fast' ? [besideOf(runner)] : [];
        const { logits, chosen } = await run(runner, values(golden, 'input_ids'), greedy, beside);
        const comparison = compareLogits(logits, values(golden, `${format}.logits`), runner.info.vocabularySize);
        const { instructionPath } = runner.info;
        const what = { model: 'quantized-llama', format: format.toLowerCase(), mode, reference: 'published logits' };
        report({ ...what, instructionPath, bound }, comparison);
        expect(comparison.relativeError).toBeLessThan(bound);
        expect(comparison.decidedButDifferent).toBe(0);
        if (options.activations === 'float') expectGreedy(chosen, greedy);
      });
    });
  });
}
