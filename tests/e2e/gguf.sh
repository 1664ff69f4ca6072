# GGUF files: setun info reads them, whatever their name, and says whether Setun runs them.
. "$(dirname "$0")/lib.sh"
unhex() { lua5.4 -e 'io.write((io.read("a"):gsub("%X", ""):gsub("%x%x", function(h) return string.char(tonumber(h, 16)) end)))'; }
# llama, three keys, a: F32 4 x 2, b: F16 3.  The name plays no part.
unhex >"$TMP/file.bin" <<'H'
4747554603000000020000000000000003000000000000001400000000000000
67656e6572616c2e617263686974656374757265080000000500000000000000
6c6c616d610300000000000000782e7504000000070000000500000000000000
782e61727209000000050000000300000000000000ffffffff00000000010000
0001000000000000006102000000040000000000000002000000000000000000
0000000000000000000001000000000000006201000000030000000000000001
0000002000000000000000000000000000000000000000000000000000000000
000000000000803f0000004000004040000080400000a0400000c0400000e040
003c003800c00000000000000000000000000000000000000000000000000000
H
same "the size of the example" "$(wc -c <"$TMP/file.bin")" 288
info() { "$SETUN" info "$TMP/file.bin" "$@"; }
info | grep >/dev/null '^architecture  *llama$' || bad "info: architecture"
info | grep >/dev/null '^  x.arr  *i32\[3\] \[-1, 0, 1\]$' || bad "info: an array"
info | grep >/dev/null '^  a  *F32  *4 x 2, 32 bytes$' || bad "info: a tensor"
info --values | grep >/dev/null '^ *-2 to 1, zeros 0.0000$' || bad "info --values"
json='local t = io.read("a"); assert(t:match("^{.*}%s*$") and t:find("\"dims\": [4, 2]", 1, true) and t:find("\"least\": -2,", 1, true))'
info --values --json | lua5.4 -e "$json" || bad "info --json"
info | grep >/dev/null '^runs  *no: .*the key x.u is not known to Setun for the architecture llama and may change' || bad "info: runs"
for c in "run -p x" "logits --tokens 1" "bench" "dump --graph" "info --stats -p x"; do
  set -- $c; first=$1; shift
  fails "file.bin: the key x.u is not known to Setun for the architecture llama" "$SETUN" "$first" "$TMP/file.bin" "$@"
done
fails "file.bin has no tokenizer: key tokenizer.ggml.model is missing" "$SETUN" tokenize "$TMP/file.bin" -p x
fails "no layout of I2_S named 'round'" info --i2s-layout round
fails "no layout of I2_S named 'round'" "$SETUN" logits "$TMP/file.bin" --tokens 1 --i2s-layout round
fails "activations cannot be 'int4'; int8 and float are possible" "$SETUN" logits "$TMP/file.bin" --tokens 1 --activations int4
fails "no tensor has this type" info --i2s-layout x86
fails "--i2s-layout is for GGUF files" "$SETUN" logits "$MODEL" --tokens 1 --i2s-layout x86
fails "--activations is for GGUF files" "$SETUN" logits "$MODEL" --tokens 1 --activations int8
"$SETUN" info "$MODEL" --values >/dev/null 2>&1; same "--values of a directory" $? 2
cp "$TMP/file.bin" "$TMP/whole"
head -c 260 "$TMP/whole" >"$TMP/file.bin"; fails "tensor b (3 x 1 x 1 x 1, type 1) has 4 bytes up to the end of the file: F16 needs 6" info
head -c 250 "$TMP/whole" >"$TMP/file.bin"; fails "tensor a reaches to 32, the file has 26 bytes of data" info
head -c 100 "$TMP/whole" >"$TMP/file.bin"; fails "file.bin: " info
cp "$TMP/whole" "$TMP/file.bin"; printf '\x09' | dd of="$TMP/file.bin" bs=1 seek=4 conv=notrunc 2>/dev/null; fails "version 9 of GGUF" info
cp "$TMP/whole" "$TMP/file.bin"; printf '\xff' | dd of="$TMP/file.bin" bs=1 seek=15 conv=notrunc 2>/dev/null; fails "tensors do not fit" info

