import { type CancellationSignal, KvasirError } from '@kvasir/domain';

/** One line a key, first come first served; a key nobody holds or waits for costs nothing. */
export class AgentLocks {
  /** Present: held. The list is who waits, in order. */
  readonly #waiting = new Map<string, (() => void)[]>();

  isHeld(key: string): boolean {
    return this.#waiting.has(key);
  }

  /**
   * Waits for its turn. The lock is given back by calling what it resolves with, once or more often.
   * @throws KvasirError `aborted` when the signal comes first; the line closes up
   */
  async acquire(key: string, signal?: CancellationSignal): Promise<() => void> {
    if (signal?.aborted === true) throw left();
    const line = this.#waiting.get(key);
    if (line === undefined) this.#waiting.set(key, []);
    else await stand(line, signal);
    let isHeld = true;
    return () => {
      if (!isHeld) return;
      isHeld = false;
      this.#pass(key);
    };
  }

  /** Several keys at once, always taken in the same order, so that two who want the same ones never block each other. */
  async acquireAll(keys: readonly string[], signal?: CancellationSignal): Promise<() => void> {
    const releases: (() => void)[] = [];
    const releaseAll = (): void => {
      for (const release of releases) release();
    };
    try {
      for (const key of [...new Set(keys)].sort()) releases.push(await this.acquire(key, signal));
    } catch (error) {
      releaseAll();
      throw error;
    }
    return releaseAll;
  }

  #pass(key: string): void {
    const next = this.#waiting.get(key)?.shift();
    if (next === undefined) this.#waiting.delete(key);
    else next();
  }
}

function stand(line: (() => void)[], signal: CancellationSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const enter = (): void => {
      signal?.removeEventListener('abort', leave);
      resolve();
    };
    const leave = (): void => {
      const place = line.indexOf(enter);
      if (place < 0) return;
      line.splice(place, 1);
      signal?.removeEventListener('abort', leave);
      reject(left());
    };
    line.push(enter);
    signal?.addEventListener('abort', leave);
  });
}

function left(): KvasirError {
  return new KvasirError('aborted', 'agent: expected its caller to wait in line, found it gone');
}
