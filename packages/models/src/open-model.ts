import { statSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { KvasirError } from '@kvasir/domain';
import { fileAccessError, withFile } from './files/byte-source.ts';
import { rejectForeignFile, sniffWeightFormat } from './files/foreign-file.ts';
import { openGguf } from './gguf/open-gguf.ts';
import type { ModelFile } from './model-file.ts';
import { openHuggingFace } from './safetensors/open-huggingface.ts';

/**
 * Opens a model without reading its weights: a .gguf file (any shard of a split one), a Hugging Face directory, or a
 * .safetensors or .json file inside one.
 *
 * Everything the headers say is checked against the files before this resolves.
 * @throws KvasirError `file-not-found`, `file-unreadable`, `file-truncated`, `file-corrupt`, `file-foreign`,
 *   `unsupported-format`; the message names the file, the byte offset and the key or tensor
 * Cost: reads the headers only, in synchronous reads; the time is that of the vocabulary (200,000 tokens with 450,000
 * merges: tens of milliseconds).
 */
export async function openModel(path: string): Promise<ModelFile> {
  if (path === '' || path.includes('\0')) {
    throw new KvasirError('invalid-argument', `model path: expected a path, found ${JSON.stringify(path)}`);
  }
  const absolute = resolve(path);
  if (isDirectory(absolute)) return openHuggingFace(absolute);
  if (/\.(?:json|jinja)$/i.test(absolute)) return openHuggingFace(dirname(absolute));
  const format = withFile(absolute, (source) => {
    // The name decides between the formats only where the content does not say.
    const found = sniffWeightFormat(source) ?? (/\.safetensors$/i.test(absolute) ? 'safetensors' : 'gguf');
    rejectForeignFile(source, found);
    return found;
  });
  return format === 'gguf' ? openGguf(absolute) : openHuggingFace(dirname(absolute), absolute);
}

function isDirectory(path: string): boolean {
  try {
    return statSync(path).isDirectory();
  } catch (cause) {
    throw fileAccessError(path, cause);
  }
}
