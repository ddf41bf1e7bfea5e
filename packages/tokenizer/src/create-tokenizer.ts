import { KvasirError } from '@kvasir/domain';
import type { TokenizerSource } from './source.ts';
import type { TextTokenizer, TokenizerOptions } from './text-tokenizer.ts';

/**
 * @throws KvasirError `unsupported-format` naming what is supported, `file-corrupt` where the vocabulary contradicts itself,
 * `file-not-found` where a directory has no tokenizer.json
 */
export async function createTokenizer(
  source: TokenizerSource,
  _options: TokenizerOptions = {},
): Promise<TextTokenizer> {
  throw new KvasirError('unsupported-format', `tokenizer: expected a supported source, found ${source.kind}`);
}
