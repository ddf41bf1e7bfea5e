// Kills writers with SIGKILL in each phase and verifies what they leave. See README.md.
// Usage: node experiments/EXP-008-crash-safety/run.mjs [--kills 120] [--seed 1] [--record]
import { execSync, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { OPERATION_PHASES } from './killing-file-system.mjs';
import { Ledger } from './verify.mjs';
import { randomFrom } from './workload.mjs';

const KILLS_PER_DIRECTORY = 12;
const here = path.dirname(fileURLToPath(import.meta.url));
const { values } = parseArgs({
  options: {
    kills: { type: 'string', default: '120' },
    seed: { type: 'string', default: '1' },
    record: { type: 'boolean', default: false },
  },
});
const kills = Number(values.kills);
const phases = [...OPERATION_PHASES, 'load'];
const counts = Object.fromEntries(phases.map((phase) => [phase, { kills: 0, duringOpening: 0, problems: 0 }]));
const openings = { clean: 0, recovered: 0, rebuilt: 0, new: 0 };
const totals = { tornTails: 0, damagedJournals: 0, deletionsFinished: 0, temporaryFilesRemoved: 0, maxOpenMs: 0 };
const problems = [];
const started = Date.now();

let directory = '';
let ledger = new Ledger();
let state = { agents: [], nextOwner: 1 };
for (let kill = 0; kill < kills; kill++) {
  if (kill % KILLS_PER_DIRECTORY === 0) {
    if (directory !== '') rmSync(directory, { recursive: true });
    directory = mkdtempSync(path.join(os.tmpdir(), 'kvasir-exp-008-'));
    ledger = new Ledger();
    state = { agents: [], nextOwner: 1 };
  }
  const phase = phases[kill % phases.length];
  const seed = Number(values.seed) * 100_000 + kill;
  const { lines, signal } = await runWriter(phase, seed);
  if (signal !== 'SIGKILL')
    throw new Error(`writer of kill ${kill} (${phase}, seed ${seed}) ended by itself: ${signal}`);
  const isOpen = lines.some((line) => line.includes('"ready"'));
  ledger.read(lines.filter((line) => !line.includes('"ready"')));
  const outcome = await ledger.verify(directory);
  state = outcome.state;
  counts[phase].kills++;
  if (!isOpen) counts[phase].duringOpening++;
  counts[phase].problems += outcome.problems.length;
  problems.push(...outcome.problems.map((problem) => `kill ${kill}, ${phase}, seed ${seed}: ${problem}`));
  openings[outcome.usage.agents.opening]++;
  for (const name of ['tornTails', 'damagedJournals', 'deletionsFinished']) totals[name] += outcome.usage.agents[name];
  totals.temporaryFilesRemoved += outcome.usage.blocks.temporaryFilesRemoved;
  totals.maxOpenMs = Math.max(totals.maxOpenMs, outcome.openMs);
}
if (directory !== '') rmSync(directory, { recursive: true });

const result = {
  experiment: 'EXP-008, kill -9',
  date: new Date().toISOString(),
  command: `node experiments/EXP-008-crash-safety/run.mjs --kills ${kills} --seed ${values.seed}`,
  commit: execSync('git rev-parse HEAD', { cwd: here, encoding: 'utf8' }).trim(),
  hardware: `${os.cpus()[0]?.model}, ${os.cpus().length} cores, load ${os.loadavg()[0]?.toFixed(1)}`,
  system: `${os.type()} ${os.release()}, Node ${process.version}`,
  seconds: (Date.now() - started) / 1000,
  kills,
  phases: counts,
  openingsAfterwards: openings,
  ...totals,
  problems,
};
console.log(JSON.stringify(result, null, 2));
if (values.record) writeFileSync(path.join(here, 'result.json'), `${JSON.stringify(result, null, 2)}\n`);
process.exit(problems.length === 0 ? 0 : 1);

/** A writer dies by its own bullet; one that loads is shot from here, some milliseconds after it has begun. */
function runWriter(phase, seed) {
  const args = [path.join(here, 'writer.mjs'), directory, phase, String(seed), JSON.stringify(state)];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  let text = '';
  return new Promise((resolve) => {
    child.stdout.setEncoding('utf8').on('data', (part) => {
      text += part;
      if (phase === 'load') setTimeout(() => child.kill('SIGKILL'), randomFrom(seed)() * 60);
    });
    // A line that the kill cut was not said.
    child.on('close', (_, signal) => resolve({ lines: text.split('\n').slice(0, -1), signal }));
  });
}
