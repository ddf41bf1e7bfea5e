import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { expect, it } from 'vitest';
import { makeDirectories } from './make-directories.ts';

it('makes parents and takes what is there', () => {
  const root = mkdtempSync(path.join(tmpdir(), 'kvasir-directories-'));
  try {
    const deep = path.join(root, 'a', 'b', 'c');
    makeDirectories(deep);
    makeDirectories(deep);
    expect(existsSync(deep)).toBe(true);
  } finally {
    rmSync(root, { recursive: true });
  }
});

it.skipIf(!existsSync('/proc/self'))('comes back with an error where there can be none', () => {
  expect(() => {
    makeDirectories('/proc/none/such');
  }).toThrow(/ENOENT/);
});
