// Builds an addon from source with cmake-js, once: a stamp of everything that goes in makes a second call instant and
// free of network access. Plain JavaScript, because it also runs when a package is installed.
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { lockBuild } from './build-lock.mjs';
import { missingBuildTools } from './build-tools.mjs';
import { sourceFiles } from './source-files.mjs';

/** A build that could not be done; the message is for a person and complete. */
export class BuildError extends Error {
  name = 'BuildError';
}

/** Where `buildAddon` puts the addon. */
export function addonFile({ outputDirectory, backend }) {
  return path.join(outputDirectory, 'Release', `kvasir_${backend}.node`);
}

/** See build-addon.d.mts. */
export async function buildAddon(options) {
  const { outputDirectory, log = console.error } = options;
  const file = addonFile(options);
  const stampFile = path.join(outputDirectory, 'stamp');
  const stamp = computeStamp(options);
  const isCurrent = () => existsSync(file) && existsSync(stampFile) && readFileSync(stampFile, 'utf8') === stamp;
  if (isCurrent()) return { file, built: false };

  const missing = missingBuildTools();
  if (missing.length > 0) {
    throw new BuildError(
      `The native addon is built from source and these are missing:\n${missing.map((line) => `  - ${line}`).join('\n')}`,
    );
  }
  mkdirSync(outputDirectory, { recursive: true });
  const unlock = await lockBuild(`${outputDirectory}.lock`);
  try {
    if (isCurrent()) return { file, built: false };
    rmSync(stampFile, { force: true });
    log(`Building the ${options.backend} addon from source (a minute or two, once) …`);
    await configure(options);
    await build(options);
    checkLoads(file);
    writeFileSync(stampFile, stamp);
  } finally {
    unlock();
  }
  return { file, built: true };
}

// ------------------------------------------------------------------------------------------------ steps

async function configure(options) {
  const log = path.join(options.outputDirectory, 'configure.log');
  if ((await cmakeJs(options, 'configure', log)) === 0) return;
  // A cache remembers compilers that were missing and folders that have moved: try once more without it.
  rmSync(path.join(options.outputDirectory, 'CMakeCache.txt'), { force: true });
  rmSync(path.join(options.outputDirectory, 'CMakeFiles'), { recursive: true, force: true });
  if ((await cmakeJs(options, 'configure', log)) !== 0) throw failure('configuring', log);
}

async function build(options) {
  const log = path.join(options.outputDirectory, 'build.log');
  if ((await cmakeJs(options, 'build', log)) !== 0) throw failure('compiling', log);
}

function failure(activity, log) {
  const tail = readFileSync(log, 'utf8').split('\n').slice(-60).join('\n');
  return new BuildError(`${tail}\nThe native addon: ${activity} it failed; the whole output is in ${log}`);
}

/** Runs cmake-js with its output in `log`; resolves to the exit status. */
function cmakeJs(options, command, log) {
  const require = createRequire(path.join(options.projectDirectory, 'package.json'));
  const manifest = require.resolve('cmake-js/package.json');
  const args = [path.join(path.dirname(manifest), 'bin', 'cmake-js'), command];
  args.push('-d', options.projectDirectory, '-O', options.outputDirectory, '-B', 'Release');
  // The bar keeps a machine with little memory usable: a kernel's translation unit can take half a gigabyte.
  if (command === 'build') args.push('--parallel', '2');
  const definitions = {
    KVASIR_NATIVE: options.nativeDirectory,
    KVASIR_BACKEND: options.backend,
    ...options.definitions,
  };
  for (const [key, value] of Object.entries(definitions)) args.push(`--CD${key}=${value}`);
  const output = openSync(log, 'w');
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, args, { stdio: ['ignore', output, output], cwd: options.projectDirectory });
    child.on('error', reject);
    child.on('exit', (code) => resolve(code ?? 1));
  });
}

/** In a process of its own: an addon that crashes while loading must not take its builder with it. */
function checkLoads(file) {
  // Addons with a sanitizer inside load only where its runtime was preloaded; their tests do that.
  if (readFileSync(file).includes('__asan_init')) return;
  const script = `require(${JSON.stringify(file)}).backendInfo()`;
  const result = spawnSync(process.execPath, ['-e', script], { encoding: 'utf8' });
  if (result.status !== 0) {
    throw new BuildError(`The native addon was built but does not load: ${result.stderr || `exit ${result.status}`}`);
  }
}

// ------------------------------------------------------------------------------------------------ stamp

function computeStamp({ projectDirectory, nativeDirectory, sources, backend, definitions = {} }) {
  const hash = createHash('sha256');
  const require = createRequire(path.join(projectDirectory, 'package.json'));
  const versions = ['cmake-js', 'node-addon-api', 'node-api-headers'].map(
    (name) => `${name} ${JSON.parse(readFileSync(packageManifest(require, name), 'utf8')).version}`,
  );
  // The addon uses Node-API 8 alone, so one binary serves every Node that has it; the C library is the other ABI.
  process.report.excludeNetwork = true; // a report would look up the names of every interface otherwise
  const glibc = process.report.getReport().header.glibcVersionRuntime ?? 'none';
  hash.update(JSON.stringify([process.platform, process.arch, 'napi 8', glibc, versions, backend, definitions]));
  const files = [
    path.join(projectDirectory, 'CMakeLists.txt'),
    ...sources.flatMap((source) => sourceFiles(path.join(nativeDirectory, source))),
  ];
  for (const file of files) {
    hash.update(`\n${path.relative(nativeDirectory, file)}\n`);
    hash.update(readFileSync(file));
  }
  return hash.digest('hex');
}

function packageManifest(require, name) {
  const folders = require.resolve.paths(name) ?? [];
  const found = folders.map((folder) => path.join(folder, name, 'package.json')).find((file) => existsSync(file));
  if (found === undefined) throw new BuildError(`${name}: expected it among the dependencies, found it nowhere`);
  return found;
}
