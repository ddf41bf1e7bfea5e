import { KvasirError } from '@kvasir/domain';
import type { ChatTemplateOptions, TextChatTemplate } from './chat-templates.ts';
import type { TokenizerSource } from './source.ts';

/**
 * @throws KvasirError `template-failed` when the source has no template (none is guessed) or it does not parse
 */
export async function createChatTemplate(
  source: TokenizerSource,
  _options: ChatTemplateOptions = {},
): Promise<TextChatTemplate> {
  throw new KvasirError('template-failed', `chat template: expected one, found none in the ${source.kind} source`);
}
