// Runs every structural rule: package arrows, native includes, homes of special names, words that do not belong.
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { checkNativeIncludes } from './check-native-includes.mjs';
import { drawPackages } from './draw-packages.mjs';
import { checkSourceRules } from './check-source-rules.mjs';

const problems = [
  ...checkNativeIncludes(),
  ...checkSourceRules(),
  ...checkPackageArrows(),
  ...checkManifests(),
  ...drawPackages({ check: true }),
];
for (const problem of problems) console.error(problem);
console.log(problems.length === 0 ? 'boundaries: no violations' : `boundaries: ${problems.length} violations`);
process.exit(problems.length === 0 ? 0 : 1);

function checkPackageArrows() {
  const result = spawnSync(
    process.execPath,
    [
      'node_modules/dependency-cruiser/bin/dependency-cruise.mjs',
      '--config',
      '.dependency-cruiser.mjs',
      '--output-type',
      'json',
      'packages',
      'apps',
    ],
    { encoding: 'utf8', maxBuffer: 1 << 28 },
  );
  if (result.error !== undefined || result.stdout === '')
    return [`dependency-cruiser did not run: ${result.error ?? result.stderr}`];
  const { summary, modules } = JSON.parse(result.stdout);
  // Without a TypeScript reader the cruiser sees nothing and succeeds: so count what it saw.
  const seen = modules.filter((module) => /^(packages|apps)\/.*\.ts$/.test(module.source)).length;
  if (seen < 14) return [`dependency-cruiser saw ${seen} TypeScript modules: it is not reading the sources`];
  return summary.violations
    .filter((violation) => violation.rule.severity === 'error')
    .map((violation) => `${violation.rule.name}: ${violation.from} → ${violation.to}`);
}

function checkManifests() {
  const found = [];
  const domain = JSON.parse(readFileSync('packages/domain/package.json', 'utf8'));
  if (domain.dependencies !== undefined) found.push('packages/domain/package.json: the domain has no dependencies');
  const manifests = ['packages', 'apps'].flatMap((folder) =>
    readdirSync(folder).map((name) => `${folder}/${name}/package.json`),
  );
  for (const file of manifests) {
    const manifest = JSON.parse(readFileSync(file, 'utf8'));
    for (const [key, value] of Object.entries({ type: 'module', license: 'Apache-2.0' })) {
      if (manifest[key] !== value) found.push(`${file}: expected "${key}": "${value}", found ${manifest[key]}`);
    }
    if (manifest.exports === undefined) found.push(`${file}: expected an exports map`);
  }
  return found;
}
