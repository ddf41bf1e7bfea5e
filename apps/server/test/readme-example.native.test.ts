import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { generateGguf, SMALL_SHAPE } from '@kvasir/reference';
import { expect, it } from 'vitest';

it('runs the example of the README', () => {
  const readme = readFileSync(path.resolve(import.meta.dirname, '../README.md'), 'utf8');
  const example = /```ts\n(?<code>.+?)```/s.exec(readme)?.groups?.['code'] ?? '';
  const source = JSON.stringify(path.resolve(import.meta.dirname, '../src/index.ts'));
  const directory = mkdtempSync(path.join(tmpdir(), 'kvasir-readme-'));
  try {
    writeFileSync(path.join(directory, 'model.gguf'), generateGguf(SMALL_SHAPE, 'q8_0', 1));
    writeFileSync(path.join(directory, 'example.mts'), example.replace("'@kvasir/server'", source));
    const output = execFileSync(
      process.execPath,
      ['--conditions=kvasir-source', `--import=${import.meta.resolve('tsx')}`, path.join(directory, 'example.mts')],
      { cwd: directory, encoding: 'utf8' },
    );
    expect(output).toMatch(/^(stop|length) \d\n$/);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
});
