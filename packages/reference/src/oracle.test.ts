import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  compareLogits,
  decode,
  encode,
  FORMATS,
  forward,
  fromGguf,
  fromHalf,
  generateGguf,
  hadamard,
  KV_ROUNDING,
  loadReferenceModel,
  Random,
  readSafetensors,
  sharedData,
  SMALL_SHAPE,
  toHalf,
  topTwo,
  writeHuggingFaceModel,
} from './index.ts';

const shared = sharedData();

function values(tensor: { format: string; bytes: Uint8Array } | undefined): ArrayLike<number> {
  if (tensor === undefined) throw new Error('the golden file lacks a tensor this test needs');
  // A copy: the bytes may lie unaligned in a larger buffer.
  const { buffer } = new Uint8Array(tensor.bytes);
  return tensor.format === 'i32' ? new Int32Array(buffer) : new Float32Array(buffer);
}

/** Whether each of `continuation` is the model's own next token after everything before it. */
function isGreedy(
  model: ReturnType<typeof loadReferenceModel>,
  prompt: ArrayLike<number>,
  continuation: ArrayLike<number>,
): boolean {
  const ids = [...Array.from(prompt), ...Array.from(continuation)];
  const logits = forward(model, ids);
  return Array.from(continuation).every((id, i) => {
    const at = (prompt.length + i - 1) * model.vocabularySize;
    return topTwo(logits, at, model.vocabularySize)[0] === id;
  });
}

describe('number formats', () => {
  it('keeps every finite binary16 through a round trip', () => {
    const finite = Array.from({ length: 65536 }, (_, bits) => bits).filter((bits) => Number.isFinite(fromHalf(bits)));
    expect(finite.map((bits) => toHalf(fromHalf(bits)))).toEqual(finite);
  });

  it('decodes a block of each integer format worked out by hand', () => {
    const q8 = new Uint8Array(34);
    q8.set([0x00, 0x38, 255, 127]); // 0.5; codes -1, 127
    expect([...decode('q8_0', q8, 32).subarray(0, 3)]).toEqual([-0.5, 63.5, 0]);
    const q4 = new Uint8Array(18).fill(0x88); // code 8 is zero
    q4.set([0x00, 0x40, 0xf0]); // 2.0; value 0 has code 0, value 16 code 15
    expect([decode('q4_0', q4, 32)[0], decode('q4_0', q4, 32)[16], decode('q4_0', q4, 32)[1]]).toEqual([-16, 14, 0]);
    const mx = new Uint8Array(17);
    mx.set([128, 0x7f]); // 2^1; value 0 has code 15 = -6, value 16 code 7 = 6
    expect([decode('mxfp4', mx, 32)[0], decode('mxfp4', mx, 32)[16]]).toEqual([-12, 12]);
    const q6 = new Uint8Array(210);
    q6.set([0x00, 0x3c], 208); // 1.0
    q6[192] = 2; // scale of the first 16 values; code 0 stands for -32
    expect([decode('q6_k', q6, 256)[0], decode('q6_k', q6, 256)[16]]).toEqual([-64, -0]);
  });

  it('reproduces values it quantized to within half a step', () => {
    const original = new Random(1).normals(256, 1);
    for (const [format, bound] of [
      ['q8_0', 0.02],
      ['q5_1', 0.12],
      ['q4_0', 0.35],
    ] as const) {
      const back = decode(format, encode(format, original, new Random(2)), 256);
      back.forEach((value, i) => expect(Math.abs(value - (original[i] as number))).toBeLessThan(bound));
    }
  });

  it.runIf(shared !== null)('equals the published dequantization values exactly', () => {
    const golden = readSafetensors(
      readFileSync(path.join(shared as string, 'dequantization/dequant_golden.safetensors')),
    );
    for (const name of ['q8_0', 'q4_0', 'q4_1', 'q5_0', 'q5_1', 'q4_k', 'q5_k', 'q6_k', 'mxfp4']) {
      const expected = values(golden.get(`${name.toUpperCase()}.f32`));
      const raw = golden.get(`${name.toUpperCase()}.raw`)?.bytes as Uint8Array;
      const found = Float32Array.from(decode(name, raw, expected.length));
      expect([name, found]).toEqual([name, Float32Array.from(expected)]);
    }
  });
});

describe('rounding of stored K and V', () => {
  it('keeps what its codes hold exactly', () => {
    const codes = Float64Array.from({ length: 64 }, (_, i) => (i === 5 ? -127 : (i * 7) % 128) / 64);
    const nibbles = Float64Array.from({ length: 64 }, (_, i) => (i % 16) / 4 - 2);
    for (const [format, exact] of [
      ['q8', codes],
      ['q4', nibbles],
    ] as const) {
      expect(KV_ROUNDING[format](exact, 'v')).toEqual(exact);
      const turned = hadamard(exact);
      const stored = KV_ROUNDING[format](turned, 'k');
      stored.forEach((x, i) => expect(x).toBeCloseTo(turned[i] as number, 12));
    }
  });

  it('is off by at most half a step, group by group', () => {
    const head = Float64Array.from(new Random(4).normals(128, 1));
    head[100] = 40; // leaves the first group alone
    const distance = (a: Float64Array, b: Float64Array, from: number, to: number) =>
      Math.sqrt(a.slice(from, to).reduce((sum, x, i) => sum + (x - (b[from + i] as number)) ** 2, 0) / (to - from));
    const q8 = KV_ROUNDING.q8(head, 'v');
    expect(distance(q8, head, 0, 64)).toBeLessThan(0.01);
    expect(distance(q8, head, 64, 128)).toBeGreaterThan(0.05);
    const q4 = KV_ROUNDING.q4(head, 'v');
    expect(distance(q4, head, 0, 64)).toBeGreaterThan(0.05);
    expect(distance(q4, head, 0, 64)).toBeLessThan(0.15);
  });

  it('turns a vector by an orthonormal matrix, in runs of a power of two', () => {
    for (const length of [8, 24, 64]) {
      const x = Float64Array.from(new Random(length).normals(length, 1));
      hadamard(hadamard(x)).forEach((value, i) => expect(value).toBeCloseTo(x[i] as number, 12));
    }
    const corner = hadamard(Float64Array.of(1, 0, 0, 0, 0, 0, 0, 0));
    corner.forEach((value) => expect(value).toBeCloseTo(1 / Math.sqrt(8), 12));
    const runs = hadamard(Float64Array.from({ length: 24 }, (_, i) => (i === 9 ? 1 : 0)));
    expect([...runs].map((value) => value !== 0)).toEqual(Array.from({ length: 24 }, (_, i) => i >= 8 && i < 16));
  });
});

