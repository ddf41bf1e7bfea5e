// How agents' prompts grow, branch and end: as in recorded sessions of coding agents, scaled down, or drawn like them.
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';

/** One token here stands for one of the trace's hash blocks of 64 tokens. */
const SCALE = 64;

/**
 * Sessions of turns. A turn keeps `keep` tokens of the prompt before it (null: all of it and the answer), goes on with
 * `fresh` new ones, and is answered with at most `answer`. The first keeps the preamble all agents share.
 * @param trace path of kv-cache-tester's run-length file; undefined: drawn with the same quartiles
 */
export function sessions({ trace, random, maxTokens, preambleTokens }) {
  const read = trace === undefined ? drawnSessions(random) : tracedSessions(trace);
  return read.map((turns) => fitted(turns, maxTokens, preambleTokens)).filter((turns) => turns.length >= 3);
}

/** Sizes in tokens of this experiment: length of the prompt, of the answer, and how much agrees with the prompt before. */
function tracedSessions(file) {
  const lines = gunzipSync(readFileSync(file)).toString('utf8').trim().split('\n');
  return lines.map((line) => {
    let before = [];
    return JSON.parse(line)
      .requests.filter((request) => request.hash_runs !== undefined && request.hash_runs.length > 0)
      .map(({ in: prompt, out, hash_runs: runs }) => {
        const common = commonBlocks(before, runs);
        before = runs;
        return { prompt: Math.round(prompt / SCALE), answer: Math.max(1, Math.round(out / SCALE)), common };
      });
  });
}

/** Leading ids two lists of runs [first, count] share. */
function commonBlocks(one, other) {
  let common = 0;
  for (let index = 0; index < one.length && index < other.length; index++) {
    if (one[index][0] !== other[index][0]) break;
    common += Math.min(one[index][1], other[index][1]);
    if (one[index][1] !== other[index][1]) break;
  }
  return common;
}

/** Quartiles of the trace: 18 to 90 turns, first prompts of 290 to 1,660, growth of 5 to 25, answers of 2 to 7, 1 in 20 branches. */
function drawnSessions(random) {
  const between = (low, high) => Math.round(low * (high / low) ** random());
  return Array.from({ length: 400 }, () => {
    let prompt = between(200, 900);
    const turns = [{ prompt, answer: between(2, 7), common: 0 }];
    for (let turn = between(10, 90); turn > 0; turn--) {
      const isBranch = random() < 0.05;
      const common = isBranch ? Math.floor(prompt * random()) : prompt;
      prompt = (isBranch ? common : prompt) + between(4, 40);
      turns.push({ prompt, answer: between(1, 12), common });
    }
    return turns;
  });
}

function fitted(turns, maxTokens, preambleTokens) {
  const fit = [];
  let before = 0;
  for (const { prompt, answer, common } of turns) {
    const answered = Math.min(answer, 24);
    if (prompt + answered > maxTokens || prompt < 8) break;
    // The trace's blocks are whole ones: the last of a prompt is never found again, though its tokens go on.
    const isContinued = before > 0 && common >= before - 2;
    const keep =
      before === 0 ? Math.min(preambleTokens, prompt - 1) : isContinued ? null : Math.min(common, prompt - 1);
    fit.push({ keep, fresh: Math.max(1, prompt - (isContinued ? before : keep)), answer: answered });
    before = prompt;
  }
  return fit;
}
