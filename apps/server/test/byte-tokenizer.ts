import type { PromptSegment } from '@kvasir/domain';
import type { DetokenizerOptions, Fragment, SplitOptions, TextTokenizer } from '@kvasir/tokenizer';

const END = { text: '<end>', id: 256 };

/** Ids are UTF-8 bytes; 256 is a special token, `<end>` where it is trusted. */
export function createByteTokenizer(): TextTokenizer {
  const encoder = new TextEncoder();
  const createDetokenizer = (options: DetokenizerOptions = {}) => {
    let decoder = new TextDecoder();
    return {
      push: (id: number) => {
        if (id < END.id) return decoder.decode(Uint8Array.of(id), { stream: true });
        const before = decoder.decode();
        decoder = new TextDecoder();
        return options.skipSpecial === true ? before : before + END.text;
      },
      flush: () => decoder.decode(),
    };
  };
  const splitSegments = (segments: readonly PromptSegment[], _options: SplitOptions): Promise<Fragment[]> => {
    const fragments: Fragment[] = [];
    const addText = (text: string): void => {
      const last = fragments.at(-1);
      if (text === '') return;
      if (last !== undefined && 'text' in last) fragments[fragments.length - 1] = { ...last, text: last.text + text };
      else fragments.push({ text, isFirst: fragments.length === 0 });
    };
    for (const { text, special } of segments) {
      for (const [index, part] of (special ? text.split(END.text) : [text]).entries()) {
        if (index > 0) fragments.push({ id: END.id });
        addText(part);
      }
    }
    return Promise.resolve(fragments);
  };
  const encodeFragments = (fragments: readonly Fragment[]) =>
    Promise.resolve(
      fragments.map((fragment) => ('id' in fragment ? Int32Array.of(fragment.id) : encoder.encode(fragment.text))),
    );
  return {
    info: { vocabularySize: 257, bosId: null, eosId: END.id, stopIds: [END.id], addBos: false, addEos: false },
    specialTexts: [END.text],
    encode: (text) => Promise.resolve(Int32Array.from(encoder.encode(text))),
    encodeSegments: async (segments) => {
      const parts = await encodeFragments(await splitSegments(segments, { bosEos: 'never' }));
      return Int32Array.from(parts.flatMap((part) => Array.from(part)));
    },
    splitSegments,
    encodeFragments,
    isSpecialId: (id) => id === END.id,
    tokenBytes: (id) => (id === END.id ? encoder.encode(END.text) : Uint8Array.of(id)),
    decode: (ids, options) => {
      const detokenizer = createDetokenizer(options);
      return (
        Array.from(ids)
          .map((id) => detokenizer.push(id))
          .join('') + detokenizer.flush()
      );
    },
    createDetokenizer,
    specialId: (text) => (text === END.text ? END.id : null),
    dispose: () => Promise.resolve(),
  };
}
