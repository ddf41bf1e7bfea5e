#!/usr/bin/env node
// Builds the CUDA addon unless it is current. Without nvcc there is nothing to build: it says so and succeeds, and the
// backend then reports itself unavailable. Exits with 1 and says what is wrong when a build fails.
import path from 'node:path';
import { BuildError, buildAddon } from '@kvasir/native-runner/build-addon';
import { findNvcc } from './find-nvcc.mjs';
import { NATIVE_SOURCES, isWorkspace, nativeDirectory, packageDirectory } from './native-sources.mjs';

const nvcc = findNvcc();
if (nvcc === null) {
  console.error('The CUDA addon is skipped: no nvcc found; install the CUDA toolkit 13, or name its nvcc in CUDACXX');
  process.exit(0);
}
process.env.CUDACXX = nvcc;
try {
  const { file, built } = await buildAddon({
    projectDirectory: packageDirectory,
    outputDirectory: path.join(packageDirectory, '.native/cuda'),
    nativeDirectory,
    sources: NATIVE_SOURCES,
    backend: 'cuda',
    definitions: { KVASIR_WARNINGS_AS_ERRORS: isWorkspace ? 'ON' : 'OFF' },
  });
  console.error(built ? `Built ${file}` : `${file} is current`);
} catch (error) {
  if (!(error instanceof BuildError)) throw error;
  console.error(`\n${error.message}\n`);
  process.exit(1);
}
