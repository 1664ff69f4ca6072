# Declared packings: the files in scripts/packings, a model in each of them, mistakes, and the tutorial.
. "$(dirname "$0")/lib.sh"
P=$SOURCE/scripts/packings
other=""
[ "${SETUN_LLVM:-1}" = 1 ] && [ "$(uname -m)" = x86_64 ] && other=-avx512f,-avxvnni
hash_of() { "$SETUN" logits "$MODEL" --hash "$@" 2>"$TMP/err" || cat "$TMP/err"; }
few=94ab00825ba531f2 many=e8c690198954049e tokens=$(seq -s, 1 90)

for f in "$P"/*.lua; do
  name=$(basename "$f" .lua)
  features=("")
  case $name in base3 | q2_0 | sherry) features+=($other) ;; esac
  [ "$(wc -l <"$f")" -le 40 ] || bad "$f has more than 40 lines"
  "$SETUN" check "$f" >"$TMP/out" 2>&1 || bad "check $f: $(cat "$TMP/out")"
  grep -q "^$name .* ok " "$TMP/out" || bad "check $f shows no kernels: $(cat "$TMP/out")"
  for on in "${features[@]}"; do
    # One token, some and many take different kernels.
    one=$(hash_of --tokens 1,2,3,4,5 --packing "$f" ${on:+--cpu-features=$on})
    all=$(hash_of --tokens "$tokens" --packing "$f" ${on:+--cpu-features=$on})
    if [ "$name" = sherry ]; then
      grep -q '^setun: warning: packing sherry: 1.25 bits per weight, 28 matrices; [1-9][0-9]* of 3145728 weights' "$TMP/err" ||
        bad "sherry does not say what it changes: $(cat "$TMP/err")"
      same "sherry, $on" "$one" "${sherry:=$one}"
      [ "$one" != $few ] || bad "sherry changes nothing"
    else
      same "$name, $on" "$one" $few
      same "$name, 90 tokens, $on" "$all" $many
      [ -s "$TMP/err" ] && bad "$name warns: $(cat "$TMP/err")"
    fi
  done
done
rm "$XDG_CACHE_HOME"/setun/*.t2 # packed by two threads, not found
same "two threads" "$(hash_of --tokens 1,2,3,4,5 --packing "$P/base3.lua" -t 2)" $few
same "matrices by channel" "$(hash_of --tokens 1,2,3,4,5 --packing "$P/base3.lua" --down channel)" $few
same "the reference" "$(hash_of --tokens 1,2,3,4,5 --packing "$P/ptq1_0.lua" --backend reference)" $few
same "interpreted" "$(hash_of --tokens 1,2,3 --packing "$P/triples.lua" --interpret)" "$(hash_of --tokens 1,2,3)"

# What is known about it.
"$SETUN" info "$MODEL" --packing "$P/base3.lua" >"$TMP/out" 2>&1 || bad "info: $(cat "$TMP/out")"
grep -qE '^packing +base3$' "$TMP/out" && grep -qE '^packing_changed +0 weights$' "$TMP/out" || bad "info says nothing: $(cat "$TMP/out")"
"$SETUN" info "$MODEL" --packing "$P/sherry.lua" --json >"$TMP/out" 2>/dev/null
grep -qE '"packing_changed": [1-9]' "$TMP/out" || bad "info --json: $(cat "$TMP/out")"
"$SETUN" dump "$MODEL" --graph --packing "$P/base3.lua" >"$TMP/out" 2>&1
grep -q 'packing="levels -1 0 1; fraction 32x5 8 apart"' "$TMP/out" || bad "dump shows no packing"

fails "in the packing base3 (without it there are as many)" "$SETUN" info "$MODEL" --stats -p x --packing "$P/base3.lua" -q

# Which file, which name.
cat "$P/base3.lua" "$P/triples.lua" | sed 's/^return //' >"$TMP/both.lua"
same "by name" "$(hash_of --tokens 1,2,3,4,5 --packing "$TMP/both.lua:triples")" $few
fails "declares 2 packings; say which" "$SETUN" logits "$MODEL" --tokens 1 --packing "$TMP/both.lua"
fails "declares no packing named 'x'" "$SETUN" logits "$MODEL" --tokens 1 --packing "$TMP/both.lua:x"
fails "declares no packing (setun.packing)" "$SETUN" logits "$MODEL" --tokens 1 --packing "$SOURCE/scripts/ops/row_range.lua"
fails "none.lua" "$SETUN" logits "$MODEL" --tokens 1 --packing "$TMP/none.lua"
"$SETUN" logits "$MODEL" --tokens 1 --packing "" >"$TMP/out" 2>&1; same "an empty name" $? 2

# In the model's script.
sed 's/^return setun.model {/return setun.model {\n  packing = setun.packing "own" { alphabet = { -1, 0, 1 }, { fields = 160, bits = 2 } },/' \
  "$SOURCE/scripts/models/bitnet_b158.lua" >"$TMP/model.lua"
same "in a model's script" "$(hash_of --tokens 1,2,3,4,5 --script "$TMP/model.lua")" $few
"$SETUN" info "$MODEL" --script "$TMP/model.lua" >"$TMP/out" 2>&1
grep -qE '^packing +own$' "$TMP/out" || bad "a model script's packing is not used"
sed -i 's/packing = setun.packing.*/packing = "own",/' "$TMP/model.lua"
fails "packing must be a setun.packing" "$SETUN" logits "$MODEL" --tokens 1 --script "$TMP/model.lua"

