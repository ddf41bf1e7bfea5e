import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { openAddon } from '@kvasir/native-runner';
import type { KvasirAddon } from '@kvasir/native-runner';

// Seen from src and from dist alike, the package's folder is one up.
const packageDirectory = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');

/** Where `build:native`, `install` and `kvasir-build-cuda` put the addon. */
export const CUDA_ADDON_FILE = path.join(packageDirectory, '.native/cuda/Release/kvasir_cuda.node');

const BUILD_COMMAND = `node ${path.join(packageDirectory, 'scripts/build-native.mjs')}`;

/** @throws KvasirError `backend-unavailable` with the command that builds the addon, when there is none */
export function openCudaAddon(): KvasirAddon {
  return openAddon(CUDA_ADDON_FILE, BUILD_COMMAND);
}
