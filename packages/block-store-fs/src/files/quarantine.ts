import { join } from 'node:path';
import type { CacheLayout } from './cache-layout.ts';
import type { FileSystem } from './file-system.ts';

/** Damaged files kept for whoever wants to look at them; the oldest make room. */
const MAX_KEPT = 16;

/**
 * The folder of damaged files. Names begin with what the file was (`<hash>.<group>`, `<agent id>`), so that deleting a
 * block or an agent finds them again.
 */
export class Quarantine {
  readonly #files: FileSystem;
  readonly #layout: CacheLayout;
  readonly #now: () => number;

  constructor(files: FileSystem, layout: CacheLayout, now: () => number) {
    this.#files = files;
    this.#layout = layout;
    this.#now = now;
  }

  /** Takes the file away from where it is served. */
  take(path: string, subject: string, reason: string): void {
    this.#files.rename(path, this.#place(subject, reason));
    this.#makeRoom();
  }

  /** Keeps a copy of what is about to be cut. */
  keepCopy(bytes: Uint8Array, subject: string, reason: string): void {
    const file = this.#files.open(this.#place(subject, reason), 'create');
    try {
      this.#files.write(file, [bytes]);
    } finally {
      this.#files.close(file);
    }
    this.#makeRoom();
  }

  /** Removes what is kept of these subjects. @returns subjects something was kept of */
  forget(subjects: ReadonlySet<string>): ReadonlySet<string> {
    const found = new Set<string>();
    for (const name of this.#files.list(this.#layout.quarantine)) {
      const subject = subjectOf(name);
      if (!subjects.has(subject)) continue;
      if (this.#files.remove(join(this.#layout.quarantine, name))) found.add(subject);
    }
    return found;
  }

  subjects(): ReadonlySet<string> {
    return new Set(this.#files.list(this.#layout.quarantine).map(subjectOf));
  }

  #place(subject: string, reason: string): string {
    const taken = new Set(this.#files.list(this.#layout.quarantine));
    let atMs = Math.max(0, Math.trunc(this.#now()));
    while (taken.has(`${subject},${reason},${atMs}`)) atMs++;
    return join(this.#layout.quarantine, `${subject},${reason},${atMs}`);
  }

  #makeRoom(): void {
    const names = this.#files.list(this.#layout.quarantine);
    if (names.length <= MAX_KEPT) return;
    const byAge = names.toSorted((a, b) => ageOf(a) - ageOf(b));
    for (const name of byAge.slice(0, names.length - MAX_KEPT)) this.#files.remove(join(this.#layout.quarantine, name));
  }
}

export function blockSubject(hash: string, group: number): string {
  return `${hash}.${group}`;
}

function subjectOf(name: string): string {
  return name.slice(0, Math.max(0, name.indexOf(',')));
}

function ageOf(name: string): number {
  return Number(name.slice(name.lastIndexOf(',') + 1)) || 0;
}
