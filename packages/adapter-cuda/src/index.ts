import { isKvasirError, KvasirError, type ModelLoader } from '@kvasir/domain';
import { createNativeModelLoader, describeBackend } from '@kvasir/native-runner';
import type { BackendInfo } from '@kvasir/native-runner';
import { openCudaAddon } from './addon.ts';

export type { BackendInfo } from '@kvasir/native-runner';

/**
 * Loads models onto this machine's first CUDA device. Weights stay in their stored form in its memory.
 * @throws KvasirError `backend-unavailable` when the addon was not built, or there is no usable device; the message says which
 */
export function createCudaModelLoader(): ModelLoader {
  const addon = openCudaAddon();
  const info = describeBackend(addon);
  if (info.instructionPaths.length === 0) {
    throw new KvasirError('backend-unavailable', info.device, { facts: { backend: info.backend } });
  }
  return createNativeModelLoader(addon);
}

/**
 * The device's name and instruction paths; no paths where there is no usable device, and the name then says why.
 * @throws KvasirError `backend-unavailable` when the addon was not built
 */
export function cudaBackendInfo(): BackendInfo {
  return describeBackend(openCudaAddon());
}

/** Whether models can be loaded here. Never throws for a missing addon or device. */
export function isCudaAvailable(): boolean {
  try {
    return cudaBackendInfo().instructionPaths.length > 0;
  } catch (error) {
    if (isKvasirError(error) && error.code === 'backend-unavailable') return false;
    throw error;
  }
}
