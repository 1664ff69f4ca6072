# Starting with a warm cache: the compiler's library stays closed, and kernels never lie in memory that is writable.
. "$(dirname "$0")/lib.sh"
[ "${SETUN_LLVM:-1}" = 1 ] && [ -r /proc/self/maps ] || exit 77
args=(perplexity "$MODEL" "$MODEL/heldout.txt" --windows 1 --batch 1 --cache-dir "$TMP/c")
run() { "$SETUN" "${args[@]}" "$@"; }

# All mappings that a run ever has, looked at again and again until it ends; its output is in $TMP/out.
loaded='^[0-9a-f-]+ r-xp 00000000 00:00 0 *$'
maps() {
  "$SETUN" "${args[@]}" >"$TMP/out" 2>"$TMP/err" & pid=$!
  : >"$TMP/maps"; pieces=0
  while cat /proc/$pid/maps >"$TMP/now" 2>/dev/null && [ -s "$TMP/now" ]; do
    cat "$TMP/now" >>"$TMP/maps"
    n=$(grep -cE "$loaded" "$TMP/now"); [ "$n" -gt "$pieces" ] && pieces=$n
  done
  wait "$pid" || bad "$(cat "$TMP/err")"
  # PCRE2, which cuts texts into words, has code of its own in a block of 64 KB that stays writable.
  sed -nE 's/^([0-9a-f]+)-([0-9a-f]+) .wx.*/\1 \2/p' "$TMP/maps" | sort -u | while read -r from to; do
    echo $((0x$to - 0x$from))
  done >"$TMP/both"
  [ "$(grep -vxc 65536 "$TMP/both")" = 0 ] && [ "$(wc -l <"$TMP/both")" -le 1 ] ||
    bad "memory that can be written and executed: $(cat "$TMP/both")"
  [ "$pieces" -ge 1 ] && [ "$pieces" -le 3 ] || bad "the kernels are in $pieces pieces of memory"
}
maps; want=$(cat "$TMP/out")
grep -q libLLVM "$TMP/maps" || bad "a cold cache needs the compiler"
maps; same "from the cache" "$(cat "$TMP/out")" "$want"
grep -qE 'libLLVM|codegen_llvm' "$TMP/maps" && bad "the compiler is open though the cache is warm"

# Who asks for assembly gets it.
"$SETUN" dump "$MODEL" --asm --batch 1 --cache-dir "$TMP/c" >"$TMP/out" 2>&1 || bad "dump: $(head -c 300 "$TMP/out")"
grep -q 'ret' "$TMP/out" || bad "dump shows no code"

# Damage: found, told at -v, and mended.  A file that is missing is made again, and is the same.
turns=0
for file in $(ls -S "$TMP"/c/*.obj | tail -n 4) ; do
  cp "$file" "$TMP/kept"
  if [ $((turns % 2)) = 0 ]; then
    printf 'xxxx' | dd of="$file" bs=1 seek=100 conv=notrunc 2>/dev/null
    same "damage" "$(run -v 2>"$TMP/err")" "$want"
    grep -q "$(basename "$file") is ignored: " "$TMP/err" || bad "damage is not told: $(head -c 300 "$TMP/err")"
  else
    rm "$file"; same "a missing file" "$(run)" "$want"
  fi
  cmp -s "$file" "$TMP/kept" || bad "$(basename "$file") is not made again"
  turns=$((turns + 1))
done
run -v 2>&1 >/dev/null | grep 'is ignored' && bad "damage stays"

# Other features are remembered beside the first, and refused ones are not remembered.
fails "not one this compiler knows" run --cpu-features=-nothing
fails "not one this compiler knows" run --cpu-features=-nothing
finish
