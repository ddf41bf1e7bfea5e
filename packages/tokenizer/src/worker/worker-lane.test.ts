import { describe, expect, it } from 'vitest';
import { createTokenizer } from '../index.ts';
import { bpeSource, trainMiniBpe } from '../../test/support/mini-vocabularies.ts';

const source = bpeSource(trainMiniBpe('aaaa aaaa', 3));
const plain = { special: false, addBosEos: false };
const LONG = 'ab'.repeat(400_000);

describe('long texts in the worker', () => {
  it('end with their deadline, and the next one is encoded', async () => {
    const tokenizer = await createTokenizer(source, { deadlineMs: 1 });
    await expect(tokenizer.encode(LONG, plain)).rejects.toMatchObject({ code: 'deadline-exceeded' });
    await tokenizer.dispose();
    const patient = await createTokenizer(source);
    expect((await patient.encode('ab'.repeat(5000), plain)).length).toBeGreaterThan(0);
    await patient.dispose();
  });

  it('end when their caller gives up, running or waiting, without taking the others along', async () => {
    const tokenizer = await createTokenizer(source);
    const running = new AbortController();
    const waiting = new AbortController();
    const first = tokenizer.encode(LONG, { ...plain, signal: running.signal });
    const second = tokenizer.encode(LONG, { ...plain, signal: waiting.signal });
    const third = tokenizer.encode('ab'.repeat(5000), plain);
    waiting.abort();
    running.abort();
    await expect(first).rejects.toMatchObject({ code: 'aborted' });
    await expect(second).rejects.toMatchObject({ code: 'aborted' });
    expect((await third).length).toBe((await tokenizer.encode('ab'.repeat(5000), plain)).length);
    await tokenizer.dispose();
  });

  it('end when the tokenizer is disposed', async () => {
    const tokenizer = await createTokenizer(source);
    const encodings = [tokenizer.encode(LONG, plain), tokenizer.encode(LONG, plain)];
    const outcomes = Promise.allSettled(encodings);
    await tokenizer.dispose();
    expect(await outcomes).toMatchObject([{ reason: { code: 'disposed' } }, { reason: { code: 'disposed' } }]);
  });

  it('are refused when too many wait', async () => {
    const tokenizer = await createTokenizer(source, { inlineCharacters: 0 });
    const outcomes = await Promise.allSettled(Array.from({ length: 300 }, () => tokenizer.encode('ab', plain)));
    const refused = outcomes.filter((outcome) => outcome.status === 'rejected');
    expect(refused.length).toBeGreaterThan(0);
    expect(refused[0]).toMatchObject({ reason: { code: 'overloaded' } });
    await tokenizer.dispose();
  });

  it('are encoded without holding the main thread up', async () => {
    const tokenizer = await createTokenizer(source);
    await tokenizer.encode('ab'.repeat(5000), plain);
    const encoding = tokenizer.encode('a'.repeat(1 << 20), plain);
    let longestGap = 0;
    let last = performance.now();
    const ticking = setInterval(() => {
      const now = performance.now();
      longestGap = Math.max(longestGap, now - last);
      last = now;
    }, 1);
    await encoding;
    clearInterval(ticking);
    // Far above the 10 ms aimed at, far below the second the encoding takes: other processes share the processor.
    expect(longestGap).toBeLessThan(250);
    await tokenizer.dispose();
  });

  it('cost time in proportion to their length, whatever they hold', async () => {
    const tokenizer = await createTokenizer(source);
    await tokenizer.encode('a'.repeat(50_000), plain);
    const timeOf = async (length: number): Promise<number> => {
      const start = performance.now();
      await tokenizer.encode('a'.repeat(length), plain);
      return performance.now() - start;
    };
    const short = await timeOf(1 << 17);
    const long = await timeOf(1 << 20);
    // Eight times the text: quadratic work would take 64 times as long.
    expect(long).toBeLessThan(Math.max(short, 20) * 32);
    await tokenizer.dispose();
  });
});
