import { existsSync, statSync } from 'node:fs';
import path from 'node:path';

/**
 * The folder of a tokenizer that stands without a model: a tokenizer.json, or a folder that has one and no config.json.
 * @returns null for everything else, which is a model
 */
export function vocabularyDirectory(file: string): string | null {
  const directory = path.basename(file) === 'tokenizer.json' ? path.dirname(file) : file;
  const isAlone =
    existsSync(path.join(directory, 'tokenizer.json')) && !existsSync(path.join(directory, 'config.json'));
  return isAlone && statSync(directory).isDirectory() ? directory : null;
}
