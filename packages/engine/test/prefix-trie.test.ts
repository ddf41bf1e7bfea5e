import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { PrefixNode } from '../src/cache/prefix-node.ts';
import { PrefixTrie } from '../src/cache/prefix-trie.ts';

const BLOCK = 4;
const tokensUpTo = (most: number) =>
  fc.array(fc.integer({ min: 0, max: 2 }), { minLength: 1, maxLength: most }).map((ids) => Int32Array.from(ids));

function insert(trie: PrefixTrie, tokenIds: Int32Array): void {
  let parent: PrefixNode = trie.root('t');
  for (let start = 0; start < tokenIds.length; start += BLOCK) {
    parent = trie.child(parent, tokenIds.subarray(start, start + BLOCK));
  }
}

/** Leading tokens two lists share. */
function common(one: Int32Array, other: Int32Array): number {
  let count = 0;
  while (count < one.length && count < other.length && one[count] === other[count]) count++;
  return count;
}

describe('prefix trie', () => {
  it('finds as much of a prompt as any known one agrees with', () => {
    fc.assert(
      fc.property(fc.array(tokensUpTo(14), { maxLength: 20 }), tokensUpTo(14), (known, prompt) => {
        const trie = new PrefixTrie(BLOCK);
        for (const tokenIds of known) insert(trie, tokenIds);
        const match = trie.match('t', prompt);
        expect(match.numTokens).toBe(Math.max(0, ...known.map((tokenIds) => common(tokenIds, prompt))));
        expect(match.nodes.length * BLOCK + match.tailTokens).toBe(match.numTokens);
        const found = [...match.nodes, ...(match.tail === null ? [] : [match.tail])].flatMap((node) => [
          ...node.tokenIds,
        ]);
        expect(found.slice(0, match.numTokens)).toEqual([...prompt.subarray(0, match.numTokens)]);
      }),
    );
  });
});
