#!/usr/bin/env bash
# Install what is missing, build and run every test: the product, with sanitizers (of memory and of
# threads), and without LLVM.
# SETUN_QUICK=1 leaves all but the first build out.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/setup.sh
setun_setup
run() { # directory, cmake options...
  local dir=$1
  shift
  cmake -B "$dir" -G Ninja "$@" >/dev/null
  cmake --build "$dir"
  ctest --test-dir "$dir" --output-on-failure -j 2
}
run build -DCMAKE_BUILD_TYPE=Release
if [ -z "${SETUN_QUICK:-}" ]; then
  run build-hard -DCMAKE_BUILD_TYPE=Debug -DSETUN_HARD=ON
  run build-races -DCMAKE_BUILD_TYPE=RelWithDebInfo -DSETUN_RACES=ON
  run build-plain -DCMAKE_BUILD_TYPE=Release -DSETUN_LLVM=OFF
fi
