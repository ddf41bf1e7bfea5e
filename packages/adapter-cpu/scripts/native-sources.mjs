// Where the native sources are, and how they get into the package's tarball.
//   node scripts/native-sources.mjs copy     before packing: a copy beside package.json
//   node scripts/native-sources.mjs remove   after packing
import { cpSync, existsSync, rmSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

export const packageDirectory = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const workspaceNative = path.resolve(packageDirectory, '../../native');
const packedNative = path.join(packageDirectory, 'native');

/** What the addon is made of. Everything else under native/ tests or measures it. */
export const NATIVE_SOURCES = ['abi', 'cmake', 'common', 'cpu', 'host', 'napi', 'CMakeLists.txt'];

/** In a checkout the sources are the repository's; a leftover copy beside package.json is ignored there. */
export const isWorkspace =
  existsSync(path.join(workspaceNative, 'abi/kvasir_abi.h')) &&
  existsSync(path.resolve(packageDirectory, '../../pnpm-workspace.yaml'));

export const nativeDirectory = isWorkspace ? workspaceNative : packedNative;

const [, script, action] = process.argv;
if (script === fileURLToPath(import.meta.url)) {
  rmSync(packedNative, { recursive: true, force: true });
  if (action === 'copy') {
    for (const name of NATIVE_SOURCES) {
      cpSync(path.join(workspaceNative, name), path.join(packedNative, name), { recursive: true });
    }
  }
}
