# Declared packings from the cache: the same bits and counts, no look at the files, and nothing that is old or damaged.
. "$(dirname "$0")/lib.sh"
P=$SOURCE/scripts/packings C=$TMP/c M=$TMP/M
"$SETUN" synth --like tiny --as hf --master -o "$M" -q || bad "synth"
ask() { "$SETUN" logits "$M" --backend reference --tokens 1,2,3,4,5 --hash --cache-dir "$C" "$@" 2>"$TMP/err" || cat "$TMP/err"; }
# about "what" mapped|packed options...: how the matrices came, and in $TMP/about all that is said of the packing but that.
about() {
  local what=$1 how=$2
  shift 2
  "$SETUN" info "$M" --backend reference --cache-dir "$C" "$@" >"$TMP/out" 2>/dev/null || bad "$what: info"
  grep -qE "^packing_made +$how" "$TMP/out" || bad "$what: not $how: $(grep packing "$TMP/out")"
  grep '^packing' "$TMP/out" | grep -v '^packing_made' >"$TMP/about"
}

cat >"$TMP/rule.lua" <<'E'
local part = 0.7
setun.packing "rule" { alphabet = { -1, 0, 1 }, { scale = "f16" }, { fields = 64, bits = 2 }, quantise = function(x, round)
  local sum, digits = 0, {}
  for i = 1, #x do sum = sum + math.abs(x[i]) end
  for i = 1, #x do digits[i] = math.abs(x[i]) > part * sum / #x and (x[i] > 0 and 1 or -1) or 0 end
  return digits, round(sum / #x) end }
E
kinds=("$P/base3.lua" "$P/sherry.lua" "$P/q2_0.lua --down channel" "$P/int4.lua --from-floats" "$P/two_bit.lua --from-floats" "$TMP/rule.lua --from-floats")
: >"$TMP/want"
for kind in "${kinds[@]}"; do
  about "$kind" "packed now" --packing $kind; cp "$TMP/about" "$TMP/first"
  about "$kind" "mapped from the cache" --packing $kind
  cmp -s "$TMP/first" "$TMP/about" || bad "$kind: other counts from the cache: $(diff "$TMP/first" "$TMP/about")"
  hash=$(ask --packing $kind -v); grep '^setun: .*packing' "$TMP/err" >"$TMP/said"
  same "$kind, without a cache" "$(ask --packing $kind --no-cache -v)" "$hash"
  grep '^setun: .*packing' "$TMP/err" | cmp -s "$TMP/said" - || bad "$kind: other words from the cache: $(diff "$TMP/said" "$TMP/err")"
  echo "$hash" >>"$TMP/want"
done
[ "$(sort -u "$TMP/want" | wc -l)" -ge 4 ] || bad "packings do not differ: $(cat "$TMP/want")"
n=$(ls "$C"/*.t2 | wc -l); same "files: of each packing, and of ternary weights in two choices" "$n" $((${#kinds[@]} + 2))

# Ternary matrices are not read: other bytes in their places, where the files' identity does not look, change nothing.
cp "$M/model.safetensors" "$TMP/kept"; touch -r "$M/model.safetensors" "$TMP/kept"
lua5.4 - "$M/model.safetensors" <<'E' || bad "could not change weights"
local f = io.open(arg[1], "r+b")
local header = string.unpack("<s8", f:read("a"))
local size, changed = f:seek("end"), 0
for name, from, to in header:gmatch('"([^"]*_proj%.weight)"%s*:%s*{[^}]-"data_offsets"%s*:%s*%[%s*(%d+)%s*,%s*(%d+)') do
  local at = 8 + #header + from + 0
  f:seek("set", at)
  local bytes = f:read(to - from):gsub("..", function(pair) return string.char(pair:byte(1), pair:byte(2) ~ 0x80) end) -- bf16: other signs
  for i = 0, 31 do -- what is looked at stays
    local s = (size - 64) // 31 * i
    for k = math.max(s, at), math.min(s + 64, at + #bytes) - 1 do
      f:seek("set", k)
      bytes = bytes:sub(1, k - at) .. f:read(1) .. bytes:sub(k - at + 2)
    end
  end
  f:seek("set", at)
  f:write(bytes)
  changed = changed + 1
end
f:close()
assert(changed == 14, changed)
E
touch -r "$TMP/kept" "$M/model.safetensors"
i=0
for kind in "${kinds[@]}"; do
  i=$((i + 1)); want=$(sed -n ${i}p "$TMP/want")
  same "$kind, from the cache alone" "$(ask --packing $kind)" "$want"
  [ "$(ask --packing $kind --no-cache)" != "$want" ] || bad "$kind: the weights were not changed"
done
cp "$TMP/kept" "$M/model.safetensors"; touch -r "$TMP/kept" "$M/model.safetensors"

# Damage is told and mended; another packing's file, and one of other weights, is replaced without a warning.
other=$(grep -la 'from floats 1' "$C"/*.t2 | head -n 1); C=$TMP/d
want=$(ask --packing "$P/sherry.lua"); file=$(grep -la 'setun packing 1' "$C"/*.t2)
cp "$file" "$TMP/whole" || bad "which file: $file"
size=$(stat -c %s "$file")
mended() {
  same "$1" "$(ask --packing "$P/sherry.lua" -v)" "$want"
  grep -qE "^setun: ${2}$file is written anew: " "$TMP/err" || bad "$1 is not told: $(cat "$TMP/err")"
  cmp -s "$file" "$TMP/whole" || bad "$1 is not mended"
}
for at in 0 3 64 $((size / 3)) $((size / 2)) $((size - 800)) $((size - 33)) $((size - 20)) $((size - 1)); do
  printf '\107' | dd of="$file" bs=1 seek="$at" conv=notrunc 2>/dev/null
  cmp -s "$file" "$TMP/whole" && bad "byte $at is not changed"
  mended "a changed byte $at" "warning: "
  head -c "$at" "$TMP/whole" >"$file"
  mended "a file of $at bytes" "warning: "
done
cp "$other" "$file"; mended "another packing's file" ""
touch "$M/model.safetensors"
same "of other files" "$(ask --packing "$P/sherry.lua" -v)" "$want"
grep -q "^setun: $file is written anew: the model's files, a declaration or this program have changed since" "$TMP/err" ||
  bad "the packing of older files stays, or is worth a warning: $(cat "$TMP/err")"

# What decides bytes is asked for again, and what does not is not: an upvalue of a rule, bits, and a kernel by hand.
about "rule" "packed now" --packing "$TMP/rule.lua" --from-floats
old=$(ask --packing "$TMP/rule.lua" --from-floats)
sed -i 's/0\.7/1.5/' "$TMP/rule.lua"
[ "$(ask --packing "$TMP/rule.lua" --from-floats)" != "$old" ] || bad "an old rule is used"
same "a new rule" "$(ask --packing "$TMP/rule.lua" --from-floats)" "$(ask --packing "$TMP/rule.lua" --from-floats --no-cache)"
echo 'setun.packing "own" { alphabet = { -1, 0, 1 }, { fields = 64, bits = 2 } }' >"$TMP/own.lua"
about "own" "packed now" --packing "$TMP/own.lua"; n=$(ls "$C"/*.t2 | wc -l)
sed -i 's/bits = 2/bits = 2, kernel = function(k, code) return code + 0 end/' "$TMP/own.lua"
about "by hand" "mapped from the cache" --packing "$TMP/own.lua"
sed -i 's/-1, 0, 1/-1, 0, 1, 2/' "$TMP/own.lua"
about "another alphabet" "packed now" --packing "$TMP/own.lua"
same "files: one for each name" "$(ls "$C"/*.t2 | wc -l)" "$n"

# What fails leaves nothing, be it a rule or the disk; and without a cache nothing is written.
echo 'setun.packing "bad" { alphabet = { -1, 1 }, { fields = 64, bits = 1 }, quantise = { function(x) return {}, 1 end, per = "unit" } }' >"$TMP/bad.lua"
ls "$C" >"$TMP/before"
fails "a list of 64 digits is wanted" "$SETUN" info "$M" --backend reference --cache-dir "$C" --packing "$TMP/bad.lua" --from-floats
echo 'setun.packing "new" { alphabet = { -1, 0, 1 }, { fields = 64, bits = 2 } }' >"$TMP/new.lua"
full() (trap "" XFSZ; ulimit -f 64; "$@")
fails "cannot keep the converted weights in $C/weights-" full "$SETUN" info "$M" --backend reference --cache-dir "$C" --packing "$TMP/new.lua"
ask --packing "$TMP/new.lua" --no-cache >/dev/null
ls "$C" | cmp -s "$TMP/before" - || bad "something is left: $(ls "$C" | diff "$TMP/before" -)"
finish