# A decoding by hand with every step that there is: kernels do what is done with one code at a time.
cat >"$TMP/hand.lua" <<'E'
setun.packing "hand" { alphabet = { -1, 0, 1 }, { fields = 64, bits = 2, order = "strided", kernel = function(k, code)
  local big, same = k.more(code, 1), k.equal(code + 250, 251) & 1
  local up = (code | 0x84) << 3 >> 4 -- what leaves the byte is gone
  local back = k.look_up({ 7, 6, 5, 4, 3, 2, 1, 0, 0, 1, 2, 3, 4, 5, 6, 7 }, (code ~ 0xff) - up + up)
  return k.choose(big, back - 3, same) end } }
E
same "every step by hand" "$(hash_of --tokens 1,2,3,4,5 --packing "$TMP/hand.lua")" $few
same "every step by hand, interpreted" "$(hash_of --tokens 1,2,3 --packing "$TMP/hand.lua" --interpret)" "$(hash_of --tokens 1,2,3)"

# Binary weights lose their zeros, scales may round: neither happens in silence.
echo 'setun.packing "binary" { alphabet = { -1, 1 }, { fields = 128, bits = 1 } }' >"$TMP/binary.lua"
hash_of --tokens 1,2,3 --packing "$TMP/binary.lua" >/dev/null
grep -qE 'warning: packing binary: 1 bits per weight.* [1-9][0-9]* of 3145728 weights' "$TMP/err" || bad "binary: $(cat "$TMP/err")"
# Where weights are floats in the files, or groups have scales, what cannot be is refused.
"$SETUN" synth --like tiny --as hf -o "$TMP/DIR" -q || bad "synth"
refused='does not say how floats get into it: add quantise = "absmean", "absmax" or a function, or leave --from-floats out'
fails "$refused" "$SETUN" logits "$MODEL" --tokens 1 --from-floats --packing "$P/base3.lua"
fails "there is none: name one with --packing FILE.lua" "$SETUN" logits "$MODEL" --tokens 1 --from-floats

ref="--backend reference" # what is asked here needs no kernels
# Again from floats.  The largest magnitude of -s, 0 and s is s: nothing is lost, and the bits are the same.
echo 'setun.packing "max" { alphabet = { -1, 0, 1, 2 }, quantise = "absmax", { fields = 128, bits = 2 } }' >"$TMP/max.lua"
same "absmax of ternary weights" "$(hash_of $ref --tokens 1,2,3,4,5 --packing "$TMP/max.lua" --from-floats)" $few
[ -s "$TMP/err" ] && bad "absmax of ternary weights warns: $(cat "$TMP/err")"
same "by channel, one thread" "$(hash_of $ref --tokens 1,2,3,4,5 --packing "$TMP/max.lua" --from-floats --down channel -t 1)" $few
# The mean of magnitudes of a master is the scale that it is read with; and a file that does not say that its floats become
# ternary has products of floats, which then are the same products.
"$SETUN" synth --like tiny --as hf --master -o "$TMP/MASTER" -q || bad "synth --master"
master=$("$SETUN" logits "$TMP/MASTER" $ref --tokens 1,2,3,4,5 --hash)
same "a master" "$("$SETUN" logits "$TMP/MASTER" $ref --tokens 1,2,3,4,5 --hash --packing "$P/two_bit.lua" --from-floats -v 2>"$TMP/err")" "$master"
same "lines for matrices" "$(grep -c 'packing two_bit: blk\.[01]\..* from its floats, relative error 0\.4' "$TMP/err")" 14
mkdir "$TMP/FLOAT" && cp "$TMP"/MASTER/* "$TMP/FLOAT" &&
  lua5.4 -e 'io.write((io.read("a"):gsub(",%s*\"quantization_config\": %b{}", "")))' <"$TMP/MASTER/config.json" >"$TMP/FLOAT/config.json"
[ "$("$SETUN" logits "$TMP/FLOAT" $ref --tokens 1,2,3,4,5 --hash)" != "$master" ] || bad "floats are ternary"
same "floats" "$("$SETUN" logits "$TMP/FLOAT" $ref --tokens 1,2,3,4,5 --hash --packing "$P/two_bit.lua" --from-floats 2>"$TMP/err")" "$master"
grep -q 'warning: packing two_bit: 2 bits per weight, 14 matrices from floats, .* floats are rounded to 8 bits' "$TMP/err" || bad "floats: $(cat "$TMP/err")"
fails "(with --from-floats its float matrices could)" "$SETUN" logits "$TMP/FLOAT" --tokens 1 --packing "$P/two_bit.lua"
"$SETUN" info "$TMP/FLOAT" --packing "$P/int4.lua" --from-floats --json >"$TMP/out" 2>/dev/null
grep -qE '"packing_error": 0\.05[0-9]+' "$TMP/out" && grep -q '"packing_dense": 14' "$TMP/out" || bad "info --json: $(grep packing "$TMP/out")"
finish
