import { EvictionOrder } from './eviction-order.ts';
import type { PrefixNode } from './prefix-node.ts';

/** Payloads in host memory, under a budget in bytes. 0 keeps none. */
export class WarmTier {
  readonly budgetBytes: number;
  readonly #order = new EvictionOrder();
  #bytes = 0;

  constructor(budgetBytes: number) {
    this.budgetBytes = budgetBytes;
  }

  get bytes(): number {
    return this.#bytes;
  }

  get numBlocks(): number {
    return this.#order.size;
  }

  /** Keeps the payloads if the budget allows it at all; what has to go for them is dropped and named. */
  put(node: PrefixNode, payloads: readonly Uint8Array[]): readonly PrefixNode[] {
    const bytes = sizeOf(payloads);
    if (node.warm !== null || bytes > this.budgetBytes) return [];
    const dropped: PrefixNode[] = [];
    for (const victim of this.#order) {
      if (this.#bytes + bytes <= this.budgetBytes) break;
      this.drop(victim);
      dropped.push(victim);
    }
    node.warm = payloads;
    this.#bytes += bytes;
    this.#order.add(node);
    return dropped;
  }

  touch(node: PrefixNode): void {
    if (node.warm !== null) this.#order.add(node);
  }

  abandon(node: PrefixNode): void {
    this.#order.abandon(node);
  }

  drop(node: PrefixNode): void {
    if (node.warm === null) return;
    this.#bytes -= sizeOf(node.warm);
    node.warm = null;
    this.#order.remove(node);
  }
}

function sizeOf(payloads: readonly Uint8Array[]): number {
  return payloads.reduce((sum, payload) => sum + payload.length, 0);
}
