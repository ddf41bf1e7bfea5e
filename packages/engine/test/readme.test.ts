import { readFile } from 'node:fs/promises';
import { execFile } from 'node:child_process';
import path from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';

const run = promisify(execFile);
const packages = path.resolve(import.meta.dirname, '../..');

/** Runs a README's example as a program of its own, in its package, on the sources. */
async function runExample(name: string): Promise<string> {
  const readme = await readFile(path.join(packages, name, 'README.md'), 'utf8');
  const example = /```js\n([\s\S]*?)```/.exec(readme)?.[1] ?? '';
  const cwd = path.join(packages, name);
  const options = ['--conditions=kvasir-source', '--import', 'tsx', '--input-type=module', '--eval', example];
  return (await run(process.execPath, options, { cwd, timeout: 50_000 })).stdout;
}

describe('README examples', () => {
  it.each([
    ['domain', 'total: 64, free: 60, used: 4, retired: 0, peak: 4'],
    ['engine', 'length'],
    ['adapter-fake', '64'],
  ])('%s: runs and prints what it says', async (name, expected) => {
    expect(await runExample(name)).toContain(expected);
  });
});
