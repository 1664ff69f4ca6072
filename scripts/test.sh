#!/usr/bin/env bash
# Install what is missing, build and run every test: the product, with sanitizers (of memory and of
# threads), without LLVM, and with another LLVM; and where clang has libFuzzer, let it search for bad input for half a minute.
# SETUN_QUICK=1 leaves all but the first build out.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/setup.sh
setun_setup
# What only tests use: a compiler with libFuzzer, emulators of other machines, and compilers for those.
setun_install clang-19 libclang-rt-19-dev lld-19 qemu-user-static libxml2-utils ||
  echo "test.sh: without these packages some tests are skipped" >&2
setun_install musl-tools gcc-aarch64-linux-gnu libc6-dev-arm64-cross gcc-riscv64-linux-gnu libc6-dev-riscv64-cross \
  gcc-powerpc64le-linux-gnu libc6-dev-ppc64el-cross gcc-powerpc64-linux-gnu libc6-dev-ppc64-cross gcc-s390x-linux-gnu libc6-dev-s390x-cross ||
  echo "test.sh: without these compilers bundles are not run on other machines" >&2
setun_install chromium || echo "test.sh: without chromium reports are not looked at in a browser" >&2
# The builds with and without LLVM share most of their objects.
if command -v ccache >/dev/null || setun_install ccache; then
  export CMAKE_C_COMPILER_LAUNCHER=ccache CCACHE_BASEDIR=$PWD CCACHE_NOHASHDIR=1
fi
run() { # directory, cmake options...; SELECT: of the tests, only those
  local dir=$1
  shift
  cmake -B "$dir" -G Ninja "$@" >/dev/null
  cmake --build "$dir" >"$dir/build.log" || { tail -n 60 "$dir/build.log"; return 1; }
  echo "test.sh: $dir is built after $SECONDS s"
  ctest --test-dir "$dir" --output-on-failure -j 2 -R "${SELECT:-.}"
  echo "test.sh: $dir is tested after $SECONDS s"
}
run build -DCMAKE_BUILD_TYPE=Release
if [ -z "${SETUN_QUICK:-}" ]; then
  run build-hard -DCMAKE_BUILD_TYPE=Debug -DSETUN_HARD=ON
  run build-races -DCMAKE_BUILD_TYPE=RelWithDebInfo -DSETUN_RACES=ON
  run build-plain -DCMAKE_BUILD_TYPE=Release -DSETUN_LLVM=OFF
  # Another LLVM, if there is one: what looks at the code that it makes.  It comes last, so that no other build finds it.
  used=$(sed -n 's/^LLVM_CONFIG[^=]*=.*config-//p' build/CMakeCache.txt) other=22
  [ "$used" != 22 ] || other=19
  if command -v llvm-config-$other >/dev/null || setun_install llvm-$other-dev; then
    SELECT='^(unit\.(jit|tiles|machine|replay|ops|session|tune)|e2e\.(hash|rt))$' \
      run build-llvm-$other -DCMAKE_BUILD_TYPE=Release -DLLVM_CONFIG=llvm-config-$other
  else
    echo "test.sh: LLVM $other is not to be had: only LLVM $used was tested" >&2
  fi
  if fuzz=$(setun_fuzz_options); then
    # shellcheck disable=SC2086 # these are words
    cmake -B build-fuzz -G Ninja $fuzz >/dev/null
    cmake --build build-fuzz --target fuzzers >build-fuzz/build.log || { tail -n 60 build-fuzz/build.log; exit 1; }
    ctest --test-dir build-fuzz --output-on-failure -j 2
  else
    echo "test.sh: no clang with libFuzzer (clang-19, libclang-rt-19-dev): the fuzz targets only replayed their corpus" >&2
  fi
fi
