# Quantizers of activations: the files in scripts/quantizers, the trained model with each of them, and docs/quantizers.md.
. "$(dirname "$0")/lib.sh"
Q=$SOURCE/scripts/quantizers
hash_of() { "$SETUN" logits "$MODEL" --hash "$@" 2>"$TMP/err" || cat "$TMP/err"; }
tokens="--tokens 1,2,3,4,5"
other=""
[ "${SETUN_LLVM:-1}" = 1 ] && [ "$(uname -m)" = x86_64 ] && other=--cpu-features=-avx512f,-avxvnni

# The same bits everywhere; and who was trained with something else is told once.
seen=" 94ab00825ba531f2"
for f in "$Q"/*.lua; do
  name=$(basename "$f" .lua)
  [ "$(wc -l <"$f")" -le 40 ] || bad "$f has more than 40 lines"
  at=$(hash_of $tokens --quantizer "$name")
  if [ "$name" = int8 ]; then
    same "int8" "$at" 94ab00825ba531f2
    [ -s "$TMP/err" ] && bad "int8 warns: $(cat "$TMP/err")"
  else
    grep -q "^setun: warning: activations go through the quantizer $name.*, and the model was trained with int8" "$TMP/err" ||
      bad "$name does not say so: $(cat "$TMP/err")"
    same "lines of $name" "$(wc -l <"$TMP/err")" 1
    case $seen in *" $at"*) bad "$name gives logits of another quantizer" ;; esac
  fi
  seen="$seen $at"
  same "$name, the reference" "$(hash_of $tokens --quantizer "$name" --backend reference)" "$at"
  case $name in topk | int8-group)
    same "$name, by channel, one thread" "$(hash_of $tokens --quantizer "$name" --down channel -t 1 --batch 2)" "$at"
    [ -z "$other" ] || same "$name, $other" "$(hash_of $tokens --quantizer "$name" $other)" "$at" ;;
  esac
done
few=$(hash_of --tokens 1,2 --quantizer a4.8)
same "a4.8, interpreted" "$(hash_of --tokens 1,2 --quantizer a4.8 --interpret)" "$few"
few=$(hash_of --tokens 1,2 --quantizer int4-hadamard)
same "int4-hadamard, interpreted" "$(hash_of --tokens 1,2 --quantizer int4-hadamard --interpret)" "$few"
same "all that is largest" "$(hash_of $tokens --quantizer topk=1)" 94ab00825ba531f2
same "int4, in a packing" "$(hash_of $tokens --quantizer int4 --packing "$SOURCE/scripts/packings/base3.lua")" "$(hash_of $tokens --quantizer int4)"
same "a file" "$(hash_of $tokens --quantizer "$Q/topk.lua=0.25")" "$(hash_of $tokens --quantizer topk=0.25)"

# Who tells it.
"$SETUN" run "$MODEL" -p "To be" -n 4 --quantizer topk=0.5 >/dev/null 2>"$TMP/err"
grep -q "quantizer topk=0.5, and the model was trained with int8" "$TMP/err" || bad "run does not say so"
"$SETUN" info "$MODEL" >"$TMP/out" 2>&1
grep -qE '^quantizer +int8$' "$TMP/out" || bad "info without: $(grep quantizer "$TMP/out")"
"$SETUN" info "$MODEL" --quantizer int4 >"$TMP/out" 2>/dev/null
for line in 'quantizer +int4' 'quantizer_own +int8' 'quantizer_source +BitNet a4.8, arXiv 2411.04965' 'exact +.*by another quantizer'; do
  grep -qE "^$line" "$TMP/out" || bad "info lacks $line"
done
"$SETUN" bench "$MODEL" -p 8 -n 2 -r 1 --quantizer int4 >"$TMP/out" 2>/dev/null
grep -q 'quantizer int4: not the one that the model was trained with' "$TMP/out" || bad "bench: $(head -3 "$TMP/out")"
"$SETUN" bench "$MODEL" -p 8 -n 2 -r 1 --quantizer int4 --json >"$TMP/out" 2>/dev/null
lua5.4 -e 'assert(io.read("a"):find("\"quantizer\": \"int4\""))' <"$TMP/out" || bad "bench --json"

# In a model's script, by name and declared there: then it is the model's own, and nobody is warned.
own() {
  sed "s/^return setun.model {/return setun.model {\n  quantizer = $1,/" "$SOURCE/scripts/models/bitnet_b158.lua" >"$TMP/model.lua"
  hash_of $tokens --script "$TMP/model.lua" "${@:2}"
}
same "by name" "$(own '"topk=0.25"')" "$(hash_of $tokens --quantizer topk=0.25)"
same "declared" "$(own 'setun.quantizer "own" { doc = "d", floats = true, apply = function(g, x) return x end }')" \
  "$(hash_of $tokens --quantizer none)"
own '"none"' >/dev/null; [ -s "$TMP/err" ] && bad "the model's own warns: $(cat "$TMP/err")"
same "without it again" "$(hash_of $tokens)" 94ab00825ba531f2
same "another than the script's" "$(own '"none"' --quantizer int8)" 94ab00825ba531f2
grep -q 'quantizer int8, and the model was trained with none' "$TMP/err" || bad "other than the script's: $(cat "$TMP/err")"
sed 's/^return setun.model {/return setun.model {\n  quantizer = "x.lua",/' "$SOURCE/scripts/models/bitnet_b158.lua" >"$TMP/model.lua"
fails "chooses a quantizer by name, or declares one with setun.quantizer, and no file: x.lua" \
  "$SETUN" logits "$MODEL" $tokens --script "$TMP/model.lua"

# Mistakes; those of declarations are in tests/unit/quantizers.c.
fails "there is no quantizer 'int5'; there are a4.8, int4-hadamard, int4" "$SETUN" logits "$MODEL" $tokens --quantizer int5
fails "must be a number from 0.0001 to 1" "$SETUN" logits "$MODEL" $tokens --quantizer topk=7
"$SETUN" logits "$MODEL" $tokens --quantizer "" >"$TMP/out" 2>&1; same "an empty name" $? 2
hash_of $tokens --quantizer none --packing "$SOURCE/scripts/packings/base3.lua" >/dev/null # warns, and then
grep -q "no activations in 8 bits, so declared packings such as base3 are not for it; --quantizer int8 would" "$TMP/err" ||
  bad "floats in a packing: $(cat "$TMP/err")"

# docs/quantizers.md: its table again, on the first windows of the held-out text, to the last digit that it prints.
grep -E '^\| `[a-z]' "$SOURCE/docs/quantizers.md" | sed 's/[|`]/ /g' >"$TMP/table"
[ "$(wc -l <"$TMP/table")" -ge 8 ] || bad "docs/quantizers.md has no table"
while read -r name few rest; do
  [ "${SETUN_LLVM:-1}" = 1 ] || break # interpreted, a thousand tokens take minutes
  case ${SETUN_HARD:-0}$name in 1topk=0.5 | 0*) ;; *) continue ;; esac
  got=$("$SETUN" perplexity "$MODEL" "$MODEL/heldout.txt" --kv f32 --windows 4 --quantizer "$name" 2>/dev/null | head -1)
  case $got in "ppl $few"*) ;; *) bad "docs/quantizers.md: $name has $few, but: $got" ;; esac
done <"$TMP/table"
# Its commands, its listing and its sentences.
PATH=$(dirname "$SETUN"):$PATH
grep -E '^    setun ' "$SOURCE/docs/quantizers.md" | sed "s,MODEL,$MODEL,g; s/^ *//" >"$TMP/commands"
same "commands in docs/quantizers.md" "$(wc -l <"$TMP/commands")" 3
while IFS= read -r line; do
  case ${SETUN_LLVM:-1}$line in 0*perplexity*) continue ;; esac
  eval "$line" >"$TMP/out" 2>"$TMP/err" </dev/null || bad "docs/quantizers.md: $line ($(head -c 300 "$TMP/err"))"
done <"$TMP/commands"
lua5.4 - "$SOURCE" <<'L' || bad "docs/quantizers.md: its listing is not scripts/quantizers/topk.lua"
local listing = io.open(arg[1] .. "/docs/quantizers.md"):read("a"):match("```lua\n(.-)```")
assert(io.open(arg[1] .. "/scripts/quantizers/topk.lua"):read("a"):find(listing, 1, true))
L
for q in topk=7 int4=8 int5; do
  "$SETUN" logits "$MODEL" $tokens --quantizer $q >"$TMP/out" 2>&1
  grep -qxF -- "$(sed 's/^setun: [^ ]*: //' "$TMP/out")" "$SOURCE/docs/quantizers.md" || bad "docs/quantizers.md lacks: $(cat "$TMP/out")"
done
finish
