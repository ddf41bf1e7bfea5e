// Runs the conformance tests and prints what they measured as one table. See README.md.
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');
const scratch = mkdtempSync(path.join(tmpdir(), 'kvasir-conformance-'));
const file = path.join(scratch, 'report.jsonl');
const tests = ['oracle', 'published'].map((name) => `packages/adapter-cpu/test/${name}.native.test.ts`);
const result = spawnSync(process.execPath, ['node_modules/vitest/vitest.mjs', 'run', '--project', 'native', ...tests], {
  cwd: root,
  env: { ...process.env, KVASIR_CONFORMANCE_REPORT: file },
  stdio: ['ignore', 'ignore', 'inherit'],
});
const lines = existsSync(file)
  ? readFileSync(file, 'utf8')
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line))
  : [];
rmSync(scratch, { recursive: true });

const git = (...args) => execFileSync('git', args, { cwd: root, encoding: 'utf8' }).trim();
const commit =
  git('rev-parse', '--short=12', 'HEAD') +
  (git('status', '--porcelain', '--untracked-files=no') === '' ? '' : ' with changes');
console.log(
  `${cpus()[0].model}, ${cpus().length} cores; node ${process.version}; commit ${commit}; ${new Date().toISOString()}`,
);
console.log('node experiments/EXP-001-conformance/run.mjs\n');
console.log(
  '| model | format | mode | path | reference | tokens | ‖Δ‖/‖ref‖ | bound | worst token | same next token | decided | of these different |',
);
console.log('|---|---|---|---|---|---:|---:|---:|---:|---:|---:|---:|');
for (const line of lines) {
  const cells = [
    line.model,
    line.format,
    line.mode,
    line.instructionPath,
    line.reference,
    line.tokens,
    line.relativeError.toExponential(1),
    line.bound,
    line.worstTokenError.toExponential(1),
    line.sameNextToken,
    line.decidedTokens,
    line.decidedButDifferent,
  ];
  console.log(`| ${cells.join(' | ')} |`);
}
console.log(`\n${lines.length} comparisons; the tests ${result.status === 0 ? 'passed' : 'FAILED'}`);
process.exit(result.status ?? 1);
