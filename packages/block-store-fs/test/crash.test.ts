// Only this test sees what a power cut can do between any two changes to the disk: a run of the cold tier is recorded, and
// for every prefix of the recording disks are made on which unflushed data and names were kept, lost, reordered or torn.
import { leadingSlots, SHAPE } from '@kvasir/port-contracts';
import { beforeAll, describe, expect, it } from 'vitest';
import { FaultFileSystem, type Crash, type Operation } from './support/fault-file-system.ts';
import { closeCores, openCores, readStored, SEEDS, Story, toldBy, tokensOf, type Told } from './support/crash-story.ts';

const CRASHES: readonly Crash[] = ['process', 'nothing', 'names-only', 'data-only', 'prefixes', 'subsets', 'subsets'];

let log: readonly Operation[] = [];
beforeAll(async () => {
  const files = new FaultFileSystem();
  await Story.run(files);
  log = files.log;
});

describe('a power cut at any moment', () => {
  it.each([...new Set(CRASHES)])('serves nothing wrong and keeps every promise: %s', async (crash) => {
    const rounds = crash === 'subsets' || crash === 'prefixes' ? 3 : 1;
    const problems: string[] = [];
    for (let length = 0; length <= log.length; length++) {
      for (let round = 0; round < rounds; round++) {
        const prefix = log.slice(0, length);
        const files = FaultFileSystem.replay(prefix).crashed(crash, randomFrom(length * 7 + round));
        for (const problem of await judge(files, toldBy(prefix))) {
          problems.push(`operation ${length} of ${log.length}, round ${round}: ${problem}`);
        }
      }
    }
    expect(problems.slice(0, 10)).toEqual([]);
  });

  it('may come again while the first one is being repaired', async () => {
    const problems: string[] = [];
    for (let length = 40; length <= log.length; length += 29) {
      const prefix = log.slice(0, length);
      const first = FaultFileSystem.replay(prefix).crashed('subsets', randomFrom(length));
      const repaired = first.crashed('process', () => 0);
      await openCores(repaired);
      for (let cut = 0; cut <= repaired.log.length; cut += 3) {
        const again = first.crashed('process', () => 0);
        again.replayOn(repaired.log.slice(0, cut));
        for (const problem of await judge(again.crashed('subsets', randomFrom(cut)), toldBy(prefix))) {
          problems.push(`operation ${length}, then ${cut}: ${problem}`);
        }
      }
    }
    expect(problems.slice(0, 10)).toEqual([]);
  });

  it('would be noticed: a disk that loses what it had flushed breaks promises', async () => {
    const prefix = log.slice(0, Math.floor(log.length / 2));
    const lying = prefix.filter(({ kind }) => kind !== 'flush' && kind !== 'flushDirectories');
    const files = FaultFileSystem.replay(lying).crashed('nothing', () => 0);
    expect(await judge(files, toldBy(prefix))).not.toEqual([]);
  });
});

/** What is wrong with what is found on a disk. */
async function judge(files: FaultFileSystem, told: Told): Promise<readonly string[]> {
  const cores = await openCores(files);
  const problems: string[] = [];
  const found = new Map<string, number[]>();
  for (const summary of cores.archive.list(0).summaries) {
    const tokens = [...(await cores.archive.read(summary.agentId)).tokenIds];
    if (summary.numTokens !== tokens.length) problems.push(`the summary of ${summary.name} is another state's`);
    if (found.has(summary.name)) problems.push(`two agents are called ${summary.name}`);
    found.set(summary.name, tokens);
  }
  const contents = [...files.files()].map(([path, bytes]) => ({ path, content: Buffer.from(bytes) }));
  for (const [label, agent] of told.agents) {
    const tokens = label === 'c' && told.agents.get('c2')?.fate === 'alive' ? undefined : found.get(label.slice(0, 1));
    const owner = { a: 1, b: 2, c: 3, c2: 4 }[label] ?? 0;
    const isThere = tokens !== undefined && (tokens.length === 0 || ((tokens[0] ?? 0) >> 16) % 256 === owner);
    if (agent.fate === 'alive' && agent.known >= 0 && !isThere) problems.push(`${label} is lost`);
    if (isThere) {
      const allowed = agent.states.slice(Math.max(0, agent.known)).map(String);
      if (agent.fate === 'deleted') problems.push(`${label} has come back`);
      if (!allowed.includes(String(tokens))) problems.push(`${label} has ${tokens.length} tokens, another state's`);
    } else if (agent.fate !== 'alive') {
      // Gone, so gone from every file: each of its tokens bears the owner's mark.
      const mark = Buffer.from(Int32Array.from(tokensOf(owner, 0, 1)).buffer).subarray(2);
      const holders = contents.filter(({ content }) => holdsMark(content, mark));
      for (const { path } of holders) problems.push(`tokens of ${label} are left in ${path}`);
    }
  }
  for (const seed of SEEDS) {
    const { block, request, reading } = readStored(files, seed);
    if (told.stored.has(seed) && !reading.isHit) problems.push(`block ${seed} is lost`);
    const isRight = Buffer.from(leadingSlots(request.into, SHAPE, 8)).equals(leadingSlots(block.payload, SHAPE, 8));
    if (reading.isHit && !isRight) problems.push(`block ${seed} is served wrong`);
  }
  return [...problems, ...(await goOn(cores, found))];
}

/** What was found can be worked with: another turn for every agent, an orderly stop, an opening that trusts the index. */
async function goOn(
  cores: Awaited<ReturnType<typeof openCores>>,
  found: ReadonlyMap<string, number[]>,
): Promise<readonly string[]> {
  const problems: string[] = [];
  for (const summary of cores.archive.list(0).summaries) {
    const startTokens = found.get(summary.name)?.length ?? 0;
    const entry = { kind: 'turn', startTokens, tokenIds: Int32Array.of(1), segments: '', atMs: 9 } as const;
    const [outcome] = await cores.archive.apply([{ agentId: summary.agentId, entry, isCommit: true }]);
    if (outcome === undefined || 'error' in outcome) problems.push(`${summary.name} takes no turn: ${outcome?.error}`);
  }
  await closeCores(cores);
  return problems;
}

/** Token ids lie at multiples of 4 from anywhere: the upper half of one, 0x5aXX, is looked for at every byte. */
function holdsMark(content: Buffer, mark: Buffer): boolean {
  for (let at = content.indexOf(mark); at >= 0; at = content.indexOf(mark, at + 1)) {
    // Two of a kind, four bytes apart: chance would have to repeat itself.
    if (content.subarray(at + 4, at + 6).equals(mark)) return true;
  }
  return false;
}

function randomFrom(seed: number): () => number {
  let state = (seed * 2654435761 + 12345) >>> 0;
  return () => {
    state = (Math.imul(state ^ (state >>> 15), 2246822519) + 3266489917) >>> 0;
    return state / 2 ** 32;
  };
}
