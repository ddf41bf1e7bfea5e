import { KvasirError } from '@kvasir/domain';
import { PrefixNode } from './prefix-node.ts';
import { countEqual, pairsOf } from './token-pairs.ts';

/** How far known prefixes of a tenant agree with a prompt. */
export interface PrefixMatch {
  /** Full nodes from the first block on whose tokens are all in the prompt. */
  readonly nodes: readonly PrefixNode[];
  /** A node below the last of them that agrees with the prompt for its leading `tailTokens` only. */
  readonly tail: PrefixNode | null;
  readonly tailTokens: number;
  /** Leading tokens that agree. */
  readonly numTokens: number;
}

/** Siblings that agree equally far are looked through for one with KV; more than this many are not worth the time. */
const MAX_EQUAL_SIBLINGS = 32;

/**
 * All known prefixes, a tree a tenant, a node a block. Every answer is verified token by token: there are no hashes in it.
 * Children are sorted by their tokens, so the one that agrees longest with a prompt stands next to where the prompt would.
 */
export class PrefixTrie {
  readonly blockTokens: number;
  readonly #roots = new Map<string, PrefixNode>();
  #numNodes = 0;

  constructor(blockTokens: number) {
    this.blockTokens = blockTokens;
  }

  get numNodes(): number {
    return this.#numNodes;
  }

  root(tenant: string): PrefixNode {
    let root = this.#roots.get(tenant);
    if (root === undefined) {
      root = new PrefixNode(null, tenant, new Int32Array(0));
      this.#roots.set(tenant, root);
    }
    return root;
  }

  /** Cost: O(tokens + depth · log(siblings) · blockTokens). */
  match(tenant: string, tokenIds: Int32Array): PrefixMatch {
    const nodes: PrefixNode[] = [];
    const pairs = pairsOf(tokenIds);
    let node = this.#roots.get(tenant);
    let position = 0;
    while (node !== undefined && position < tokenIds.length) {
      const { child, agreeing } = this.#longest(node, tokenIds, pairs, position);
      if (child === null || agreeing === 0) break;
      if (agreeing < this.blockTokens) {
        return { nodes, tail: child, tailTokens: agreeing, numTokens: position + agreeing };
      }
      nodes.push(child);
      position += agreeing;
      node = child;
    }
    return { nodes, tail: null, tailTokens: 0, numTokens: position };
  }

  /** The child with exactly these tokens, made if there is none. */
  child(parent: PrefixNode, tokenIds: Int32Array): PrefixNode {
    const { children } = parent;
    const place = lowerBound(children, tokenIds, 0, tokenIds.length);
    const found = children[place];
    if (found !== undefined && compare(found.tokenIds, tokenIds, 0, tokenIds.length).order === 0) return found;
    if (parent.parent !== null && parent.tokenIds.length < this.blockTokens) {
      throw new KvasirError(
        'invariant-broken',
        'prefix trie: expected a full block before another, found a partial one',
      );
    }
    const child = new PrefixNode(parent, parent.tenant, tokenIds.slice());
    children.splice(place, 0, child);
    this.#numNodes++;
    return child;
  }

  /** The nodes all of whose tokens stand in `tokenIds`: full ones, then the longest partial one, as far as there are any. */
  cover(tenant: string, tokenIds: Int32Array): PrefixNode[] {
    const nodes: PrefixNode[] = [];
    let node = this.#roots.get(tenant);
    while (node !== undefined) {
      const start = nodes.length * this.blockTokens;
      const child = longestWithin(node.children, tokenIds, start, Math.min(this.blockTokens, tokenIds.length - start));
      if (child === null) break;
      nodes.push(child);
      if (child.tokenIds.length < this.blockTokens) break;
      node = child;
    }
    return nodes;
  }

  /** Takes out a leaf nobody needs any more, and ancestors that were kept for it alone. */
  prune(node: PrefixNode, isNeeded: (node: PrefixNode) => boolean): void {
    let leaf: PrefixNode = node;
    while (leaf.parent !== null && leaf.children.length === 0 && !isNeeded(leaf)) {
      const { parent } = leaf;
      const place = parent.children.indexOf(leaf);
      if (place < 0) return;
      parent.children.splice(place, 1);
      this.#numNodes--;
      leaf = parent;
    }
    if (leaf.parent === null && leaf.children.length === 0) this.#roots.delete(leaf.tenant);
  }

