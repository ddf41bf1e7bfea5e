import { KvasirError, type ModelDescriptor } from '@kvasir/domain';
import type { ModelFile } from '../model-file.ts';
import type { Architecture } from './architecture.ts';
import { llama } from './llama.ts';
import { qwen2 } from './qwen2.ts';
import { qwen3 } from './qwen3.ts';

/** Every family Kvasir computes. A new one is a file beside these and a line here. */
const ARCHITECTURES: readonly Architecture[] = [llama, qwen2, qwen3];

/**
 * The model as data, by the family that recognises the file.
 * @throws KvasirError `unsupported-model` listing the families there are, and what the family's builder throws
 */
export function buildDescriptor(file: ModelFile): ModelDescriptor {
  const architecture = ARCHITECTURES.find((candidate) => candidate.matches(file));
  const accepted = ARCHITECTURES.flatMap(({ accepts }) => accepts).join(', ');
  if (file.tensors.length === 0) {
    throw new KvasirError(
      'unsupported-model',
      `${file.path}: expected a model with weights, found a vocabulary alone; it can tokenize, not generate`,
      { facts: { path: file.path } },
    );
  }
  if (architecture === undefined) {
    const found = file.architecture === '' ? 'no name of one' : JSON.stringify(file.architecture.slice(0, 120));
    throw new KvasirError(
      'unsupported-model',
      `${file.path}: expected an architecture of ${accepted}, found ${found}; choose a model of one of these families`,
      { facts: { path: file.path, architecture: file.architecture.slice(0, 120) } },
    );
  }
  return architecture.build(file);
}