describe('the oracle', () => {
  it('gives the same logits for a model in GGUF and in Hugging Face form', () => {
    const directory = mkdtempSync(path.join(tmpdir(), 'kvasir-oracle-'));
    for (const family of ['llama', 'qwen2', 'qwen3'] as const) {
      const shape = {
        ...SMALL_SHAPE,
        family,
        ropeScaling: { type: 'llama3', factor: 4, originalContext: 64 },
      } as const;
      writeHuggingFaceModel(path.join(directory, family), shape, 'f32', 7, 2);
      const ids = [5, 80, 200, 3, 3, 150, 9, 77];
      const a = forward(fromGguf(generateGguf(shape, 'f32', 7)), ids);
      const b = forward(loadReferenceModel(path.join(directory, family)), ids);
      // The GGUF keeps its frequency factors in float32.
      expect(compareLogits(a, b, shape.vocabularySize).relativeError).toBeLessThan(1e-6);
    }
    rmSync(directory, { recursive: true });
  });

  it('sees no token to the right: a prefix gives the same logits', () => {
    const model = fromGguf(generateGguf(SMALL_SHAPE, 'q8_0', 3));
    const ids = Array.from({ length: 20 }, (_, i) => (i * 37) % 256);
    const whole = forward(model, ids);
    const prefix = forward(model, ids.slice(0, 9));
    expect(prefix).toEqual(whole.slice(0, prefix.length));
  });

  it('reads every format it writes', () => {
    for (const format of Object.keys(FORMATS)) {
      const logits = forward(fromGguf(generateGguf(SMALL_SHAPE, format, 11)), [1, 2, 3]);
      const spread = Math.sqrt(logits.reduce((sum, value) => sum + value * value, 0) / logits.length);
      expect([format, spread > 0.3 && spread < 30]).toEqual([format, true]);
    }
  });

  it.runIf(shared !== null)('reproduces the trained stories260K model: logits within 1e-4 and its text', () => {
    const folder = path.join(shared as string, 'models/stories260K');
    const golden = JSON.parse(readFileSync(path.join(folder, 'golden.json'), 'utf8')) as { greedy_ids: number[] };
    const npy = readFileSync(path.join(folder, 'golden_logits_f32.npy'));
    const expected = new Float32Array(new Uint8Array(npy.subarray(npy.length - 201 * 512 * 4)).buffer);
    const model = loadReferenceModel(path.join(folder, 'stories260K-F32.gguf'));
    const ids = golden.greedy_ids; // begins with the one prompt token
    const comparison = compareLogits(forward(model, ids), expected, 512);
    expect(comparison).toMatchObject({ decidedButDifferent: 0 });
    expect(comparison.maxAbsoluteError).toBeLessThan(1e-4);
  });

  it.runIf(shared !== null).each(['llama', 'qwen2', 'qwen3'])('reproduces the published %s model', (family) => {
    const folder = path.join(shared as string, 'models/tiny-random', family);
    const golden = readSafetensors(readFileSync(path.join(folder, 'golden.safetensors')));
    const model = loadReferenceModel(folder);
    const ids = values(golden.get('input_ids'));
    const comparison = compareLogits(forward(model, ids), values(golden.get('logits')), model.vocabularySize);
    expect(comparison.relativeError).toBeLessThan(1e-5);
    expect(isGreedy(model, ids, values(golden.get('greedy_ids')))).toBe(true);
  });

  it.runIf(shared !== null).each(['Q4_0', 'Q5_0', 'Q8_0', 'Q4_K_M', 'Q6_K', 'MXFP4'])(
    'reproduces the published %s model',
    (format) => {
      const folder = path.join(shared as string, 'models/quantized-llama');
      const golden = readSafetensors(readFileSync(path.join(folder, 'golden.safetensors')));
      const model = loadReferenceModel(path.join(folder, `tiny-llama-${format}.gguf`));
      const ids = values(golden.get('input_ids'));
      const comparison = compareLogits(
        forward(model, ids),
        values(golden.get(`${format}.logits`)),
        model.vocabularySize,
      );
      expect(comparison.relativeError).toBeLessThan(1e-5);
      expect(isGreedy(model, ids, values(golden.get(`${format}.greedy_ids`)))).toBe(true);
    },
  );
});

describe('compareLogits', () => {
  it('counts a changed decision only where the margin was wider than the error', () => {
    const expected = [1, 2, 0, 5, 4.9, 0];
    expect(compareLogits([1, 2.1, 0, 4.9, 4.95, 0], expected, 3)).toMatchObject({
      tokens: 2,
      sameNextToken: 1,
      decidedTokens: 1,
      decidedButDifferent: 0,
    });
    expect(compareLogits([2, Number.NaN, 0, 5, 4.9, 0], expected, 3).relativeError).toBeNaN();
  });
});
