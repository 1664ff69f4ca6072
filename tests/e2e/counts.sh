# How many instructions machines execute for the product of one token: kernels against a plain loop in C.
#
# Both are run in an emulator that notes every instruction, and must give the bits that the definition gives here.
# A kernel must take at most a fifth, and the table of docs/isa.md must be right within 2 %:
#
#     SETUN_REPLAY=write bash tests/e2e/counts.sh build/bin/setun .
#
# writes it anew.  Needs clang, lld and qemu-user; what is missing is reported as skipped.
. "$(dirname "$0")/lib.sh"
. "$SOURCE/tests/foreign/lib.sh"
[ "${SETUN_LLVM:-1}" = 1 ] || { echo "skipped: this build has no code generator"; exit 77; }
can_build || { echo "skipped: needs clang, lld and the tests' programs"; exit 77; }
COUNTED='^(sse4.1|avx2|neon|rvv128|power8|z13)$'
DOC=$SOURCE/docs/isa.md
EMULATE_X86=1
BLOCKS=$((16 * 2560 / 4 / 32)) # of 32 bytes: the whole weight

# Instructions of kernel0.o that a program executes.  The linker's map tells where they are; one instruction is
# translated at a time, so each makes a line.
executed() { # program
  local range
  range=$(awk '$NF == "kernel0.o:(.text)" { print "0x" $1 "+0x" $3 }' "$1.map")
  # shellcheck disable=SC2086
  $qemu -singlestep -d exec,nochain -dfilter "$range" "$1" 2>&1 >"$1.out" | grep -c '^Trace'
  grep -q '^1 of 1 agree$' "$1.out" || bad "$name: $1: $(head -n 1 "$1.out")"
}

build() { # in the machine's directory
  foreign_kernels . 1 0 ternary_matmul "q:i8[1,2560] scale:f32[1] sum:i32[1] w:t2[16,2560] ws:f32[1]" &&
    foreign_object cases.s cases.o && foreign_object "$SOURCE/tests/foreign/run.c" run.o -O1 &&
    "$LLD" -static -Map=kernel.map -o kernel run.o cases.o kernel0.o &&
    foreign_object "$SOURCE/tests/foreign/plain.c" kernel0.o -O2 -fno-vectorize -fno-slp-vectorize -ffp-contract=off &&
    "$LLD" -static -Map=plain.map -o plain run.o cases.o kernel0.o
}

rows=0
{ echo "| class | kernel | plain C | ratio |"; echo "|---|--:|--:|--:|"; } >"$TMP/table"
while read -r name arch features vlen cpu _; do
  [[ $name =~ $COUNTED ]] || continue
  machine "$name" "$arch" "$features" "$vlen" "$cpu" || continue
  dir=$TMP/$name
  mkdir "$dir"
  (cd "$dir" && build) >"$dir/log" 2>&1 || { echo "skipped: $name cannot be built here: $(tail -n 1 "$dir/log")"; continue; }
  kernel=$(executed "$dir/kernel") plain=$(executed "$dir/plain")
  [ "${kernel:-0}" -gt 0 ] && [ "${plain:-0}" -gt 0 ] || { bad "$name: nothing was counted: '$kernel', '$plain'"; continue; }
  [ "$plain" -ge $((5 * kernel)) ] || bad "$name: $kernel instructions, where plain C takes $plain: less than five times as many"
  awk -v n="$name" -v k="$kernel" -v p="$plain" -v b=$BLOCKS 'BEGIN { printf "| %s | %.1f | %.0f | %.1f |\n", n, k / b, p / b, p / k }' | tee -a "$TMP/table"
  rows=$((rows + 1))
done <"$TARGETS"
[ $rows -gt 0 ] || { [ $failures -eq 0 ] && exit 77; exit 1; }

# Only of the compilers that the table was made with.
if ! "$CLANG" --version | grep -q 'version 19\.' || ! "$SETUN" plugins | grep -q '^  LLVM  *19\.'; then
  echo "not compared: the table of docs/isa.md was made with clang and LLVM 19"
elif [ "${SETUN_REPLAY:-}" = write ]; then
  awk -v table="$TMP/table" '/^\| class \| kernel \|/ { while ((getline line <table) > 0) print line; old = 1 }
    !/^\|/ { old = 0 } !old' "$DOC" >"$TMP/doc" && cat "$TMP/doc" >"$DOC"
else
  while IFS='| ' read -r _ name kernel plain ratio _; do
    case $name in class|---*) continue ;; esac
    awk -F'[| ]+' -v n="$name" -v k="$kernel" -v p="$plain" -v r="$ratio" 'function off(a, b) { return a > 1.02 * b || a < 0.98 * b }
      /^\| class \|/ { mine = $3 == "kernel" } mine && $2 == n { found = 1; bad = off($3, k) || off($4, p) || off($5, r) }
      END { exit !found || bad }' "$DOC" || bad "docs/isa.md is not right about $name: $kernel, $plain, $ratio"
  done <"$TMP/table"
fi
finish
