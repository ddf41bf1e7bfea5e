import type { BlockPool } from '@kvasir/domain';
import { EvictionOrder } from './eviction-order.ts';
import type { PrefixNode } from './prefix-node.ts';

/** The pools' owner id of blocks the trie refers to; sequences count from 1. */
export const TRIE_OWNER = 0;

/**
 * The trie's blocks in the device pool. A block is evictable while no sequence uses its node, no agent has pinned it and
 * nothing is being written to it.
 */
export class HotTier {
  readonly #pools: readonly BlockPool[];
  readonly #evictable = new EvictionOrder();
  readonly #pinned = new EvictionOrder();
  #numHeld = 0;

  constructor(pools: readonly BlockPool[]) {
    this.#pools = pools;
  }

  get numFree(): number {
    let least = Number.POSITIVE_INFINITY;
    for (const pool of this.#pools) least = Math.min(least, pool.numFree);
    return least;
  }

  get numFreeSoon(): number {
    let least = Number.POSITIVE_INFINITY;
    for (const pool of this.#pools) least = Math.min(least, pool.numFree + pool.numRetired);
    return least;
  }

  /** Nodes with a block in the pools. */
  get numHeld(): number {
    return this.#numHeld;
  }

  /** Not in use, but pinned: they go only when nothing else is left to wait for. */
  get pinned(): EvictionOrder {
    return this.#pinned;
  }

  get evictable(): EvictionOrder {
    return this.#evictable;
  }

  /** The node's KV is in these blocks from now on; whoever computed it keeps references of its own. */
  attach(node: PrefixNode, blockIds: Int32Array): void {
    for (const [group, pool] of this.#pools.entries()) pool.acquire(blockIds[group] as number, TRIE_OWNER);
    this.#hold(node, blockIds);
  }

  /** A fresh block in every pool for a node that is to be loaded, or null. */
  allocate(): Int32Array | null {
    if (this.numFree < 1) return null;
    const blockIds = new Int32Array(this.#pools.length);
    for (const [group, pool] of this.#pools.entries()) {
      blockIds[group] = (pool.allocate(1, TRIE_OWNER) as Int32Array)[0] as number;
    }
    return blockIds;
  }

  /** The node's KV has been written to blocks that `allocate` gave. */
  attachAllocated(node: PrefixNode, blockIds: Int32Array): void {
    this.#hold(node, blockIds);
  }

  giveBack(blockIds: Int32Array): void {
    for (const [group, pool] of this.#pools.entries()) pool.release(blockIds[group] as number, TRIE_OWNER);
  }

  /** The pool no longer holds the node's KV. */
  detach(node: PrefixNode): void {
    if (node.hot === null) return;
    this.giveBack(node.hot);
    node.hot = null;
    this.#numHeld--;
    this.#unlist(node);
  }

  use(node: PrefixNode): void {
    node.numUsers++;
    this.#unlist(node);
  }

  /** Of a path the last node first, so that the order stays leaf-first. */
  unuse(node: PrefixNode): void {
    node.numUsers--;
    this.settle(node);
  }

  /** Lists a node as the most recently used evictable one, if it is one. */
  settle(node: PrefixNode): void {
    this.#unlist(node);
    if (node.hot === null || node.numUsers > 0) return;
    if (node.numPins > 0) this.#pinned.add(node);
    else this.#evictable.add(node);
  }

  #unlist(node: PrefixNode): void {
    if (!this.#evictable.remove(node)) this.#pinned.remove(node);
  }

  #hold(node: PrefixNode, blockIds: Int32Array): void {
    node.hot = blockIds;
    node.wasEvicted = false;
    this.#numHeld++;
    this.settle(node);
  }
}
