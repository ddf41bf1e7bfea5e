// EXP-005: whether what is brought back answers with the same bits. Runs the test's full table and records what it saw.
// Usage: node experiments/EXP-005-output-equality/run.mjs [--record]
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { circumstances, record, table } from '../support/report.mjs';

const { values } = parseArgs({ options: { record: { type: 'boolean', default: false } } });
const root = path.resolve(import.meta.dirname, '../..');
const scratch = mkdtempSync(path.join(tmpdir(), 'kvasir-exp-005-'));
const file = path.join(scratch, 'report.jsonl');
const outcomeFile = path.join(scratch, 'outcome.json');
const started = Date.now();
const facts = circumstances('EXP-005, output equality');
const { status } = spawnSync(
  process.execPath,
  [
    'node_modules/vitest/vitest.mjs',
    'run',
    '--project',
    'native',
    'apps/server/test/memory/equality.native.test.ts',
    '--testTimeout=3600000',
    '--reporter=json',
    `--outputFile=${outcomeFile}`,
  ],
  {
    cwd: root,
    env: { ...process.env, KVASIR_EQUALITY: 'full', KVASIR_EQUALITY_REPORT: file },
    stdio: ['ignore', 'inherit', 'inherit'],
  },
);
const lines = existsSync(file)
  ? readFileSync(file, 'utf8')
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line))
  : [];
const tests = existsSync(outcomeFile)
  ? JSON.parse(readFileSync(outcomeFile, 'utf8')).testResults.flatMap(({ assertionResults }) => assertionResults)
  : [];
rmSync(scratch, { recursive: true });

// A line is written where every hash and id was equal; a test that fails writes none for what differed.
const comparisons = lines.map((line) => ({
  model: line.name,
  sampling: line.sampling,
  scenario: line.scenario,
  promptTokens: line.promptTokens,
  outputs: line.fresh,
  computedTokens: line.computedTokens,
  reusedTokens: line.reusedTokens,
  restoredBytes: line.restoredBytes,
  writtenBytes: line.writtenBytes,
  isEqual: true,
}));
const controls = tests.filter(({ title }) => title.startsWith('is noticed'));
const failed = tests.filter((test) => test.status !== 'passed');
const byModel = Map.groupBy?.(comparisons, ({ model }) => model) ?? groupBy(comparisons, ({ model }) => model);
const summaries = [...byModel].map(([model, list]) => ({
  model,
  comparisons: list.length,
  lengths: [...new Set(list.map(({ promptTokens }) => promptTokens))].join(' '),
  scenarios: new Set(list.map(({ scenario }) => scenario)).size,
  samplings: new Set(list.map(({ sampling }) => sampling)).size,
  outputs: list.reduce((sum, { outputs }) => sum + outputs, 0),
}));
console.log(`\n${facts.hardware}; ${facts.system}; commit ${facts.commit}; ${facts.date}\n${facts.command}\n`);
const header = ['model', 'sampling', 'scenario', 'prompt', 'outputs', 'computed', 'reused', 'restored bytes', 'equal'];
const rows = comparisons.map((line) => [
  line.model,
  line.sampling,
  line.scenario,
  line.promptTokens,
  line.outputs,
  line.computedTokens,
  line.reusedTokens,
  line.restoredBytes,
  line.isEqual ? 'yes' : 'NO',
]);
console.log(`${table(header, rows)}\n`);
console.log(
  `${table(
    Object.keys(summaries[0] ?? {}),
    summaries.map((line) => Object.values(line)),
  )}\n`,
);
for (const { title, status: outcome } of controls) console.log(`mistake ${title}: ${outcome}`);
for (const { fullName, failureMessages } of failed)
  console.log(`FAILED ${fullName}: ${failureMessages?.[0]?.slice(0, 600)}`);
console.log(`\n${comparisons.length} comparisons equal; the test ${status === 0 ? 'passed' : 'FAILED'}`);
if (values.record) {
  record(import.meta.dirname, 'result.json', {
    ...facts,
    seconds: Math.round((Date.now() - started) / 1000),
    passed: status === 0,
    models: summaries,
    negativeControls: controls.map(({ title, status: outcome }) => ({ title, noticed: outcome === 'passed' })),
    failed: failed.map(({ fullName, failureMessages }) => ({ fullName, message: failureMessages?.[0]?.slice(0, 600) })),
    columns: Object.keys(comparisons[0] ?? {}),
    comparisons: comparisons.map((line) => Object.values(line)),
  });
}
process.exit(status ?? 1);

function groupBy(list, keyOf) {
  const groups = new Map();
  for (const item of list) groups.set(keyOf(item), [...(groups.get(keyOf(item)) ?? []), item]);
  return groups;
}
