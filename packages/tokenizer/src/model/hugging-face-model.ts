import { KvasirError } from '@kvasir/domain';
import type { TokenizerModel } from './tokenizer-model.ts';
export async function huggingFaceModel(directory: string): Promise<TokenizerModel> {
  throw new KvasirError('unsupported-format', `tokenizer: ${directory}`);
}
