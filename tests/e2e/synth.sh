# Synthetic models: deterministic, readable, both scale rules, master weights, shards.
. "$(dirname "$0")/lib.sh"
for like in tiny llama-tiny llama-tiny-158; do
  "$SETUN" synth --like $like --as hf -o "$TMP/$like" -q || bad "synth $like"
  a=$("$SETUN" logits "$TMP/$like" --tokens 1,2,3 --hash) || bad "logits $like"
  same "$like, reference" "$("$SETUN" logits "$TMP/$like" --tokens 1,2,3 --hash --backend reference)" "$a"
  "$SETUN" run "$TMP/$like" -p "one two" -n 8 --ignore-eos -q >/dev/null || bad "run $like"
done
"$SETUN" synth --like tiny --as hf -o "$TMP/again" -q
for f in config.json tokenizer.json model.safetensors; do cmp -s "$TMP/tiny/$f" "$TMP/again/$f" || bad "$f is not deterministic"; done
"$SETUN" synth --like tiny --as hf -o "$TMP/other" --seed 2 -q
cmp -s "$TMP/tiny/model.safetensors" "$TMP/other/model.safetensors" && bad "seeds make no difference"
"$SETUN" synth --like tiny --master --as hf -o "$TMP/master" -q
"$SETUN" info "$TMP/master" | grep -q "absmean" || bad "info on master weights"
"$SETUN" logits "$TMP/master" --tokens 1,2,3 --hash >/dev/null || bad "logits of master weights"
"$SETUN" synth --config "$MODEL/config.json" --as hf -o "$TMP/shape" -q || bad "synth --config"
"$SETUN" synth --config "$MODEL/config.json" --as hf -o "$TMP/shards" --shard-mb 1 -q || bad "synth --shard-mb"
[ -f "$TMP/shards/model.safetensors.index.json" ] || bad "no shards"
same "shards" "$("$SETUN" logits "$TMP/shards" --tokens 1,2,3 --hash)" "$("$SETUN" logits "$TMP/shape" --tokens 1,2,3 --hash)"
"$SETUN" synth --like tiny --as hf -o "$TMP/closed" --relu-density 0.1 -q || bad "synth --relu-density"
a=$("$SETUN" logits "$TMP/closed" --tokens 1,2,3 --hash --all)
same "few open gates, token by token" "$("$SETUN" logits "$TMP/closed" --tokens 1,2,3 --hash --all --chunk 1)" "$a"
same "few open gates, reference" "$("$SETUN" logits "$TMP/closed" --tokens 1,2,3 --hash --all --backend reference)" "$a"
fails "exists" "$SETUN" synth --like tiny --as hf -o "$TMP/tiny" -q
"$SETUN" synth --like pony --as hf -o "$TMP/pony" -q 2>"$TMP/err"; grep -q 2b4t "$TMP/err" || bad "an unknown shape lists the known ones"
finish
