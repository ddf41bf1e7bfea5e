import { execFileSync } from 'node:child_process';
import { cpus, release, totalmem } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

/** What a figure was measured on. */
export interface Hardware {
  readonly cpu: string;
  readonly cores: number;
  readonly memoryBytes: number;
  readonly system: string;
  readonly node: string;
}

export function describeHardware(): Hardware {
  const processors = cpus();
  return {
    cpu: processors[0]?.model.trim() ?? 'unknown',
    cores: processors.length,
    memoryBytes: totalmem(),
    system: `${process.platform} ${release()} ${process.arch}`,
    node: process.version,
  };
}

/** The checkout's commit, with a `+` where tracked files were changed; null for an installed package. */
export function currentCommit(): string | null {
  const folder = path.dirname(fileURLToPath(import.meta.url));
  const git = (...args: string[]) =>
    execFileSync('git', ['-C', folder, ...args], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
  try {
    const isChanged = git('status', '--porcelain', '--untracked-files=no') !== '';
    return git('rev-parse', 'HEAD') + (isChanged ? '+' : '');
  } catch (error) {
    // No git, or no checkout: the report then says so by null.
    if (error instanceof Error) return null;
    throw error;
  }
}
