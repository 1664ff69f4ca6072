# Malformed and hostile input: one clear sentence each, exit code 1.
. "$(dirname "$0")/lib.sh"
copy() { rm -rf "$TMP/m"; mkdir "$TMP/m"; cp "$MODEL"/*.json "$MODEL"/model.safetensors "$TMP/m/"; rm -f "$TMP/m/reference.json"; }
go() { "$SETUN" logits "$TMP/m" --tokens 1021,5 --hash; }
want=$("$SETUN" logits "$MODEL" --tokens 1021,5 --hash)

fails "nowhere" "$SETUN" logits "$TMP/nowhere" --tokens 1
copy; same "a plain copy" "$(go)" "$want"
copy; head -c 700000 "$MODEL/model.safetensors" >"$TMP/m/model.safetensors"; fails "model.safetensors" go
copy; head -c 5 "$MODEL/model.safetensors" >"$TMP/m/model.safetensors"; fails "model.safetensors" go
copy; : >"$TMP/m/model.safetensors"; fails "model.safetensors" go
copy; printf '\xff\xff\xff\xff\xff\xff\xff\x7f' | dd of="$TMP/m/model.safetensors" conv=notrunc 2>/dev/null; fails "model.safetensors" go
copy; sed -i 's/"data_offsets":\[0,524288\]/"data_offsets":[4,524292]/' "$TMP/m/model.safetensors"; cmp -s "$TMP/m/model.safetensors" "$MODEL/model.safetensors" || fails "model.safetensors" go
copy; sed -i 's/"relu2"/"gelu"/' "$TMP/m/config.json"; fails "gelu" go
copy; sed -i 's/BitNetForCausalLM/GuessForCausalLM/' "$TMP/m/config.json"; fails "GuessForCausalLM" go
copy; sed -i 's/"use_cache"/"use_magic"/' "$TMP/m/config.json"; fails "use_magic" go
copy; sed -i 's/"num_hidden_layers": 4/"num_hidden_layers": 5/' "$TMP/m/config.json"; fails "model.layers.4" go
copy; sed -i 's/"num_hidden_layers": 4/"num_hidden_layers": 3/' "$TMP/m/config.json"; fails "model.layers.3" go
copy; sed -i 's/"autobitlinear"/"mysterylinear"/' "$TMP/m/config.json"; fails "mysterylinear" go
copy; sed -i 's/"hidden_size": 256/"hidden_size": 512/' "$TMP/m/config.json"; fails "512" go
copy; echo '{' >"$TMP/m/config.json"; fails "config.json" go
copy; rm "$TMP/m/config.json"; fails "config.json" go
copy; rm "$TMP/m/tokenizer.json"; fails "tokenizer.json" go
copy; sed -i 's/"ByteLevel"/"ByteDevil"/' "$TMP/m/tokenizer.json"; fails "ByteDevil" go
# Code 3 in a packed tensor: the last bytes of the file hold one norm, so aim at the middle of a U8 tensor.
copy; n=$(head -c 8 "$MODEL/model.safetensors" | od -An -tu8 | tr -d ' '); printf '\xff' | dd of="$TMP/m/model.safetensors" bs=1 seek=$((8 + n + 525000)) conv=notrunc 2>/dev/null
fails "down_proj" go

# Every kind of flipped bit in the header and config: refused or still the same function, never a crash.
for i in $(seq 40); do
  copy
  printf "\\x$(printf %02x $((i * 37 % 256)))" | dd of="$TMP/m/model.safetensors" bs=1 seek=$((i * 211 % (8 + n))) conv=notrunc 2>/dev/null
  go >"$TMP/out" 2>"$TMP/err"; code=$?
  [ $code -le 1 ] || bad "flip $i: exit code $code ($(head -c 200 "$TMP/err"))"
  [ $code -eq 0 ] && ! [ "$(cat "$TMP/out")" = "$want" ] && ! cmp -s <(head -c $((8 + n)) "$TMP/m/model.safetensors") <(head -c $((8 + n)) "$MODEL/model.safetensors") && bad "flip $i: another function, without a word"
done

# Scripts.
script() { printf '%s\n' "$1" >"$TMP/s.lua"; }
with() { "$SETUN" logits "$MODEL" --tokens 1021,5 --hash --script "$TMP/s.lua"; }
script 'while true do end'; fails "s.lua:1" with
script 'local t = {} while true do t[#t + 1] = ("x"):rep(1000000) end'; fails "s.lua:1" with
script 'while true do pcall(function() while true do end end) end'; fails "s.lua:1" with
script 'local function f() return f() + 1 end f()'; fails "s.lua:1" with
script 'os.execute("true")'; fails "s.lua:1" with
script 'x = = 1'; fails "s.lua:1" with
script 'return 3'; fails "s.lua" with
printf '\x1bLua' >"$TMP/s.lua"; fails "s.lua" with
fails "no-such.lua" "$SETUN" logits "$MODEL" --tokens 1 --script "$TMP/no-such.lua"

# Plugins.
ABI=$(dirname "$SETUN")/../tests/abi
fails "wrong_abi.so" "$SETUN" plugins --plugin "$ABI/wrong_abi.so"
fails "liar.so" "$SETUN" plugins --plugin "$ABI/liar.so"
fails "no_entry.so" "$SETUN" plugins --plugin "$ABI/no_entry.so"
fails "config.json" "$SETUN" plugins --plugin "$MODEL/config.json"
fails "absent.so" "$SETUN" plugins --plugin "$TMP/absent.so"
"$SETUN" plugins --plugin "$ABI/future.so" >/dev/null || bad "a plugin of the future"
"$SETUN" plugins --plugin "$ABI/old_plugin.so" >/dev/null || bad "a plugin of the past"

# Prompts.
fails "UTF-8" "$SETUN" tokenize "$MODEL" -p $'abc\xff'
fails "UTF-8" "$SETUN" run "$MODEL" -n 1 -p $'\xc0\x80'

# A full disk under the cache: a small file system of its own, or a limit on file sizes.
copy
( ulimit -f 1; trap '' XFSZ; "$SETUN" logits "$TMP/m" --tokens 1021,5 --hash --cache-dir "$TMP/small" >"$TMP/out" 2>"$TMP/err" )
code=$?
same "a full disk" $code 1
[ "$(wc -l <"$TMP/err")" -eq 1 ] || bad "a full disk: not one line ($(cat "$TMP/err"))"
[ -z "$(find "$TMP/small" -type f 2>/dev/null)" ] || [ -z "$(find "$TMP/small" -name '*tmp*' 2>/dev/null)" ] || bad "a full disk left temporary files"
# Damaged cache files are found out and made again.
"$SETUN" logits "$TMP/m" --tokens 1021,5 --hash --cache-dir "$TMP/c" >/dev/null 2>&1 || bad "filling a cache"
for f in $(find "$TMP/c" -type f); do printf 'X' | dd of="$f" bs=1 seek=$(($(stat -c %s "$f") / 2)) conv=notrunc 2>/dev/null; done
same "damaged cache" "$("$SETUN" logits "$TMP/m" --tokens 1021,5 --hash --cache-dir "$TMP/c" 2>/dev/null)" "$want"
same "repaired cache" "$("$SETUN" logits "$TMP/m" --tokens 1021,5 --hash --cache-dir "$TMP/c" 2>&1)" "$want"
# Two processes at once.
for i in 1 2 3; do "$SETUN" logits "$TMP/m" --tokens 1021,5 --hash --cache-dir "$TMP/c2" >"$TMP/o$i" 2>&1 & done; wait
for i in 1 2 3; do same "writer $i" "$(cat "$TMP/o$i")" "$want"; done
finish
