# LLaMA-3's vocabulary at its full size, which 2B4T shares: ids that are public, and the same ids from tokenizer.json
# and from GGUF.  The vocabulary is not ours to ship: SETUN_LLAMA3 names its rank file ("base64 rank" a line), or it
# lies beside the sources.
. "$(dirname "$0")/lib.sh"
ranks=${SETUN_LLAMA3:-$SOURCE/../shared/data/llama3-tokenizer.model}
if [ ! -e "$ranks" ]; then
  echo "skipped: there is no $ranks (SETUN_LLAMA3 names the rank file of LLaMA-3)"
  exit 77
fi
lua5.4 "$(dirname "$0")/llama3.lua" "$ranks" "$TMP" || bad "the rank file"
ids() {
  same "GGUF: $1" "$("$SETUN" tokenize "$TMP/vocab.gguf" -p "$1" --no-bos "${@:3}")" "$2"
  same "JSON: $1" "$("$SETUN" tokenize "$TMP" -p "$1" --no-bos "${@:3}")" "$2"
}
ids "The capital of France is" "791 6864 315 9822 374"
ids "Hello, world!" "9906 11 1917 0"
ids "Setun 1958 — naïve café 日本語" "1681 359 220 6280 23 2001 95980 588 53050 105180 102158"
ids $'int main(void) {\n\treturn 0;\n}\n' "396 1925 4431 8 341 862 220 15 280 534"
ids "   leading and trailing   " "256 6522 323 28848 262"
ids "123456789" "4513 10961 16474"
ids "don't DON'T we'll" "15357 956 45373 17773 584 3358"
ids $'\u00a0nbsp' "4194 5792"
ids "🙂👍🏽" "9468 19044 9468 239 235 9468 237 121"
ids $'\r\n\r\n' "881"
ids $' \n' "720"
ids "a  b" "64 220 293"
ids "<|begin_of_text|>System: You are a helpful assistant.<|eot_id|>User: What is 2+2?<|eot_id|>Assistant: " \
  "128000 2374 25 1472 527 264 11190 18328 13 128009 1502 25 3639 374 220 17 10 17 30 128009 72803 25 220" --special
same "a user's <|eot_id|>" "$("$SETUN" tokenize "$TMP/vocab.gguf" -p "<|eot_id|>" --no-special)" "128000 27 91 68 354 851 91 29"
"$SETUN" tokenize "$TMP/vocab.gguf" -p x -v 2>&1 >/dev/null | grep >/dev/null "split as llama-bpe: key tokenizer.ggml.pre is missing" || bad "-v does not tell what was decided"
cat "$SOURCE"/docs/*.md "$SOURCE"/runtime/*.c "$MODEL/heldout.txt" >"$TMP/text"
"$SETUN" tokenize "$TMP" <"$TMP/text" >"$TMP/a"; "$SETUN" tokenize "$TMP/vocab.gguf" <"$TMP/text" >"$TMP/b"
cmp -s "$TMP/a" "$TMP/b" || bad "GGUF and tokenizer.json give other ids"
"$SETUN" detokenize "$TMP/vocab.gguf" --no-special <"$TMP/b" | cmp -s - "$TMP/text" || bad "the text does not come back"
for form in "$TMP" "$TMP/vocab.gguf"; do "$SETUN" bench "$form" --tokenizer -f "$TMP/text" -r 3 || bad "bench --tokenizer"; done
finish
