# GGUF files that are only a vocabulary: setun tokenize, detokenize, doctor and bench --tokenizer.
. "$(dirname "$0")/lib.sh"
# make FILE [pre]: bytes are tokens 0 to 255, "th", "the", " the" follow; then a control token, one for users, one unused.
make() {
  lua5.4 - "$TMP/$1" "${2:-}" <<'L'
local path, pre = arg[1], arg[2]
local tokens, types, char, next_code = {}, {}, {}, 0x100
local function add(text, type) tokens[#tokens + 1] = string.pack("<s8", text) types[#types + 1] = string.pack("<i4", type) end
for b = 0, 255 do
  local plain = b >= 0x21 and b <= 0x7e or b >= 0xa1 and b <= 0xac or b >= 0xae
  add(utf8.char(plain and b or next_code), 1)
  next_code = next_code + (plain and 0 or 1)
end
add("th", 1) add("the", 1) add("Ġthe", 1) add("<|end|>", 3) add("<tool>", 4) add("[PAD261]", 5)
local keys = {}
local function key(name, format, ...) keys[#keys + 1] = string.pack("<s8I4" .. format, name, ...) end
key("general.architecture", "s8", 8, "llama")
key("tokenizer.ggml.model", "s8", 8, "gpt2")
if pre ~= "" then key("tokenizer.ggml.pre", "s8", 8, pre) end
key("tokenizer.ggml.tokens", "I4I8", 9, 8, #tokens)
keys[#keys] = keys[#keys] .. table.concat(tokens)
key("tokenizer.ggml.token_type", "I4I8", 9, 5, #types)
keys[#keys] = keys[#keys] .. table.concat(types)
key("tokenizer.ggml.merges", "I4I8s8s8s8", 9, 8, 3, "t h", "th e", "Ġ the")
key("tokenizer.ggml.bos_token_id", "I4", 4, 259)
io.open(path, "wb"):write("GGUF", string.pack("<I4I8I8", 3, 0, #keys), table.concat(keys)):close()
L
}
make v llama-bpe; make w; make x "$(printf 'my-\033[1mpre')"
ids() { same "tokenize $1 $2" "$("$SETUN" tokenize "$TMP/$1" -p "$2" "${@:4}")" "$3"; }
ids v "the then" "259 257 258 110"
ids w "the then" "257 258 110" # by default no BOS
ids v "the<|end|>" "257 60 124 101 110 100 124 62" --no-bos
ids v "the<|end|>" "257 60 124 101 110 100 124 62" --no-bos --no-special
ids v "the<|end|>" "257 259" --no-bos --special
ids v "a<tool>" "97 260" --no-bos # a user-defined token always
ids v "[PAD261]" "91 80 65 68 50 54 49 93" --no-bos
ids v "é" "195 169" --no-bos
same "pieces" "$("$SETUN" tokenize "$TMP/v" -p " the<|end|>é" --special --pieces --no-bos)" $'258\t" the"\n259\t"<|end|>"\n195\t"\\xc3"\n169\t"\\xa9"'
same "detokenize" "$("$SETUN" detokenize "$TMP/v" 259 257 258 195 169 260 261)" "<|end|>the theé<tool>"
same "detokenize --no-special" "$("$SETUN" detokenize "$TMP/v" --no-special 259 257 260)" "the<tool>"
same "half a character" "$("$SETUN" detokenize "$TMP/v" 240 159 153 97 | od -An -tx1 | tr -d ' \n')" efbfbd61
fails "has no token 262" "$SETUN" detokenize "$TMP/v" 262
fails 'tokenizer.ggml.pre "my-\u001b[1mpre" is not known to Setun; there are llama-bpe llama3' "$SETUN" tokenize "$TMP/x" -p a
"$SETUN" tokenize "$TMP/w" -p a -v 2>&1 >/dev/null | grep >/dev/null "262 tokens, split as default: key tokenizer.ggml.pre is missing$" || bad "-v"
head -c 3000 "$TMP/v" >"$TMP/short"; fails "short" "$SETUN" tokenize "$TMP/short" -p a
"$SETUN" doctor "$TMP/v" >"$TMP/out" 2>/dev/null; same "doctor of a vocabulary" $? 1
grep >/dev/null '^tokenizer *ok .*262 pieces; byte-level BPE, 262 tokens, split as llama-bpe; token 259 in front$' "$TMP/out" || bad "doctor: $(cat "$TMP/out")"
"$SETUN" bench "$TMP/v" --tokenizer -f "$MODEL/heldout.txt" -r 2 --json | lua5.4 -e 'local t = io.read("a")
  for _, k in ipairs { "open_s", "encode_mb_s", "decode_mb_s", "tokens", "bytes" } do assert(tonumber(t:match("\"" .. k .. "\": ([%d.e+-]+)")) > 0, k) end' || bad "bench --tokenizer --json"
"$SETUN" bench "$TMP/v" --tokenizer >/dev/null 2>&1; same "bench --tokenizer without a text" $? 2
finish
