# setun lab and setun card: results against other commands and a computation of its own, what is measured again and
# what is not, interruptions, mistakes.
. "$(dirname "$0")/lib.sh"
P=$SOURCE/scripts/packings
head -c 700 "$MODEL/heldout.txt" >"$TMP/text"
lab() { "$SETUN" lab "$@" -q; }
# write 'more keys' 'variants': an experiment, small enough for an interpreter
write() {
  echo "return setun.lab { model = '$MODEL', text = 'text', window = 32, windows = 2, tokens = 5, prefill = 4, decode = 2, runs = 5, $1
    variants = { $2 } }" >"$TMP/x.lua"
}
three="{ name = 'as it is' }, { name = 'base3', packing = '$P/base3.lua' }, { name = 'q8', kv = 'q8', threads = 1 }"
write "" "$three"
lab "$TMP/x.lua" >"$TMP/table" || bad "lab"
same "files" "$(ls "$TMP/x.lab" | tr '\n' ' ')" "base.logits report.html results.json "
results=$TMP/x.lab/results.json
same "rows" "$(grep -c '"variant"' "$results")" 13

# value VARIANT MEASURE NAME
cat >"$TMP/value.lua" <<'L'
local path, variant, measure, name = table.unpack(arg)
for line in io.lines(path) do
  if line:find('"variant": "' .. variant .. '", "measure": "' .. measure .. '"', 1, true) then
    print(line:match('"' .. name .. '": %[?([%d.e, +-]+)'))
  end
