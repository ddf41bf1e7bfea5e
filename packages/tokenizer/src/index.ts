export type { ChatTemplateOptions, TextChatTemplate } from './chat-templates.ts';
export { createChatTemplate } from './create-chat-template.ts';
export { createTokenizer } from './create-tokenizer.ts';
export { encodeSegments } from './encode-segments.ts';
export type { GgufSource, HuggingFaceSource, TokenizerSource } from './source.ts';
export { createStopMatcher } from './stop-matcher.ts';
export type { StopMatch, StopMatcher } from './stop-matcher.ts';
export type { Fragment, TextFragment } from './encode/special-splitter.ts';
export type {
  DetokenizerOptions,
  EncodeSegmentsOptions,
  SplitOptions,
  TextTokenizer,
  TokenizerOptions,
} from './text-tokenizer.ts';
