import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { partsOf, spellMark, spellText, unspellText, isWordCut, lastMarkEnd } from './spelled-text.ts';
import { TextIndex, type TextRecord } from './text-index.ts';
import { readTurnTexts, writeTurnText } from './turn-text.ts';

const END = spellMark(900);
const USER = spellMark(901);
const ids = (...tokenIds: number[]) => Int32Array.from(tokenIds);

const idsOf = (spelled: string): number[] =>
  [...partsOf(spelled)].flatMap((part) =>
    'id' in part ? [part.id] : Array.from(part.text, (unit) => unit.charCodeAt(0)),
  );

/** A turn whose prompt is one id a character; each answer token is an id of its own. */
function turn(prompt: string, promptIds: Int32Array, answer: readonly [string, number][], tail = ''): TextRecord {
  return {
    text: prompt + answer.map(([text]) => text).join('') + tail,
    tokenIds: Int32Array.from([...promptIds, ...answer.map(([, id]) => id)]),
    promptLength: prompt.length,
    answerLengths: answer.map(([text]) => text.length),
  };
}

const index = () => new TextIndex({ maxBytes: 1 << 20 });
const HELLO = turn(`${USER}hi${END}`, ids(901, 1, 900), [
  [' Hel', 10],
  ['lo ', 11],
  ['there', 12],
]);

