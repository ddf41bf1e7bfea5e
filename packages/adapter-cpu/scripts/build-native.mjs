#!/usr/bin/env node
// Builds the CPU addon unless it is current. Exits with 1 and says what is missing when it cannot.
import path from 'node:path';
import { BuildError, buildAddon } from '@kvasir/native-runner/build-addon';
import { NATIVE_SOURCES, isWorkspace, nativeDirectory, packageDirectory } from './native-sources.mjs';

try {
  const { file, built } = await buildAddon({
    projectDirectory: packageDirectory,
    outputDirectory: path.join(packageDirectory, '.native/cpu'),
    nativeDirectory,
    sources: NATIVE_SOURCES,
    backend: 'cpu',
    // On a user's machine the compiler may be newer than any we have seen, and warn where ours do not.
    definitions: { KVASIR_WARNINGS_AS_ERRORS: isWorkspace ? 'ON' : 'OFF' },
  });
  console.error(built ? `Built ${file}` : `${file} is current`);
} catch (error) {
  if (!(error instanceof BuildError)) throw error;
  console.error(`\n${error.message}\n`);
  process.exit(1);
}
