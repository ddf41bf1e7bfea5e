// The row `http flat`: many requests of every kind after one another and beside each other, and what memory they leave taken.
import { readFileSync } from 'node:fs';
import { createCudaModelLoader, isCudaAvailable } from '../../packages/adapter-cuda/dist/index.js';
import { openModel } from '../../packages/models/dist/index.js';

/** Bytes of the device that nobody has taken; null without a device. The first call makes this process's own context. */
export async function deviceProbe(model) {
  if (!isCudaAvailable()) return async () => null;
  const descriptor = await (await openModel(model)).descriptor();
  const smallest = {
    numBlocks: [1],
    kvDType: 'f16',
    activations: 'quantized',
    maxBatchTokens: 1,
    maxBatchSequences: 1,
    maxBlocksPerSequence: 1,
    numThreads: 0,
    instructionPath: 'auto',
  };
  const loader = createCudaModelLoader();
  const probe = async () => (await loader.planMemory(descriptor, smallest)).freeBytes;
  await probe();
  return probe;
}

const ROUND = 50;

const residentBytes = (pid) => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))[1]) * 1024;

/** Prompts of 1 to 600 tokens, 1 to 24 new ones; greedy, sampled, penalized, biased; with agents, cut short. */
function requestOf(index) {
  const length = index % 8 === 0 ? 1 + ((index * 37) % 600) : 1 + ((index * 37) % 60);
  const headers = index % 4 === 0 ? { 'x-agent-id': `agent-${index % 16}` } : {};
  const body = {
    model: 'default',
    prompt: Array.from({ length }, (_, at) => ((index * 131 + at * 17) % 400) + 10),
    max_tokens: 1 + (index % 24),
    ignore_eos: true,
    stream: index % 2 === 0,
    ...(index % 3 === 0 ? { temperature: 0 } : { temperature: 0.8, top_p: 0.9, seed: index }),
    ...(index % 5 === 0 ? { frequency_penalty: 0.3, presence_penalty: 0.2 } : {}),
    ...(index % 7 === 0 ? { logit_bias: { 262: 5 }, logprobs: 3 } : {}),
  };
  return { body, headers, isCut: index % 20 === 19 };
}

/**
 * @param send (body, headers, isCut) ends when the answer has, or when it was cut off after its first byte
 * @param probe bytes the device has left; `freeBefore` those before the server was there
 */
export async function flat({ requests, send, health, idle, probe, freeBefore, pid }) {
  const samples = [];
  const sample = async (done) => {
    await idle();
    const { memory, blocks, cache } = await health();
    const free = await probe();
    const known = (memory.weightsRepackedBytes ?? 0) + memory.kvPoolBytes;
    const used = blocks.reduce((sum, { total, free: unused }) => sum + total - unused, 0);
    samples.push({
      requests: done,
      beyondBytes: free === null ? null : freeBefore - free - known,
      workspaceBytes: memory.workspaceBytes,
      allocations: memory.allocations,
      residentBytes: residentBytes(pid),
      leakedBlocks: used - (cache?.hotBlocks ?? 0),
    });
  };
  await sample(0);
  const begin = performance.now();
  // Of 1, 8 and 32 at once in turn: every width of a step is met again and again.
  for (let from = 0; from < requests; from += ROUND) {
    const width = [1, 8, 32][(from / ROUND) % 3];
    const waiting = Array.from({ length: Math.min(ROUND, requests - from) }, (_, index) => from + index);
    const client = async () => {
      for (let index = waiting.shift(); index !== undefined; index = waiting.shift()) {
        const { body, headers, isCut } = requestOf(index);
        await send(body, headers, isCut);
      }
    };
    await Promise.all(Array.from({ length: width }, client));
    if ((from / ROUND) % 4 === 3 || from + ROUND >= requests) await sample(Math.min(requests, from + ROUND));
  }
  const [first, warm] = samples;
  const last = samples.at(-1);
  return {
    requests,
    seconds: (performance.now() - begin) / 1000,
    beyondBytes: last.beyondBytes,
    // Since the first of these figures, by when every kernel was met and every graph captured that ever will be.
    grownSinceWarmBytes: warm.beyondBytes === null ? null : last.beyondBytes - warm.beyondBytes,
    grownSinceStartBytes: first.beyondBytes === null ? null : last.beyondBytes - first.beyondBytes,
    residentGrownBytes: last.residentBytes - warm.residentBytes,
    samples,
  };
}
