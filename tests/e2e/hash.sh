# The same logits, bit for bit: backends, threads, prompt chunks, instruction sets, interpreter.
. "$(dirname "$0")/lib.sh"
IDS=1021,870,266,79,44,441,324,268,280,111,382,115,304,268,280,101,7,350,12,600
h() { "$SETUN" logits "$MODEL" --tokens $IDS --hash --all "$@" 2>"$TMP/err" || bad "$* ($(cat "$TMP/err"))"; }
for kv in f32 f16 bf16 q8; do
  want=$(h --kv $kv)
  [ ${#want} -eq 16 ] || bad "no hash for --kv $kv"
  same "reference, kv $kv" "$(h --kv $kv --backend reference)" "$want"
  same "one thread, kv $kv" "$(h --kv $kv -t 1)" "$want"
  same "two threads, kv $kv" "$(h --kv $kv -t 2)" "$want"
  same "three threads, kv $kv" "$(h --kv $kv -t 3)" "$want"
  same "chunks of 7, kv $kv" "$(h --kv $kv --chunk 7)" "$want"
  same "batches of 3, kv $kv" "$(h --kv $kv --batch 3)" "$want"
  same "token by token, kv $kv" "$(h --kv $kv --chunk 1)" "$want"
done
want=$(h)
for down in auto channel row; do
  for t in 1 2 3; do same "--down $down -t $t" "$(h --down $down -t $t)" "$want"; done
  same "--down $down token by token" "$(h --down $down --chunk 1)" "$want"
  same "--down $down from the cache" "$(h --down $down --cache-dir "$TMP/cache")$(h --down $down --cache-dir "$TMP/cache")" "$want$want"
done
fails "layout" "$SETUN" logits "$MODEL" --tokens 1 --hash --down sideways
if [ "${SETUN_LLVM:-1}" = 1 ] && [ "$(uname -m)" = x86_64 ]; then
  for features in -amx-int8 -avx512f -avx512f,-avxvnni -avx2 -avx -sse4.1 -ssse3 -sse3; do
    same "--cpu-features=$features" "$(h --cpu-features=$features)" "$want"
    same "--cpu-features=$features token by token" "$(h --cpu-features=$features --chunk 1)" "$want"
  done
fi
for i in 0 1 2; do
  same "--candidate $i" "$(h --candidate $i)" "$want"
  same "--candidate $i token by token" "$(h --candidate $i --chunk 1)" "$want"
done
same "--retune" "$(h --retune)" "$want"
same "--no-tune" "$(h --no-tune)" "$want"
same "interpreter" "$("$SETUN" logits "$MODEL" --tokens $IDS --hash --interpret)" "$("$SETUN" logits "$MODEL" --tokens $IDS --hash)"
same "interpreter, token by token" "$("$SETUN" logits "$MODEL" --tokens 1021,870,266,79 --hash --all --interpret --chunk 1)" \
  "$("$SETUN" logits "$MODEL" --tokens 1021,870,266,79 --hash --all)"
[ "$(h --kv f16)" != "$(h --kv f32)" ] && [ "$(h --kv q8)" != "$(h --kv f32)" ] || bad "the KV cache's type makes no difference"
finish
