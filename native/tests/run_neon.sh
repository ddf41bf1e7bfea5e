#!/bin/sh
# Builds the native tests for 64-bit Arm and runs them under qemu-aarch64, so that the NEON paths are held to the same
# bits as the others on any machine.   run_neon.sh BUILD_FOLDER [ctest arguments]
# Exit 0: passed; 1: failed; 77: the tools are not installed, nothing was tested.
set -eu
build=${1:?"expected a build folder as the first argument"}
shift
native=$(cd "$(dirname "$0")/.." && pwd)
for tool in cmake aarch64-linux-gnu-g++ qemu-aarch64-static; do
  if ! command -v "$tool" >/dev/null 2>&1; then
    echo "SKIPPED: NOTHING OF NEON WAS TESTED: $tool is not installed"
    echo "  Debian: apt install cmake g++-aarch64-linux-gnu qemu-user-static"
    exit 77
  fi
done
cmake -S "$native" -B "$build" -DCMAKE_TOOLCHAIN_FILE="$native/cmake/aarch64-linux-gnu.cmake" -DKVASIR_TESTS=ON
cmake --build "$build" --parallel 2
cd "$build"
export KVASIR_TEST_SMALL=1
exec ctest --output-on-failure "$@"
