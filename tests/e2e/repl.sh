# setun repl: scripts that are edited between lines, and what tensors hold, computed here once more from the model's file and
# from a trace.
. "$(dirname "$0")/lib.sh"
HOW=""
[ "${SETUN_LLVM:-1}" = 1 ] || HOW=--interpret # an operator without eval in C needs its kernel
cp "$SOURCE/scripts/models/bitnet_b158.lua" "$TMP/m.lua"
repl() { "$SETUN" repl "$MODEL" --script "$TMP/m.lua" -t 1 $HOW "$@" >"$TMP/out" 2>"$TMP/err"; }
has() { grep -qF -- "$2" "$TMP/$1" || bad "$1 lacks '$2': $(head -c 600 "$TMP/$1")"; }
tokens=1021,5,17,300,42
hash=$("$SETUN" logits "$MODEL" --tokens $tokens --hash)

# Lines go into a program that runs, and files change between them.
coproc REPL { "$SETUN" repl "$MODEL" --script "$TMP/m.lua" -t 1 $HOW 2>"$TMP/err"; }
repl_pid=$REPL_PID
say() { # lines, then all output up to a mark
  printf '%s\n' "$@" "'mark'" >&"${REPL[1]}"
  : >"$TMP/out"
  while IFS= read -r -t 60 line <&"${REPL[0]}" && [ "$line" != mark ]; do printf '%s\n' "$line" >>"$TMP/out"; done
}
say ":logits @$tokens"
same "the first hash" "$(tail -1 "$TMP/out")" "hash $hash"
say ":reload" ":compare"
has out "equal, bit for bit"
has err "weights are kept)"
same "kernels of a reload that changed nothing" "$(grep -c ', 0 compiled;' "$TMP/err")" 1

# An operator of the model's own, by which the gate is squared twice as large; and then not.
sed -i 's/^return setun.model/local twice = setun.op "relu2_twice" {\n  doc = "y = FACTOR max(x, 0)^2", input = { x = "f32[...]" }, output = { y = "like x" },\n  eval = function(x) local r = x > 0 and x or 0.0 return setun.f32(setun.f32(r * r) * FACTOR) end,\n  lower = function(k) k:map(k.input.x, k.output.y, function(v) local r = k:max(v, 0) return k:mul(k:mul(r, r), FACTOR) end) end,\n  cases = { "x:f32[7]", "x:f32[n2,129]" },\n}\nreturn setun.model/; s/b:relu2(/b:relu2_twice(/; s/FACTOR/2.0/g' "$TMP/m.lua"
say ":compare"
has out "logits differ: max "
twice=$("$SETUN" logits "$MODEL" --tokens $tokens --hash --script "$TMP/m.lua" -t 1 $HOW)
same "hashes of the two" "$(grep ^hash "$TMP/out" | tr '\n' ' ')" "hash $hash hash $twice "
[ "$hash" != "$twice" ] || bad "the operator changed nothing"
sed -i 's/2\.0/1.0/g' "$TMP/m.lua"
say ":compare"
same "hashes after the second edit" "$(grep ^hash "$TMP/out" | tr '\n' ' ')" "hash $twice hash $hash "
same "reloads, the last of which kept its weights" "$(grep -c reloaded "$TMP/err") $(grep reloaded "$TMP/err" | tail -1 | grep -c kept)" "3 1"

# The difference is what the logits of both say.
say ":compare"
"$SETUN" logits "$MODEL" --tokens $tokens --format f32 >"$TMP/one.f32"
sed 's/1\.0/2.0/g' "$TMP/m.lua" >"$TMP/two.lua"
"$SETUN" logits "$MODEL" --tokens $tokens --format f32 --script "$TMP/two.lua" -t 1 $HOW >"$TMP/two.f32"
lua5.4 - "$TMP/two.f32" "$TMP/one.f32" "$TMP/out" <<'L2' || bad "the comparison's numbers: $(tail -1 "$TMP/out")"
local function read(path)
  local s, t = io.open(path, "rb"):read("a"), {}
  for i = 1, #s, 4 do t[#t + 1] = string.unpack("<f", s, i) end
  return t
end
local function log_sum(x)
  local m, s = math.max(table.unpack(x)), 0
  for _, v in ipairs(x) do s = s + math.exp(v - m) end
  return m + math.log(s)
end
local p, q, most, squares, kl, n = read(arg[1]), read(arg[2]), 0, 0, 0, 0
local lp, lq = log_sum(p), log_sum(q)
for i = 1, #p do
  local d = math.abs(p[i] - q[i])
  most, squares, n = math.max(most, d), squares + d * d, n + (d > 0 and 1 or 0)
  kl = kl + math.exp(p[i] - lp) * (p[i] - lp - q[i] + lq)
