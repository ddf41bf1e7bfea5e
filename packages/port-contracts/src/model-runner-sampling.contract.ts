import { ROW_FLAGS, type ModelRunner, type SamplerAdmission, type SamplingParams } from '@kvasir/domain';
import { expect, it } from 'vitest';
import { admissionOf, prefill, type Row, stepRows, submitRows, tokensOf } from './step-bench.ts';

const SAMPLE_AND_LOGITS = ROW_FLAGS.sample + ROW_FLAGS.logitsLast;
const STOP_TOKEN = 1;
const STOP_LENGTH = 2;

const SEEDED: Partial<SamplingParams> = {
  temperature: 1,
  topP: 0.95,
  seed: 41n,
  repetitionPenalty: 1.3,
  frequencyPenalty: 0.3,
  presencePenalty: 0.2,
};

interface Run {
  readonly promptIds: Int32Array;
  readonly table: readonly number[];
  readonly slot: number;
  readonly params: Partial<SamplingParams>;
  readonly count: number;
}

/** Generates one output a step, every input known to the host. */
async function generate(runner: ModelRunner, run: Run): Promise<number[]> {
  const { promptIds, table, slot, params, count } = run;
  const first = await prefill(runner, promptIds, table, {
    flags: ROW_FLAGS.sample,
    samplerSlot: slot,
    admissions: [admissionOf(slot, promptIds, { params })],
  });
  const outputs = [first.sampledIds[0] as number];
  while (outputs.length < count) outputs.push(await decode(runner, run, outputs));
  return outputs;
}

async function decode(runner: ModelRunner, run: Run, outputs: readonly number[]): Promise<number> {
  const row = decodingRow(run, outputs.length, outputs.at(-1) as number);
  return (await stepRows(runner, [row])).sampledIds[0] as number;
}

/** The row that feeds output `outputIndex - 1` and samples output `outputIndex`. */
function decodingRow({ promptIds, table, slot }: Run, outputIndex: number, tokenId: number): Row {
  return {
    tokenIds: [tokenId],
    position: promptIds.length + outputIndex - 1,
    table,
    flags: ROW_FLAGS.sample,
    samplerSlot: slot,
    outputIndex,
  };
}

