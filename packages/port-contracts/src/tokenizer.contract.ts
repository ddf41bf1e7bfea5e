import type { Tokenizer } from '@kvasir/domain';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

export interface TokenizerHarness {
  /** A fresh tokenizer whose vocabulary can spell any byte. The suite disposes it. */
  open(): Promise<Tokenizer>;
}

const TEXTS = ['Hello, world!', 'naïve café', '日本語の文', '🙂👩‍👩‍👧‍👦', 'a\n\n\tb  c', 'e\u0301', ''];
const REPLACEMENT = '\uFFFD';

/** What every Tokenizer owes the server. */
export function describeTokenizer(name: string, harness: TokenizerHarness): void {
  describe(`${name} as a Tokenizer`, () => {
    let tokenizer: Tokenizer;
    beforeEach(async () => {
      tokenizer = await harness.open();
    });
    afterEach(async () => {
      await tokenizer.dispose();
    });
    const plain = { special: false, addBosEos: false };

    it('names ids of its vocabulary only', () => {
      const { vocabularySize, bosId, eosId, stopIds } = tokenizer.info;
      const ids = [bosId, eosId, ...stopIds].filter((id) => id !== null);
      expect(ids.filter((id) => id < 0 || id >= vocabularySize)).toEqual([]);
    });

    it.each(TEXTS)('gives %j back, by bytes and by streaming', async (text) => {
      const ids = await tokenizer.encode(text, plain);
      const bytes = Uint8Array.from([...ids].flatMap((id) => [...tokenizer.tokenBytes(id)]));
      const detokenizer = tokenizer.createDetokenizer();
      const streamed = [...ids].map((id) => detokenizer.push(id)).join('') + detokenizer.flush();
      // Vocabularies that mark a word's start begin a text with a blank.
      expect([text, ` ${text}`]).toContain(new TextDecoder().decode(bytes));
      expect([text, ` ${text}`]).toContain(streamed);
    });

    it('never emits half a character while it streams', async () => {
      const text = TEXTS.join(' ');
      const ids = await tokenizer.encode(text, plain);
      const detokenizer = tokenizer.createDetokenizer();
      const pieces = [...ids].map((id) => detokenizer.push(id));
      expect(pieces.filter((piece) => piece.includes(REPLACEMENT))).toEqual([]);
    });

    it('emits bytes that can never become valid and goes on', async () => {
      const truncated = (await tokenizer.encode('🙂', plain)).slice(0, -1);
      const detokenizer = tokenizer.createDetokenizer();
      const after = await tokenizer.encode('ok', plain);
      const streamed = [...truncated, ...after].map((id) => detokenizer.push(id)).join('') + detokenizer.flush();
      expect(streamed).toContain('ok');
    });

    it('adds what the metadata asks for, and only when told to', async () => {
      const { bosId, addBos } = tokenizer.info;
      const bare = await tokenizer.encode('abc', plain);
      const framed = await tokenizer.encode('abc', { special: false, addBosEos: true });
      expect([...framed].slice(0, 1)).toEqual(addBos ? [bosId] : [...bare].slice(0, 1));
    });

    it('reads special tokens in trusted text only', async () => {
      const { eosId } = tokenizer.info;
      if (eosId === null) return;
      const text = new TextDecoder().decode(tokenizer.tokenBytes(eosId));
      const trusted = await tokenizer.encode(text, { special: true, addBosEos: false });
      const untrusted = await tokenizer.encode(text, plain);
      expect([...trusted]).toEqual([eosId]);
      expect([...untrusted]).not.toContain(eosId);
    });

    it('refuses ids that are none', () => {
      for (const id of [-1, tokenizer.info.vocabularySize, 0.5]) {
        expect(() => tokenizer.tokenBytes(id)).toThrow(expect.objectContaining({ code: 'invalid-argument' }));
      }
    });

    it('stops when aborted, and disposes twice as once', async () => {
      const aborted = tokenizer.encode('abc', { ...plain, signal: AbortSignal.abort() });
      await expect(aborted).rejects.toMatchObject({ code: 'aborted' });
      await tokenizer.dispose();
      await tokenizer.dispose();
      await expect(tokenizer.encode('abc', plain)).rejects.toMatchObject({ code: 'disposed' });
    });
  });
}
