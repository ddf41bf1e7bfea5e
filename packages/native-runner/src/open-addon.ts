import { KvasirError } from '@kvasir/domain';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import type { KvasirAddon } from './addon.ts';

/** What a backend says of itself and of this machine. */
export interface BackendInfo {
  readonly backend: string;
  readonly device: string;
  /** Best first; any of them may be given as LoadOptions.instructionPath. */
  readonly instructionPaths: readonly string[];
}

/**
 * Opens a built addon.
 * @param file absolute path of the .node file
 * @param buildCommand what a person types to build it, for the message
 * @throws KvasirError `backend-unavailable` when the file is missing or the system cannot load it
 */
export function openAddon(file: string, buildCommand: string): KvasirAddon {
  if (!existsSync(file)) {
    throw new KvasirError(
      'backend-unavailable',
      `native addon: expected ${file}, found no such file; build it with \`${buildCommand}\``,
      { facts: { file, buildCommand } },
    );
  }
  try {
    // The face is hand-written: scripts/check-abi.ts and the native tests keep it and the binary together.
    return createRequire(file)(file) as KvasirAddon;
  } catch (error) {
    const found = error instanceof Error ? error.message : String(error);
    throw new KvasirError(
      'backend-unavailable',
      `native addon: expected ${file} to load, found: ${found}; build it again with \`${buildCommand}\``,
      { facts: { file, buildCommand }, cause: error },
    );
  }
}

export function describeBackend(addon: KvasirAddon): BackendInfo {
  const info = addon.backendInfo();
  return {
    backend: info.name,
    device: info.device,
    instructionPaths: info.instructionPaths.split(',').filter((path) => path !== ''),
  };
}
