# Kernels for other machines: compiled ahead of time, and run where an emulator stands in for the machine.
#
# Each target takes a few of the operators' cases, others than the target before it; SETUN_FOREIGN=1 takes
# all (a quarter of an hour).  Needs clang, lld and qemu-user; what is missing is reported as skipped.
. "$(dirname "$0")/lib.sh"
[ "${SETUN_LLVM:-1}" = 1 ] || { echo "skipped: this build has no code generator"; exit 77; }
. "$SOURCE/tests/foreign/lib.sh"

# ---- setun compile
"$SETUN" compile "$MODEL" --target s390x -o "$TMP/z" -q || bad "compile for s390x"
same "record" "$(sed -n 's/^triple //p' "$TMP/z/TARGET")" s390x-unknown-linux-gnu
same "kernels" "$(sed -n 's/^kernels //p' "$TMP/z/TARGET")" "$(find "$TMP/z" -name '*.obj' | wc -l)"
"$SETUN" compile "$MODEL" --target riscv64 --features=+v --vlen 256 -o "$TMP/v" -q || bad "compile for riscv64"
same "vlen" "$(sed -n 's/^vlen //p' "$TMP/v/TARGET")" 256
fails 'the target "vax" is not known; x86_64, aarch64' "$SETUN" compile "$MODEL" --target vax -o "$TMP/no"
fails '"vsx" is not known of aarch64; neon, dotprod' "$SETUN" compile "$MODEL" --target aarch64 --features=+vsx -o "$TMP/no"
fails 'cannot be switched off' "$SETUN" compile "$MODEL" --target aarch64 --features=-neon -o "$TMP/no"
fails 'only of use with RISC-V' "$SETUN" compile "$MODEL" --target aarch64 --vlen 128 -o "$TMP/no"
fails '128 or 256 bits, not 512' "$SETUN" compile "$MODEL" --target riscv64 --features=+v --vlen 512 -o "$TMP/no"
[ ! -e "$TMP/no" ] || bad "a refused compilation left a directory"
: >"$TMP/file"
fails "$TMP/file" "$SETUN" compile "$MODEL" --target aarch64 -o "$TMP/file"
"$SETUN" compile "$MODEL" -o "$TMP/no" >/dev/null 2>&1
same "exit code without a target" $? 2
"$SETUN" dump "$MODEL" --asm --kernel ternary_matmul- --target aarch64 --cpu-features=+dotprod --no-cache >"$TMP/asm"
grep -q sdot "$TMP/asm" ||
  bad "dump --target shows no sdot"