end
L
value() { lua5.4 "$TMP/value.lua" "$results" "$@"; }
near() { lua5.4 - "$@" <<<'local a, b = tonumber((arg[2]:gsub(",.*", ""))), tonumber(arg[3])
  os.exit(a and b and math.abs(a - b) <= 2e-8 * math.max(math.abs(a), math.abs(b)))' || bad "$1: '$2' is not '$3'"; }

# Perplexity and divergence are those of setun perplexity.
ppl() { "$SETUN" perplexity "$MODEL" "$TMP/text" --window 32 --windows 2 --json -q "$@"; }
json() { lua5.4 - "$1" "$2" <<<'print((io.open(arg[1]):read("a"):match("\"" .. arg[2] .. "\": ([%d.e+-]+)")))'; }
ppl --save-logits "$TMP/logits" >"$TMP/base.json"
ppl --kl "$TMP/logits" --kv q8 >"$TMP/q8.json"
cmp -s "$TMP/logits" "$TMP/x.lab/base.logits" || bad "base.logits are not those of setun perplexity"
for v in "as it is" base3; do near "perplexity of $v" "$(value "$v" perplexity ppl)" "$(json "$TMP/base.json" ppl)"; done
near "error" "$(value "as it is" perplexity error)" "$(json "$TMP/base.json" error)"
near "perplexity of q8" "$(value q8 perplexity ppl)" "$(json "$TMP/q8.json" ppl)"
near "divergence of q8" "$(value q8 kl kl)" "$(json "$TMP/q8.json" mean)"
near "same top of q8" "$(value q8 kl same_top)" "$(json "$TMP/q8.json" same_top)"
same "divergence of base3" "$(value base3 kl kl) $(value base3 kl same_top)" "0,  1, "
same "error of base3" "$(value base3 layers layers)" "0, 0, 0, 0"
# Sizes, from the shapes: 4 layers of 4 * 256x256 and 2 * 768x256 rows of 256 columns, 256 rows of 768.
same "bits as they are" "$(value "as it is" size bits_per_weight)" "2, "
lua5.4 - "$MODEL/config.json" "$(value base3 size ternary_bytes)" "$(value base3 size ternary_weights)" <<'L' || bad "bytes of base3"
local c = io.open(arg[1]):read("a")
local function n(key) return tonumber(c:match('"' .. key .. '": *(%d+)')) end
local h, f, kv = n "hidden_size", n "intermediate_size", n "hidden_size" // n "num_attention_heads" * n "num_key_value_heads"
local function bytes(rows, columns) return rows * ((columns + 159) // 160 * 32) end
local function number(text) return tonumber((text:gsub(",.*", ""))) end
assert(number(arg[2]) == n "num_hidden_layers" * (bytes(2 * h, h) + bytes(2 * kv, h) + bytes(2 * f, h) + bytes(h, f)))
assert(number(arg[3]) == n "num_hidden_layers" * (2 * h * h + 2 * kv * h + 3 * h * f))
L
# Errors of layers, from what setun trace writes: the second sum of each layer is what leaves it.
ids=$("$SETUN" tokenize "$MODEL" <"$TMP/text" | tr ' \n' ',,' | cut -d, -f1-5)
for kv in f16 q8; do "$SETUN" trace "$MODEL" --tokens "$ids" --all --kv $kv --select 'blk.*.add.2' --select logits -o "$TMP/$kv" -q || bad "trace"; done
lua5.4 - "$TMP" "$(value q8 layers layers)" "$(value q8 layers logits)" <<'L' || bad "errors of layers"
local function read(path)
  local s = io.open(path, "rb"):read("a")
  local at, x = 11 + string.unpack("<I2", s, 9), {}
  while at <= #s do x[#x + 1], at = string.unpack("<f", s, at) end
  return x
end
local function check(name, got)
  local x, y, d, xx, yy = read(arg[1] .. "/f16/" .. name .. ".npy"), read(arg[1] .. "/q8/" .. name .. ".npy"), 0, 0, 0
  for i = 1, #x do d, xx, yy = d + (x[i] - y[i]) ^ 2, xx + x[i] ^ 2, yy + y[i] ^ 2 end
  local want = math.sqrt(d / math.max(xx, yy))
  assert(#x >= 1280 and want > 0 and math.abs(got - want) < 1e-12, name .. ": " .. got .. ", not " .. want)
end
local layer = 0
for got in arg[2]:gmatch("[%d.e+-]+") do check("blk." .. layer .. ".add.2", tonumber(got)) layer = layer + 1 end
assert(layer == 4)
check("logits", tonumber((arg[3]:gsub(",.*", ""))))
L
for v in "as it is" base3 q8; do
  lua5.4 - "$(value "$v" speed decode_least)" "$(value "$v" speed decode_tokens_s)" "$(value "$v" speed decode_most)" <<'L' || bad "speeds of $v"
local function n(i) return tonumber((arg[i]:gsub(",.*", ""))) end
assert(0 < n(1) and n(1) <= n(2) and n(2) <= n(3))
L
done
same "threads of q8" "$(value q8 speed threads)" 1
# Ratios to the base are of the same rounds: between what the two ranges allow.
for k in prefill decode; do
  same "ratio of the base" "$(value "as it is" speed ${k}_ratio)" "nil"
  lua5.4 - $(for v in "as it is" q8; do for n in least most; do value "$v" speed ${k}_$n; done; done | tr -d ,) \
    $(for n in ratio_least ratio ratio_most; do value q8 speed ${k}_$n; done | tr -d ,) <<'L' || bad "ratios of $k"
local x = {} for i, text in ipairs(arg) do x[i] = tonumber(text) end
assert(#x == 7 and x[5] <= x[6] and x[6] <= x[7])
assert(x[5] >= x[3] / x[2] * 0.999999 and x[7] <= x[4] / x[1] * 1.000001)
L
done
grep -q "^base3 .* 0 .* 100.00 " "$TMP/table" || bad "the table: $(cat "$TMP/table")"
same "lines of the table" "$(wc -l <"$TMP/table")" 4

# The page: well-formed, nothing from elsewhere, every variant in it; names are text, whatever is in them.
page=$TMP/x.lab/report.html
if command -v xmllint >/dev/null; then xmllint --noout "$page" 2>"$TMP/err" || bad "not well-formed: $(head -3 "$TMP/err")"; fi
grep -qiE 'http:|https:|<script|<link|<img|src=|href=|@import|url\(' "$page" && bad "the page asks for something"
same "points" "$(grep -c '<g class="point"' "$page")" 3
same "lines of layers" "$(grep -c '<polyline' "$page")" 2
same "bars" "$(grep -c 'class="bar"' "$page")" 6

# The same numbers from the beginning; and nothing is measured twice.
same "again" "$(lab "$TMP/x.lua" --json)" "$(cat "$results")"
"$SETUN" lab "$TMP/x.lua" -v >"$TMP/out" 2>"$TMP/err"; [ -s "$TMP/err" ] && bad "measured again: $(cat "$TMP/err")"
cmp -s "$TMP/out" "$TMP/table" || bad "another table without a change"
values() { grep -v '"speed"' "$1"; }
lab "$TMP/x.lua" -o "$TMP/second" >"$TMP/out" || bad "lab -o"
same "another run" "$(values "$TMP/second/results.json")" "$(values "$results")"

# What changes is measured again, and only that: measured VARIANT... lists what -v tells.
measured() { "$SETUN" lab "$TMP/x.lua" -o "$TMP/second" -v 2>&1 >"$TMP/out" | sed -n 's/^setun: \(.*\): loading$/\1/p' | tr '\n' ','; }
all="as it is,base3,q8,"
same "nothing" "$(measured)" ""
cp "$P/base3.lua" "$TMP/own.lua"
write "" "${three/$P\/base3.lua/own.lua}"
same "another packing's name" "$(measured)" "as it is,base3,"
echo "-- changed" >>"$TMP/own.lua"
same "another packing" "$(measured)" "as it is,base3,"
write "measure = { 'size', 'kl' }," "${three/$P\/base3.lua/own.lua}"
same "fewer measures" "$(measured)" ""
same "rows of fewer measures" "$(grep -c '"variant"' "$TMP/second/results.json")" 5
write "measure = { 'size', 'kl' }," "{ name = 'as it is' }, { name = 'bf16', kv = 'bf16' }, { name = 'q8', kv = 'q8', threads = 1 }"
same "one more, with the base's logits kept" "$(measured)" "bf16,"
write "measure = { 'size', 'kl' }," "{ name = 'as it is', kv = 'f32' }, { name = 'q8', kv = 'q8', threads = 1 }"
same "another base" "$(measured)" "as it is,q8,"
write "measure = { 'size', 'kl' }, base = 'q8'," "{ name = 'as it is', kv = 'f32' }, { name = 'q8', kv = 'q8', threads = 1 }"
same "base by name" "$(measured)" "q8,as it is,"
echo " and more of it" >>"$TMP/text"
same "another text" "$(measured)" "q8,as it is,"
rm "$TMP/second/base.logits"
same "no logits, but all results" "$(measured)" ""

# Interrupted: what is complete stays, nothing else does, and the same command goes on; only speeds are measured
# otherwise then, for fewer runs.
write "" "$three"
lab "$TMP/x.lua" -o "$TMP/whole" >"$TMP/out" || bad "whole"
sed -i 's/runs = 5/runs = 101/; s/decode = 2/decode = 90/' "$TMP/x.lua"
"$SETUN" lab "$TMP/x.lua" -o "$TMP/part" -q >"$TMP/out" 2>"$TMP/err" &
for _ in $(seq 3000); do grep -q '"measure": "perplexity"' "$TMP/part/results.json" 2>/dev/null && break; sleep 0.01; done
kill -TERM $!; wait $!; same "exit code when stopped" $? 130
same "the sentence" "$(cat "$TMP/err")" "setun: interrupted; what was measured is in $TMP/part, and the same command goes on from there"
ls "$TMP/part" | grep -qvxE 'base.logits|results.json' && bad "left behind: $(ls "$TMP/part")"
grep -q '"measure": "speed"' "$TMP/part/results.json" && bad "it was not stopped"
write "" "$three"
lab "$TMP/x.lua" -o "$TMP/part" >"$TMP/out" || bad "going on"
same "after an interruption" "$(values "$TMP/part/results.json")" "$(values "$TMP/whole/results.json")"

# Speeds of one more variant: it takes turns with the base, whose own stay.
timed() { "$SETUN" lab "$TMP/x.lua" -o "$TMP/timed" -v 2>&1 >"$TMP/out" | sed -n 's/^setun: \(.*\): loading, to be timed$/\1/p' | tr '\n' ','; }
write "measure = { 'speed' }," "$three"
same "all take turns" "$(timed)" "$all"
grep '"as it is"' "$TMP/timed/results.json" >"$TMP/before"
same "nobody again" "$(timed)" ""
write "measure = { 'speed' }," "$three, { name = 'one', threads = 1 }"
same "one more" "$(timed)" "as it is,one,"
grep '"as it is"' "$TMP/timed/results.json" | cmp -s - "$TMP/before" || bad "the base's speed was replaced"

# Mistakes: one sentence, and nothing is measured.
mistake() { # the sentence, the file
  echo "$2" >"$TMP/m.lua"
  fails "$1" "$SETUN" lab "$TMP/m.lua"
  [ -e "$TMP/m.lab/results.json" ] && bad "measured in spite of: $1"
}
in="model = '$MODEL', text = 'text',"
mistake "m.lua:1: setun.lab has no key 'modell'; there are base," "setun.lab { modell = 'x' }"
mistake "m.lua:1: model of setun.lab is missing" "setun.lab { variants = { { name = 'a' } } }"
mistake "m.lua:1: text of setun.lab is missing: all measures but size need a text" "setun.lab { model = 'x', measure = { 'kl' }, variants = { { name = 'a' } } }"
mistake "m.lua:1: variants of setun.lab is missing" "setun.lab { model = 'x' }"
mistake "m.lua:1: variants of setun.lab has 0 entries; 1 to 64 are wanted" "setun.lab { model = 'x', variants = {} }"
mistake "m.lua:1: there is no measure 'x'; there are size, perplexity, kl, layers and speed" "setun.lab { $in measure = { 'x' }, variants = { { name = 'a' } } }"
mistake "m.lua:1: two variants are named 'a'" "setun.lab { $in variants = { { name = 'a' }, { name = 'a' } } }"
mistake "m.lua:1: name of variant 2 is missing" "setun.lab { $in variants = { { name = 'a' }, { kv = 'q8' } } }"
mistake "m.lua:1: variant 'a': kv is a table; an option is a text, a number or true" "setun.lab { $in variants = { { name = 'a', kv = {} } } }"
mistake "m.lua:1: base of setun.lab is 'b', and no variant is named so" "setun.lab { $in base = 'b', variants = { { name = 'a' } } }"
mistake "m.lua:1: window of setun.lab is 1; a whole number from 2 to 1048576 is wanted" "setun.lab { $in window = 1, variants = { { name = 'a' } } }"
mistake "m.lua:1: runs of setun.lab is 4; a whole number from 5 to 101 is wanted" "setun.lab { $in runs = 4, variants = { { name = 'a' } } }"
mistake "m.lua:1: a file describes one experiment" "setun.lab { $in variants = { { name = 'a' } } } setun.lab { $in variants = { { name = 'a' } } }"
mistake "m.lua describes no experiment (setun.lab)" "return 1"
mistake "m.lua:2: unexpected symbol" "setun.lab {"
mistake "m.lua, variant 'a': there is no option 'kw' for a variant" "setun.lab { $in variants = { { name = 'a', kw = 'q8' } } }"
mistake "m.lua, variant 'a': there is no option 'json' for a variant" "setun.lab { $in variants = { { name = 'a', json = true } } }"
mistake "m.lua, variant 'a': the option 'full-head' takes no value but true" "setun.lab { $in variants = { { name = 'a', full_head = 1 } } }"
mistake "m.lua, variant 'a': the option 'kv' needs a value" "setun.lab { $in variants = { { name = 'a', kv = true } } }"
mistake "m.lua, variant 'a': --threads takes a whole number from 1 to 1024, not 'x'" "setun.lab { $in variants = { { name = 'a', threads = 'x' } } }"
mistake "m.lua, variant 'a': " "setun.lab { $in variants = { { name = 'a', packing = 'none.lua' } } }"
mistake "m.lua, variant 'a': $TMP/none" "setun.lab { model = 'none', text = 'text', variants = { { name = 'a' } } }"
mistake "convention of setun.lab is 'x'; there are disjoint, llama.cpp and huggingface" "setun.lab { $in measure = { 'perplexity' }, convention = 'x', variants = { { name = 'a' } } }"
mistake "none.txt" "setun.lab { model = '$MODEL', text = 'none.txt', variants = { { name = 'a' } } }"
fails "none.lua" "$SETUN" lab "$TMP/none.lua"
for json in '{' '{}' '{"setun_lab": 2, "results": []}' '{"setun_lab": 1, "base": "a", "results": [{}]}' \
  '{"setun_lab": 1, "base": "a", "results": [{"variant": "a", "measure": "size", "key": "00", "values": {}}]}' \
  '{"setun_lab": 1, "base": "a", "results": [{"variant": "a", "measure": "size", "key": "0000000000000000", "values": {"x": "y"}}]}'; do
  echo "$json" >"$TMP/part/results.json"
  fails "part/results.json: " "$SETUN" lab "$TMP/x.lua" -o "$TMP/part"
done
lab "$TMP/x.lua" -o "$TMP/part" --again >"$TMP/out" || bad "--again"
"$SETUN" lab >"$TMP/out" 2>&1; same "no experiment" $? 2
"$SETUN" lab "$TMP/x.lua" -o "" >"$TMP/out" 2>&1; same "an empty name" $? 2

# Cards: exact, or how far away; the hash is that of setun logits.
ids=$(lua5.4 -e 'local t = {} for i = 0, 47 do t[#t + 1] = (i * 7919 + 17) % 1024 end print(table.concat(t, ","))')
"$SETUN" card "$P/base3.lua" "$MODEL" -q >"$TMP/card.md" || bad "card"
grep -q "^Exact: the logits behind 48 tokens have the same bits as in the built-in form, hash $("$SETUN" logits "$MODEL" --tokens "$ids" --all --hash)\.$" "$TMP/card.md" || bad "the card of base3: $(grep xact "$TMP/card.md")"
grep -qx '160 weights in 32 bytes: 1.6000 bits per weight.' "$TMP/card.md" || bad "bits of base3"
grep -qx '  byte 0    | 0 32 64 96 128 |' "$TMP/card.md" || bad "the picture of base3"
grep -qx 'No test failed.' "$TMP/card.md" || bad "tests of base3"
sed -n '/^```lua$/,/^```$/p' "$TMP/card.md" | grep -v '^```' | cmp -s - "$P/base3.lua" || bad "the definition of base3"
if [ "${SETUN_LLVM:-1}" = 1 ]; then
  same "rows of speed" "$(grep -cE '^\| (in a cache|from memory) \| (base3|built in) \| [0-9.]+ MB \| [0-9.]+ \| [0-9.]+ \| [0-9.]+ \| [0-9.]+ to [0-9.]+ \|$' "$TMP/card.md")" 4
  grep -q '^| in a cache | base3 | 0.52 MB |' "$TMP/card.md" || bad "bytes of 1024 rows of 2560 weights" # 1024 * 16 * 32
else
  grep -q '^Not measured: kernels are not compiled here' "$TMP/card.md" || bad "speeds without a code generator"
fi
cat "$P/base3.lua" "$P/sherry.lua" | sed 's/^return //; s/^  unit = 256/  quantise = "absmax", unit = 256/' >"$TMP/both.lua"
# From floats: the scale of ternary weights is the largest, so the digits are those that are packed without it.
"$SETUN" card "$TMP/both.lua:sherry" "$MODEL" -q --interpret --from-floats -o "$TMP/card.html" 2>"$TMP/err" || bad "card -o: $(cat "$TMP/err")"
if command -v xmllint >/dev/null; then xmllint --noout "$TMP/card.html" 2>"$TMP/err" || bad "not well-formed: $(head -3 "$TMP/err")"; fi
grep -qiE 'http:|https:|<script|<link|<img|src=|href=|@import|url\(' "$TMP/card.html" && bad "the card asks for something"
grep -q 'Not exact: the logits behind 48 tokens have the hash '"$("$SETUN" logits "$MODEL" --tokens "$ids" --all --hash --packing "$P/sherry.lua" --interpret 2>/dev/null)" "$TMP/card.html" || bad "the card of sherry"
grep -qE '[1-9][0-9]* weights \(1[0-9]\.[0-9]+ %\)' "$TMP/card.html" || bad "sherry changes nothing"
grep -qE 'quantised again by the rule of this packing: the relative error \(root mean square\) is 0\.[1-9]' "$TMP/card.html" || bad "sherry loses nothing"
write "measure = { 'size' }," "{ name = 'as it is' }, { name = 'int4', backend = 'reference', packing = '$P/int4.lua', from_floats = true }"
lab "$TMP/x.lua" -o "$TMP/floats.lab" >"$TMP/out" || bad "lab from floats"
grep -q '"variant": "int4", .*"weights_error": 0\.00019[0-9]*' "$TMP/floats.lab/results.json" || bad "lab from floats: $(cat "$TMP/floats.lab/results.json")"
fails "declares 2 packings; say which" "$SETUN" card "$TMP/both.lua"
fails "declares no packing (setun.packing)" "$SETUN" card "$SOURCE/scripts/ops/row_range.lua"
"$SETUN" card >"$TMP/out" 2>&1; same "no packing" $? 2
"$SETUN" card "$P/base3.lua" --packing "$P/base3.lua" >"$TMP/out" 2>&1; same "--packing of a card" $? 2
finish
