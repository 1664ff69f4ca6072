# setun export and setun-rt on this machine: the same bits, small, and sentences for everything that is not a whole bundle.
. "$(dirname "$0")/lib.sh"
[ "${SETUN_LLVM:-1}" = 1 ] || { echo "skipped: a bundle needs compiled kernels, and this build has no code generator"; exit 77; }
RT=$(dirname "$SETUN")/setun-rt
B=$TMP/model.bundle
"$SETUN" export "$MODEL" -o "$B" -q || bad "export"
same "what export leaves" "$(ls "$TMP")" "$(printf 'cache\nmodel.bundle')"

# ---- the same logits, however they are asked for
few=1,2,3,4,5
many=$(seq -s, 1 90)
same "five tokens" "$("$RT" logits "$B" --tokens $few --hash)" 94ab00825ba531f2
same "ninety tokens" "$("$RT" logits "$B" --tokens "$many" --hash)" e8c690198954049e
same "one by one" "$("$RT" logits "$B" --tokens "$many" --hash --chunk 1)" e8c690198954049e
same "in sevens" "$("$RT" logits "$B" --tokens "$many" --hash --chunk 7)" e8c690198954049e
same "one thread" "$("$RT" logits "$B" --tokens "$many" --hash -t 1)" e8c690198954049e
same "three threads" "$("$RT" logits "$B" --tokens "$many" --hash -t 3)" e8c690198954049e
same "by setun itself" "$("$SETUN" logits "$B" --tokens $few --hash)" 94ab00825ba531f2
same "as numbers" "$("$RT" logits "$B" --tokens 7 | md5sum)" "$("$SETUN" logits "$MODEL" --tokens 7 | md5sum)"
"$SETUN" export "$MODEL" --batch 16 --ctx 64 --kv f32 -o "$TMP/small" -q || bad "export with options"
same "another cache, in small steps" "$("$RT" logits "$TMP/small" --tokens $few --hash)" \
  "$("$SETUN" logits "$MODEL" --kv f32 --tokens $few --hash)"
same "more than a batch" "$("$RT" logits "$TMP/small" --tokens "$(seq -s, 1 50)" --hash)" \
  "$("$SETUN" logits "$MODEL" --kv f32 --tokens "$(seq -s, 1 50)" --hash)"
fails "no room for 65 tokens: the context holds 64 positions" "$RT" logits "$TMP/small" --tokens "$(seq -s, 1 65)"
fails "token 1024 is outside the vocabulary of 1024" "$RT" logits "$B" --tokens 5,1024
fails "no tokens to feed" "$RT" logits "$B" --tokens ,
"$RT" bench "$B" --prompt-tokens 20 -n 5 >"$TMP/out" || bad "bench"
[ "$(grep -c tokens/s "$TMP/out")" = 2 ] || bad "bench prints: $(cat "$TMP/out")"
"$RT" info "$B" | grep -q '^context     512$' || bad "info"
"$RT" --help | grep -q 'usage: setun-rt logits' || bad "help"
for wrong in "walk $B" "logits" "logits $B" "logits $B $B --tokens 1" "logits $B --tokens x" "bench $B -n 0" "bench $B --none"; do
  # shellcheck disable=SC2086
  "$RT" $wrong >/dev/null 2>"$TMP/err"
  same "exit code of setun-rt $wrong" $? 2
done

# ---- what is refused when it is made
fails 'the target "vax" is not known' "$SETUN" export "$MODEL" --target vax -o "$TMP/no"
fails "a bundle needs compiled kernels" "$SETUN" export "$MODEL" --interpret -o "$TMP/no"
fails "from the backend 'reference', which runs no kernels" "$SETUN" export "$MODEL" --backend reference -o "$TMP/no"
fails "$TMP/none/x" "$SETUN" export "$MODEL" -o "$TMP/none/x"
[ ! -e "$TMP/no" ] || bad "a refused export left a file"
"$SETUN" export "$MODEL" >/dev/null 2>&1
same "exit code without -o" $? 2

