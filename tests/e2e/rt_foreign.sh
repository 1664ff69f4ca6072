# Bundles that are made here for other machines run there, and give the same bits: a table.
#
# setun-rt is compiled from its sources in one line and runs in an emulator.  What is missing is reported as skipped.
. "$(dirname "$0")/lib.sh"
[ "${SETUN_LLVM:-1}" = 1 ] || { echo "skipped: a bundle needs compiled kernels, and this build has no code generator"; exit 77; }
[ "${SETUN_HARD:-0}" = 1 ] && { echo "skipped: no sanitizer sees what an emulator runs"; exit 77; }
tokens=$(seq -s, 1 64)
prefill=$("$SETUN" logits "$MODEL" --tokens "$tokens" --hash)
decode=$("$SETUN" logits "$MODEL" --tokens "$tokens" --hash --chunk 1)
same "decode and prefill here" "$decode" "$prefill"
ran=0
printf '%-14s %-8s %-6s %-10s %s\n' target compiles runs "decode 64" "prefill 64"
while read -r target triplet emulator options; do
  compiler=$triplet-gcc
  if ! command -v "$compiler" >/dev/null || ! command -v "$emulator" >/dev/null; then
    printf '%-14s skipped: there is no %s or no %s\n' "$target" "$compiler" "$emulator"
    continue
  fi
  dir=$TMP/$target compiles=no runs=no one=no all=no
  mkdir "$dir"
  "$SETUN" export "$MODEL" --target "$target" --batch 64 -o "$dir/bundle" -q || bad "$target: export"
  # shellcheck disable=SC2046,SC2086
  (cd "$SOURCE" && "$compiler" -std=c11 -O1 -ffp-contract=off -D_GNU_SOURCE -DSETUN_VERSION='"test"' -I. -Iinclude $options \
    $(cat rt/sources.txt) rt/main.c -o "$dir/setun-rt" -pthread -lm) && compiles=yes
  run() { "$emulator" -L "/usr/$triplet" "$dir/setun-rt" "$@"; }
  run info "$dir/bundle" >"$dir/info" 2>&1 && grep -q "^target *$target-" "$dir/info" && runs=yes
  [ "$(run logits "$dir/bundle" --tokens "$tokens" --hash --chunk 1 -t 1)" = "$decode" ] && one=equal
  [ "$(run logits "$dir/bundle" --tokens "$tokens" --hash -t 1)" = "$prefill" ] && all=equal
  printf '%-14s %-8s %-6s %-10s %s\n' "$target" $compiles $runs $one $all
  [ $compiles$runs$one$all = yesyesequalequal ] || bad "$target: $(tail -n 1 "$dir/info")"
  ran=$((ran + 1))
done <<'T'
aarch64 aarch64-linux-gnu qemu-aarch64-static
riscv64 riscv64-linux-gnu qemu-riscv64-static
powerpc64le powerpc64le-linux-gnu qemu-ppc64le-static
s390x s390x-linux-gnu qemu-s390x-static -fexcess-precision=fast
T
[ $ran -gt 0 ] || exit 77
finish
