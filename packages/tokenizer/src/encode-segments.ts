import type { PromptSegment } from '@kvasir/domain';
import type { EncodeSegmentsOptions, TextTokenizer } from './text-tokenizer.ts';

/** Ids of a rendered prompt; `TextTokenizer.encodeSegments` says how. */
export function encodeSegments(
  tokenizer: Pick<TextTokenizer, 'encodeSegments'>,
  segments: readonly PromptSegment[],
  options: EncodeSegmentsOptions,
): Promise<Int32Array> {
  return tokenizer.encodeSegments(segments, options);
}
