// oxlint-disable unicorn/require-post-message-target-origin -- a rule for windows; ports of worker_threads have no origin
// Ends of processes, workers and objects, which only a process of its own can show. Talks to the addon directly.
//   node binding-scenarios.mjs <addon.node> <scenario>      prints one line "ok: ..." and exits 0 when the rule holds
import { existsSync, readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { Worker, isMainThread, parentPort, workerData } from 'node:worker_threads';

const LAYER = {
  group: 0,
  nHeads: 4,
  nKvHeads: 2,
  headDim: 8,
  windowTokens: 0,
  rope: -1,
  softmaxScale: 1,
  logitSoftcap: 0,
  activation: 0,
  ffnDim: 64,
  nExperts: 0,
  nExpertsUsed: 0,
};
const MODEL = {
  hidden: 32,
  vocab: 100,
  contextLength: 4096,
  nGroups: 1,
  normEpsilon: 1e-5,
  embeddingScale: 1,
  logitScale: 1,
  finalLogitSoftcap: 0,
  layers: [LAYER, LAYER],
  ropes: [],
  tensors: [],
  files: [],
};
const BATCH = {
  tokenIds: Int32Array.of(7),
  positions: Int32Array.of(0),
  cuSeqlensQ: Int32Array.of(0, 1),
  contextLengths: Int32Array.of(1),
  blockTableWidth: Uint32Array.of(1),
  blockTables: [Int32Array.of(0)],
  slotMapping: [Int32Array.of(0)],
  samplerSlots: Int32Array.of(0),
  outputIndexes: Int32Array.of(0),
  rowFlags: Uint8Array.of(1),
  samplers: [],
};
const options = (settings, numBlocks = 4) => ({
  blockTokens: 256,
  nBlocks: Uint32Array.of(numBlocks),
  kvDtype: 1,
  activationMode: 0,
  maxBatchTokens: 64,
  maxBatchSequences: 8,
  maxBlocksPerSequence: 4,
  nSamplerSlots: 8,
  nThreads: 1,
  poisonPool: 0,
  instructionPath: settings === '' ? 'auto' : `fake:${settings}`,
});

const [, , addonPath, scenario] = isMainThread ? process.argv : [null, null, ...workerData];
const addon = createRequire(import.meta.url)(addonPath);

/** Tickets as they settle. Apart from `open`, so that the callback the addon holds does not see the handle. */
function ticketLog(onSettled) {
  const waiting = new Map();
  const log = [];
  return {
    log,
    settled: (ticket) =>
      new Promise((resolve, reject) => {
        waiting.set(ticket, (error, step) => (error === null ? resolve(step) : reject(error)));
      }),
    onCompletion: (ticket, error, step) => {
      log.push(ticket);
      waiting.get(ticket)?.(error, step);
      onSettled(ticket);
    },
  };
}

/** Opens a runner; resolves to its handle, a log of settled tickets, and a wait for a ticket. */
async function open(settings, numBlocks, onSettled = () => {}) {
  const { log, settled, onCompletion } = ticketLog(onSettled);
  const opened = settled(1);
  const handle = addon.openRunner(1, MODEL, options(settings, numBlocks), onCompletion, () => {});
  await opened;
  return { handle, log, settled };
}

const turn = () => new Promise((resolve) => setImmediate(resolve));
// Where there is no /proc the count is always 0 and the scenario shows less.
const numThreads = () => (existsSync('/proc/self/task') ? readdirSync('/proc/self/task').length : 0);
const done = (what) => console.log(`ok: ${what}`);
function expect(condition, what) {
  if (!condition) throw new Error(`not so: ${what}`);
}

const scenarios = {
  async 'an idle runner lets the process end'() {
    const { handle, settled } = await open('');
    const step = settled(2);
    addon.submit(handle, 2, BATCH);
    await step;
    done('the event loop is empty');
  },

  async 'a step in flight keeps the process alive'() {
    const { handle } = await open('step_us=200000', 4, (ticket) => ticket === 2 && done('the step arrived'));
    addon.submit(handle, 2, BATCH);
  },

  async 'the process exits with steps in flight'() {
    const { handle } = await open('step_us=50000');
    for (let ticket = 2; ticket < 8; ticket += 1) addon.submit(handle, ticket, BATCH);
    open('open_us=1000'); // and one still loading
    done('exiting');
    process.exit(0);
  },

  async 'workers are terminated while steps and loads are in flight'() {
    for (let round = 0; round < 12; round += 1) {
      const worker = new Worker(fileURLToPath(import.meta.url), { workerData: [addonPath, `worker ${round % 3}`] });
      await new Promise((resolve, reject) => {
        worker.once('message', resolve);
        worker.once('error', reject);
      });
      await worker.terminate();
    }
    done('12 workers ended');
  },
  async 'worker 0'() {
    const { handle } = await open('step_us=20000');
    for (let ticket = 2; ticket < 6; ticket += 1) addon.submit(handle, ticket, BATCH);
    parentPort.postMessage('steps in flight');
    setInterval(() => {}, 1000);
  },
  async 'worker 1'() {
    open('open_us=2000');
    parentPort.postMessage('loading');
    setInterval(() => {}, 1000);
  },
  async 'worker 2'() {
    const { handle } = await open('step_us=20000');
    addon.submit(handle, 2, BATCH);
    addon.destroyRunner(handle, 3);
    parentPort.postMessage('destroying');
    setInterval(() => {}, 1000);
  },

  async 'a worker ends by itself while a runner is open'() {
    const worker = new Worker(fileURLToPath(import.meta.url), {
      workerData: [addonPath, 'an idle runner lets the process end'],
    });
    const code = await new Promise((resolve) => worker.once('exit', resolve));
    expect(code === 0, `exit code 0, found ${code}`);
    done('the worker ended');
  },

  async 'a dropped handle loses no event and is then collected'() {
    const before = numThreads();
    const failures = [];
    const arrived = [];
    await (async () => {
      const { handle, settled } = await open('step_us=30000', 8, (ticket) => arrived.push(ticket));
      for (let ticket = 2; ticket < 6; ticket += 1) {
        settled(ticket).catch((error) => failures.push(error));
        addon.submit(handle, ticket, BATCH);
      }
    })();
    while (arrived.length < 5) {
      globalThis.gc();
      await turn();
    }
    expect(failures.length === 0, `every step ran, found ${failures}`);
    for (let i = 0; i < 100 && numThreads() > before; i += 1) {
      globalThis.gc();
      await turn();
    }
    expect(numThreads() <= before, `the submission thread has ended, found ${numThreads()} threads, ${before} before`);
    done('all four steps arrived');
  },

  async 'a callback that throws does not keep later events away'() {
    const thrown = [];
    process.on('uncaughtException', (error) => thrown.push(error.message));
    const { handle, log, settled } = await open('step_us=1000', 4, (ticket) => {
      if (ticket === 2 || ticket === 3) throw new Error(`thrown at ${ticket}`);
    });
    const last = settled(5);
    for (let ticket = 2; ticket <= 5; ticket += 1) addon.submit(handle, ticket, BATCH);
    await last;
    expect(log.join() === '1,2,3,4,5', `every ticket settled in order, found ${log}`);
    expect(thrown.join() === 'thrown at 2,thrown at 3', `both exceptions surfaced, found ${thrown}`);
    done('order kept');
  },

  async 'handles are refused after disposal, before opening and when forged'() {
    const status = (call) => {
      try {
        call();
        return 'no error';
      } catch (error) {
        return error.status;
      }
    };
    const opening = addon.openRunner(
      1,
      MODEL,
      options('open_us=100'),
      () => {},
      () => {},
    );
    expect(status(() => addon.submit(opening, 2, BATCH)) === 8, 'an opening runner refuses steps');
    expect(status(() => addon.destroyRunner(opening, 2)) === 8, 'an opening runner is cancelled, not destroyed');
    const { handle, settled } = await open('');
    const destroyed = settled(9);
    addon.destroyRunner(handle, 9);
    expect(status(() => addon.destroyRunner(handle, 10)) === 8, 'a second destruction is refused');
    expect(status(() => addon.submit(handle, 10, BATCH)) === 8, 'a closing runner refuses steps');
    await destroyed;
    expect(status(() => addon.memory(handle)) === 8, 'a closed runner refuses everything');
    addon.cancelOpening(handle);
    for (const forged of [{}, null, undefined, 7, Object.create(handle), new Proxy(handle, {})]) {
      expect(status(() => addon.memory(forged)) === 1, `${typeof forged} is no handle`);
    }
    done('every misuse has its status');
  },
};

await scenarios[scenario]();
