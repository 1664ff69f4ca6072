# setun check: every operator, every witness; operators from Lua files; other instruction sets.
. "$(dirname "$0")/lib.sh"
"$SETUN" check >"$TMP/out" 2>"$TMP/err" || bad "check: $(cat "$TMP/out" "$TMP/err")"
grep -q FAIL "$TMP/out" && bad "a witness failed: $(cat "$TMP/out")"
for op in embed rmsnorm quantize_i8 ternary_matmul rope kv_append attention relu2 silu add mul matmul argmax topk; do
  grep -q "^$op " "$TMP/out" || bad "check does not know $op"
done
# The same list closes the doctor's page, whose kernels are in the cache now.
"$SETUN" doctor "$MODEL" >"$TMP/out" 2>"$TMP/err"; same "a sound model" $? 0
same "its verdict" "$(tail -n 1 "$TMP/out")" sound
same "its checks" "$(sed '/^$/,$d' "$TMP/out" | awk '{ print $1, $2 }' | tr '\n' ' ')" \
  "files ok numbers ok cuts ok head ok tokenizer ok kernels ok operators ok "
for f in "$SOURCE"/scripts/ops/*.lua; do "$SETUN" check "$f" >"$TMP/out" 2>&1 || bad "$f: $(cat "$TMP/out")"; done
if [ "${SETUN_LLVM:-1}" = 1 ] && [ "$(uname -m)" = x86_64 ]; then
  # check FEATURES [option of check]
  check() {
    "$SETUN" check --cpu-features="$@" >"$TMP/out" 2>"$TMP/err" || bad "check --cpu-features=$*: $(grep -A2 FAIL "$TMP/out" | head -20; cat "$TMP/err")"
  }
  # Most of the time is the compiler's.  The two sets whose vectors differ most see every operator; those between
  # them see the operators that have instructions of their own there.
  for features in -avx512f,-avxvnni -sse3; do check $features; done
  for features in -amx-int8 -avx512f -avx2 -avx; do
    for op in ternary_matmul packed_matmul quantize_i8; do check $features --op $op; done
  done
fi
# An operator that disagrees with its definition must be caught.
sed 's/return k:min(k:mul(r, r), a.cap)/return k:min(k:add(r, r), a.cap)/' "$SOURCE/scripts/ops/relu2_cap.lua" >"$TMP/wrong.lua"
cmp -s "$TMP/wrong.lua" "$SOURCE/scripts/ops/relu2_cap.lua" && bad "the mistake was not planted"
"$SETUN" check "$TMP/wrong.lua" >"$TMP/out" 2>&1; same "a wrong lower" $? 1
grep -q "differs at element" "$TMP/out" || bad "a wrong lower is not explained: $(cat "$TMP/out")"
# One that trusts the length of a list reaches outside it.  The interpreter says where, and the machine is spared it.
lua=$SOURCE/scripts/ops/head_rescore_lua.lua
for trust in 'm + 3' '1 << 40'; do
  sed "s/\"i64\"), 0), m)\$/\"i64\"), 0), $trust)/" "$lua" >"$TMP/wrong.lua"
  cmp -s "$TMP/wrong.lua" "$lua" && bad "the trust was not planted"
  "$SETUN" check "$TMP/wrong.lua" >"$TMP/out" 2>&1; same "a list read past its end, $trust" $? 1
  grep -q "wrong.lua:[0-9]*: .* outside argument" "$TMP/out" || bad "reading past a list is not explained: $(cat "$TMP/out")"
done
# One operator's kernel: which, of which file, for which shapes.
lua=$SOURCE/scripts/ops/rope_lua.lua
"$SETUN" dump "$lua" --kir >"$TMP/out" 2>"$TMP/err" || bad "dump $lua: $(cat "$TMP/err")"
grep -q '^kernel rope_lua$' "$TMP/out" || bad "dump of a file: $(head -3 "$TMP/out")"
grep -q '  # rope_lua.lua:[0-9]*$' "$TMP/out" || bad "dump names no line"
"$SETUN" dump --op rope --kir >"$TMP/out" 2>"$TMP/err" || bad "dump --op: $(cat "$TMP/err")"
grep -q '^kernel rope$' "$TMP/out" || bad "dump --op: $(head -3 "$TMP/out")"
grep -q '\.lua' "$TMP/out" && bad "dump --op rope names a script"
fails "there is no operator named 'no_such'" "$SETUN" dump --op no_such --kir
fails "there is no operator named 'rope' in $lua" "$SETUN" dump "$lua" --op rope --kir
fails "rope_lua, case \"x:f32[1]\": " "$SETUN" dump "$lua" --case "x:f32[1]" --kir
fails "rope_lua.lua:104: pairing is \"up\"; known are neox and norm" \
  "$SETUN" dump "$lua" --case "x:f32[1,3,8] table:f32[9,8] pos:i32[1] pairing=up" --kir
fails "embed, case \"tokens" "$SETUN" dump --op embed --case "tokens:i32[1]" --kir
fails "base3.lua defines no operator" "$SETUN" dump "$SOURCE/scripts/packings/base3.lua" --kir
fails "rope_lua, case \"x:f32[1,1,2000] table:f32[1,2] pos:i32[1] pairing=neox\": there is no kernel: it runs by eval" \
  "$SETUN" dump "$lua" --case "x:f32[1,1,2000] table:f32[1,2] pos:i32[1] pairing=neox" --kir
cat "$lua" >"$TMP/two.lua"; sed 's/return setun.op "rope_lua"/return setun.op "rope_2"/' "$lua" >"$TMP/rest.lua"
{ echo "local function one()"; cat "$lua"; echo "end local function two()"; cat "$TMP/rest.lua"; echo "end one() two()"; } >"$TMP/two.lua"
fails "two.lua defines 2 operators; say which with --op" "$SETUN" dump "$TMP/two.lua" --kir
"$SETUN" dump "$TMP/two.lua" --op rope_2 --kir 2>&1 | grep -q '^kernel rope_2$' || bad "dump of one of two"
[ "${SETUN_LLVM:-1}" = 1 ] || fails "there is no asm: kernels are not compiled here" "$SETUN" dump "$lua" --asm
for wrong in "$lua" "$lua --graph" "$lua --plan" "$lua --kir --kernel x" "--case x:f32[1] --kir" "$lua $lua --kir" "--op rope"; do
  "$SETUN" dump $wrong >"$TMP/out" 2>&1; same "dump $wrong" $? 2
done
finish