# ---- Ctrl-C: 130, what has a name is whole, and doing it again completes it
whole() { # directory: each file is the one of a compilation that nobody disturbed
  [ -z "$(find "$1" -name '*tmp*')" ] || bad "an interrupted compilation leaves $(ls "$1")"
  for f in "$1"/*.obj; do cmp -s "$f" "$TMP/z/$(basename "$f")" || bad "an interrupted compilation leaves $f"; done
}
for times in 1 3; do
  rm -rf "$TMP/i"
  set -m # else a shell starts what it puts into the background with the signal ignored
  "$SETUN" compile "$MODEL" --target s390x -o "$TMP/i" -t 1 >"$TMP/out" 2>"$TMP/err" & pid=$!
  set +m
  for _ in $(seq 3000); do [ -n "$(find "$TMP/i" -name '*.obj' 2>/dev/null)" ] && break; sleep 0.01; done
  for _ in $(seq $times); do kill -INT $pid; done
  wait $pid; same "exit code of a compilation that is interrupted" $? 130
  same "what it says" "$(cat "$TMP/err")" "setun: $TMP/i: cancelled"
  [ ! -e "$TMP/i/TARGET" ] || bad "an interrupted compilation has a record"
  fails "$TMP/i/TARGET" "$SETUN" logits "$MODEL" --tokens 1 --kernels "$TMP/i"
  whole "$TMP/i"
done
"$SETUN" compile "$MODEL" --target s390x -o "$TMP/i" -q || bad "compile again"
diff -r "$TMP/z" "$TMP/i" >"$TMP/out" || bad "what was interrupted and completed differs: $(head -n 3 "$TMP/out")"
hash=
for delay in 0.03 0.1 0.3 30; do # a load, at a time when kernels are compiled or written; the last one comes to its end
  timeout -s INT --preserve-status $delay "$SETUN" logits "$MODEL" --tokens 1,2 --hash --cache-dir "$TMP/load" -v >"$TMP/out" 2>"$TMP/err"
  code=$?
  [ $code -eq 130 ] || { [ $code -eq 0 ] && [ -n "${hash:=$(cat "$TMP/out")}" ]; } || bad "a load that is interrupted after $delay s: exit code $code"
  [ -z "$(find "$TMP/load" -name '*tmp*' 2>/dev/null)" ] || bad "a load that is interrupted after $delay s leaves $(ls "$TMP/load")"
  ! grep -q 'is ignored' "$TMP/err" || bad "a load that was interrupted left $(grep -m 1 'is ignored' "$TMP/err")"
done
same "logits with the cache of interrupted loads" "$hash" "$("$SETUN" logits "$MODEL" --tokens 1,2 --hash --no-cache)"

# ---- kernels that were compiled ahead of time, on the machine that they are for
tokens=1,2,3,4,5
want=$("$SETUN" logits "$MODEL" --tokens $tokens --hash --no-cache)
if [ "$(uname -m)" = x86_64 ]; then
  here=$TMP/here
  "$SETUN" compile "$MODEL" --target x86_64 -o "$here" -q || bad "compile for x86_64"
  same "logits of kernels from a directory" "$("$SETUN" logits "$MODEL" --tokens $tokens --hash --no-cache --kernels "$here" -v 2>"$TMP/err")" "$want"
  grep -q 'is interpreted' "$TMP/err" && bad "kernels from a directory were not used: $(grep -m 1 interpreted "$TMP/err")"
  other=$TMP/z
  rm "$(find "$here" -name '*.obj' | head -n 1)" # a missing one is interpreted, and said to be
  same "logits without one kernel" "$("$SETUN" logits "$MODEL" --tokens $tokens --hash --no-cache --kernels "$here" -v 2>"$TMP/err")" "$want"
  grep -q 'is interpreted: it is not in the cache' "$TMP/err" || bad "a missing kernel is not told"
else
  other=$TMP/z
  [ "$(uname -m)" = s390x ] && other=$TMP/v
fi
fails "TARGET: these kernels cannot be used: made for" "$SETUN" logits "$MODEL" --tokens 1 --kernels "$other"
fails "have a target and features of their own" "$SETUN" logits "$MODEL" --tokens 1 --kernels "$other" --cpu-features=-avx
damaged() { # what, sed script, part of the sentence
  rm -rf "$TMP/d" && mkdir "$TMP/d" && sed "$2" "$other/TARGET" >"$TMP/d/TARGET"
  fails "$3" "$SETUN" logits "$MODEL" --tokens 1 --kernels "$TMP/d"
}
fails "$TMP/nowhere/TARGET" "$SETUN" logits "$MODEL" --tokens 1 --kernels "$TMP/nowhere"
damaged "a version" 's/^setun .*/setun 0.0.0/' "these kernels are Setun 0.0.0's"
damaged "another ABI" 's/^launch .*/launch 99/' "launch 99"
damaged "a missing line" '/^cpu /d' "the line 'cpu ...' is not where it belongs"
damaged "a number" 's/^l1_bytes .*/l1_bytes x/' "'l1_bytes' is not a number"
damaged "a small cache" 's/^l2_bytes .*/l2_bytes 0/' "out of range"
damaged "a long text" "s/^cpu .*/cpu $(printf '%0200d' 0)/" "'cpu' is too long"
damaged "more" '$a more 1' "there is more behind"
damaged "no machine" 's/^triple .*/triple vax-dec-ultrix/' "made for vax"

# ---- what the objects compute
if ! can_build; then
  echo "skipped: running kernels of other machines needs clang, lld and the tests' programs"
  [ $failures -eq 0 ] && exit 0 || exit 1
fi
row=0
while read -r name arch features vlen cpu _; do
  case $name in ''|'#'*) continue ;; esac
  row=$((row + 1))
  # Of an x86 the unit tests run what this one has.
  case $arch in x86_64) [ -n "${SETUN_FOREIGN:-}" ] || continue ;; esac
  machine "$name" "$arch" "$features" "$vlen" "$cpu" || continue
  dir=$TMP/$name
  mkdir "$dir"
  foreign_kernels "$dir" "${SETUN_FOREIGN:-67}" "$row" >"$dir/log" 2>&1 || { bad "$name: $(tail -n 1 "$dir/log")"; continue; }
  (cd "$dir" && foreign_object cases.s cases.o && foreign_object "$SOURCE/tests/foreign/run.c" run.o -O1 &&
    "$LLD" -static -o all run.o cases.o kernel*.o) >"$dir/link" 2>&1 ||
    { echo "skipped: $name, this clang or lld cannot link for it: $(head -n 1 "$dir/link")"; continue; }
  # shellcheck disable=SC2086
  $qemu "$dir/all" >"$dir/out" 2>&1 || bad "$name: $(head -n 3 "$dir/out")"
  grep -q ' agree$' "$dir/out" || bad "$name: the program did not come to its end"
  echo "$name: $(tail -n 1 "$dir/out")"
  rm -rf "$dir"
done <"$TARGETS"
finish
