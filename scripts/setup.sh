#!/usr/bin/env bash
# Install what the build needs, where it is missing (Debian 12 or newer).  Sourced by try.sh, test.sh and fuzz.sh.
setun_setup() {
  setun_install gcc g++ cmake ninja-build pkg-config lua5.4 liblua5.4-dev libpcre2-dev libhwloc-dev libjansson-dev libutf8proc-dev \
    libcmocka-dev llvm-19-dev
}

setun_install() { # packages...
  local missing=() p
  for p in "$@"; do
    dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'install ok installed' || missing+=("$p")
  done
  [ ${#missing[@]} -eq 0 ] && return 0
  echo "installing: ${missing[*]}" >&2
  local sudo=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || { echo "setun: these packages are needed, and only root can install them: ${missing[*]}" >&2; return 1; }
    sudo=(sudo)
  fi
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq >&2 || return 1
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
}

# The newest clang that has libFuzzer, as CMake options for a build of the fuzz targets; fails if there is none.
setun_fuzz_options() {
  local v
  for v in -22 -21 -20 -19 ""; do
    command -v "clang$v" >/dev/null && command -v "clang++$v" >/dev/null &&
      echo 'int LLVMFuzzerTestOneInput(void) { return 0; }' | "clang$v" -fsanitize=fuzzer -x c - -o /dev/null 2>/dev/null || continue
    echo "-DCMAKE_C_COMPILER=clang$v -DCMAKE_CXX_COMPILER=clang++$v -DCMAKE_BUILD_TYPE=RelWithDebInfo" \
      "-DSETUN_FUZZ=ON -DSETUN_HARD=ON -DSETUN_LLVM=OFF"
    return 0
  done
  return 1
}
