// Everything a fresh clone needs before pnpm exists: plain Node, no dependencies. A stamp makes the second run instant
// and free of network access.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');
const toolchain = path.join(root, '.toolchain');
const bin = path.join(toolchain, 'node_modules', '.bin');

/** Environment in which pnpm and the workspace's own tools are found. */
export const environment = {
  ...process.env,
  PATH: [bin, path.join(root, 'node_modules', '.bin'), process.env.PATH ?? ''].join(path.delimiter),
  TURBO_TELEMETRY_DISABLED: '1',
  DO_NOT_TRACK: '1',
};

/** Prints what is wrong and what to do, and ends the process. */
export function fail(message) {
  console.error(`\n${message}\n`);
  process.exit(1);
}

/** Runs a command in the repository's root and returns its exit status. */
export function run(command, args, options = {}) {
  const result = spawnSync(command, args, {
    cwd: root,
    env: environment,
    stdio: 'inherit',
    shell: process.platform === 'win32',
    ...options,
  });
  if (result.error !== undefined) fail(`${command} could not be started: ${result.error.message}`);
  return result.status ?? 1;
}

function mustRun(command, args, options) {
  const status = run(command, args, options);
  if (status !== 0)
    fail(`\`${[command, ...args].join(' ')}\` failed with exit status ${status}; its messages are above.`);
}

function isFound(command) {
  return spawnSync(command, ['--version'], { stdio: 'ignore', env: environment }).status === 0;
}

const PACKAGES = {
  cmake: 'CMake ≥ 3.18: Debian/Ubuntu `apt-get install cmake`, Fedora `dnf install cmake`, macOS `brew install cmake`',
  compiler:
    'a C++20 compiler: Debian/Ubuntu `apt-get install g++ make`, Fedora `dnf install gcc-c++ make`, macOS `xcode-select --install`',
  make: 'make or ninja: Debian/Ubuntu `apt-get install make`, Fedora `dnf install make`, macOS `xcode-select --install`',
};

/** Names every missing build tool at once, before minutes are spent on anything else. */
export function checkBuildTools() {
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major < 20 || (major === 20 && minor < 19)) {
    fail(`Kvasir needs Node ≥ 20.19; this is ${process.version}.`);
  }
  const missing = [];
  if (!isFound('cmake')) missing.push(PACKAGES.cmake);
  const compilers = [process.env.CXX, 'c++', 'g++', 'clang++'].filter(Boolean);
  if (process.platform !== 'win32' && !compilers.some(isFound)) missing.push(PACKAGES.compiler);
  if (process.platform !== 'win32' && !isFound('make') && !isFound('ninja')) missing.push(PACKAGES.make);
  if (missing.length > 0) {
    fail(
      `Kvasir builds its native engine from source and these are missing:\n${missing.map((line) => `  - ${line}`).join('\n')}`,
    );
  }
}

function pinnedPnpm() {
  const { packageManager } = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8'));
  const [, version, hash] = /^pnpm@([\d.]+)\+sha512\.([0-9a-f]+)$/.exec(packageManager) ?? [];
  if (version === undefined)
    fail(`package.json: expected packageManager pnpm@<version>+sha512.<hex>, found ${packageManager}`);
  return { version, hash };
}

function ensurePnpm() {
  const { version, hash } = pinnedPnpm();
  const manifest = path.join(toolchain, 'node_modules', 'pnpm', 'package.json');
  if (existsSync(manifest) && JSON.parse(readFileSync(manifest, 'utf8')).version === version) return;
  console.error(`Installing pnpm ${version} into .toolchain/`);
  mkdirSync(toolchain, { recursive: true });
  writeFileSync(path.join(toolchain, 'package.json'), '{ "private": true }\n');
  mustRun('npm', ['install', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error', `pnpm@${version}`], {
    cwd: toolchain,
  });
  const lock = JSON.parse(readFileSync(path.join(toolchain, 'package-lock.json'), 'utf8'));
  const integrity = lock.packages['node_modules/pnpm']?.integrity ?? '';
  const found = Buffer.from(integrity.replace(/^sha512-/, ''), 'base64').toString('hex');
  if (found !== hash) fail(`pnpm ${version}: expected sha512 ${hash}, found ${found}. Refusing to run it.`);
}

function installStamp() {
  const hash = createHash('sha256');
  hash.update(`${process.platform} ${process.arch} node${process.versions.modules}\n`);
  hash.update(readFileSync(path.join(root, 'pnpm-lock.yaml')));
  hash.update(readFileSync(path.join(root, 'pnpm-workspace.yaml')));
  return hash.digest('hex');
}

/** pnpm and the workspace's dependencies, as the lock file states them. */
export function ensureDependencies() {
  ensurePnpm();
  const stampFile = path.join(root, 'node_modules', '.kvasir-install-stamp');
  const stamp = installStamp();
  if (existsSync(stampFile) && readFileSync(stampFile, 'utf8') === stamp) return;
  mustRun('pnpm', ['install', '--frozen-lockfile', '--reporter=append-only']);
  writeFileSync(stampFile, stamp);
}

/** TypeScript packages and the CPU addon. Both are cached: unchanged sources cost well under a second. */
export function ensureBuilt({ quiet = false } = {}) {
  const output = quiet ? ['--output-logs=errors-only', '--log-order=grouped'] : ['--output-logs=new-only'];
  const turbo = ['run', 'build', 'build:native', ...output, '--no-update-notifier'];
  const result = spawnSync('turbo', turbo, {
    cwd: root,
    env: environment,
    stdio: quiet ? ['ignore', 'ignore', 'inherit'] : ['ignore', 2, 'inherit'],
    shell: process.platform === 'win32',
  });
  if (result.status !== 0) fail('The build failed; its messages are above.');
}

/** From nothing to runnable. */
export function ensureReady(options) {
  checkBuildTools();
  ensureDependencies();
  ensureBuilt(options);
}
