import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BlockPool } from './block-pool.ts';

/**
 * Thousands of random operations, misuse among them, against a model that keeps a list of holders for each block. After
 * every operation the pool is recounted: nothing is lost, nothing is held by two who were not told.
 */

type Operation =
  | { readonly kind: 'allocate'; readonly count: number; readonly owner: number }
  | { readonly kind: 'acquire' | 'release'; readonly blockId: number; readonly owner: number }
  | { readonly kind: 'begin' | 'complete' };

const owner = fc.nat({ max: 5 });
const operation = (numBlocks: number): fc.Arbitrary<Operation> =>
  fc.oneof(
    fc.record({ kind: fc.constant('allocate' as const), count: fc.nat({ max: numBlocks + 1 }), owner }),
    fc.record({
      kind: fc.constantFrom('acquire' as const, 'release' as const, 'release' as const),
      blockId: fc.integer({ min: -1, max: numBlocks }),
      owner,
    }),
    fc.record({ kind: fc.constantFrom('begin' as const, 'complete' as const) }),
  );

/** A refusal is an answer like any other: the name of what was thrown. */
type Answer = readonly number[] | null | 'done' | 'invalid-argument' | 'invariant-broken';

class PoolModel {
  readonly numBlocks: number;
  readonly holders: number[][];
  readonly retired: { readonly stepId: number; readonly blockIds: number[] }[] = [];
  #lastStep = 0;

  constructor(numBlocks: number) {
    this.numBlocks = numBlocks;
    this.holders = Array.from({ length: numBlocks }, () => []);
  }

  get numRetired(): number {
    return this.retired.reduce((sum, { blockIds }) => sum + blockIds.length, 0);
  }

  isFree(blockId: number): boolean {
    return this.holders[blockId]?.length === 0 && !this.retired.some(({ blockIds }) => blockIds.includes(blockId));
  }

  get numFree(): number {
    return this.holders.filter((_, blockId) => this.isFree(blockId)).length;
  }

  /** Applies one operation to the pool and to the model. @returns what the pool answered and what it should have */
  apply(pool: BlockPool, next: Operation): { readonly answer: Answer; readonly expected: Answer } {
    switch (next.kind) {
      case 'allocate': {
        const answer = answerOf(() => pool.allocate(next.count, next.owner));
        if (next.count > this.numBlocks) return { answer, expected: 'invalid-argument' };
        if (next.count > this.numFree) return { answer, expected: null };
        // Which free blocks it takes is the pool's choice.
        const taken = Array.isArray(answer) ? (answer as number[]) : [];
        const expected = [...new Set(taken)].filter((blockId) => this.isFree(blockId));
        for (const blockId of taken) this.holders[blockId]?.push(next.owner);
        return { answer, expected: expected.length === next.count ? expected : null };
      }
      case 'acquire': {
        const answer = answerOf(() => pool.acquire(next.blockId, next.owner));
        const holders = this.holders[next.blockId];
        if (holders === undefined) return { answer, expected: 'invalid-argument' };
        if (holders.length === 0) return { answer, expected: 'invariant-broken' };
        holders.push(next.owner);
        return { answer, expected: 'done' };
      }
      case 'release': {
        const answer = answerOf(() => pool.release(next.blockId, next.owner));
        const holders = this.holders[next.blockId];
        if (holders === undefined) return { answer, expected: 'invalid-argument' };
        if (!holders.includes(next.owner)) return { answer, expected: 'invariant-broken' };
        holders.splice(holders.indexOf(next.owner), 1);
        if (holders.length === 0) this.retired.at(-1)?.blockIds.push(next.blockId);
        return { answer, expected: 'done' };
      }
      case 'begin': {
        const stepId = ++this.#lastStep;
        this.retired.push({ stepId, blockIds: [] });
        return { answer: answerOf(() => pool.beginStep(stepId)), expected: 'done' };
      }
      case 'complete': {
        const oldest = this.retired.shift();
        const answer = answerOf(() => pool.completeStep(oldest?.stepId ?? this.#lastStep));
        return { answer, expected: oldest === undefined ? 'invariant-broken' : 'done' };
      }
    }
  }
}

function answerOf(act: () => Int32Array | null | void): Answer {
  try {
    const answer = act();
    if (answer === undefined) return 'done';
    return answer === null ? null : [...answer];
  } catch (error) {
    return (error as { code: 'invalid-argument' | 'invariant-broken' }).code;
  }
}

describe('BlockPool under random operations', () => {
  it('answers as a list of holders per block does, and every block is accounted for once', () => {
    fc.assert(
      fc.property(
        fc
          .integer({ min: 1, max: 12 })
          .chain((numBlocks) =>
            fc.tuple(fc.constant(numBlocks), fc.array(operation(numBlocks), { minLength: 20, maxLength: 150 })),
          ),
        ([numBlocks, operations]) => {
          const pool = new BlockPool(numBlocks);
          const model = new PoolModel(numBlocks);
          let peak = 0;
          for (const next of operations) {
            const { answer, expected } = model.apply(pool, next);
            expect(answer).toEqual(expected);
            pool.checkIntegrity();
            const free = model.numFree;
            const retired = model.numRetired;
            peak = Math.max(peak, numBlocks - free);
            expect(pool.stats()).toEqual({ total: numBlocks, free, used: numBlocks - free - retired, retired, peak });
            for (const [blockId, holders] of model.holders.entries()) {
              expect(pool.references(blockId)).toBe(holders.length);
              for (let who = 0; who <= 5; who++) expect(pool.isHeldBy(blockId, who)).toBe(holders.includes(who));
            }
          }
        },
      ),
      { numRuns: 150 },
    );
  });
});
