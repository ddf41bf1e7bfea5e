import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';

/**
 * The CUDA compiler: CUDACXX, else `nvcc` on the PATH, else the toolkit's usual place; null where there is none.
 * @param {NodeJS.ProcessEnv} environment
 * @returns {string | null}
 */
export function findNvcc(environment = process.env) {
  const places = [
    environment.CUDACXX,
    ...(environment.PATH ?? '').split(path.delimiter).map((folder) => path.join(folder, 'nvcc')),
    path.join(environment.CUDA_HOME ?? '/usr/local/cuda', 'bin/nvcc'),
  ];
  const found = places.find((place) => place !== undefined && place !== '' && existsSync(place));
  if (found === undefined) return null;
  return spawnSync(found, ['--version'], { stdio: 'ignore' }).status === 0 ? found : null;
}
