import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { PrefixNode } from './prefix-node.ts';
import { PrefixTrie } from './prefix-trie.ts';

const BLOCK = 4;
const text = fc.array(fc.nat(2), { minLength: 1, maxLength: 14 });

function insert(trie: PrefixTrie, tokens: readonly number[], tenant = 't'): PrefixNode {
  let node = trie.root(tenant);
  for (let start = 0; start < tokens.length; start += BLOCK) {
    node = trie.child(node, Int32Array.from(tokens.slice(start, start + BLOCK)));
  }
  return node;
}

const agreeing = (one: readonly number[], other: readonly number[]): number => {
  let count = 0;
  while (count < one.length && count < other.length && one[count] === other[count]) count++;
  return count;
};

describe('PrefixTrie', () => {
  it('finds the longest prefix any known text shares with a prompt', () => {
    fc.assert(
      fc.property(fc.array(text, { maxLength: 30 }), text, (known, prompt) => {
        const trie = new PrefixTrie(BLOCK);
        for (const tokens of known) insert(trie, tokens);
        const match = trie.match('t', Int32Array.from(prompt));
        const longest = Math.max(0, ...known.map((tokens) => agreeing(tokens, prompt)));
        expect(match.numTokens).toBe(longest);
        expect(match.nodes.length * BLOCK + match.tailTokens).toBe(longest);
        const found = [...match.nodes, ...(match.tail === null ? [] : [match.tail])].flatMap((node) => [
          ...node.tokenIds,
        ]);
        expect(found.slice(0, longest)).toEqual(prompt.slice(0, longest));
      }),
      { numRuns: 2_000 },
    );
  });

  it('covers a text with the nodes that hold nothing else', () => {
    fc.assert(
      fc.property(fc.array(text, { maxLength: 30 }), text, (known, whole) => {
        const trie = new PrefixTrie(BLOCK);
        for (const tokens of known) insert(trie, tokens);
        const nodes = trie.cover('t', Int32Array.from(whole));
        const covered = nodes.flatMap((node) => [...node.tokenIds]);
        expect(covered).toEqual(whole.slice(0, covered.length));
        // What a node of its own stands for: a known text's first tokens up to a block's end or its own.
        const ends = known.flatMap((tokens) => [
          ...Array.from({ length: Math.floor(tokens.length / BLOCK) }, (_, index) =>
            tokens.slice(0, (index + 1) * BLOCK),
          ),
          tokens,
        ]);
        const longest = Math.max(
          0,
          ...ends.filter((end) => agreeing(end, whole) === end.length).map((end) => end.length),
        );
        expect(covered.length).toBe(longest);
      }),
      { numRuns: 2_000 },
    );
  });

  it('keeps tenants apart', () => {
    const trie = new PrefixTrie(BLOCK);
    insert(trie, [1, 2, 3, 4, 5], 'one');
    expect(trie.match('two', Int32Array.of(1, 2, 3, 4, 5)).numTokens).toBe(0);
    expect(trie.match('one', Int32Array.of(1, 2, 3, 4, 6)).numTokens).toBe(4);
  });

  it('takes out leaves nobody needs, with the ancestors kept for them', () => {
    const trie = new PrefixTrie(BLOCK);
    const leaf = insert(trie, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    const sibling = insert(trie, [1, 2, 3, 4, 6]);
    expect(trie.numNodes).toBe(4);
    trie.prune(leaf, () => false);
    expect([...trie.nodes()]).toEqual([sibling.parent, sibling]);
    trie.prune(sibling, (node) => node === sibling);
    expect(trie.numNodes).toBe(2);
    trie.prune(sibling, () => false);
    expect(trie.numNodes).toBe(0);
    expect(trie.match('t', Int32Array.of(1)).numTokens).toBe(0);
  });

  it('lets nothing follow a block that is not full', () => {
    const trie = new PrefixTrie(BLOCK);
    const partial = insert(trie, [1, 2]);
    expect(() => trie.child(partial, Int32Array.of(3))).toThrow(expect.objectContaining({ code: 'invariant-broken' }));
  });
});
