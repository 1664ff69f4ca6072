# setun perplexity: every convention against its rule applied to the rows of setun logits, and saved logits.
. "$(dirname "$0")/lib.sh"
head -c 1800 "$MODEL/heldout.txt" >"$TMP/text"
common="--kv f32 -t 1"
ppl() { "$SETUN" perplexity "$MODEL" "$TMP/text" $common --json "$@"; }

# The rules once more, in another language.  A window is a list of ids, and from which place on they count;
# setun logits gives the row behind each of them.
cat >"$TMP/rules.lua" <<'L'
local program, model, kind, N, S, most, bos = arg[1], arg[2], arg[3], tonumber(arg[4]), tonumber(arg[5]), tonumber(arg[6]), 1021
local V, ids = 1024, {}
for id in io.read("a"):gmatch("%d+") do ids[#ids + 1] = tonumber(id) end
local windows = {}
if kind == "disjoint" then
  for i = 0, #ids // N - 1 do
    windows[#windows + 1] = { from = 2, bos, table.unpack(ids, i * N + 1, i * N + N) }
  end
elseif kind == "llama.cpp" then
  table.insert(ids, 1, bos)
  for i = 0, #ids // N - 1 do
    local w = { table.unpack(ids, i * N + 1, i * N + N) }
    w[1] = bos
    w.from = N // 2 + 2 -- rows N / 2 to N - 2, counted from 0, predict the tokens behind them
    windows[#windows + 1] = w
  end
else
  table.insert(ids, 1, bos)
  local seen = 0
  for begin = 0, #ids - 1, S do
    local last = math.min(begin + N, #ids)
    windows[#windows + 1] = { from = math.max(seen - begin + 1, 2), table.unpack(ids, begin + 1, last) }
    seen = last
    if last == #ids then break end
  end
end
local nll, squares, count = 0, 0, 0
for i, w in ipairs(windows) do
  if i > most then break end
  local p = io.popen(("%s logits %s --tokens %s --all --format f32 --kv f32 -t 1"):format(program, model, table.concat(w, ",")))
  local rows = p:read("a")
  p:close()
  assert(#rows == 4 * V * #w)
  for j = w.from, #w do
    local row, top, sum = { string.unpack("<" .. ("f"):rep(V), rows, (j - 2) * 4 * V + 1) }, -math.huge, 0
    for k = 1, V do top = math.max(top, row[k]) end
    for k = 1, V do sum = sum + math.exp(row[k] - top) end
    local x = top + math.log(sum) - row[w[j] + 1]
    nll, squares, count = nll + x, squares + x * x, count + 1
  end
end
local mean = nll / count
print(("%.7g %.6g %d"):format(math.exp(mean), math.exp(mean) * math.sqrt((squares / count - mean ^ 2) / (count - 1)), count))
L
"$SETUN" tokenize "$MODEL" --no-bos <"$TMP/text" >"$TMP/ids"
rule() { lua5.4 "$TMP/rules.lua" "$SETUN" "$MODEL" "$@" <"$TMP/ids"; }
got() { ppl "$@" | lua5.4 -e 'local t = io.read("a"); local function n(k) return tonumber(t:match("\"" .. k .. "\": ([%d.e+-]+)")) end
  print(("%.7g %.6g %d"):format(n"ppl", n"error", n"tokens"))'; }
check() { local a b; a=$(got "${@:4}"); b=$(rule "$1" "$2" "$3" "${limit:-999}"); same "$*" "$a" "$b"; }
check disjoint 100 100 --window 100
limit=3 check disjoint 64 64 --convention disjoint --window 64 --windows 3
check llama.cpp 128 128 --convention llama.cpp --window 128
check llama.cpp 65 65 --convention llama.cpp --window 65
check huggingface 128 64 --convention huggingface --window 128
check huggingface 100 30 --convention huggingface --window 100 --stride 30
check huggingface 100 100 --convention huggingface --window 100 --stride 100
cp "$TMP/text" "$TMP/all"; head -c 300 "$TMP/all" >"$TMP/text"; "$SETUN" tokenize "$MODEL" --no-bos <"$TMP/text" >"$TMP/ids"
check huggingface 512 256 --convention huggingface # one window has all of it
cp "$TMP/all" "$TMP/text"; "$SETUN" tokenize "$MODEL" --no-bos <"$TMP/text" >"$TMP/ids"
limit=2 check huggingface 50 49 --convention huggingface --window 50 --stride 49 --windows 2
# Figures do not depend on threads or on how rows are cut.
same "threads" "$("$SETUN" perplexity "$MODEL" "$TMP/text" --kv f32 -t 3 --json --window 100 --batch 7)" "$(ppl --window 100)"
# The reference computed 29.7012 in binary64, where some activations round the other way.
"$SETUN" perplexity "$MODEL" "$MODEL/heldout.txt" --windows 20 --kv f32 --json | lua5.4 -e 'local t = io.read("a")
  local ppl = tonumber(t:match("\"ppl\": ([%d.]+)")); assert(math.abs(ppl / 29.7012 - 1) < 1e-3 and t:find("\"tokens\": 5120,"), t)' || bad "the reference"
ppl --window 100 | grep >/dev/null -E '^\{"ppl": [0-9.]+, "nll": [0-9.]+, "tokens": [0-9]+, "error": [0-9.]+, "convention": "disjoint", "window": 100, "stride": 100, "windows": [0-9]+\}$' || bad "--json"
"$SETUN" perplexity "$MODEL" "$TMP/text" --window 100 2>/dev/null | grep >/dev/null -E '^ppl [0-9.]+ \+/- [0-9.]+  nll [0-9.]+  tokens [0-9]+$' || bad "text"

# Saved logits: of the same run, of a run whose cache is rounded, and files that do not fit.
"$SETUN" perplexity "$MODEL" "$TMP/text" $common --window 100 --save-logits "$TMP/saved" >"$TMP/first" 2>"$TMP/err" || bad "--save-logits"
tokens=$(sed -n 's/.*tokens \([0-9]*\)$/\1/p' "$TMP/first")
same "size told" "$(sed -n 's/.*saved will have \(.*\): the logits of.*/\1/p' "$TMP/err")" "$(lua5.4 -e "print(('%.1f MB'):format((80 + $tokens * (16 + 4096)) / 1e6))")"
same "size" "$(wc -c <"$TMP/saved")" $((80 + tokens * (16 + 4096)))
same "alone in its place" "$(ls "$TMP" | grep -c saved)" 1
ppl --window 100 --kl "$TMP/saved" | lua5.4 -e 'local t = io.read("a")
  assert(t:find("\"kl\": {\"mean\": 0, \"error\": 0, \"max\": 0, \"50\": 0, ", 1, true) and t:find("\"same_top\": 1,", 1, true) and t:find("\"ratio\": 1,", 1, true), t)' || bad "--kl with itself"
"$SETUN" perplexity "$MODEL" "$TMP/text" -t 1 --kv q8 --window 100 --save-logits "$TMP/q8" >/dev/null 2>&1 || bad "--save-logits, q8"
"$SETUN" perplexity "$MODEL" "$TMP/text" -t 1 --kv q8 --window 100 --json --kl "$TMP/saved" >"$TMP/kl" || bad "--kl, q8"
lua5.4 - "$TMP" "$tokens" <<'L' || bad "--kl is not what the saved rows say: $(cat "$TMP/kl")"
local dir, n, V = arg[1], tonumber(arg[2]), 1024
local p, q, kl, ratio, same = io.open(dir .. "/saved"):read("a"), io.open(dir .. "/q8"):read("a"), {}, 0, 0
local function row(file, i)
  local x, top, at, sum = { string.unpack("<" .. ("f"):rep(V), file, 80 + i * (16 + 4 * V) + 9) }, -math.huge, 0, 0
  for k = 1, V do if x[k] > top then top, at = x[k], k end end
  for k = 1, V do sum = sum + math.exp(x[k] - top) end
  for k = 1, V do x[k] = x[k] - top - math.log(sum) end
  return x, at
end
for i = 0, n - 1 do
  local token, a, ta, b, tb, sum = string.unpack("<i4", p, 80 + i * (16 + 4 * V) + 1), nil, nil, nil, nil, 0
  a, ta = row(p, i)
  b, tb = row(q, i)
  for k = 1, V do sum = sum + math.exp(a[k]) * (a[k] - b[k]) end
  kl[i + 1], ratio, same = sum, ratio + a[token + 1] - b[token + 1], same + (ta == tb and 1 or 0)
end
table.sort(kl)
local text, sum = io.open(dir .. "/kl"):read("a"), 0
for i = 1, n do sum = sum + kl[i] end
local function is(key, want)
  local got = tonumber(text:match('"' .. key:gsub("%p", "%%%0") .. '": ([%d.e+-]+)'))
  if not got or math.abs(got - want) > 1e-6 * math.abs(want) then io.stderr:write(key, ": ", tostring(got), " ", want, "\n") os.exit(1) end
end
is("mean", sum / n)
is("max", kl[n])
for _, share in ipairs { 50, 90, 95, 99, 99.9 } do
  local at = share / 100 * (n - 1)
  local i = math.floor(at)
  is(("%g"):format(share), kl[i + 1] + (at - i) * ((kl[i + 2] or kl[n]) - kl[i + 1]))
end
is("same_top", same / n)
is("ratio", math.exp(ratio / n))
L
kl() { fails "$1" "$SETUN" perplexity "$MODEL" "$2" $common --kl "$3" "${@:4}"; }
tr 'e' 'o' <"$TMP/text" >"$TMP/other"
kl "its window is 100, this run's is 64" "$TMP/text" "$TMP/saved" --window 64
kl "its convention is 0, this run's is 1" "$TMP/text" "$TMP/saved" --window 100 --convention llama.cpp
kl "its number of windows is" "$TMP/text" "$TMP/saved" --window 100 --windows 2
"$SETUN" perplexity "$MODEL" "$TMP/text" --window 100 --windows 1 --save-logits "$TMP/one" >/dev/null 2>&1
kl "its text is another one" "$TMP/other" "$TMP/one" --window 100 --windows 1
mkdir "$TMP/m"; cp "$MODEL"/* "$TMP/m"; sed -i 's/<|eot_id|>/<|eot_xx|>/' "$TMP/m/tokenizer.json"
fails "those of another tokenizer" "$SETUN" perplexity "$TMP/m" "$TMP/text" $common --kl "$TMP/one" --window 100 --windows 1
kl "is not a file of saved logits" "$TMP/text" "$TMP/text" --window 100 --windows 1
head -c 9000 "$TMP/one" >"$TMP/part"; kl "has 9000 bytes, not the" "$TMP/text" "$TMP/part" --window 100 --windows 1
cp "$TMP/one" "$TMP/part"; printf x >>"$TMP/part"; kl "bytes, not the" "$TMP/text" "$TMP/part" --window 100 --windows 1
cp "$TMP/one" "$TMP/part"; printf '\x7f' | dd of="$TMP/part" bs=1 seek=9000 conv=notrunc 2>/dev/null
kl "the logits of token 2 are damaged" "$TMP/text" "$TMP/part" --window 100 --windows 1
kl "No such file" "$TMP/text" "$TMP/none" --window 100
fails "$TMP/no/where" "$SETUN" perplexity "$MODEL" "$TMP/text" -q --window 100 --save-logits "$TMP/no/where"
if [ -e /dev/full ]; then "$SETUN" perplexity "$MODEL" "$TMP/text" --window 100 >/dev/full 2>/dev/null; same "a full disk" $? 1; fi

# Ctrl-C leaves nothing behind.
rm -f "$TMP/saved"
"$SETUN" perplexity "$MODEL" "$MODEL/heldout.txt" --interpret --save-logits "$TMP/saved" >/dev/null 2>"$TMP/err" & job=$!
for _ in $(seq 200); do grep -q "will have" "$TMP/err" && break; sleep 0.05; done
kill -TERM $job; wait $job; same "interrupted" $? 130
[ -z "$(ls "$TMP" | grep saved)" ] || bad "an interrupted run leaves $(ls "$TMP" | grep saved)"

usage() { "$SETUN" perplexity "$MODEL" "$TMP/text" "$@" >/dev/null 2>"$TMP/err"; same "usage: $*" $? 2; }
usage --convention nobody; usage --stride 5; usage --convention huggingface --window 10 --stride 11; usage --window 1
usage --save-logits a --kl b; usage --windows 0
head -c 900 "$TMP/all" >"$TMP/text"
fails "the text has" "$SETUN" perplexity "$MODEL" "$TMP/text" --window 500
fails "does not fit a context" "$SETUN" perplexity "$MODEL" "$MODEL/heldout.txt" --window 200 --ctx 100
fails "the text has" "$SETUN" perplexity "$MODEL" "$TMP/text" --convention llama.cpp --window 300
: >"$TMP/empty"; fails "the text has" "$SETUN" perplexity "$MODEL" "$TMP/empty" --convention huggingface
finish