# A model in two parts, written by the language's own packer; the second holds I2_S, whose layout is not told.
lua5.4 - "$TMP" <<'L'
local function part(no, keys, name, type, dims, bytes)
  local head, data = {}, bytes .. ("\0"):rep(-#bytes % 32)
  for _, k in ipairs(keys) do head[#head + 1] = string.pack("<s8I4", k[1], k[2]) .. string.pack(k[3], k[4]) end
  local text = "GGUF" .. string.pack("<I4I8I8", 3, 1, #keys) .. table.concat(head) .. string.pack("<s8I4", name, #dims)
  for _, d in ipairs(dims) do text = text .. string.pack("<I8", d) end
  text = text .. string.pack("<I4I8", type, 0)
  local f = assert(io.open(("%s/m-%05d-of-00002.gguf"):format(arg[1], no + 1), "wb"))
  f:write(text, ("\0"):rep(-#text % 32), data)
  f:close()
end
local split = function(no) return { "split.no", 2, "<I2", no }, { "split.count", 2, "<I2", 2 }, { "split.tensors.count", 5, "<i4", 2 } end
part(0, { { "general.architecture", 8, "<s8", "bitnet-b1.58" }, split(0) }, "norm", 0, { 3 }, string.pack("<fff", 1, -0.5, 0))
-- 128 codes 0 1 2 1 in the order of x86 blocks: byte p holds weights p, p + 32, p + 64, p + 96.
part(1, { split(1) }, "codes", 36, { 128, 4 }, ("\x19"):rep(128) .. string.pack("<f", 0.25) .. ("?"):rep(28))
L
two() { "$SETUN" info "$TMP/m-00001-of-00002.gguf" "$@"; }
same "parts" "$(two | grep -c '^part  *.*/m-0000[12]-of-00002.gguf$')" 2
two | grep >/dev/null "^decision  *type 36 is I2_S, not IQ4_NL_4_4: general.architecture is bitnet-b1.58; 1 tensor has just its bytes, such as codes with 160$" || bad "the decision about type 36"
two | grep >/dev/null "^decision  *I2_S has an unknown layout: x86, arm, rows4 fit " || bad "the decision about I2_S"
fails "--i2s-layout x86, arm or rows4" two --values
for layout in x86 arm rows4; do # 0x19 is codes 0 1 2 1 from the high bits, in every layout
  two --values --i2s-layout $layout | grep >/dev/null "^ *-0.25 to 0.25, zeros 0.5000, minus 0.2500, plus 0.2500, scales 0.25 to 0.25$" || bad "values of $layout"
done
two --json --values --i2s-layout arm | lua5.4 -e 'local t = io.read("a"); assert(t:match("^{.*}%s*$") and t:find("\"plus_two\": 0.000000", 1, true) and t:find("\"parts\": [", 1, true))' || bad "parts --json"
fails "is part 2 of 2 of a model: name the first one" "$SETUN" info "$TMP/m-00002-of-00002.gguf"
printf '\xff' | dd of="$TMP/m-00002-of-00002.gguf" bs=1 seek=$(($(wc -c <"$TMP/m-00002-of-00002.gguf") - 160)) conv=notrunc 2>/dev/null
fails "tensor codes: code 3 at row 0, column 0" two --values --i2s-layout x86
rm "$TMP/m-00002-of-00002.gguf"
fails "m-00002-of-00002.gguf" two

# What a conversion makes is a model like any other: the same bits, the same text, the same conversation.
said() { "$SETUN" run "$1" -p "To be, or not" -n 8 --seed 3 -q; }
talked() { echo 'Who art thou?' | "$SETUN" chat "$1" -n 8 --seed 3 -q; }
text=$(said "$MODEL") chat=$(talked "$MODEL")
[ -n "$text" ] && [ -n "$chat" ] || bad "the model itself is silent"
for form in tq2_0 i2_s iq2_bn; do
  "$SETUN" convert "$MODEL" "$TMP/shakespeare" --to $form -q || bad "convert to $form"
  for how in "" "--interpret -t 1"; do
    same "logits of $form $how" "$("$SETUN" logits "$TMP/shakespeare" --tokens 1,2,3,4,5 --hash $how)" 94ab00825ba531f2
  done
  same "what $form says" "$(said "$TMP/shakespeare")" "$text"
  same "a conversation with $form" "$(talked "$TMP/shakespeare")" "$chat"
  rm "$TMP/shakespeare"
done
finish