  /** Every node, parents first. */
  *nodes(): IterableIterator<PrefixNode> {
    const open = [...this.#roots.values()];
    for (let node = open.pop(); node !== undefined; node = open.pop()) {
      if (node.parent !== null) yield node;
      open.push(...node.children);
    }
  }

  #longest(
    parent: PrefixNode,
    tokenIds: Int32Array,
    pairs: Float64Array,
    position: number,
  ): { readonly child: PrefixNode | null; readonly agreeing: number } {
    const { children } = parent;
    const count = Math.min(this.blockTokens, tokenIds.length - position);
    // Looking for its place may find the whole block, which no second child can have: then each token was looked at once.
    let low = 0;
    let high = children.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      const child = children[middle] as PrefixNode;
      const most = Math.min(child.tokenIds.length, count);
      const agreeing = countEqual(child.tokenIds, child.pairs, tokenIds, pairs, position, most);
      if (agreeing === this.blockTokens) return { child, agreeing };
      if (orderAfter(agreeing, child.tokenIds, tokenIds, position, count) < 0) low = middle + 1;
      else high = middle;
    }
    const place = low;
    const agreeingAt = (index: number): number => {
      const child = children[index];
      return child === undefined ? 0 : countAgreeing(child.tokenIds, tokenIds, position, count);
    };
    const agreeing = Math.max(agreeingAt(place), agreeingAt(place - 1));
    if (agreeing === 0) return { child: null, agreeing };
    let best: PrefixNode | null = null;
    for (const step of [1, -1]) {
      const first = step > 0 ? place : place - 1;
      for (let index = first, seen = 0; seen < MAX_EQUAL_SIBLINGS && agreeingAt(index) === agreeing; index += step) {
        seen++;
        const child = children[index] as PrefixNode;
        if (best === null || nearness(child) > nearness(best)) best = child;
      }
    }
    return { child: best, agreeing };
  }
}

/** How soon its KV could be used. */
function nearness(node: PrefixNode): number {
  if (node.hot !== null) return 3;
  if (node.warm !== null || node.loading !== null) return 2;
  return node.isCold ? 1 : 0;
}

/** Index of the first child not before these tokens. */
function lowerBound(children: readonly PrefixNode[], tokenIds: Int32Array, position: number, count: number): number {
  let low = 0;
  let high = children.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (compare((children[middle] as PrefixNode).tokenIds, tokenIds, position, count).order < 0) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The longest child that is a prefix of these tokens, or null. */
function longestWithin(
  children: readonly PrefixNode[],
  tokenIds: Int32Array,
  position: number,
  count: number,
): PrefixNode | null {
  for (let length = count; length > 0; ) {
    const place = lowerBound(children, tokenIds, position, length);
    const exact = children[place];
    if (exact !== undefined && compare(exact.tokenIds, tokenIds, position, length).order === 0) return exact;
    // A prefix of these tokens stands before them, and agrees no further than the one right before them does.
    const before = children[place - 1];
    if (before === undefined) return null;
    const { agreeing } = compare(before.tokenIds, tokenIds, position, length);
    if (agreeing === before.tokenIds.length) return before;
    length = agreeing;
  }
  return null;
}

/** Order of `own` and `count` tokens from `position` on, and how many leading ones agree. A prefix comes first. */
function compare(
  own: Int32Array,
  tokenIds: Int32Array,
  position: number,
  count: number,
): { readonly order: number; readonly agreeing: number } {
  const agreeing = countAgreeing(own, tokenIds, position, count);
  return { order: orderAfter(agreeing, own, tokenIds, position, count), agreeing };
}

/** Leading tokens of `own` that are those from `position` on, of `count`. */
function countAgreeing(own: Int32Array, tokenIds: Int32Array, position: number, count: number): number {
  const most = Math.min(own.length, count);
  let index = 0;
  while (index < most && own[index] === tokenIds[position + index]) index++;
  return index;
}

function orderAfter(agreeing: number, own: Int32Array, tokenIds: Int32Array, position: number, count: number): number {
  if (agreeing === Math.min(own.length, count)) return own.length - count;
  return (own[agreeing] as number) - (tokenIds[position + agreeing] as number);
}
