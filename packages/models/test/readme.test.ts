import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { expect, it } from 'vitest';
import { temporaryDirectory, writeFiles } from './support/files.ts';
import { tinyGguf } from './support/tiny-models.ts';

it('runs the example of the README', () => {
  const readme = readFileSync(resolve(import.meta.dirname, '../README.md'), 'utf8');
  const example = /```ts\n(?<code>.+?)```/s.exec(readme)?.groups?.['code'] ?? '';
  const source = JSON.stringify(resolve(import.meta.dirname, '../src/index.ts'));
  const directory = writeFiles(temporaryDirectory(), {
    'example.mts': example.replace("'@kvasir/models'", source),
    'model.gguf': tinyGguf('llama'),
  });
  const tsx = import.meta.resolve('tsx');
  const output = execFileSync(
    process.execPath,
    ['--conditions=kvasir-source', `--import=${tsx}`, join(directory, 'example.mts')],
    { cwd: directory, encoding: 'utf8' },
  );
  expect(output).toBe('tiny llama: llama, 20 tensors in 1 file(s)\n2 layers, 6 tokens, context 64\n');
});
