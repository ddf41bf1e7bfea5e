import { readdirSync, statSync } from 'node:fs';
import path from 'node:path';

/** Files below a folder, or the file itself, in a stable order. */
export function sourceFiles(place) {
  if (!statSync(place).isDirectory()) return [place];
  return readdirSync(place)
    .sort()
    .flatMap((name) => sourceFiles(path.join(place, name)));
}
