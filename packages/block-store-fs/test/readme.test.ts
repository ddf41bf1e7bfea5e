import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';

const root = fileURLToPath(new URL('..', import.meta.url));

it('the example of the README runs on the built package and its process ends by itself', async () => {
  const readme = readFileSync(join(root, 'README.md'), 'utf8');
  const [, code = '', output = ''] = /```js\n([^]*?)```[^]*?```text\n([^]*?)```/.exec(readme) ?? [];
  const directory = await mkdtemp(join(tmpdir(), 'kvasir-readme-'));
  try {
    await mkdir(join(directory, 'node_modules/@kvasir'), { recursive: true });
    await symlink(root, join(directory, 'node_modules/@kvasir/block-store-fs'));
    const file = join(directory, 'example.mjs');
    // The example closes nothing on purpose here: worker threads must not keep a process alive.
    await writeFile(file, code.replace(/^await close\(\);\n/m, ''));
    const { stdout } = await promisify(execFile)(process.execPath, [file], { timeout: 30_000 });
    expect(stdout).toBe(output);
  } finally {
    await rm(directory, { recursive: true });
  }
});