/** How a runner samples; part of `describeModelRunner`. */
export function describeSampling(open: () => ModelRunner): void {
  const runOf = (runner: ModelRunner, overrides: Partial<Run> = {}): Run => ({
    promptIds: tokensOf(runner, runner.info.cacheSpec.blockTokens + 2, 1),
    table: [0, 1, 2, 3],
    slot: 0,
    params: {},
    count: 6,
    ...overrides,
  });

  it('samples the highest logit when greedy, the lowest id on ties, and says how likely it was', async () => {
    const runner = open();
    const { promptIds, table } = runOf(runner);
    const result = await prefill(runner, promptIds, table, {
      flags: SAMPLE_AND_LOGITS,
      samplerSlot: 1,
      admissions: [admissionOf(1, promptIds, { params: { logprobs: 3 } })],
    });
    const logits = [...result.logits];
    const highest = Math.max(...logits);
    expect(result.sampledIds[0]).toBe(logits.indexOf(highest));
    const total = Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit - highest), 0));
    expect(result.sampledLogprobs[0]).toBeCloseTo(-total, 3);
    expect(result.maxLogprobs).toBe(3);
    const ranked = logits.map((logit, tokenId) => ({ logit, tokenId })).sort((a, b) => b.logit - a.logit);
    const ids = ranked.slice(0, 3).map(({ tokenId }) => tokenId);
    expect([...result.topIds]).toEqual(ids);
    for (const [index, { logit }] of ranked.slice(0, 3).entries()) {
      expect(result.topLogprobs[index]).toBeCloseTo(logit - highest - total, 3);
    }
  });

  it('reports no log-probability that nobody asked for', async () => {
    const runner = open();
    const { promptIds, table } = runOf(runner);
    const result = await prefill(runner, promptIds, table, {
      flags: ROW_FLAGS.sample,
      samplerSlot: 0,
      admissions: [admissionOf(0, promptIds)],
    });
    expect(result.sampledLogprobs[0]).toBeNaN();
    expect(result.maxLogprobs).toBe(0);
  });

  it('reads a token the step before sampled on the device, with two steps in flight', async () => {
    const runner = open();
    const run = runOf(runner, { count: 4 });
    const expected = await generate(runner, run);
    const { promptIds, slot } = run;
    const table = [4, 5, 6, 7];
    await prefill(runner, promptIds.subarray(0, -1), table);
    const handles = [
      submitRows(
        runner,
        [
          { tokenIds: [1, 2], position: 0, table: [8] },
          {
            tokenIds: promptIds.subarray(-1),
            position: promptIds.length - 1,
            table,
            flags: ROW_FLAGS.sample,
            samplerSlot: slot,
          },
        ],
        [admissionOf(slot, promptIds)],
      ),
    ];
    const outputs: number[] = [];
    // Without a second step in flight the first is awaited before the next; the input row means the same.
    for (let outputIndex = 1; outputIndex < 4; outputIndex++) {
      if (handles.length >= runner.info.maxStepsInFlight) outputs.push(await sampledBy(handles, outputs.length));
      const inputRow = outputIndex === 1 ? 1 : 0;
      handles.push(submitRows(runner, [{ ...decodingRow({ ...run, table }, outputIndex, 0), inputRow }]));
    }
    while (handles.length > 0) outputs.push(await sampledBy(handles, outputs.length));
    expect(outputs).toEqual(expected);
  });

  it('draws by seed and output index alone: again, in another slot, beside others', async () => {
    const runner = open();
    const first = await generate(runner, runOf(runner, { params: SEEDED, count: 8 }));
    const again = await generate(runner, runOf(runner, { params: SEEDED, count: 8, slot: 3, table: [7, 6, 5, 4] }));
    const other = await generate(runner, runOf(runner, { params: { ...SEEDED, seed: 42n }, count: 8 }));
    expect(again).toEqual(first);
    expect(other).not.toEqual(first);
  });

  it('goes on with the same outputs when a sampler is admitted again with its history', async () => {
    const runner = open();
    const run = runOf(runner, { params: SEEDED, count: 8 });
    const expected = await generate(runner, run);
    for (const numKnown of [1, 4]) {
      const known = expected.slice(0, numKnown);
      const history = Int32Array.from([...run.promptIds, ...known]);
      const numPromptTokens = run.promptIds.length;
      const table = [8, 9, 10, 11];
      await prefill(runner, history.subarray(0, -1), table);
      const row = decodingRow({ ...run, table, slot: 2 }, numKnown, known.at(-1) as number);
      const admission = admissionOf(2, history, { params: SEEDED, numPromptTokens });
      const resumed = await stepRows(runner, [row], [admission]);
      const outputs = [...known, resumed.sampledIds[0] as number];
      while (outputs.length < 8) outputs.push(await decode(runner, { ...run, table, slot: 2 }, outputs));
      expect(outputs).toEqual(expected);
    }
  });

  it('adds a bias before it chooses', async () => {
    const runner = open();
    const run = runOf(runner, { count: 1 });
    const [usual] = await generate(runner, run);
    const forced = (usual as number) === 0 ? 1 : 0;
    expect(await generate(runner, { ...run, params: { logitBias: new Map([[forced, 1000]]) } })).toEqual([forced]);
    const [next] = await generate(runner, { ...run, params: { logitBias: new Map([[usual as number, -1000]]) } });
    expect(next).not.toBe(usual);
  });

  it('keeps the likeliest alone with top-k 1, with a tiny top-p and with min-p 1', async () => {
    const runner = open();
    const greedy = await generate(runner, runOf(runner));
    for (const params of [{ topK: 1 }, { topP: 1e-6 }, { minP: 1 }]) {
      expect(await generate(runner, runOf(runner, { params: { ...params, temperature: 1.5, seed: 9n } }))).toEqual(
        greedy,
      );
    }
  });

  it('flags a stop token and the last output, row by row', async () => {
    const runner = open();
    const run = runOf(runner, { count: 1 });
    const [tokenId] = await generate(runner, run);
    const { promptIds } = run;
    const stopsWith = async (overrides: Partial<Omit<SamplerAdmission, 'params'>>): Promise<number> => {
      const result = await prefill(runner, promptIds, run.table, {
        flags: ROW_FLAGS.sample,
        samplerSlot: 0,
        admissions: [admissionOf(0, promptIds, overrides)],
      });
      return result.stops[0] as number;
    };
    expect(await stopsWith({})).toBe(0);
    expect(await stopsWith({ stopIds: Int32Array.of(tokenId as number) })).toBe(STOP_TOKEN);
    expect(await stopsWith({ maxOutputs: 1 })).toBe(STOP_LENGTH);
    expect(await stopsWith({ maxOutputs: 2 })).toBe(0);
  });
}

async function sampledBy(handles: { readonly result: Promise<{ readonly sampledIds: Int32Array }> }[], index: number) {
  const { sampledIds } = await (handles.shift() as (typeof handles)[number]).result;
  return sampledIds[index === 0 ? 1 : 0] as number;
}
