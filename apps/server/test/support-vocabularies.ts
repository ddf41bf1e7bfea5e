import {
  bpeSource,
  miniSpm,
  spmSource,
  trainMiniBpe,
} from '../../../packages/tokenizer/test/support/mini-vocabularies.ts';
import type { TokenizerSource } from '@kvasir/tokenizer';

const CORPUS = 'the cat sat on the mat and the dog ate the cat food, then sang. Hello there, hello again! user system';
const WORDS = ['▁hello', '▁there', '▁the', '▁cat', '▁again', 'hello', 'user', 'assistant', '▁▁', 'at', 'he'];

/** What looks like a special token in a template: it becomes one of the vocabulary's. */
const SPECIAL = /<[|｜][^|｜<>\s]{1,40}[|｜]>|<\/?[a-z_]{2,20}>|\[\/?[A-Z_]{2,20}\]|<<\/?SYS>>/g;

/** A small vocabulary of bytes and merges whose special tokens are those of a template. */
export function vocabularyFor(kind: 'bpe' | 'spm', template: string, extra: readonly string[]): TokenizerSource {
  const specials = [...new Set([...(template.match(SPECIAL) ?? []), ...extra])].filter((text) => text !== '');
  if (kind === 'bpe') {
    const bpe = trainMiniBpe(CORPUS, 80);
    const known = new Set(bpe.tokens);
    const added = specials.filter((text) => !known.has(text));
    const tokens = [...bpe.tokens, ...added];
    return bpeSource({ ...bpe, tokens, kinds: [...bpe.kinds, ...added.map(() => 3)] });
  }
  const spm = miniSpm(WORDS);
  const added = specials.filter((text) => !spm.tokens.includes(text));
  return spmSource({
    tokens: [...spm.tokens, ...added],
    scores: [...spm.scores, ...added.map(() => 0)],
    kinds: [...spm.kinds, ...added.map(() => 3)],
  });
}
