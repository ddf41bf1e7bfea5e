import { ggufModel } from './model/gguf-model.ts';
import { huggingFaceModel } from './model/hugging-face-model.ts';
import { ModelTokenizer } from './model-tokenizer.ts';
import type { TokenizerSource } from './source.ts';
import type { TextTokenizer, TokenizerOptions } from './text-tokenizer.ts';

/**
 * @throws KvasirError `unsupported-format` naming what is supported, `file-corrupt` where the vocabulary contradicts itself,
 * `file-not-found` where a directory has no tokenizer.json
 */
export async function createTokenizer(source: TokenizerSource, options: TokenizerOptions = {}): Promise<TextTokenizer> {
  const model = source.kind === 'gguf' ? ggufModel(source) : await huggingFaceModel(source.directory);
  return new ModelTokenizer(model, options);
}
