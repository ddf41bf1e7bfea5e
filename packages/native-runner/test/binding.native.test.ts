// The binding's lifetimes: what only whole processes show. The same scenarios run again under AddressSanitizer and
// UBSan, where a use after free in a teardown cannot hide.
import { execFileSync, spawn } from 'node:child_process';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, it } from 'vitest';
import { buildFakeAddon } from './fake-addon.ts';

const script = path.join(path.dirname(fileURLToPath(import.meta.url)), 'binding-scenarios.mjs');

const SCENARIOS = [
  'an idle runner lets the process end',
  'a step in flight keeps the process alive',
  'the process exits with steps in flight',
  'workers are terminated while steps and loads are in flight',
  'a worker ends by itself while a runner is open',
  'a dropped handle loses no event and is then collected',
  'a callback that throws does not keep later events away',
  'handles are refused after disposal, before opening and when forged',
];

describe('the binding', () => {
  let addon: string;
  beforeAll(async () => {
    addon = await buildFakeAddon();
  });
  it.each(SCENARIOS)('%s', async (scenario) => {
    expect(await runScenario(addon, scenario)).toMatch(/^ok: /);
  });
});

const asanRuntime = sanitizerRuntime();
if (asanRuntime === null) console.warn('SKIPPED: the binding under sanitizers (no libasan beside the C compiler)');

describe.skipIf(asanRuntime === null)('the binding under AddressSanitizer and UBSan', () => {
  let addon: string;
  beforeAll(async () => {
    addon = await buildFakeAddon('address,undefined');
  });
  it.each(SCENARIOS)('%s', async (scenario) => {
    const environment = {
      LD_PRELOAD: asanRuntime ?? '',
      // Node itself leaks at its end; `fast_unwind` keeps its JIT frames from stopping the unwinder.
      ASAN_OPTIONS: 'detect_leaks=0:abort_on_error=0:exitcode=99:fast_unwind_on_malloc=1',
      UBSAN_OPTIONS: 'print_stacktrace=1:exitcode=98',
    };
    expect(await runScenario(addon, scenario, environment)).toMatch(/^ok: /);
  });
});

// ------------------------------------------------------------------------------------------------ helpers

/** Standard output of a scenario; rejects with its standard error when it fails, crashes or lasts a minute. */
function runScenario(addon: string, scenario: string, environment: Record<string, string> = {}): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, ['--expose-gc', script, addon, scenario], {
      env: { ...process.env, ...environment },
      timeout: 60_000,
    });
    let output = '';
    let errors = '';
    child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()));
    child.stderr.on('data', (chunk: Buffer) => (errors += chunk.toString()));
    child.on('error', reject);
    child.on('close', (code, signal) => {
      if (code === 0) resolve(output);
      else reject(new Error(`${scenario}: exit ${code}, signal ${signal}\n${output}\n${errors}`));
    });
  });
}

/** The AddressSanitizer runtime of the compiler that builds the addon, or null. */
function sanitizerRuntime(): string | null {
  if (process.platform !== 'linux') return null;
  try {
    const file = execFileSync('gcc', ['-print-file-name=libasan.so'], { encoding: 'utf8' }).trim();
    const cxx = execFileSync('gcc', ['-print-file-name=libstdc++.so'], { encoding: 'utf8' }).trim();
    // libstdc++ too: the runtime must find __cxa_throw before the addon brings its own.
    return path.isAbsolute(file) ? `${file} ${cxx}` : null;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    return null;
  }
}
