import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { isCudaAvailable } from '@kvasir/adapter-cuda';
import OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { leakedBlocks, ServerProcess, Workbench } from './processes.ts';

// A server on a GPU of which another process takes every byte while requests run.

const hasDevice = isCudaAvailable();
const bench = new Workbench();
afterAll(() => bench.remove());

/** Takes what is left of the device, down to pieces of 4 KiB, and holds it until its input ends. */
const TAKE_ALL = `
import ctypes, sys
cuda = ctypes.CDLL('libcuda.so.1')
device, context, pointer = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
assert cuda.cuInit(0) == 0 and cuda.cuDeviceGet(ctypes.byref(device), 0) == 0
assert cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device) == 0 and cuda.cuCtxSetCurrent(context) == 0
size, taken = 1 << 36, 0
while size >= 1 << 12:
    while cuda.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(size)) == 0:
        taken += size
    size //= 2
print('taken', taken, flush=True)
sys.stdin.read()
`;

async function takeAll(): Promise<ChildProcess> {
  const hog = spawn('python3', ['-c', TAKE_ALL], { stdio: ['pipe', 'pipe', 'inherit'] });
  const [told] = (await once(hog.stdout as NodeJS.ReadableStream, 'data')) as [Buffer];
  expect(told.toString()).toMatch(/^taken \d{9}/);
  return hog;
}

async function giveBack(hog: ChildProcess): Promise<void> {
  const exited = once(hog, 'exit');
  hog.stdin?.end();
  await exited;
}

/** Widths and samplings the server has not met before: code and graphs they need are loaded when they come. */
const requestOf = (index: number) => ({
  model: 'default',
  prompt: `${'Tell me more. '.repeat(1 + index * 3)}`,
  max_tokens: 8,
  ignore_eos: true,
  seed: 7,
  ...(index % 2 === 0 ? { temperature: 0 } : { temperature: 0.9, top_k: 40, frequency_penalty: 0.2 }),
});

describe.runIf(hasDevice)('a server whose device another process fills', () => {
  let server: ServerProcess;
  beforeAll(async () => {
    const model = bench.generateModel('generated');
    server = await ServerProcess.start(['--model', model, '--backend', 'cuda', '--pool-tokens', '16384']);
  });
  afterAll(() => server.stop());

  const all = () =>
    Promise.allSettled(
      Array.from({ length: 12 }, (_, index) => server.client().completions.create(requestOf(index) as never)),
    ) as Promise<PromiseSettledResult<OpenAI.Completion>[]>;

  it('answers or says out of memory, gives everything back, and answers all of it afterwards', async () => {
    const hog = await takeAll();
    const meanwhile = await all();
    const refusals = meanwhile.flatMap((outcome) => (outcome.status === 'rejected' ? [outcome.reason as unknown] : []));
    process.stderr.write(`of 12 requests on a full device ${refusals.length} were refused\n`);
    for (const refusal of refusals) expect(refusal).toMatchObject({ status: 503, code: 'out_of_memory' });
    expect(leakedBlocks(await server.idle())).toBe(0);
    await giveBack(hog);
    const afterwards = await all();
    expect(afterwards.filter(({ status }) => status === 'rejected')).toEqual([]);
    const textOf = (outcome: PromiseSettledResult<OpenAI.Completion> | undefined) =>
      outcome?.status === 'fulfilled' ? outcome.value.choices : null;
    for (const [index, outcome] of meanwhile.entries()) {
      const answered = textOf(outcome) ?? textOf(afterwards[index]);
      expect(textOf(afterwards[index])).toEqual(answered);
    }
    expect(leakedBlocks(await server.idle())).toBe(0);
    expect(await server.health()).toMatchObject({ ready: true });
  });
});

it('says loudly where nothing of this was run', () => {
  if (!hasDevice) process.stderr.write('SKIPPED: a full device: no CUDA addon or device here\n');
  expect(hasDevice).toBe(isCudaAvailable());
});
