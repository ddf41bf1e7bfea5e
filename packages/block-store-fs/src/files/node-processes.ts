import { readFileSync, readlinkSync } from 'node:fs';
import process from 'node:process';
import { errnoOf } from './storage-failure.ts';
import type { ProcessTable } from './directory-lock.ts';

/** This machine's processes. Start times are known on Linux; elsewhere a live id counts as the same process. */
export function nodeProcesses(): ProcessTable {
  const startOf = (pid: number): string | null => {
    if (process.platform === 'linux') return linuxStart(pid);
    try {
      process.kill(pid, 0);
      return '';
    } catch (error) {
      if (errnoOf(error) === 'ESRCH') return null;
      if (errnoOf(error) === 'EPERM') return '';
      throw error;
    }
  };
  const self = { pid: process.pid, startedAt: startOf(process.pid) ?? '', scope: scopeOfProcesses() };
  return { self, startOf, now: () => Date.now() };
}

/** Clock ticks after boot: field 22 of /proc/<pid>/stat, counted after the name, which may hold anything. */
function linuxStart(pid: number): string | null {
  const stat = readOrNull(() => readFileSync(`/proc/${pid}/stat`, 'utf8'));
  if (stat === null) return null;
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  // A killed process whose parent has not asked for it is gone for us.
  return fields[0] === 'Z' || fields[0] === 'X' ? null : (fields[19] ?? '');
}

function scopeOfProcesses(): string {
  if (process.platform !== 'linux') return process.platform;
  const boot = readOrNull(() => readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim());
  const namespace = readOrNull(() => readlinkSync('/proc/self/ns/pid'));
  return `${boot ?? ''} ${namespace ?? ''}`;
}

function readOrNull(read: () => string): string | null {
  try {
    return read();
  } catch (error) {
    if (['ENOENT', 'ESRCH', 'EACCES', 'EPERM'].includes(errnoOf(error))) return null;
    throw error;
  }
}
