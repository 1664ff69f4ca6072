# GGUF files: setun info reads them, whatever their name; nothing runs them yet.
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
for c in "run -p x" "logits --tokens 1" "tokenize -p x" "bench" "dump --graph" "info --stats -p x"; do
  set -- $c; first=$1; shift
  fails "is a GGUF file" "$SETUN" "$first" "$TMP/file.bin" "$@"
done
fails "no layout of I2_S named 'round'" info --i2s-layout round
fails "no tensor has this type" info --i2s-layout x86
"$SETUN" info "$MODEL" --values >/dev/null 2>&1; same "--values of a directory" $? 2
cp "$TMP/file.bin" "$TMP/whole"
head -c 260 "$TMP/whole" >"$TMP/file.bin"; fails "tensor b (3 x 1 x 1 x 1, type 1) has 4 bytes up to the end of the file: F16 needs 6" info
head -c 250 "$TMP/whole" >"$TMP/file.bin"; fails "tensor a reaches to 32, the file has 26 bytes of data" info
head -c 100 "$TMP/whole" >"$TMP/file.bin"; fails "file.bin: " info
cp "$TMP/whole" "$TMP/file.bin"; printf '\x09' | dd of="$TMP/file.bin" bs=1 seek=4 conv=notrunc 2>/dev/null; fails "version 9 of GGUF" info
cp "$TMP/whole" "$TMP/file.bin"; printf '\xff' | dd of="$TMP/file.bin" bs=1 seek=15 conv=notrunc 2>/dev/null; fails "tensors do not fit" info
finish
