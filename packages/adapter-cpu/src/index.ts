import type { ModelLoader } from '@kvasir/domain';
import { createNativeModelLoader, describeBackend } from '@kvasir/native-runner';
import type { BackendInfo } from '@kvasir/native-runner';
import { openCpuAddon } from './addon.ts';

export type { BackendInfo } from '@kvasir/native-runner';

/**
 * Loads models onto this machine's processor. Weights are mapped from their files and stay in their stored form.
 * @throws KvasirError `backend-unavailable` when the addon was not built; the message has the command that builds it
 */
export function createCpuModelLoader(): ModelLoader {
  return createNativeModelLoader(openCpuAddon());
}

/**
 * The processor's name and the instruction paths it can run, best first. Every path gives the same output bits.
 * @throws KvasirError `backend-unavailable`
 */
export function cpuBackendInfo(): BackendInfo {
  return describeBackend(openCpuAddon());
}
