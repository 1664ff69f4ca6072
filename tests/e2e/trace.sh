# setun trace, tracediff and the page of a graph.  What files should hold is computed here, in Lua, from the model's own
# file and the definitions in docs/numerics.md and docs/formats.md.
. "$(dirname "$0")/lib.sh"
trace() { "$SETUN" trace "$MODEL" -q "$@"; }
tokens=1021,5,17,300,42

# usage "part of the sentence" command...: exit code 2, one line.
usage() {
  local want=$1
  shift
  "$@" >"$TMP/out" 2>"$TMP/err" </dev/null
  same "exit code of $*" $? 2
  [ "$(wc -l <"$TMP/err")" -eq 1 ] && grep -qF -- "$want" "$TMP/err" || bad "stderr lacks '$want': $* ($(head -c 300 "$TMP/err"))"
}

# NumPy's format, read and written by a few lines of its own.
cat >"$TMP/npy.lua" <<'L'
local M = {}
local formats = { ["<f4"] = "<f", ["<f8"] = "<d", [">f4"] = ">f", ["|i1"] = "b", ["<i4"] = "<i4" }
function M.read(path)
  local s = assert(io.open(path, "rb")):read("a")
  assert(s:sub(1, 8) == "\x93NUMPY\1\0", path)
  local n = string.unpack("<I2", s, 9)
  assert((10 + n) % 64 == 0 and s:byte(10 + n) == 10, path .. ": padding")
  local type, order, shape = s:sub(11, 10 + n):match("^{'descr': '(...)', 'fortran_order': (%a+), 'shape': %((.-)%), } *\n$")
  assert(order == "False" and formats[type], path .. ": header")
  local a, at, count = { shape = {} }, 11 + n, 1
  for d in shape:gmatch("%d+") do
    a.shape[#a.shape + 1] = tonumber(d)
    count = count * tonumber(d)
  end
  for i = 1, count do a[i], at = string.unpack(formats[type], s, at) end
  assert(at == #s + 1, path .. ": size")
  return a
end
function M.write(path, type, shape, values)
  local head = ("{'descr': '%s', 'fortran_order': False, 'shape': (%s), }\n"):format(type, shape)
  local f = assert(io.open(path, "wb"))
  f:write("\x93NUMPY\1\0", string.pack("<I2", #head), head)
  for _, v in ipairs(values) do f:write(string.pack(formats[type], v)) end
  f:close()
end
return M
L
export LUA_PATH="$TMP/?.lua"

"$SETUN" trace "$MODEL" --tokens $tokens -o "$TMP/a" >"$TMP/out" 2>"$TMP/err" || bad "trace"
[ -s "$TMP/out" ] && bad "trace prints to stdout"
grep -qx '100 tensors behind 5 tokens: 0.4 MB' "$TMP/err" || bad "sizes: $(cat "$TMP/err")"
same "files" "$(ls "$TMP/a" | wc -l)" 101

# From tokens to the first product, every number again: embedding, norm, int8, ternary product; and a sum further on.
lua5.4 - "$MODEL/model.safetensors" "$TMP/a" $tokens <<'L' || bad "activations are not what they should be"
local npy = require "npy"
local function f32(x) return (string.unpack("<f", string.pack("<f", x))) end
local s = io.open(arg[1], "rb"):read("a")
local n = string.unpack("<I8", s)
local function tensor(name)
  local from = s:sub(9, 8 + n):match('"' .. name:gsub("[%.%-]", "%%%0") .. '":{.-"data_offsets":%[(%d+)')
  return 9 + n + tonumber(from)
end
local function bf16(at) return (string.unpack("<f", "\0\0" .. s:sub(at, at + 1))) end
local function get(name, ...)
  local a = npy.read(arg[2] .. "/" .. name .. ".npy")
  assert(table.concat(a.shape, ",") == table.concat({ ... }, ","), name .. " has another shape")
  return a
end
local function rint(x)
  local r = math.floor(x + 0.5)
  return (x + 0.5 == r and r % 2 == 1) and r - 1 or r
end
local x, q, scale, sum = get("token_embd", 5, 256), get("blk.0.attn_norm.q", 5, 256), get("blk.0.attn_norm.scale", 5), get("blk.0.attn_norm.sum", 5)
local y = get("blk.0.attn_q", 5, 256)
local table_at, gain = tensor("model.embed_tokens.weight"), tensor("model.layers.0.input_layernorm.weight")
local w, w_scale = tensor("model.layers.0.self_attn.q_proj.weight"), bf16(tensor("model.layers.0.self_attn.q_proj.weight_scale"))
local t, open = 0, 0
for id in arg[3]:gmatch("%d+") do
  local p, row = {}, t * 256
  for i = 0, 31 do p[i] = 0 end
  for i = 0, 255 do
    local v = x[row + i + 1]
    assert(v == bf16(table_at + 2 * (id * 256 + i)), "embedding")
    p[i % 32] = f32(p[i % 32] + f32(v * v))
  end
  for _, half in ipairs { 16, 8, 4, 2, 1 } do
    for i = 0, half - 1 do p[i] = f32(p[i] + p[i + half]) end
  end
  local r = f32(1 / f32(math.sqrt(f32(f32(p[0] / 256) + f32(1e-5)))))
  local normed, most, all = {}, f32(1e-5), 0
  for i = 0, 255 do
    normed[i] = f32(f32(x[row + i + 1] * r) * bf16(gain + 2 * i))
    most = math.max(most, math.abs(normed[i]))
  end
  assert(scale[t + 1] == f32(127 / most), "scale")
  for i = 0, 255 do
    assert(q[row + i + 1] == rint(f32(normed[i] * scale[t + 1])), "int8")
    all = all + q[row + i + 1]
  end
  assert(sum[t + 1] == all, "sum")
  for o = 0, 255 do
    local S = 0
    for i = 0, 255 do
      local byte = s:byte(w + (o % 64) * 256 + i)
      S = S + (((byte >> 2 * (o // 64)) & 3) - 1) * q[row + i + 1]
    end
    assert(y[row + o + 1] == f32(S * f32(w_scale / scale[t + 1])), "product")
    open = open + (S ~= 0 and 1 or 0)
  end
  t = t + 1
end
assert(t == 5 and open > 1000)
local first, second, added = get("blk.0.add", 5, 256), get("blk.0.ffn_down", 5, 256), get("blk.0.add.2", 5, 256)
for i = 1, 5 * 256 do assert(added[i] == f32(first[i] + second[i]), "add") end
L
tail -c 4096 "$TMP/a/logits.npy" >"$TMP/logits"
"$SETUN" logits "$MODEL" --tokens $tokens --format f32 | cmp - "$TMP/logits" || bad "logits.npy"

# The index is JSON, in the order of steps, and lists exactly the files.
lua5.4 - "$TMP/a" <<'L' || bad "trace.json"
local s, steps, n = io.open(arg[1] .. "/trace.json"):read("a"), -1, 0
assert(s:find('^{"setun_trace": 1, "model": ".-shakespeare",\n "tokens": %[1021,5,17,300,42%],\n "tensors": %['))
for name, file, step, shape in s:gmatch('{"name": "(.-)", "file": "(.-)", "op": "[%w_]+", "step": (%d+), "type": "%w+", "shape": %[([%d,]*)%], "where": "bitnet_b158.lua:%d+"}') do
  assert(file == name .. ".npy" and tonumber(step) >= steps, name)
  local a = require("npy").read(arg[1] .. "/" .. file)
  assert(table.concat(a.shape, ",") == shape, name)
  steps, n = tonumber(step), n + 1
end
assert(n == 100 and select(2, s:gsub('"name"', "")) == 100)
L

# The same on every backend, without compiled kernels, on one thread, and from the text.
for how in "--backend reference" "--interpret" "-t 1 --no-tune" "--batch 5"; do
  trace --tokens $tokens -o "$TMP/b" --force $how || bad "trace $how"
  "$SETUN" tracediff "$TMP/a" "$TMP/b" -q >"$TMP/out" || bad "trace $how differs: $(head -3 "$TMP/out")"
  same "tracediff of $how" "$(cat "$TMP/out")" "100 tensors compared: all equal, bit for bit"
  for f in "$TMP/a"/*.npy; do cmp -s "$f" "$TMP/b/${f##*/}" || bad "$how: ${f##*/} has other bytes"; done
done
trace -p "To be" -o "$TMP/p" && trace --tokens "$("$SETUN" tokenize "$MODEL" -p "To be" | tr ' ' ,)" -o "$TMP/p2" || bad "-p"
"$SETUN" tracediff "$TMP/p" "$TMP/p2" >/dev/null || bad "-p differs from --tokens"
trace --tokens 7 -o "$TMP/one" || bad "one token"
same "one token" "$("$SETUN" logits "$MODEL" --tokens 7 --format f32 | md5sum)" "$(tail -c 4096 "$TMP/one/logits.npy" | md5sum)"
sed 's/"max_position_embeddings": 512/"max_position_embeddings": 1024/; s/"num_hidden_layers": 4/"num_hidden_layers": 1/' "$MODEL/config.json" >"$TMP/longer.json"
"$SETUN" synth --config "$TMP/longer.json" --as hf -o "$TMP/tiny" -q || bad "synth"
long=$(seq -s, 1 600)
"$SETUN" trace "$TMP/tiny" --tokens "$long" --select logits --json --backend reference -o "$TMP/long" >"$TMP/out" || bad "more tokens than a batch"
grep -q '"op": "matmul", .*"shape": \[1,[0-9]*\]' "$TMP/out" || bad "--json: $(head -c 300 "$TMP/out")"
cmp -s "$TMP/out" "$TMP/long/trace.json" || bad "--json is not trace.json"
"$SETUN" logits "$TMP/tiny" --tokens "$long" --format f32 --backend reference >"$TMP/want"
tail -c "$(stat -c %s "$TMP/want")" "$TMP/long/logits.npy" | cmp - "$TMP/want" || bad "logits behind 600 tokens"

# A model that makes vectors: of the last token, or of all.
trace --tokens $tokens --script "$SOURCE/docs/examples/states.lua" --all --select embedding -o "$TMP/states" || bad "a model that makes vectors"
lua5.4 - "$TMP/states/embedding.npy" >"$TMP/want" <<'L'
local a = require("npy").read(arg[1])
assert(a.shape[1] == 5 and a.shape[2] == 256)
for i = 4 * 256 + 1, 5 * 256 do io.write(("%.9g"):format(a[i]), i < 5 * 256 and " " or "\n") end
L
text=$("$SETUN" detokenize "$MODEL" 5 17 300 42)
same "the text's tokens" "$("$SETUN" tokenize "$MODEL" -p "$text")" "${tokens//,/ }"
"$SETUN" embed "$MODEL" --script "$SOURCE/docs/examples/states.lua" --pool last --no-normalize -p "$text" >"$TMP/out" || bad "embed"
cmp -s "$TMP/out" "$TMP/want" || bad "the last token's state"

# Selections.
trace --tokens $tokens --all --select 'logits' --select 'blk.[12].ffn_u?' -o "$TMP/some" || bad "--select"
same "selected" "$(cd "$TMP/some" && echo *)" "blk.1.ffn_up.npy blk.2.ffn_up.npy logits.npy trace.json"
same "--all" "$(tail -c 20480 "$TMP/some/logits.npy" | md5sum)" "$("$SETUN" logits "$MODEL" --tokens $tokens --all --format f32 | md5sum)"
trace --tokens 1,2 --list --select 'blk.0.attn*' >"$TMP/out" || bad "--list"
grep -qx 'blk.0.attn_norm.q            i8\[2,256\]  rmsnorm_i8  640 bytes' "$TMP/out" || bad "--list: $(head -3 "$TMP/out")"
same "the last line of --list" "$(tail -1 "$TMP/out")" "$(grep -c bytes "$TMP/out") tensors behind 2 tokens: 0.0 MB"

# Refusals, and nothing is left behind.
fails "no tensor has a name like 'blk.9.*'" trace --tokens 1 --select 'blk.9.*' -o "$TMP/none"
fails "exists, and is not replaced unasked" trace --tokens 1 -o "$TMP/a"
mkdir "$TMP/mine" && echo hi >"$TMP/mine/letter"
fails "there is no trace.json in it" trace --tokens 1 -o "$TMP/mine" --force
[ -f "$TMP/mine/letter" ] || bad "--force took a letter away"
fails "does not exist" trace --tokens 1 -o "$TMP/no/where"
fails "token 5000 is outside the vocabulary" trace --tokens 5000 -o "$TMP/none"
fails "loaded for 3 in a step (--batch)" trace --tokens 1,2,3,4 --batch 3 -o "$TMP/none"
fails "no room for 9 tokens" trace --tokens 1,2,3,4,5,6,7,8,9 --ctx 8 -o "$TMP/none"
fails "larger than the system allows" bash -c "ulimit -f 8; '$SETUN' trace '$MODEL' --tokens $(seq -s, 1 60) --backend reference -q -o '$TMP/none'"
fails "does not show what its steps compute" trace --tokens 1 -o "$TMP/none" --backend trace --plugin "$(dirname "$SETUN")/../plugins/sample_backend.so"
usage "give --tokens or -p" trace -o "$TMP/none"
usage "give -o DIR, or --list" trace --tokens 1
usage "there are no tokens" trace --tokens , -o "$TMP/none"
usage "a model is missing" "$SETUN" trace --tokens 1 -o "$TMP/none"
"$SETUN" trace "$MODEL" --tokens "$(seq -s, 1 40)" --interpret -q -o "$TMP/none" 2>"$TMP/err" &
for _ in $(seq 3000); do compgen -G "$TMP/none.*.tmp/*.npy" >/dev/null && break; sleep 0.01; done
kill -TERM $!; wait $!; same "exit code when stopped" $? 130
[ -z "$(ls "$TMP" | grep -E '^none|tmp$|old$')" ] || bad "left behind: $(ls "$TMP")"

# What differs, and where first: the cache's type shows in what attention makes of it.
trace --tokens $tokens -o "$TMP/q8" --kv q8 || bad "--kv q8"
"$SETUN" tracediff "$TMP/a" "$TMP/q8" >"$TMP/out"; same "exit code when traces differ" $? 1
head -1 "$TMP/out" | grep -q '^the first that differs is blk.0.attention, made by attention, step 12 (bitnet_b158.lua:22)$' || bad "tracediff: $(head -2 "$TMP/out")"
lua5.4 - "$TMP/a" "$TMP/q8" "$(sed -n 2p "$TMP/out")" <<'L' || bad "tracediff's numbers: $(sed -n 2p "$TMP/out")"
local npy = require "npy"
local x, y = npy.read(arg[1] .. "/blk.0.attention.npy"), npy.read(arg[2] .. "/blk.0.attention.npy")
local n, most, rel, square, first, xy, xx, yy = 0, 0, 0, 0, nil, 0, 0, 0
for i = 1, #x do
  local d = math.abs(x[i] - y[i])
  if d > 0 then n, first, rel = n + 1, first or i, math.max(rel, d / math.max(math.abs(x[i]), math.abs(y[i]))) end
  most, square, xy, xx, yy = math.max(most, d), square + d * d, xy + x[i] * y[i], xx + x[i] * x[i], yy + y[i] * y[i]
end
local place = ("[%d,%d,%d]"):format((first - 1) // 256, (first - 1) // 64 % 4, (first - 1) % 64)
assert(arg[3] == ("blk.0.attention: %d of %d differ, by at most %.3g (%.3g of their size), rms %.3g, cosine %.9g; first %s: %.9g, %.9g"):format(
  n, #x, most, rel, math.sqrt(square / #x), xy / (math.sqrt(xx) * math.sqrt(yy)), place, x[first], y[first]), n)
L
"$SETUN" tracediff "$TMP/a" "$TMP/q8" --tolerance 0.5 >"$TMP/out" || bad "--tolerance: $(cat "$TMP/out")"
grep -q 'none differs by more than 0.5 of its largest number' "$TMP/out" || bad "--tolerance: $(cat "$TMP/out")"
"$SETUN" tracediff "$TMP/a" "$TMP/some" >"$TMP/out"; same "traces of different tensors" $? 1
grep -qx 'token_embd: only in the first trace' "$TMP/out" || bad "only in the first: $(head -3 "$TMP/out")"
"$SETUN" tracediff "$TMP/some" "$TMP/a" --common --json >"$TMP/out"; same "logits of other rows" $? 1
grep -q '"name": "logits", "differs": true, .*"types": \["f4\[5,1024\]", "f4\[1,1024\]"\], "types_differ": false, "shapes_differ": true' "$TMP/out" || bad "--json: $(cat "$TMP/out")"
grep -q '^{"equal": false, "compared": 3, "differ": 1, "without_counterpart": 0, "first": "logits",$' "$TMP/out" || bad "--json: $(head -1 "$TMP/out")"

# Somebody else's files: other names, types, byte order and a side for the batch; NaN; a file too few.
mkdir "$TMP/theirs"
lua5.4 - "$TMP" <<'L' || bad "writing another implementation's files"
local npy, dir = require "npy", arg[1]
for layer = 0, 3 do
  local a = npy.read(dir .. "/a/blk." .. layer .. ".attn_q.npy")
  if layer == 2 then a[300] = a[300] + 0.25 end
  if layer == 3 then a[5] = 0 / 0 end
  npy.write(dir .. "/theirs/h." .. layer .. ".q.npy", layer == 1 and "<f8" or ">f4", "1, 5, 256", a)
end
npy.write(dir .. "/theirs/token_embd.npy", "<f4", "5, 4", npy.read(dir .. "/a/blk.0.attn_norm.sum.npy"))
L
printf '# ours  theirs\nblk.*.attn_q\th.*.q.npy # all layers\n\n' >"$TMP/map"
"$SETUN" tracediff "$TMP/a" "$TMP/theirs" --map "$TMP/map" >"$TMP/out"; same "another implementation" $? 1
lua5.4 - "$TMP" >"$TMP/want" <<'L'
local a = require("npy").read(arg[1] .. "/a/blk.2.attn_q.npy")
local b = string.unpack("<f", string.pack("<f", a[300] + 0.25))
print(("[1,43]: %.9g, %.9g"):format(a[300], b))
L
grep -q "^blk.1.attn_q: f4\[5,256\] and f8\[1,5,256\], all values equal$" "$TMP/out" || bad "another type: $(cat "$TMP/out")"
grep -qF "first $(cat "$TMP/want")" "$TMP/out" || bad "one other value: $(cat "$TMP/out"), wanted $(cat "$TMP/want")"
grep -q "^blk.3.attn_q: 1 of 1280 differ, by at most 0 .* first \[0,4\]: .*, -\?nan; 1 NaN in one only$" "$TMP/out" || bad "NaN: $(cat "$TMP/out")"
same "the last line" "$(tail -1 "$TMP/out")" "4 tensors compared: 3 differ; 96 of the first have no counterpart"
"$SETUN" tracediff "$TMP/a" "$TMP/theirs" --map "$TMP/map" --tolerance 1 >"$TMP/out"; same "NaN with a tolerance" $? 1
same "NaN with a tolerance" "$(tail -1 "$TMP/out")" "4 tensors compared: 1 differ; 96 of the first have no counterpart"
usage "20 elements of 4 bytes, but 20 bytes" "$SETUN" tracediff "$TMP/a" "$TMP/theirs"
rm "$TMP/theirs/token_embd.npy" "$TMP/theirs/h.2.q.npy"
usage "that blk.2.attn_q is $TMP/theirs/h.2.q.npy, and there is no such file" "$SETUN" tracediff "$TMP/a" "$TMP/theirs" --map "$TMP/map"
usage "have no tensor in common" "$SETUN" tracediff "$TMP/a" "$TMP/theirs"
echo 'blk.*.attn_z h.*.q' >"$TMP/map"
usage "line 1: $TMP/a has no tensor of that name" "$SETUN" tracediff "$TMP/a" "$TMP/theirs" --map "$TMP/map"
echo 'blk.*.attn_q h.q' >"$TMP/map"
usage "line 1: 1 stars on the left, 0 on the right" "$SETUN" tracediff "$TMP/a" "$TMP/theirs" --map "$TMP/map"
echo 'blk.*.attn_q' >"$TMP/map"
usage "line 1: a line has two words" "$SETUN" tracediff "$TMP/a" "$TMP/theirs" --map "$TMP/map"
: >"$TMP/map"
usage "there is no line in it" "$SETUN" tracediff "$TMP/a" "$TMP/theirs" --map "$TMP/map"
usage "is not a trace" "$SETUN" tracediff "$TMP/theirs" "$TMP/a"
usage "is not a directory" "$SETUN" tracediff "$TMP/a" "$TMP/npy.lua"
usage "are of other tokens" "$SETUN" tracediff "$TMP/a" "$TMP/one"
usage "two traces are needed" "$SETUN" tracediff "$TMP/a"
usage "--tolerance takes a number from 0 to 1" "$SETUN" tracediff "$TMP/a" "$TMP/b" --tolerance -1
# Damaged traces.
printf x >>"$TMP/b/blk.0.attn_k.npy"
usage "blk.0.attn_k.npy: 640 elements of 4 bytes, but 2561 bytes behind the header" "$SETUN" tracediff "$TMP/a" "$TMP/b"
cp "$TMP/a/blk.0.attn_q.npy" "$TMP/b/blk.0.attn_k.npy"
usage "blk.0.attn_k.npy has another shape than trace.json says" "$SETUN" tracediff "$TMP/b" "$TMP/a"
sed -i 's,"blk.0.attn_k.npy","../a/blk.0.attn_k.npy",' "$TMP/b/trace.json"
usage "the file of blk.0.attn_k is not blk.0.attn_k.npy" "$SETUN" tracediff "$TMP/a" "$TMP/b"
sed -i 's,"name": "blk.0.attn_k","name": "/etc/passwd",' "$TMP/b/trace.json"
usage "a tensor's name has other characters" "$SETUN" tracediff "$TMP/a" "$TMP/b"
sed -i 's/"setun_trace": 1/"setun_trace": 2/' "$TMP/b/trace.json"
usage "version 2 of traces; 1 is known" "$SETUN" tracediff "$TMP/a" "$TMP/b"

# The page: well-formed, nothing from elsewhere, a row for each node, bytes and times that add up.
"$SETUN" dump "$MODEL" --graph=html >"$TMP/g.html" && "$SETUN" dump "$MODEL" --graph=html --time >"$TMP/t.html" || bad "--graph=html"
usage "--time goes with --graph=html" "$SETUN" dump "$MODEL" --graph --time
nodes=$("$SETUN" dump "$MODEL" --graph | grep -c ' = ')
for page in g t; do
  if command -v xmllint >/dev/null; then xmllint --noout "$TMP/$page.html" 2>"$TMP/err" || bad "not well-formed: $(head -3 "$TMP/err")"; fi
  grep -qiE '<script|<link|<img|src=|href=|@import|url\(' "$TMP/$page.html" && bad "the page asks for something"
  same "nodes drawn" "$(grep -c '<g id="n' "$TMP/$page.html")" "$nodes"
  same "layers" "$(grep -c '<summary><b>blk\.[0-3]</b> 22 nodes, weights 333.9 KB, caches 262.1 KB' "$TMP/$page.html")" 4
done
lua5.4 - "$TMP/t.html" <<'L' || bad "times do not add up"
local s, sum, rows, layers = io.open(arg[1]):read("a"), 0, 0, 0
for us in s:gmatch('class="bar".->([%d.]+) us</text>') do sum, rows = sum + us, rows + 1 end
for us in s:gmatch("</b>[^<]*, ([%d.]+) us %(") do layers = layers + us end
local all = tonumber(s:match("one token takes ([%d.]+) us"))
assert(all > 0 and math.abs(sum - all) < 0.06 * rows and math.abs(layers - all) < 1)
L
grep -q 'us</text>' "$TMP/g.html" && bad "times without --time"
for browser in chromium chromium-browser google-chrome; do command -v $browser >/dev/null && break; browser=; done
if [ -n "$browser" ]; then
  "$browser" --headless --no-sandbox --disable-gpu --dump-dom "file://$TMP/t.html" >"$TMP/dom" 2>/dev/null || bad "$browser cannot open the page"
  same "rows in the browser" "$(grep -c '<g id="n' "$TMP/dom")" "$nodes"
else
  echo "skipped: there is no browser to open the page in"
fi
finish