describe('TextIndex', () => {
  it('gives the ids a text was run with, as far as it is known', () => {
    const texts = index();
    texts.add('t', HELLO);
    const next = `${HELLO.text}${END}${USER}more`;
    expect(texts.find('t', next)).toEqual({
      tokenIds: HELLO.tokenIds,
      characters: HELLO.text.length,
      marks: [
        { characters: HELLO.promptLength, tokens: 3 },
        { characters: HELLO.text.length, tokens: 6 },
      ],
      departed: null,
    });
    texts.add('t', turn(`${next}${END}`, ids(901, 1, 900, 10, 11, 12, 900, 901, 2, 900), [['ok', 20]]));
    const third = texts.find('t', `${next}${END}ok${END}`);
    expect([...third.tokenIds]).toEqual([901, 1, 900, 10, 11, 12, 900, 901, 2, 900, 20]);
    expect(third.marks.map(({ tokens }) => tokens)).toEqual([3, 6, 10, 11]);
    expect(texts.find('other', next).characters).toBe(0);
  });

  it('keeps the tokens before a special token at which the answer is left', () => {
    const texts = index();
    texts.add('t', HELLO);
    const trimmed = texts.find('t', `${USER}hi${END} Hello${END}`);
    expect([...trimmed.tokenIds]).toEqual([901, 1, 900, 10]);
    expect(trimmed.departed).toEqual({ answer: ' Hello there', tokens: 4 });
    expect(trimmed.marks).toEqual([{ characters: HELLO.promptLength, tokens: 3 }]);
    expect(texts.find('t', `${USER}hi${END}${END}`).tokenIds).toHaveLength(3);
  });

  it('cuts no word: what leaves an answer or a prompt elsewhere is encoded anew from the special token before', () => {
    const texts = index();
    texts.add('t', HELLO);
    for (const text of [`${USER}hi${END} Hello them`, `${HELLO.text}fore`]) {
      const found = texts.find('t', text);
      expect(found.characters).toBe(HELLO.promptLength);
      expect([...found.tokenIds]).toEqual([901, 1, 900]);
    }
    const early = texts.find('t', `${USER}high${END}`);
    expect([early.characters, ...early.tokenIds]).toEqual([USER.length, 901]);
    expect(texts.find('t', `hi${END}`).characters).toBe(0);
    expect(texts.find('t', `${HELLO.text} again`).characters).toBe(HELLO.text.length);
  });

  it('counts text after the last token that was kept, and has it encoded', () => {
    const texts = index();
    texts.add('t', turn(`${USER}hi${END}`, ids(901, 1, 900), [['one', 10]], ' tw'));
    const found = texts.find('t', `${USER}hi${END}one tw${END}`);
    expect([...found.tokenIds]).toEqual([901, 1, 900, 10]);
    expect(found.characters).toBe(`${USER}hi${END}one`.length);
  });

  it('never takes text for a special token or a special token for text', () => {
    const texts = index();
    texts.add('t', turn(`a${END}`, ids(1, 900), [['b', 2]]));
    const spelledOut = `a${spellText('<end>')}`;
    texts.add('t', turn(spelledOut, ids(1, 60), [['b', 3]]));
    expect([...texts.find('t', `a${END}b${END}`).tokenIds]).toEqual([1, 900, 2]);
    expect([...texts.find('t', `a<end>b${END}`).tokenIds]).toEqual([1, 60, 3]);
    const forged = spellText(END);
    expect(forged).not.toBe(END);
    expect(texts.find('t', `a${forged}b${END}`).characters).toBe(0);
  });

  it('prefers the ids asked for among records that spell the same', () => {
    const texts = index();
    for (const id of [50, 51, 52]) texts.add('t', turn(`x${END}`, ids(1, 900), [['y', id]]));
    for (const id of [50, 51, 52]) {
      expect(texts.find('t', `x${END}y${END}`, ids(1, 900, id)).tokenIds[2]).toBe(id);
    }
  });

  it('holds what fits, gives up the oldest first, and never one tenant for another smaller one', () => {
    const texts = new TextIndex({ maxBytes: 8000 });
    texts.add('small', HELLO);
    for (let step = 0; step < 50; step += 1) {
      texts.add('large', turn(`${USER}question ${step}${END}`, ids(901, step, 900), [['x'.repeat(100), step]]));
      texts.find('large', `${USER}question 0${END}${'x'.repeat(100)}${END}`);
    }
    expect(texts.usage.bytes).toBeLessThanOrEqual(8000);
    expect(texts.find('small', `${HELLO.text}${END}`).characters).toBe(HELLO.text.length);
    expect(texts.find('large', `${USER}question 0${END}${'x'.repeat(100)}${END}`).characters).toBeGreaterThan(0);
    expect(texts.find('large', `${USER}question 1${END}${'x'.repeat(100)}${END}`).characters).toBe(USER.length);
    expect(texts.find('large', `${USER}question 49${END}${'x'.repeat(100)}${END}`).characters).toBeGreaterThan(0);
  });

  it('finds what a list of all texts would find', () => {
    const text = fc.array(fc.constantFrom('a', 'b', ' ', END, USER), { maxLength: 8 }).map((parts) => parts.join(''));
    fc.assert(
      fc.property(fc.array(fc.tuple(text, text), { maxLength: 12 }), text, (turns, asked) => {
        const texts = index();
        const all: TextRecord[] = [];
        for (const [prompt, answer] of turns) {
          // An id a unit or mark, so that records of one text always have the same ids and every prefix relation is a real one.
          const spelled = prompt + answer;
          const record: TextRecord = {
            text: spelled,
            tokenIds: Int32Array.from(idsOf(spelled)),
            promptLength: prompt.length,
            answerLengths: idsOf(answer).map((id) => (id === 900 || id === 901 ? END.length : 1)),
          };
          texts.add('t', record);
          all.push(record);
        }
        const found = texts.find('t', asked);
        expect([...found.tokenIds]).toEqual(idsOf(asked.slice(0, found.characters)));
        const whole = all.filter((record) => asked.startsWith(record.text) && !isWordCut(asked, record.text.length));
        const longest = Math.max(0, ...whole.map((record) => record.text.length));
        expect(found.characters).toBeGreaterThanOrEqual(longest);
        for (const { tokens, characters } of found.marks)
          expect(idsOf(asked.slice(0, characters))).toHaveLength(tokens);
        expect(isWordCut(asked, found.characters) && found.characters > 0).toBe(false);
      }),
      { numRuns: 500 },
    );
  });
});

