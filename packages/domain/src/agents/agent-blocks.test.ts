import { describe, expect, it } from 'vitest';
import { BlockPool } from '../blocks/block-pool.ts';
import { AgentBlocks } from './agent-blocks.ts';

const withCode = (code: string) => expect.objectContaining({ code });
const range = (count: number): Int32Array => Int32Array.from({ length: count }, (_, index) => index);

/** An agent of `numTokens` tokens with KV, blocks of 4. */
function agentOf(pools: readonly BlockPool[], owner: number, numTokens: number): AgentBlocks {
  const blocks = new AgentBlocks(owner, pools, 4);
  blocks.append(range(numTokens));
  blocks.reserve(numTokens);
  blocks.recordKv(numTokens);
  return blocks;
}

describe('AgentBlocks', () => {
  it('keeps tokens stored and KV length apart', () => {
    const blocks = new AgentBlocks(1, [new BlockPool(4)], 4);
    blocks.append(range(5));
    blocks.appendToken(42);
    expect(blocks.reserve(5)).toBe(true);
    blocks.recordKv(5);
    expect([blocks.numTokens, blocks.kvLength, blocks.numBlocks, blocks.tokenAt(5)]).toEqual([6, 5, 2, 42]);
    expect(blocks.tokenIds).toEqual(Int32Array.of(0, 1, 2, 3, 4, 42));
  });

  it('reserves in every group or in none', () => {
    const pools = [new BlockPool(4), new BlockPool(1)];
    const blocks = new AgentBlocks(1, pools, 4);
    expect(blocks.reserve(5)).toBe(false);
    expect(pools.map((pool) => pool.numFree)).toEqual([4, 1]);
    expect(blocks.reserve(4)).toBe(true);
    expect(blocks.reserve(2)).toBe(true);
    expect(pools.map((pool) => pool.numFree)).toEqual([3, 0]);
  });

  it('never gives a slot to write where KV is, and none beyond its blocks', () => {
    const blocks = agentOf([new BlockPool(4)], 1, 5);
    const slots = new Int32Array(3);
    blocks.fillWriteSlots(0, slots, 0, 5, 3);
    expect(slots).toEqual(Int32Array.of(5, 6, 7));
    blocks.fillWriteSlots(0, slots, 0, 4, 2);
    expect(slots.subarray(0, 2)).toEqual(Int32Array.of(-1, 5));
    expect(() => blocks.fillWriteSlots(0, slots, 0, 7, 2)).toThrow(withCode('invariant-broken'));
  });

  it('lets its KV neither shrink nor outgrow its blocks', () => {
    const blocks = agentOf([new BlockPool(4)], 1, 5);
    expect(() => blocks.recordKv(4)).toThrow(withCode('invariant-broken'));
    expect(() => blocks.recordKv(9)).toThrow(withCode('invariant-broken'));
  });

  it('forks by sharing full blocks and copying the leading slots of the last', () => {
    const pools = [new BlockPool(8), new BlockPool(8)];
    const parent = agentOf(pools, 1, 10);
    const fork = parent.fork(2, 6);
    expect(fork?.copies).toEqual([
      [{ source: 1, destination: 3, numTokens: 2 }],
      [{ source: 1, destination: 3, numTokens: 2 }],
    ]);
    expect(fork?.blocks.tokenIds).toEqual(range(6));
    expect(fork?.blocks.kvLength).toBe(6);
    expect(fork?.blocks.block(0, 0)).toEqual({ blockId: 0, blockIndex: 0, numTokens: 4, isFull: true, references: 2 });
    expect(fork?.blocks.block(1, 1)).toEqual({ blockId: 3, blockIndex: 1, numTokens: 2, isFull: false, references: 1 });
    parent.releaseBlocks();
    for (const pool of pools) pool.checkIntegrity();
    expect(pools[0]?.references(0)).toBe(1);
    fork?.blocks.releaseBlocks();
    expect(pools.map((pool) => pool.numFree)).toEqual([8, 8]);
  });

  it('forks between blocks without a fresh one, and says null when one is short', () => {
    const pool = new BlockPool(2);
    const parent = agentOf([pool], 1, 8);
    expect(parent.fork(2, 6)).toBeNull();
    expect(pool.references(0)).toBe(1);
    const whole = parent.fork(2, 8);
    expect(whole?.copies).toEqual([[]]);
    expect(pool.references(1)).toBe(2);
    expect(() => parent.fork(3, 9)).toThrow(withCode('invalid-argument'));
  });

  it('forgets its KV with its blocks and keeps its tokens', () => {
    const pool = new BlockPool(3);
    const blocks = agentOf([pool], 1, 9);
    blocks.releaseBlocks();
    expect([blocks.numTokens, blocks.kvLength, blocks.numBlocks, pool.numFree]).toEqual([9, 0, 0, 3]);
    expect(blocks.blocksMissing(9)).toBe(3);
  });

  it('refuses a block it does not have', () => {
    const blocks = agentOf([new BlockPool(3)], 1, 4);
    expect(() => blocks.block(0, 1)).toThrow(withCode('invalid-argument'));
    expect(() => blocks.block(0, -1)).toThrow(withCode('invalid-argument'));
  });
});