end
local text = io.open(arg[3]):read("a")
local a, all, b, c, d = text:match("(%d+) of (%d+) logits differ: max ([%d.e+-]+), rms ([%d.e+-]+); KL divergence ([%d.e+-]+) nats")
local function near(x, y) assert(math.abs(x - y) <= 1e-5 * math.abs(y), x .. " " .. y) end
assert(tonumber(a) == n and tonumber(all) == #p)
near(b, most) near(c, (squares / #p) ^ 0.5) near(d, kl)
L2

# Mistakes in a script leave the model as it was, are said once, and are over with the next change.
cp "$TMP/m.lua" "$TMP/good.lua"
lines=$(wc -l <"$TMP/err")
echo 'this is not Lua' >>"$TMP/m.lua"
say ":logits" "1 + 1"
same "the hash beside a broken script" "$(grep ^hash "$TMP/out")" "hash $hash"
same "words about a broken script" "$(tail -n +$((lines + 1)) "$TMP/err" | grep -c "m.lua:.*(the model of before stays)") $(wc -l <"$TMP/err")" "1 $((lines + 1))"
sed 's/"ffn_gate"/"ffn_gat"/' "$TMP/good.lua" >"$TMP/m.lua"
say ":logits"
same "the hash beside a script with a wrong name" "$(grep ^hash "$TMP/out")" "hash $hash"
grep -q 'm.lua:[0-9]*: .*ffn_gat.*stays' "$TMP/err" || bad "a wrong name: $(tail -1 "$TMP/err")"
cp "$TMP/good.lua" "$TMP/m.lua"
say ":compare"
has out "equal, bit for bit"
# A tensor that Lua holds is of the model that it was asked of.
say "t = tensor 'blk.0.attn_norm'" "t(0)" ":reload" "print(pcall(t, 0))" "print(tensor 'blk.0.attn_norm'(0))"
has out "false	console.lua:1: the tensor is of a model that was replaced"
same "the same number" "$(sed -n 1p "$TMP/out")" "$(tail -1 "$TMP/out")"
# By another script, and back.
say ":load $SOURCE/scripts/models/bitnet_b158.lua" ":compare"
has out "equal, bit for bit"
# A script for which a matrix lies otherwise: nothing is missing, and nothing is wrong.
sed 's/b:relu2(/b:silu(/' "$SOURCE/scripts/models/bitnet_b158.lua" >"$TMP/silu.lua"
say ":load $TMP/silu.lua" ":compare"
has err "weights are loaded anew, because others are needed"
same "hashes of another gate" "$(grep ^hash "$TMP/out" | tr '\n' ' ')" "hash $hash hash $("$SETUN" logits "$MODEL" --tokens $tokens --hash --script "$TMP/silu.lua" -t 1) "
say ":load $SOURCE/docs/examples/states.lua" ":logits @1,2"
grep -q "it predicts no tokens" "$TMP/err" || bad "a model without logits: $(tail -1 "$TMP/err")"
exec {REPL[1]}>&-
wait "$repl_pid"
same "the exit code of a session with mistakes" $? 1

# Statistics of every ternary matrix and of 100 results, against the model's file and a trace.
"$SETUN" trace "$MODEL" --tokens $tokens -q -o "$TMP/trace" || bad "trace"
(cd "$TMP/trace" && ls *.npy | sed 's/\.npy$//; s/^/:stats @/') >"$TMP/lines"
for i in 0 1 2 3; do for n in attn_q attn_k attn_v attn_out ffn_gate ffn_up ffn_down; do echo ":stats blk.$i.$n"; done; done >>"$TMP/lines"
{ echo ":logits @$tokens"; cat "$TMP/lines"; } | "$SETUN" repl "$MODEL" -t 1 >"$TMP/out" 2>"$TMP/err" || bad "statistics: $(head -3 "$TMP/err")"
lua5.4 - "$MODEL/model.safetensors" "$TMP/trace" "$TMP/out" <<'L2' || bad "statistics are not what they should be"
local said, name = {}, nil
for line in io.lines(arg[3]) do
  name = line:match("^(@?[%w_.]+) %w+%[[%d,]*%]$") or name
  if name then said[name] = (said[name] or "") .. line .. "\n" end
end
local function near(name, what, is, want)
  assert(is and math.abs(is - want) <= 1e-6 * math.max(math.abs(want), 1e-3), ("%s: %s is %s, not %s"):format(name, what, is, want))
end
local function check(name, x)
  local text = assert(said[name], name)
  local least, most, sum, squares = math.huge, -math.huge, 0, 0
  for _, v in ipairs(x) do
    least, most, sum, squares = math.min(least, v), math.max(most, v), sum + v, squares + v * v
  end
  local a, b, c, d = text:match("min (%S+)  max (%S+)  mean (%S+)  rms (%S+)")
  assert(tonumber(text:match("numbers (%d+)")) == #x, name)
  near(name, "min", tonumber(a), least) near(name, "max", tonumber(b), most)
  near(name, "mean", tonumber(c), sum / #x) near(name, "rms", tonumber(d), (squares / #x) ^ 0.5)
end
local formats, n = { ["<f4"] = "<f", ["|i1"] = "b", ["<i4"] = "<i4" }, 0
for file in io.popen("ls '" .. arg[2] .. "'"):lines() do
  if file:find("%.npy$") then
    local s, x = io.open(arg[2] .. "/" .. file, "rb"):read("a"), {}
    local at, form = 11 + string.unpack("<I2", s, 9), formats[s:match("'descr': '(...)'")]
    while at <= #s do x[#x + 1], at = string.unpack(form, s, at) end
    check("@" .. file:gsub("%.npy$", ""), x)
    n = n + 1
  end
end
assert(n == 100)
-- Packed in the file: four rows of quarters in a byte; a scale as a bf16.
local s = io.open(arg[1], "rb"):read("a")
local header = 8 + string.unpack("<I8", s)
local files = { attn_q = "self_attn.q_proj", attn_k = "self_attn.k_proj", attn_v = "self_attn.v_proj", attn_out = "self_attn.o_proj",
                ffn_gate = "mlp.gate_proj", ffn_up = "mlp.up_proj", ffn_down = "mlp.down_proj" }
for i = 0, 3 do
  for short, long in pairs(files) do
    local key = ('"model.layers.%d.%s.weight'):format(i, long):gsub("[%.%-]", "%%%0")
    local from, to = s:sub(1, header):match(key .. '":{.-"data_offsets":%[(%d+),(%d+)%]')
    local at = s:sub(1, header):match(key .. '_scale":{.-"data_offsets":%[(%d+)')
    local scale = string.unpack("<f", "\0\0" .. s:sub(header + at + 1, header + at + 2))
    local x, count, name = {}, { [-1] = 0, [0] = 0, [1] = 0 }, "blk." .. i .. "." .. short
    for k = header + from + 1, header + to do
      for bits = 0, 6, 2 do
        local w = ((s:byte(k) >> bits) & 3) - 1
        count[w] = count[w] + 1
        x[#x + 1] = w * scale
      end
    end
    check(name, x)
    local a, b, c = said[name]:match("%-1 (%S+) %%  0 (%S+) %%  %+1 (%S+) %%")
    for w, share in pairs { [-1] = a, [0] = b, [1] = c } do
      assert(math.abs(tonumber(share) - 100 * count[w] / #x) <= 5.1e-5, name .. ": share of " .. w)
    end
    near(name, "scale", tonumber(said[name]:match("scale (%S+)")), scale)
  end
end
L2

# Other forms of weights have the same numbers.
"$SETUN" convert "$MODEL" "$TMP/m.gguf" --to tq2_0 -q >"$TMP/convert" 2>&1 || bad "convert: $(head -3 "$TMP/convert")"
for m in "$MODEL" "$TMP/m.gguf"; do
  printf ':show blk.0.attn_k [-1, :12]\n:show token_embd\n' | "$SETUN" repl "$m" || bad "repl $m"
done >"$TMP/shown"
same "numbers shown of two forms" "$(head -n $(($(wc -l <"$TMP/shown") / 2)) "$TMP/shown" | md5sum)" "$(tail -n $(($(wc -l <"$TMP/shown") / 2)) "$TMP/shown" | md5sum)"

# What is refused, a sentence each.
refuses() { # line, part of the sentence
  printf '%s\n' "$1" | repl
  same "exit code behind '$1'" $? 1
  same "sentences behind '$1'" "$(wc -l <"$TMP/err")" 1
  has err "$2"
}
refuses ":stats nothing" "has no tensor named 'nothing'"
refuses ":stats @logits" "there are none yet"
refuses ":stats" "a tensor's name is missing"
refuses ":show blk.0.attn_q [0:400]" "dimension 0 has 256 numbers"
refuses ":show blk.0.attn_q 1.5" "is not a slice"
refuses ":tensors nothing*" "no tensor has a name like 'nothing*'"
refuses ":compare" "there are no logits to compare"
refuses ":logits" ":logits needs a text"
refuses ":logits @5000" "outside the vocabulary"
refuses ":graph dot" "there is :graph and :graph script"
refuses ":load" ":load needs the name of a script"
refuses ":load $TMP/none.lua" "none.lua"
refuses ":nothing" "there is no command ':nothing'"
refuses "os.exit()" "console.lua:1: attempt to index a nil value"
refuses "error 'no'" "console.lua:1: no"
refuses "x = = 1" "console.lua:1:"
refuses "while true do end" "the script ran more than"
refuses "tensor 'blk.0.attn_q'(0)" "1 indices for a tensor of 2 dimensions"
refuses "tensor 'blk.0.attn_q'.size" "a tensor has no field 'size'"
printf ':logits @%s\n:stats @nothing\n' $tokens | repl && bad "@nothing"
has err "no step computes a tensor named 'nothing'"
printf 'x = 7\nx + 1, "y"\n\n  :quit\nnot reached\n' | repl || bad "Lua"
same "Lua's values" "$(cat "$TMP/out")" "8	y"
printf ':graph\n:tensors *.scale\n:help' | repl || bad "the last line without an end"
has out 'embed token_embd tokens'
"$SETUN" repl </dev/null >"$TMP/out" 2>&1; same "no model" $? 2
"$SETUN" repl --help | grep -q ':help lists them' || bad "--help"
"$SETUN" repl "$MODEL" </dev/null || bad "no lines"
finish
