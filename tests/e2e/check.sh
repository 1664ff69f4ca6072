# setun check: every operator, every witness; operators from Lua files; other instruction sets.
. "$(dirname "$0")/lib.sh"
"$SETUN" check >"$TMP/out" 2>"$TMP/err" || bad "check: $(cat "$TMP/out" "$TMP/err")"
grep -q FAIL "$TMP/out" && bad "a witness failed: $(cat "$TMP/out")"
for op in embed rmsnorm quantize_i8 ternary_matmul rope kv_append attention relu2 silu add mul matmul argmax topk; do
  grep -q "^$op " "$TMP/out" || bad "check does not know $op"
done
for f in "$SOURCE"/scripts/ops/*.lua; do "$SETUN" check "$f" >"$TMP/out" 2>&1 || bad "$f: $(cat "$TMP/out")"; done
if [ "${SETUN_LLVM:-1}" = 1 ] && [ "$(uname -m)" = x86_64 ]; then
  # Sanitizers look at how code is made, not at what it computes: two sets show them all of that.
  sets="-amx-int8 -avx512f -avx512f,-avxvnni -avx2 -avx -sse3"
  [ "${SETUN_HARD:-0}" = 1 ] && sets="-avx512f,-avxvnni -sse3"
  for features in $sets; do
    "$SETUN" check --cpu-features=$features >"$TMP/out" 2>"$TMP/err" || bad "check --cpu-features=$features: $(grep -A2 FAIL "$TMP/out" | head -20; cat "$TMP/err")"
  done
fi
# An operator that disagrees with its definition must be caught.
sed 's/return k:min(k:mul(r, r), a.cap)/return k:min(k:add(r, r), a.cap)/' "$SOURCE/scripts/ops/relu2_cap.lua" >"$TMP/wrong.lua"
cmp -s "$TMP/wrong.lua" "$SOURCE/scripts/ops/relu2_cap.lua" && bad "the mistake was not planted"
"$SETUN" check "$TMP/wrong.lua" >"$TMP/out" 2>&1; same "a wrong lower" $? 1
grep -q "differs at element" "$TMP/out" || bad "a wrong lower is not explained: $(cat "$TMP/out")"
finish
