# Bundles that are made here for other machines run there, and give the same bits: a table.
#
# setun-rt is compiled from its sources in one line, once per architecture, and runs each class of docs/isa.md that is
# said to run the model: in an emulator, or here where it is an x86.  What is missing is reported as skipped.
. "$(dirname "$0")/lib.sh"
[ "${SETUN_LLVM:-1}" = 1 ] || { echo "skipped: a bundle needs compiled kernels, and this build has no code generator"; exit 77; }
. "$SOURCE/tests/foreign/lib.sh"
tokens=$(seq -s, 1 64)
prefill=$("$SETUN" logits "$MODEL" --tokens "$tokens" --hash)
decode=$("$SETUN" logits "$MODEL" --tokens "$tokens" --hash --chunk 1)
same "decode and prefill here" "$decode" "$prefill"
written=$("$SETUN" run "$MODEL" -p "ROMEO:" -n 24 --seed 7 -q 2>/dev/null)
[ ${#written} -gt 20 ] || bad "no text: $written"

# The Debian name of the machine's compiler and library.
triplet_of() {
  case $1 in
    x86_64) echo x86_64-linux-gnu ;;
    *) echo "$1-linux-gnu" ;;
  esac
}
# For a machine without a C library: clang, the declarations of musl for this machine, and foreign/libc.c.
build_bare() {
  local include flags f
  include=/usr/include/$(uname -m)-linux-musl
  [ -n "$CLANG" ] && [ -n "$LLD" ] && [ -d "$include" ] || return 1
  flags="--target=$1-unknown-linux-gnu $abi -nostdinc -isystem $include -isystem $("$CLANG" -print-resource-dir)/include -std=c11 -O1
    -ffp-contract=off -fno-pic -fno-stack-protector -ffunction-sections -D_GNU_SOURCE -DSETUN_VERSION=\"test\" -I$SOURCE -I$SOURCE/include"
  mkdir "$TMP/bare"
  # shellcheck disable=SC2086
  for f in $(cat "$SOURCE/rt/sources.txt") rt/main.c; do
    "$CLANG" $flags -c "$SOURCE/$f" -o "$TMP/bare/${f//\//_}.o" || { bad "$1: $f does not compile"; return 0; }
  done
  # shellcheck disable=SC2086
  "$CLANG" $flags -ffreestanding -fno-builtin -c "$SOURCE/tests/foreign/libc.c" -o "$TMP/bare/libc.o" &&
    "$LLD" -static --gc-sections "$TMP"/bare/*.o -o "$TMP/$1-rt" || bad "$1: setun-rt does not link with a library of the tests"
}
# build ARCH: $TMP/ARCH-rt, once; fails where there is no compiler.
build() {
  local triplet options=
  triplet=$(triplet_of "$1")
  [ -e "$TMP/$1-rt" ] && return 0
  [ "$1" = loongarch64 ] && { build_bare "$1"; return; }
  [ "$1" = s390x ] && options=-fexcess-precision=fast
  command -v "$triplet-gcc" >/dev/null || return 1
  # shellcheck disable=SC2046,SC2086
  (cd "$SOURCE" && "$triplet-gcc" -std=c11 -O1 -ffp-contract=off -D_GNU_SOURCE -DSETUN_VERSION='"test"' -I. -Iinclude $options \
    $(cat rt/sources.txt) rt/main.c -o "$TMP/$1-rt" -pthread -lm) || bad "$1: setun-rt does not compile"
}

ran=0
printf '%-14s %-12s %-8s %-6s %-10s %-10s %-6s %s\n' class target compiles runs "decode 64" "prefill 64" text "vector operations per 32 bytes"
# Columns of the page's table, the first of them being empty.
while IFS='|' read -r _ class target _ _ operations _; do
  read -r class target operations <<<"$class $target $operations"
  read -r name arch features vlen cpu _ < <(grep "^$class " "$TARGETS") || bad "$class is not in $TARGETS"
  machine "$name" "$arch" "$features" "$vlen" "$cpu" || continue
  build "$arch" || { echo "skipped: $class, there is no compiler for $(triplet_of "$arch")"; continue; }
  options=()
  [ -n "$features" ] && options+=("--features=$features")
  [ "$vlen" = 0 ] || options+=(--vlen "$vlen")
  bundle=$TMP/bundle compiles=no runs=no one=no all=no text=no
  "$SETUN" export "$MODEL" --target "$arch" "${options[@]}" --batch 64 -o "$bundle" -q && compiles=yes || bad "$class: export"
  run() { $qemu "$TMP/$arch-rt" "$@" 2>"$TMP/err"; }
  [ "$qemu" = env ] || qemu="$qemu -L /usr/$(triplet_of "$arch")"
  if [ "$class" = z15 ] || [ "$class" = z16 ]; then # see there
    [ -e "$TMP/z16.so" ] || "$(triplet_of "$arch")-gcc" -shared -fPIC -O1 "$SOURCE/tests/foreign/z16.c" -o "$TMP/z16.so" || bad "z16.c does not compile"
    qemu="$qemu -E LD_PRELOAD=$TMP/z16.so"
  fi
  run info "$bundle" >"$TMP/info" && grep -q "^target *$target-" "$TMP/info" && runs=yes
  [ "$(run logits "$bundle" --tokens "$tokens" --hash --chunk 1 -t 1)" = "$decode" ] && one=equal
  [ "$(run logits "$bundle" --tokens "$tokens" --hash -t 1)" = "$prefill" ] && all=equal
  [ "$(run run "$bundle" -p "ROMEO:" -n 24 --seed 7 -q -t 1)" = "$written" ] && text=equal
  printf '%-14s %-12s %-8s %-6s %-10s %-10s %-6s %s\n' "$class" "$target" $compiles $runs $one $all $text $operations
  [ $compiles$runs$one$all$text = yesyesequalequalequal ] || bad "$class: $(tail -n 1 "$TMP/err")"
  rm -f "$bundle"
  ran=$((ran + 1))
done < <(grep '^| .*the model' "$SOURCE/docs/isa.md")
[ $ran -gt 0 ] || exit 77
finish
