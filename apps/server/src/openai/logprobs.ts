import type { TextTokenizer } from '@kvasir/tokenizer';
import type { TextToken } from '../generation/text-choice.ts';

export interface ChatTokenLogprob {
  readonly token: string;
  readonly logprob: number;
  readonly bytes: readonly number[];
  readonly top_logprobs: readonly Omit<ChatTokenLogprob, 'top_logprobs'>[];
}

export interface CompletionLogprobs {
  readonly tokens: string[];
  readonly token_logprobs: number[];
  readonly top_logprobs: Record<string, number>[] | null;
  readonly text_offset: number[];
}

const decoder = new TextDecoder();

/** Chat's form: an entry a token with its bytes, which need not be whole characters. */
export function toChatLogprobs(tokens: readonly TextToken[], tokenizer: TextTokenizer): ChatTokenLogprob[] {
  const entry = (tokenId: number, logprob: number) => {
    const bytes = tokenizer.tokenBytes(tokenId);
    return { token: decoder.decode(bytes), logprob, bytes: [...bytes] };
  };
  return tokens.map((token) => ({
    ...entry(token.tokenId, token.logprob),
    top_logprobs: token.topLogprobs.map((top) => entry(top.tokenId, top.logprob)),
  }));
}

/** The older form: parallel lists. */
export function toCompletionLogprobs(tokens: readonly TextToken[], tokenizer: TextTokenizer): CompletionLogprobs {
  const text = (tokenId: number) => decoder.decode(tokenizer.tokenBytes(tokenId));
  const hasTop = tokens.some((token) => token.topLogprobs.length > 0);
  return {
    tokens: tokens.map((token) => text(token.tokenId)),
    token_logprobs: tokens.map((token) => token.logprob),
    top_logprobs: hasTop
      ? tokens.map((token) => Object.fromEntries(token.topLogprobs.map((top) => [text(top.tokenId), top.logprob])))
      : null,
    text_offset: tokens.map((token) => token.textOffset),
  };
}
