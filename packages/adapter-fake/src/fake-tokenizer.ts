import { type Detokenizer, type EncodeOptions, KvasirError, type Tokenizer, type TokenizerInfo } from '@kvasir/domain';

const SPECIALS = ['<bos>', '<eos>', '<|user|>', '<|assistant|>', '<|system|>'] as const;
const FIRST_SPECIAL = 256;
const BOS_ID = FIRST_SPECIAL;
const EOS_ID = FIRST_SPECIAL + 1;

/** One token a UTF-8 byte, then a few special tokens: whole characters need several tokens, as with a real vocabulary. */
export class FakeTokenizer implements Tokenizer {
  readonly info: TokenizerInfo = {
    vocabularySize: FIRST_SPECIAL + SPECIALS.length,
    bosId: BOS_ID,
    eosId: EOS_ID,
    stopIds: [EOS_ID],
    addBos: true,
    addEos: false,
  };
  #isDisposed = false;

  encode(text: string, options: EncodeOptions): Promise<Int32Array> {
    return new Promise((resolve) => {
      if (this.#isDisposed) throw new KvasirError('disposed', 'tokenizer: expected a live one, found it disposed');
      if (options.signal?.aborted === true) throw new KvasirError('aborted', 'encoding was aborted');
      const ids: number[] = options.addBosEos ? [BOS_ID] : [];
      for (const piece of options.special ? splitSpecials(text) : [text]) {
        const special = options.special ? SPECIALS.indexOf(piece as (typeof SPECIALS)[number]) : -1;
        if (special >= 0) ids.push(FIRST_SPECIAL + special);
        else ids.push(...new TextEncoder().encode(piece));
      }
      resolve(Int32Array.from(ids));
    });
  }

  tokenBytes(tokenId: number): Uint8Array {
    if (!Number.isInteger(tokenId) || tokenId < 0 || tokenId >= this.info.vocabularySize) {
      throw new KvasirError('invalid-argument', `token id: expected < ${this.info.vocabularySize}, found ${tokenId}`);
    }
    if (tokenId < FIRST_SPECIAL) return Uint8Array.of(tokenId);
    return new TextEncoder().encode(SPECIALS[tokenId - FIRST_SPECIAL]);
  }

  createDetokenizer(options: { readonly skipSpecial?: boolean } = {}): Detokenizer {
    const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
    return {
      push: (tokenId) => {
        if (options.skipSpecial === true && tokenId >= FIRST_SPECIAL) return '';
        return decoder.decode(this.tokenBytes(tokenId), { stream: true });
      },
      flush: () => decoder.decode(),
    };
  }

  dispose(): Promise<void> {
    this.#isDisposed = true;
    return Promise.resolve();
  }
}

function splitSpecials(text: string): string[] {
  const pattern = new RegExp(`(${SPECIALS.map((special) => special.replaceAll('|', '\\|')).join('|')})`);
  return text.split(pattern).filter((piece) => piece !== '');
}