# ---- interrupted at any time: 130, and under the name is what was there before, or all of the new one
begin=$(date +%s%N)
"$SETUN" export "$MODEL" -o "$TMP/quiet" -q || bad "export from a warm cache"
took=$(($(date +%s%N) - begin))
mkdir "$TMP/stopped"
for tenths in 1 2 3 4 5 6 7 8 9; do
  echo old >"$TMP/stopped/x"
  timeout -s INT --preserve-status "$(awk "BEGIN {print $took * $tenths / 1e10}")" \
    "$SETUN" export "$MODEL" -o "$TMP/stopped/x" -q >/dev/null 2>"$TMP/err"
  code=$?
  same "what an export leaves that is interrupted after $tenths tenths" "$(ls -A "$TMP/stopped")" x
  if [ $code -eq 0 ]; then
    cmp -s "$TMP/stopped/x" "$TMP/quiet" || bad "an export that was not interrupted in time wrote another file"
  else
    same "exit code of an export that is interrupted after $tenths tenths" $code 130
    [ "$(head -c 9 "$TMP/stopped/x" | tr -d '\0')" = old ] || cmp -s "$TMP/stopped/x" "$TMP/quiet" ||
      bad "an export that was interrupted after $tenths tenths left a part of a file"
  fi
done

# ---- what is refused when it is read: any byte that is another, any end that is too early
other=s390x
[ "$(uname -m)" = s390x ] && other=aarch64
"$SETUN" export "$MODEL" --target $other -o "$TMP/other" -q || bad "export for $other"
fails "$TMP/other cannot run here: made for $other, and this machine is" "$RT" logits "$TMP/other" --tokens 1
fails "is not a bundle" "$RT" logits "$MODEL/config.json" --tokens 1
fails "$TMP/nowhere" "$RT" logits "$TMP/nowhere" --tokens 1
bytes=$(stat -c %s "$B")
cat >"$TMP/flip.lua" <<'L'
-- FROM TO SEED: one byte of the file is another; every part of it has its turn.
local f = assert(io.open(arg[1], "rb"))
local text = f:read("a")
local turn = tonumber(arg[3])
local at = turn < 24 and 1 + (turn * 11) % 256 or 1 + (turn * 2654435761) % #text
local byte = text:byte(at)
assert(io.open(arg[2], "wb")):write(text:sub(1, at - 1), string.char(byte ~ (1 << turn % 8)), text:sub(at + 1)):close()
print(at)
L
for turn in $(seq 0 59); do
  at=$(lua5.4 "$TMP/flip.lua" "$B" "$TMP/bad" "$turn")
  fails "$TMP/bad" "$RT" logits "$TMP/bad" --tokens 1
  [ $failures -eq 0 ] || { bad "with another byte at $at"; break; }
done
for n in 0 7 8 31 63 64 200 255 256 400 5000 $((bytes / 2)) $((bytes - 1)); do
  head -c "$n" "$B" >"$TMP/bad"
  fails "$TMP/bad" "$RT" logits "$TMP/bad" --tokens 1
done
cat "$B" - <<<"more" >"$TMP/bad"
fails "by its header" "$RT" logits "$TMP/bad" --tokens 1
printf '\002' | dd of="$B" bs=1 seek=8 conv=notrunc 2>/dev/null
fails "a bundle of version 2; this program knows version 1" "$RT" logits "$B" --tokens 1

# ---- small: what is ours, and where there is such a C library all of a static program
if [ "${SETUN_HARD:-0}" != 1 ]; then
  code=$(size "$RT" | awk 'NR == 2 {print $4}')
  [ "$code" -le 409600 ] || bad "setun-rt has $code bytes"
  ldd "$RT" 2>/dev/null | grep -v -e linux-vdso -e 'libc\.' -e ld-linux -e ld64 -e 'libm\.' -e libpthread && bad "setun-rt needs libraries"
  if command -v musl-gcc >/dev/null; then
    # shellcheck disable=SC2046
    (cd "$SOURCE" && musl-gcc -static -std=c11 -Os -ffp-contract=off -ffunction-sections -fdata-sections -Wl,--gc-sections -s \
      -D_GNU_SOURCE -DSETUN_VERSION='"test"' -I. -Iinclude $(cat rt/sources.txt) rt/main.c -o "$TMP/static" -lm) || bad "musl-gcc"
    all=$(stat -c %s "$TMP/static")
    [ "$all" -le 409600 ] || bad "the static setun-rt has $all bytes"
    same "the static program" "$("$TMP/static" logits "$TMP/small" --tokens $few --hash)" "$("$RT" logits "$TMP/small" --tokens $few --hash)"
    echo "setun-rt: $code bytes of code and data; static with musl: a file of $all bytes"
  fi
fi
finish