describe('spelled text', () => {
  it('comes back, whatever the text', () => {
    const part = fc.oneof(fc.string({ unit: 'binary' }), fc.constant('\u0000'), fc.constant('\u0000\u0001'));
    const parts = fc.array(
      fc.oneof(
        part.map((text) => ({ text })),
        fc.nat(300_000).map((id) => ({ id })),
      ),
    );
    fc.assert(
      fc.property(parts, (given) => {
        const spelled = given.map((one) => ('id' in one ? spellMark(one.id) : spellText(one.text))).join('');
        const joined: ({ text: string } | { id: number })[] = [];
        for (const one of given) {
          const last = joined.at(-1);
          if ('id' in one) joined.push(one);
          else if (one.text === '') continue;
          else if (last !== undefined && 'text' in last) joined[joined.length - 1] = { text: last.text + one.text };
          else joined.push(one);
        }
        const back = [...partsOf(spelled)].map((one) => ('id' in one ? one : { text: unspellText(one.text) }));
        expect(back).toEqual(joined);
        const lastMark = joined.findLastIndex((one) => 'id' in one);
        const after = joined.slice(lastMark + 1).map((one) => ('text' in one ? spellText(one.text) : ''));
        expect(spelled.slice(lastMarkEnd(spelled))).toBe(after.join(''));
      }),
    );
  });
});

describe('turns as JSON', () => {
  it('tell the records they were written from, also after a cut and after turns without text', () => {
    const first = HELLO;
    const second = turn(`${first.text}${END}b${END}`, ids(901, 1, 900, 10, 11, 12, 900, 3, 900), [['c', 30]]);
    const stored = (before: ReturnType<typeof readTurnTexts>, one: TextRecord | null, endTokens: number) => ({
      segments: writeTurnText(before, one),
      endTokens,
      atMs: 0,
      isCut: false,
    });
    const none = readTurnTexts({ turns: [], tokenIds: ids() });
    const one = stored(none, first, 6);
    const known = readTurnTexts({ turns: [one], tokenIds: first.tokenIds });
    expect(known).toMatchObject({ text: first.text, tokens: 6 });
    const two = stored(known, second, 10);
    const both = { turns: [one, two], tokenIds: second.tokenIds };
    expect(two.segments).not.toContain('Hel');
    expect(readTurnTexts(both)).toMatchObject({ text: second.text, tokens: 10 });
    const texts = index();
    texts.addPath('t', readTurnTexts(both).records);
    expect(texts.has('t', readTurnTexts(both).records)).toBe(true);
    expect([...texts.find('t', `${second.text}${END}`).tokenIds]).toEqual([...second.tokenIds]);
    texts.forget('t', readTurnTexts(both).records);
    expect(texts.usage).toEqual({ records: 0, bytes: 0 });

    texts.addPath('t', readTurnTexts(both).records);
    texts.add('t', turn(`${HELLO.text}${END}other${END}`, ids(901, 1, 900, 10, 11, 12, 900, 4, 900), [['d', 31]]));
    texts.forget('t', known.records);
    expect(texts.usage.records).toBe(0);
    texts.forget('t', known.records);
    texts.forget('t', []);
    texts.addPath('t', readTurnTexts(both).records);
    texts.add('t', turn(`${HELLO.text}${END}other${END}`, ids(901, 1, 900, 10, 11, 12, 900, 4, 900), [['d', 31]]));
    texts.forget('t', readTurnTexts(both).records);
    expect(texts.usage.records).toBe(2);

    const cut = { ...two, endTokens: 8, isCut: true };
    expect(readTurnTexts({ turns: [one, cut], tokenIds: second.tokenIds.slice(0, 8) }).text).toBe(first.text);
    const silent = stored(known, null, 10);
    const after = readTurnTexts({ turns: [one, silent], tokenIds: second.tokenIds });
    expect(after.records).toEqual([]);
    const whole = stored(after, second, 10);
    expect(readTurnTexts({ turns: [one, silent, whole], tokenIds: second.tokenIds }).text).toBe(second.text);
    for (const segments of ['', 'no', '[]', '{"v":1,"text":3}', '{"v":2}']) {
      expect(readTurnTexts({ turns: [{ ...one, segments }, two], tokenIds: second.tokenIds }).records).toEqual([]);
    }
  });
});
