import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { fileURLToPath } from 'node:url';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';

const root = fileURLToPath(new URL('..', import.meta.url));

it('the example of the README runs on the built package and its process ends by itself', async () => {
  const readme = readFileSync(join(root, 'README.md'), 'utf8');
  const [, code = '', output = ''] = /```js\n([^]*?)```[^]*?```text\n([^]*?)```/.exec(readme) ?? [];
  const directory = await mkdtemp(join(tmpdir(), 'kvasir-readme-'));
  try {
    await mkdir(join(directory, 'node_modules/@kvasir'), { recursive: true });
    await symlink(root, join(directory, 'node_modules/@kvasir/tokenizer'));
    const file = join(directory, 'example.mjs');
    // The example disposes nothing on purpose here: a worker thread must not keep a process alive.
    await writeFile(file, code.replaceAll(/^await \w+\.dispose\(\);\n/gm, ''));
    const { stdout } = await promisify(execFile)(process.execPath, [file], { timeout: 30_000 });
    expect(stdout).toBe(output);
  } finally {
    await rm(directory, { recursive: true });
  }
});
