// Whether the planner's choice between loading and computing is as good as the better of the two, on disks of every speed.
import { AgentEngine, conversation, firstToken } from './conversations.mjs';

/** A block store whose reads arrive no faster than `bytesPerMs`, one after the other as from one disk. */
export class ThrottledStore {
  bytesPerMs = Number.POSITIVE_INFINITY;
  #store;
  #freeAt = 0;
  constructor(store) {
    this.#store = store;
  }
  async get(requests, signal) {
    const loads = await this.#store.get(requests, signal);
    const bytes = loads.reduce((sum, load) => sum + (load.isHit ? load.bytesRead : 0), 0);
    this.#freeAt = Math.max(this.#freeAt, performance.now()) + bytes / this.bytesPerMs;
    const left = this.#freeAt - performance.now();
    if (left > 0) await new Promise((resolve) => setTimeout(resolve, left));
    return loads;
  }
  has(keys, signal) {
    return this.#store.has(keys, signal);
  }
  put(blocks, signal) {
    return this.#store.put(blocks, signal);
  }
  delete(keys) {
    return this.#store.delete(keys);
  }
  list() {
    return this.#store.list();
  }
  usage() {
    return this.#store.usage();
  }
  close() {
    return this.#store.close();
  }
}

/**
 * `auto` has seen one ordinary prompt and a few restores before it is measured, and goes on choosing while it is.
 * @param speeds MB/s; Infinity: as the disk is
 * @returns by speed and policy: milliseconds to the first token
 */
export async function measureThrottled({ speeds, numTokens, rounds, warmUps }) {
  // Each displaces the one before: the pool holds one.
  const prompts = Array.from({ length: 3 }, (_, index) => conversation(numTokens, 11 + index));
  let store;
  const agents = await AgentEngine.open(prompts, {
    hasCold: true,
    wrap: (blocks) => (store = new ThrottledStore(blocks)),
  });
  const results = [];
  let seed = 1000;
  for (const speed of speeds) {
    const samples = { always: [], never: [], auto: [] };
    const reused = [];
    const begin = async (restore) => {
      await agents.replaceEngine({ restore });
      store.bytesPerMs = speed * 1000;
      await firstToken(agents.engine, conversation(1024, seed++));
    };
    for (let round = 0; round < rounds; round++) {
      for (const restore of ['always', 'never']) {
        await begin(restore);
        samples[restore].push((await agents.ask(0)).ms);
      }
    }
    await begin('auto');
    for (let time = 0; time < warmUps; time++) await agents.ask(time % prompts.length);
    for (let round = 0; round < rounds; round++) {
      const answer = await agents.ask((warmUps + round) % prompts.length);
      samples.auto.push(answer.ms);
      reused.push(answer.reused);
    }
    const { bytesPerMs, prefillMsPerToken } = agents.engine.stats().cache;
    results.push({ speed, samples, reused, planner: { cold: bytesPerMs.cold, prefillMsPerToken } });
  }
  await agents.close();
  return results;
}
