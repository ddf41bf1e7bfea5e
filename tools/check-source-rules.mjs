// Rules a text search can decide: names with one home, file sizes, words that do not belong in the repository.
import { readFileSync, statSync } from 'node:fs';
import { trackedFiles } from './tracked-files.mjs';

const HOMES = [
  {
    pattern: /process\.env\b/,
    home: /^(apps\/server\/src\/config\.ts|scripts\/|tools\/|experiments\/|packages\/reference\/src\/shared-data\.ts$|.*(\.test\.ts|\/test\/.*|\/scripts\/.*|vitest\.config\.ts)$)/,
    rule: 'process.env is read in apps/server/src/config.ts only',
  },
  {
    pattern: /from '(tsyringe|reflect-metadata)'/,
    home: /^apps\/server\/src\/container\.ts$/,
    rule: 'tsyringe lives in the container only',
  },
  {
    pattern: /\/work\/(main|shared|peers|scratch|briefs)\b|\/root\//,
    home: /^tools\/check-source-rules\.mjs$/,
    rule: 'no machine paths',
  },
  {
    pattern: /registry\.npmjs\.org|pypi\.org|files\.pythonhosted|deb\.debian\.org/,
    home: /^tools\/check-source-rules\.mjs$/,
    rule: 'no package registry hosts',
  },
];
const MAX_LINES = { ts: 500, mjs: 400, cpp: 800, h: 800, cu: 800, cuh: 800 };
const MAX_FILE_BYTES = 20 * 2 ** 20;

export function checkSourceRules() {
  const problems = [];
  for (const file of trackedFiles()) {
    if (statSync(file).size > MAX_FILE_BYTES) problems.push(`${file}: larger than ${MAX_FILE_BYTES} bytes`);
    if (!/\.(ts|mjs|js|json|md|h|c|cpp|cu|cuh|mm|py|sh|txt|yaml|yml|cmake)$|\/run$/.test(file)) continue;
    const lines = readFileSync(file, 'utf8').split('\n');
    const limit = MAX_LINES[file.split('.').pop()];
    const isTest = /\.test\.ts$|\/test\/|native\/tests\//.test(file);
    if (limit !== undefined && lines.length > (isTest ? 800 : limit)) {
      problems.push(`${file}: ${lines.length} lines, at most ${isTest ? 800 : limit}: split it by idea`);
    }
    for (const { pattern, home, rule } of HOMES) {
      if (home.test(file)) continue;
      const at = lines.findIndex((line) => pattern.test(line));
      if (at >= 0) problems.push(`${file}:${at + 1}: ${rule}`);
    }
  }
  return problems;
}
