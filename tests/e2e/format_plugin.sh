# A model in a format that only a plugin knows: the bundled model as one `trits` file, written here from its definition alone,
# becomes a checkpoint and a GGUF file with the same logits; whatever is wrong with such a file is refused with a sentence.
. "$(dirname "$0")/lib.sh"
PLUGIN=$(dirname "$SETUN")/../plugins/sample_format.so
cd "$TMP" || exit 1

# A second writer than Setun's reader: codes from the four planes of the checkpoint, five of them to a byte.
cat >write.lua <<'L'
local from, to = arg[1], arg[2]
local function all(name) local f = assert(io.open(from .. "/" .. name, "rb")); local s = f:read("a"); f:close(); return s end
local file = all("model.safetensors")
local base = string.unpack("<I8", file) + 8
local tensor, order = {}, {}
for name, dtype, shape, a, b in file:sub(9, base):gmatch('"([^"]+)":%s*{"dtype":%s*"(%w+)",%s*"shape":%s*%[([%d,%s]*)%],%s*"data_offsets":%s*%[(%d+),%s*(%d+)%]') do
  local dim = {}
  for d in shape:gmatch("%d+") do dim[#dim + 1] = tonumber(d) end
  tensor[name] = {dtype = dtype, dim = dim, data = file:sub(base + a + 1, base + b)}
  order[#order + 1] = name
end
local lines, parts, at = {}, {}, 0
local function put(data) parts[#parts + 1] = data; at = at + #data; return at - #data end
local function line(...) lines[#lines + 1] = table.concat({...}, " ") end
for _, name in ipairs {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"} do
  local text = all(name)
  line("text", name, "@" .. put(text), #text)
end
for _, name in ipairs(order) do
  local t = tensor[name]
  if t.dtype == "U8" then
    local s = tensor[name .. "_scale"]
    local scale = s.dtype == "F32" and string.unpack("<f", s.data) or string.unpack("<f", "\0\0" .. s.data)
    local q, cols, rows = t.dim[1], t.dim[2], {}
    for r = 0, 4 * q - 1 do
      for c = 0, cols - 1, 5 do
        local byte = 0
        for i = 4, 0, -1 do
          local code = 1 -- behind the last column
          if c + i < cols then code = t.data:byte(r % q * cols + c + i + 1) >> r // q * 2 & 3 end
          byte = 3 * byte + code
        end
        rows[#rows + 1] = string.char(byte)
      end
    end
    line("ternary", name, 4 * q, cols, string.format("%.17g", scale), "@" .. put(table.concat(rows)))
  elseif not name:find("_scale$") then
    line(t.dtype:lower(), name, "@" .. put(t.data), table.concat(t.dim, " "))
  end
end
-- Offsets count from the front of the file, whose length depends on how long they are.
local function head(n) return "trits 1\n" .. table.concat(lines, "\n"):gsub("@(%d+)", function(o) return tostring(n + o) end) .. "\nend\n" end
local n = #head(0)
while #head(n) ~= n do n = #head(n) end
local f = assert(io.open(to, "wb"))
f:write(head(n), table.concat(parts))
f:close()
L
lua5.4 write.lua "$MODEL" m.trits || bad "writing the file"
head -c 8 m.trits | grep -qx 'trits 1' || bad "m.trits begins otherwise"
[ "$(wc -c <m.trits)" -lt "$(wc -c <"$MODEL/model.safetensors")" ] || bad "five weights in a byte take more room than four"

convert() { "$SETUN" convert "$@" -q --plugin "$PLUGIN"; }
convert m.trits dir --to hf || bad "to a checkpoint"
same "logits of the checkpoint" "$("$SETUN" logits dir --tokens 1,2,3,4,5 --hash)" 94ab00825ba531f2
"$SETUN" diff "$MODEL" dir --no-run >out || bad "the checkpoint differs: $(cat out)"
convert m.trits m.gguf --to tq1_0 || bad "to GGUF"
same "logits of the GGUF file" "$("$SETUN" logits m.gguf --activations int8 --tokens 1,2,3,4,5 --hash)" 94ab00825ba531f2
grep -qa '\.import' m.gguf && bad "the GGUF file has the name of the copy that it was made of"
convert m.trits n.gguf --to tq1_0 && cmp m.gguf n.gguf || bad "the same file, converted twice, differs"
"$SETUN" convert m.trits again --to hf --plugin "$PLUGIN" >out || bad "with a report"
grep -q 'm.trits: read as trits, by a plugin' out || bad "the report does not say who read the file: $(cat out)"
fails "again exists, and is not replaced unasked" convert m.trits again --to hf
SETUN_PLUGIN_PATH=$PLUGIN "$SETUN" convert m.trits again --to hf --force -q || bad "with the plugin named by the environment"
"$SETUN" plugins --plugin "$PLUGIN" >out && grep -q 'format trits: a model in one file' out || bad "setun plugins does not list the format: $(cat out)"
convert "$MODEL" plain --to hf || bad "a checkpoint, with a plugin loaded"

# Nothing is left of what fails, or of the copy that is made on the way.
none() { for f in no no.*; do [ -e "$f" ] && bad "$f was left"; done; }
refuse() { fails "$1" convert "$2" no --to hf; none; }
# edit EXPRESSION: the file with its lines, not its data, edited; offsets stay what they were where lengths do.
edit() { LC_ALL=C sed "1,/^end\$/$1" m.trits >bad.trits; }
fails "m.trits" "$SETUN" convert m.trits no --to hf
none
sed 's/^trits 1/trits 2/' m.trits >bad.trits
refuse "bad.trits" bad.trits
head -c 3000 m.trits >bad.trits
refuse "bad.trits, read as trits" bad.trits
head -c 400000 m.trits >bad.trits
refuse "do not lie in the file" bad.trits
edit 's/^text config.json/text config.jsom/'
refuse "the text 'config.jsom' is no file of a checkpoint" bad.trits
edit 's/^text tokenizer_config.json \([0-9]*\)/text generation_config.json \1/'
refuse "two texts 'generation_config.json'" bad.trits
edit '{/^text config.json/d}'
refuse "there is no text 'config.json'" bad.trits
edit 's/layers.1.mlp.up_proj/layers.0.mlp.up_proj/'
refuse "two tensors model.layers.0.mlp.up_proj.weight" bad.trits
edit 's/layers.1.mlp.up_proj.weight/layers.1.mlp.up_proj.wieght/'
refuse "a ternary one has two and is called X.weight" bad.trits
edit 's/layers.1.mlp.up_proj.weight 768 256 [^ ]*/layers.1.mlp.up_proj.weight 768 256 -1.0/'
refuse "model.layers.1.mlp.up_proj.weight has the scale -1" bad.trits
edit 's/layers.1.mlp.up_proj.weight 768 256 [^ ]*/layers.1.mlp.up_proj.weight 768 256 1e300/'
refuse "has the scale 1e+300" bad.trits
edit 's/layers.1.mlp.up_proj.weight 768/layers.1.mlp.up_proj.weight 9223372036854775807/'
refuse "these rows do not lie in the file" bad.trits
edit 's/layers.1.mlp.up_proj.weight 768/layers.1.mlp.up_proj.weight 766/'
refuse "tensor model.layers.1.mlp.up_proj.weight has 766 rows, and by config.json 768" bad.trits
edit 's/layers.1.mlp.up_proj.weight 768/layers.1.mlp.up_proj.weight 764/'
refuse "768" bad.trits
edit 's/^bf16 model.norm.weight \([0-9]*\) 256/bf16 model.norm.weight 99999999999 256/'
refuse "tensor model.norm.weight has 512 bytes that do not lie in the file" bad.trits
edit 's/^bf16 model.norm.weight \([0-9]*\) 256/bf16 model.norm.weight \1 0/'
refuse "tensor model.norm.weight has 0 as dimension 0" bad.trits
edit 's/^bf16 model.norm.weight \([0-9]*\) 256/bf16 model.norm.weight \1/'
refuse "tensor model.norm.weight has 0 dimensions" bad.trits
edit 's/^bf16 model.norm.weight \([0-9]*\) 256/bf16 model.norm.weight \1 4294967296 4294967296 4/'
refuse "too many in all" bad.trits
edit '{/^bf16 model.norm.weight/{p;s/norm/more/;s/ [0-9]* 256$/ 0 600000/}}'
refuse "lie in each other" bad.trits
edit '{/^ternary model.layers.1.mlp.up_proj/{p;s/up_proj/x1_proj/p;s/x1/x2/p;s/x2/x3/p;s/x3/x4/p;s/x4/x5/p;s/x5/x6/p;s/x6/x7/p;s/x7/x8/p;s/x8/x9/p;s/x9/y1/p;s/y1/y2/p;s/y2/y3/p;s/y3/y4/p;s/y4/y5/p;s/y5/y6/}}'
refuse "more bytes than the file" bad.trits
edit 's/^end$/end\x00 of it/'
refuse "a line has a zero byte in it" bad.trits
edit 's/^text generation_config.json \([0-9]*\) [0-9]*/text generation_config.json \1 0/'
refuse "the text 'generation_config.json' has 0 bytes, of 1 to" bad.trits
edit "s/^text generation_config.json [0-9]* [0-9]*/text generation_config.json $(($(wc -c <m.trits) - 300)) 300/"
refuse "the text 'generation_config.json' is no UTF-8 at byte" bad.trits
edit 's/^bf16 model.norm.weight/f64 model.norm.weight/'
refuse "a line begins with text, ternary" bad.trits
lua5.4 - <<'L' || bad "a byte that is no five weights"
local f = io.open("m.trits", "rb"); local s = f:read("a"); f:close()
local at = tonumber(s:match("ternary model%.layers%.2%.mlp%.up_proj%.weight 768 256 [^ ]+ (%d+)"))
f = io.open("bad.trits", "wb"); f:write(s:sub(1, at + 3), "\243", s:sub(at + 5)); f:close()
L
refuse "tensor model.layers.2.mlp.up_proj.weight, row 0: five weights make a byte of at most 242: 'byte 3 is 243'" bad.trits

# Files with a few bytes of their lines changed at random are refused or are models; nothing crashes, nothing is left.
cat >mutate.lua <<'L'
local f = io.open("m.trits", "rb"); local s = f:read("a"); f:close()
local seed, head = tonumber(arg[1]), s:find("\nend\n", 1, true) + 4
math.randomseed(seed)
for _ = 1, math.random(4) do
  local at = math.random(9, head)
  local kind = math.random(3)
  if kind == 1 then s = s:sub(1, at - 1) .. string.char(math.random(0, 255)) .. s:sub(at + 1)
  elseif kind == 2 then s = s:sub(1, at - 1) .. math.random(0, 9) .. s:sub(at + 1)
  else local n = math.random(40); s = s:sub(1, at - 1) .. s:sub(at + n) end
end
f = io.open("bad.trits", "wb"); f:write(s); f:close()
L
refused=0
for seed in $(seq 1 120); do
  lua5.4 mutate.lua "$seed"
  convert bad.trits no --to hf >out 2>err
  code=$?
  [ $code -le 1 ] || bad "mutation $seed: exit code $code: $(head -c 300 err)"
  [ $code -eq 0 ] || [ "$(wc -l <err)" -eq 1 ] || bad "mutation $seed: not one line on stderr: $(head -c 600 err)"
  refused=$((refused + code))
  rm -rf no
  none
done
[ "$refused" -gt 60 ] || bad "only $refused of 120 mutations were refused"
echo "$refused of 120 mutations refused"
finish
