#!/usr/bin/env bash
# Let libFuzzer search for input that a reader of files cannot bear.
#
#   scripts/fuzz.sh [--minutes N] [TARGET...]
#
# Each target (tests/fuzz/*.c, or those that are named) runs for N minutes, 10 if not said, one after the
# other.  Needs clang with libFuzzer (packages clang-19 and libclang-rt-19-dev).  In build-fuzz/fuzz/:
#
#   found/TARGET/    inputs that crashed, leaked, hung or took too much memory; a target ends at its first
#   corpus/TARGET/   inputs that reached something new, kept from run to run
#   TARGET.log       what libFuzzer said
#
# Exit code: 0 nothing was found, 1 something was, 2 wrong use, 130 Ctrl-C (what ran until then is summed up).
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
. scripts/setup.sh

usage() { sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; }
all=$(for f in tests/fuzz/*.c; do basename "$f" .c; done | grep -vxE 'common|replay')
minutes=10 targets=()
while [ $# -gt 0 ]; do
  case $1 in
  -h | --help) usage; exit 0 ;;
  --minutes)
    [[ ${2:-} =~ ^[0-9]+(\.[0-9]+)?$ ]] || { echo "fuzz.sh: --minutes needs a number" >&2; exit 2; }
    minutes=$2; shift ;;
  -*) echo "fuzz.sh: unknown option $1; try --help" >&2; exit 2 ;;
  *)
    grep -qxF -- "$1" <<<"$all" || { echo "fuzz.sh: there is no target $1; there are" $all >&2; exit 2; }
    targets+=("$1") ;;
  esac
  shift
done
[ ${#targets[@]} -gt 0 ] || mapfile -t targets <<<"$all"
seconds=$(awk "BEGIN { s = int($minutes * 60); print s < 1 ? 1 : s }")

options=$(setun_fuzz_options) || { echo "fuzz.sh: no clang with libFuzzer: install clang-19 and libclang-rt-19-dev" >&2; exit 1; }
# shellcheck disable=SC2086 # these are words
cmake -B build-fuzz -G Ninja $options >/dev/null && cmake --build build-fuzz --target fuzzers || exit 1

out=$PWD/build-fuzz/fuzz
# The targets' files live for a millisecond each: in memory, if there is such a place; gone in any case.
[ -w /dev/shm ] && shm=/dev/shm || shm=${TMPDIR:-/tmp}
TMPDIR=$(mktemp -d "$shm/setun-fuzz.XXXXXX") || exit 1
export TMPDIR
stopped=0 found=0 rows=() pid=
# Targets run in the background, where Ctrl-C does not reach them.
trap 'stopped=1; [ -z "$pid" ] || kill -TERM "$pid" 2>/dev/null' INT TERM
trap 'rm -rf "$TMPDIR"' EXIT

for t in "${targets[@]}"; do
  [ $stopped = 0 ] || break
  mkdir -p "$out/found/$t" "$out/corpus/$t"
  before=$(find "$out/found/$t" -type f | wc -l)
  echo "$t: $seconds s, log in build-fuzz/fuzz/$t.log"
  "build-fuzz/bin/fuzz_$t" -max_total_time="$seconds" -timeout=60 -rss_limit_mb=2048 -max_len=16384 -print_final_stats=1 \
    -dict="tests/fuzz/$t.dict" -artifact_prefix="$out/found/$t/" "$out/corpus/$t" "tests/fuzz/corpus/$t" \
    >"$out/$t.log" 2>&1 &
  pid=$!
  wait $pid
  code=$?
  while [ $stopped = 1 ] && kill -0 $pid 2>/dev/null; do wait $pid; code=$?; done # a signal ends waiting, too
  pid=
  new=$(($(find "$out/found/$t" -type f | wc -l) - before))
  # 72: somebody else stopped the target.  What fails otherwise has a file, all but a leak at the end.
  [ $stopped = 1 ] || [ $code = 0 ] || [ $code = 72 ] || [ $new -gt 0 ] || new=1
  found=$((found + new))
  rows+=("$(printf '%-12s %10s runs %7s per s   cov %6s   %s' "$t" \
    "$(sed -n 's/^stat::number_of_executed_units: *//p' "$out/$t.log")" \
    "$(sed -n 's/^stat::average_exec_per_sec: *//p' "$out/$t.log")" \
    "$(grep -o ' cov: [0-9]*' "$out/$t.log" | tail -1 | tr -dc 0-9)" \
    "$([ $new = 0 ] && echo nothing found || echo "FOUND: see found/$t and $t.log")")")
done

echo
[ ${#rows[@]} -eq 0 ] || printf '%s\n' "${rows[@]}"
if [ $found -gt 0 ]; then
  echo "An input is tried again with build-fuzz/bin/fuzz_TARGET FILE; once it is understood, it belongs into tests/fuzz/corpus/TARGET."
fi
[ $stopped = 0 ] || exit 130
[ $found = 0 ]
