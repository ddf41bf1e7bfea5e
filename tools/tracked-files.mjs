import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';

/** Files below `folder` that git tracks or would track, as they are in the working tree. */
export function trackedFiles(folder = '.') {
  const listed = execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard', '-z', '--', folder], {
    encoding: 'utf8',
    maxBuffer: 1 << 26,
  });
  return [...new Set(listed.split('\0'))].filter((file) => file !== '' && existsSync(file));
}
