// `npm test`: installs, builds, checks and tests everything that needs no GPU, and ends with one plain line of counts.
// Arguments after `--` choose phases by name: `npm test -- lint unit`.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { ensureReady, environment, fail, root, run } from './lib/toolchain.mjs';

const counts = { passed: 0, failed: 0 };
const scratch = mkdtempSync(path.join(tmpdir(), 'kvasir-test-'));

/** A phase that is one check: its exit status decides. */
const check =
  (command, ...args) =>
  () => ({ passed: 1, failed: 0, status: run(command, args) });
const phases = {
  types: check('turbo', 'run', 'types', '--output-logs=errors-only', '--no-update-notifier'),
  lint: check('oxlint', '--deny-warnings'),
  format: check('biome', 'format', '.'),
  boundaries: check('node', 'tools/check-boundaries.mjs'),
  native: () => nativeTests(),
  sanitized: () => sanitizedTests(),
  unit: () => vitest('unit', ['--coverage']),
  addon: () => vitest('native'),
  e2e: () => vitest('e2e'),
};

const chosen = process.argv.slice(2);
const unknown = chosen.filter((name) => !(name in phases));
if (unknown.length > 0) fail(`Unknown phase ${unknown.join(', ')}; there are ${Object.keys(phases).join(', ')}.`);

ensureReady();
for (const [name, phase] of Object.entries(phases)) {
  if (chosen.length > 0 && !chosen.includes(name)) continue;
  const started = Date.now();
  console.log(`\n== ${name}`);
  const result = phase();
  // A runner that fails without naming a failed test (a crash, a coverage threshold) still counts as one failure.
  const failed = result.status === 0 ? result.failed : Math.max(1, result.failed);
  counts.passed += result.status === 0 || result.passed > 1 ? result.passed : 0;
  counts.failed += failed;
  console.log(`== ${name}: ${failed === 0 ? 'passed' : 'FAILED'} in ${((Date.now() - started) / 1000).toFixed(1)} s`);
}
rmSync(scratch, { recursive: true, force: true });
console.log(`\n${counts.passed} passed, ${counts.failed} failed`);
process.exit(counts.failed === 0 ? 0 : 1);

function vitest(project, extra = []) {
  const report = path.join(scratch, `${project}.json`);
  const args = [
    'run',
    '--project',
    project,
    '--reporter=default',
    '--reporter=json',
    `--outputFile.json=${report}`,
    ...extra,
  ];
  const status = run('vitest', args);
  let summary;
  try {
    summary = JSON.parse(readFileSync(report, 'utf8'));
  } catch (error) {
    console.error(`vitest wrote no report for ${project}: ${error.message}`);
    return { passed: 0, failed: 1, status: 1 };
  }
  return { passed: summary.numPassedTests, failed: summary.numFailedTests, status };
}

/** Native tests without Node: all of them optimised, since they compare bits on every instruction path. */
function nativeTests() {
  return runNative('tests', ['-DCMAKE_BUILD_TYPE=Release'], []);
}

/** What takes hostile input or frees under load, again with sanitizers; kernels are not optimised to build faster. */
function sanitizedTests() {
  const flags = [
    '-DCMAKE_BUILD_TYPE=Sanitized',
    '-DCMAKE_C_FLAGS_SANITIZED=-O1 -g1',
    '-DCMAKE_CXX_FLAGS_SANITIZED=-O1 -g1',
  ];
  const targets = ['hostile_test', 'runner_test', 'truncation_test', 'abi_fuzz'];
  return runNative('sanitized', [...flags, '-DKVASIR_SANITIZE=address,undefined'], targets);
}

function runNative(name, flags, targets) {
  const build = path.join(root, '.native', name);
  const quiet = { stdio: ['ignore', 'ignore', 'inherit'] };
  const configure = ['-S', 'native', '-B', build, '-DKVASIR_TESTS=ON', ...flags];
  if (run('cmake', configure, quiet) !== 0) return { passed: 0, failed: 1, status: 1 };
  const only = targets.length > 0 ? ['--target', ...targets] : [];
  if (run('cmake', ['--build', build, '--parallel', '2', ...only], quiet) !== 0) {
    return { passed: 0, failed: 1, status: 1 };
  }
  const chosenTests = targets.length > 0 ? ['-R', `^(${targets.join('|')})$`] : [];
  const result = spawnSync('ctest', ['--test-dir', build, '--output-on-failure', '--no-tests=error', ...chosenTests], {
    cwd: root,
    env: environment,
    encoding: 'utf8',
    maxBuffer: 1 << 28,
  });
  process.stdout.write(result.stdout ?? '');
  process.stderr.write(result.stderr ?? '');
  const [, failed = '1', total = '1'] = /(\d+) tests? failed out of (\d+)/.exec(result.stdout ?? '') ?? [];
  return { passed: Number(total) - Number(failed), failed: Number(failed), status: result.status ?? 1 };
}
