# The screened head: the same text as with all logits, whatever the settings, the machine and the cache.
. "$(dirname "$0")/lib.sh"
text() { "$SETUN" run "$MODEL" -p "KING:" -n 48 --ignore-eos -q "$@" 2>"$TMP/err" || bad "$* ($(cat "$TMP/err"))"; }
both() { # both WHAT settings...
  local what=$1 a
  shift
  a=$(text "$@" --full-head)
  [ -n "$a" ] || bad "$what printed nothing"
  same "$what" "$(text "$@")" "$a"
}
both "greedy" --greedy
for seed in 1 2 3 4 5 6 7 8; do both "seed $seed" --seed $seed; done
both "top-k 1" --top-k 1
both "top-k 3, hot" --top-k 3 --temp 5
both "min-p" --min-p 0.1 --seed 3
both "top-p" --top-p 0.3 --top-k 256 --seed 3
both "more than can be screened" --top-k 300 --seed 3
both "all" --top-k 0 --seed 3
for seed in 1 2 3 4; do both "temperature only, seed $seed" --top-k 0 --top-p 1 --seed $seed; done
both "temperature only, hot" --top-k 0 --top-p 1 --temp 3 --seed 3
both "temperature only, cold" --top-k 0 --top-p 1 --temp 0.05 --seed 3
both "min-p alone" --top-k 0 --top-p 1 --min-p 0.05 --seed 3
both "a penalty" --repeat-penalty 1.3 --seed 3
both "a penalty, greedy" --repeat-penalty 1.3 --greedy
both "a penalty that needs all" --repeat-penalty 0.9 --seed 3
# Several texts together: each row of the head has its own noise.
for seed in 5 6 7; do printf -- '--- %d, seed %d\n%s\n' $((seed - 4)) $seed "$(text --top-k 0 --top-p 1 --seed $seed)"; done >"$TMP/alone"
text --top-k 0 --top-p 1 --seed 5 --parallel 3 | grep -v '^$' >"$TMP/together"
grep -v '^$' "$TMP/alone" | diff - "$TMP/together" >/dev/null || bad "temperature only, three texts together"

want=$(text --seed 9)
same "one thread" "$(text --seed 9 -t 1)" "$want"
same "three threads" "$(text --seed 9 -t 3)" "$want"
same "no cache" "$(text --seed 9 --no-cache)" "$want"
same "reference" "$(text --seed 9 --backend reference)" "$want"
same "interpreter" "$("$SETUN" run "$MODEL" -p "KING:" -n 4 --seed 9 -q --interpret)" "$("$SETUN" run "$MODEL" -p "KING:" -n 4 --seed 9 -q)"
if [ "${SETUN_LLVM:-1}" = 1 ] && [ "$(uname -m)" = x86_64 ]; then
  for features in -avx512f -avx512f,-avxvnni -avx2 -sse4.1 -sse3; do
    same "--cpu-features=$features" "$(text --seed 9 --cpu-features=$features)" "$want"
  done
fi
# A head of f32, f16 or bf16; tied or not; without any ternary matrix.
for like in tiny llama-tiny; do
  "$SETUN" synth --like $like --as hf -o "$TMP/$like" -q || bad "synth $like"
  for n in 1 2; do # the second time from the cache
    same "$like, time $n" "$("$SETUN" run "$TMP/$like" -p x -n 24 --seed 4 --ignore-eos -q)" \
      "$("$SETUN" run "$TMP/$like" -p x -n 24 --seed 4 --ignore-eos -q --full-head)"
  done
done

"$SETUN" info "$MODEL" | grep >/dev/null "^head .*screened.*exact" || bad "info does not say that the head is screened"
"$SETUN" info "$MODEL" --full-head | grep >/dev/null "^head .*all logits" || bad "info --full-head"
"$SETUN" bench "$MODEL" -p 0 -n 8 -r 1 -t 1 | grep >/dev/null "rows computed exactly; 0.0 %" || bad "bench counts no survivors"
"$SETUN" bench "$MODEL" -p 0 -n 8 -r 1 -t 1 --json | grep >/dev/null '"survivors": [1-9]' || bad "bench --json counts no survivors"
"$SETUN" bench "$MODEL" -p 0 -n 8 -r 1 -t 1 --full-head | grep >/dev/null "16 bits" && bad "bench --full-head is screened"
finish
