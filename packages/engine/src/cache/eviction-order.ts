import type { PrefixNode } from './prefix-node.ts';

/**
 * Nodes that may be evicted, in the order they should go: abandoned ones first, then the least recently used. Whoever
 * adds a path adds its last node first, so a node always stands before its predecessors: eviction is leaf-first without
 * anybody looking at the tree.
 */
export class EvictionOrder {
  readonly #abandoned = new Set<PrefixNode>();
  readonly #used = new Set<PrefixNode>();

  get size(): number {
    return this.#abandoned.size + this.#used.size;
  }

  has(node: PrefixNode): boolean {
    return this.#used.has(node) || this.#abandoned.has(node);
  }

  /** As the most recently used one. */
  add(node: PrefixNode): void {
    this.#abandoned.delete(node);
    this.#used.delete(node);
    this.#used.add(node);
  }

  /** Goes before everything that is not abandoned. A no-op for a node that is not here. */
  abandon(node: PrefixNode): void {
    if (this.#used.delete(node)) this.#abandoned.add(node);
  }

  /** @returns whether it was here */
  remove(node: PrefixNode): boolean {
    return this.#used.delete(node) || this.#abandoned.delete(node);
  }

  *[Symbol.iterator](): IterableIterator<PrefixNode> {
    yield* this.#abandoned;
    yield* this.#used;
  }
}
