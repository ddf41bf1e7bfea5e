import type { BlockKey } from '@kvasir/domain';
import type { IndexedAgent } from './agent-index.ts';

/**
 * How many agents refer to each block. Built from the index when the first deletion asks, then kept up to date: most
 * processes never delete, and counting 160,000 keys takes longer than starting should.
 */
export class ReferenceCounts {
  #counts: Map<string, number> | null = null;

  /** @param agents every agent that counts: the one being deleted is no longer among them */
  orphans(keys: readonly BlockKey[], agents: ReadonlyMap<string, IndexedAgent>): readonly BlockKey[] {
    let counts = this.#counts;
    if (counts === null) {
      counts = new Map();
      for (const agent of agents.values()) addAll(counts, agent.keys(), 1);
      this.#counts = counts;
    }
    const known = counts;
    const unique = new Map(keys.map((key) => [textOf(key), key]));
    return [...unique].filter(([text]) => !known.has(text)).map(([, key]) => key);
  }

  replace(before: readonly BlockKey[], after: readonly BlockKey[]): void {
    if (this.#counts === null) return;
    addAll(this.#counts, before, -1);
    addAll(this.#counts, after, 1);
  }

  get isBuilt(): boolean {
    return this.#counts !== null;
  }
}

/** An agent that refers to a block twice counts once. */
function addAll(counts: Map<string, number>, keys: readonly BlockKey[], change: number): void {
  for (const text of new Set(keys.map(textOf))) {
    const count = (counts.get(text) ?? 0) + change;
    if (count > 0) counts.set(text, count);
    else counts.delete(text);
  }
}

function textOf({ hash, group }: BlockKey): string {
  return `${hash}.${group}`;
}
