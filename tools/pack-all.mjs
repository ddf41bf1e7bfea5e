// Packs workspace packages the way they would be published, after building them.
//   node tools/pack-all.mjs <folder> [package name …]     without names: every package that is not private
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { lockBuild } from '../packages/native-runner/scripts/build-lock.mjs';
import { environment, root } from '../scripts/lib/toolchain.mjs';

/**
 * Packs into `folder` and returns the tarballs' absolute paths by package name. With `names`, only those packages and
 * the workspace packages they depend on.
 */
export async function packAll(folder, names = null) {
  const packages = names === null ? workspacePackages() : closure(names);
  mkdirSync(folder, { recursive: true });
  const filters = [...packages.keys()].map((name) => `--filter=${name}`);
  mustRun('turbo', ['run', 'build', ...filters, '--output-logs=errors-only', '--no-update-notifier'], root);
  // Packing copies native sources into packages for a moment: two at once would remove each other's.
  const unlock = await lockBuild(path.join(root, 'node_modules', '.kvasir-pack.lock'));
  try {
    return new Map(
      [...packages].map(([name, { directory, version }]) => [name, pack(directory, name, version, folder)]),
    );
  } finally {
    unlock();
  }
}

/** Publishable packages of the workspace by name. */
export function workspacePackages() {
  const found = new Map();
  for (const place of ['packages', 'apps']) {
    for (const entry of readdirSync(path.join(root, place))) {
      const directory = path.join(root, place, entry);
      const file = path.join(directory, 'package.json');
      if (!existsSync(file)) continue;
      const manifest = JSON.parse(readFileSync(file, 'utf8'));
      if (manifest.private !== true) found.set(manifest.name, { directory, ...manifest });
    }
  }
  return found;
}

// ------------------------------------------------------------------------------------------------ helpers

function closure(names) {
  const all = workspacePackages();
  const wanted = new Map();
  const visit = (name) => {
    const found = all.get(name);
    if (found === undefined || wanted.has(name)) return;
    wanted.set(name, found);
    for (const dependency of Object.keys({ ...found.dependencies, ...found.peerDependencies })) visit(dependency);
  };
  for (const name of names) {
    if (!all.has(name)) throw new Error(`${name}: expected a package of the workspace that is not private`);
    visit(name);
  }
  return wanted;
}

function pack(directory, name, version, folder) {
  const file = path.join(path.resolve(folder), `${name.replace('@', '').replace('/', '-')}-${version}.tgz`);
  rmSync(file, { force: true });
  mustRun('pnpm', ['pack', '--pack-destination', path.resolve(folder)], directory);
  if (!existsSync(file)) throw new Error(`${name}: expected pnpm pack to write ${file}`);
  return file;
}

function mustRun(command, args, cwd) {
  const result = spawnSync(command, args, {
    cwd,
    env: environment,
    encoding: 'utf8',
    shell: process.platform === 'win32',
  });
  if (result.status === 0) return;
  const output = `${result.stdout ?? ''}${result.stderr ?? ''}${result.error ?? ''}`;
  throw new Error(`\`${[command, ...args].join(' ')}\` failed in ${cwd}:\n${output}`);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [, , folder, ...names] = process.argv;
  if (folder === undefined) {
    console.error('usage: node tools/pack-all.mjs <folder> [package name …]');
    process.exit(2);
  }
  for (const [name, file] of await packAll(folder, names.length === 0 ? null : names)) console.log(`${name}  ${file}`);
}
