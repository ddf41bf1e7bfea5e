import { spawnSync } from 'node:child_process';

const PACKAGES = {
  cmake:
    'CMake 3.18 or newer: Debian/Ubuntu `apt-get install cmake`, Fedora `dnf install cmake`, macOS `brew install cmake`',
  compiler:
    'a C++20 compiler: Debian/Ubuntu `apt-get install g++`, Fedora `dnf install gcc-c++`, macOS `xcode-select --install`',
  make: 'make or ninja: Debian/Ubuntu `apt-get install make`, Fedora `dnf install make`, macOS `xcode-select --install`',
};

/** One line for each build tool that is missing or too old, with the package that brings it; empty when all are there. */
export function missingBuildTools(environment = process.env) {
  const missing = [];
  const isFound = (command) => spawnSync(command, ['--version'], { stdio: 'ignore', env: environment }).status === 0;
  const cmake = spawnSync('cmake', ['--version'], { encoding: 'utf8', env: environment });
  const [, major, minor] = /version (\d+)\.(\d+)/.exec(cmake.stdout ?? '') ?? [];
  if (major === undefined || Number(major) < 3 || (Number(major) === 3 && Number(minor) < 18)) {
    missing.push(major === undefined ? PACKAGES.cmake : `${PACKAGES.cmake} (found ${major}.${minor})`);
  }
  if (process.platform === 'win32') return missing;
  if (![environment.CXX, 'c++', 'g++', 'clang++'].filter(Boolean).some(isFound)) missing.push(PACKAGES.compiler);
  if (!isFound('make') && !isFound('ninja')) missing.push(PACKAGES.make);
  return missing;
}
