# setun convert and setun diff: every form computes the same bits, nothing is left behind, and what differs is told.
. "$(dirname "$0")/lib.sh"
hash_of() { "$SETUN" logits "$@" --tokens 1,2,3,4,5 --hash; }
want=$(hash_of "$MODEL")
same "the model itself" "$want" 94ab00825ba531f2

# There and back: each form gives the model's own bits and its tokens, and so does the directory made of it.
text="It's 1603: enter HAMLET,   naïvely; 日本"
ids=$("$SETUN" tokenize "$MODEL" -p "$text")
for form in tq1_0 tq2_0 i2_s i2_s-arm i2_s-rows4 iq1_bn iq2_bn q2_0 q2_0-128 pq2_0 ptq1_0; do
  file=$TMP/$form.gguf
  "$SETUN" convert "$MODEL" "$file" --to $form --lossless >"$TMP/report" || bad "to $form"
  grep -q "^codes: 3145728 weights in 28 matrices, all equal$" "$TMP/report" || bad "the report of $form"
  same "$form" "$(hash_of "$file")" "$want"
  same "tokens of $form" "$("$SETUN" tokenize "$file" -p "$text")" "$ids"
  "$SETUN" convert "$file" "$TMP/back" --to hf --lossless -q || bad "from $form"
  same "back from $form" "$(hash_of "$TMP/back")" "$want"
  same "tokens back from $form" "$("$SETUN" tokenize "$TMP/back" -p "$text")" "$ids"
  rm -r "$TMP/back"
done
"$SETUN" diff "$MODEL" "$TMP/tq2_0.gguf" >"$TMP/out" || bad "diff: a conversion differs"
grep -q "^logits: all 1024 equal, bit for bit" "$TMP/out" || bad "diff does not compare logits"
"$SETUN" diff "$TMP/iq1_bn.gguf" "$TMP/i2_s.gguf" --no-run >/dev/null || bad "diff: two types of one model"
# The wrong layout is another model.
"$SETUN" diff "$MODEL" "$TMP/i2_s.gguf" --i2s-layout arm --no-run >"$TMP/out" && bad "diff: the wrong layout is the same model"
grep -q "weights differ, first row" "$TMP/out" || bad "diff does not say which weights"

# Where two runs part: some weights of one matrix become 0, and its own product is the first step to differ.
zeroed() { # NAME FILE: 64 bytes of four codes each
  lua5.4 - "$1" "$2" <<'END'
    local f = assert(io.open(arg[2], "r+b"))
    local n = string.unpack("<I8", f:read(8))
    local at = f:read(n):match('"' .. arg[1]:gsub("[.]", "%%.") .. '":{[^}]*"data_offsets":%[(%d+)')
    f:seek("set", 8 + n + assert(at, "no tensor"))
    f:write(("\x55"):rep(64))
    f:close()
END
}
part() { # LAYER.NAME "step" "what leaves layer 0"
  cp -r "$MODEL" "$TMP/part" && chmod -R u+w "$TMP/part"
  zeroed "model.layers.$1.weight" "$TMP/part"/*.safetensors
  "$SETUN" diff "$MODEL" "$TMP/part" >"$TMP/out"
  same "diff of other weights in $1" $? 1
  grep -q "^activations: the first that differ are made by [a-z_]* in $2, step [0-9]* of [0-9]*; what leaves layer 0 $3\$" "$TMP/out" ||
    bad "the first step that differs by $1: $(grep ^activations "$TMP/out")"
  "$SETUN" diff "$MODEL" "$TMP/part" --json --tokens 7 >"$TMP/out" # one token runs another program
  grep -q "\"activations\": {\"compared\": true.*\"scope\": \"$2\"" "$TMP/out" || bad "--json of $1"
  rm -r "$TMP/part"
}
part 0.self_attn.v_proj blk.0.attn_v differs
part 0.mlp.down_proj blk.0.ffn_down differs
part 3.self_attn.o_proj blk.3.attn_out "is equal"
"$SETUN" diff "$MODEL" "$TMP/iq1_bn.gguf" | grep -q "^activations: those of all [0-9]* steps equal, bit for bit$" || bad "diff does not compare activations"

# Llama's queries and keys have another order in GGUF; masters become ternary; scales are rounded and that is said.
"$SETUN" synth --like llama-tiny-158 --as hf -o "$TMP/llama" -q
"$SETUN" convert "$TMP/llama" "$TMP/llama.gguf" --to iq2_bn --lossless -q || bad "llama to iq2_bn"
same "llama" "$(hash_of "$TMP/llama.gguf")" "$(hash_of "$TMP/llama")"
"$SETUN" convert "$TMP/llama" "$TMP/llama-tq.gguf" --to tq2_0 >"$TMP/report" || bad "llama to tq2_0"
grep -q "changed in 14, by at most 0.00024" "$TMP/report" || bad "rounded scales are not reported"
"$SETUN" info "$TMP/llama-tq.gguf" >"$TMP/out"
grep -q "8-bit integers: the key setun.activations says so" "$TMP/out" || bad "the file does not say what its activations are"
fails "would not be the same numbers" "$SETUN" convert "$TMP/llama" "$TMP/none.gguf" --to tq2_0 --lossless -q
"$SETUN" diff "$TMP/llama" "$TMP/llama-tq.gguf" --json >"$TMP/out"
same "diff of rounded scales" $? 1
lua5.4 -e 'local t = io.read("a") assert(t:find("\"equal\": false", 1, true) and t:find("\"scales\": 14", 1, true))' <"$TMP/out" || bad "diff --json"
# Llama 3's scaling of angles is a tensor there, from both places that a configuration may have it.
numbers='"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64'
for at in rope_scaling rope_parameters; do
  sed "s/\"rope_theta\": 10000.0,/\"rope_theta\": 10000.0, \"$at\": {$numbers},/" "$TMP/llama/config.json" >"$TMP/llama3.json"
  "$SETUN" synth --config "$TMP/llama3.json" --as hf -o "$TMP/llama3" -q || bad "a model with $at"
  "$SETUN" convert "$TMP/llama3" "$TMP/llama3.gguf" --to iq2_bn --lossless -q || bad "$at to iq2_bn"
  grep -qa rope_freqs.weight "$TMP/llama3.gguf" || bad "$at writes no rope_freqs.weight"
  "$SETUN" convert "$TMP/llama3.gguf" "$TMP/llama3.back" --to hf --lossless -q || bad "$at back"
  for file in llama3.gguf llama3.back; do
    same "$at in $file" "$(hash_of "$TMP/$file")" "$(hash_of "$TMP/llama3")"
  done
  [ "$(hash_of "$TMP/llama3")" != "$(hash_of "$TMP/llama")" ] || bad "$at changes nothing"
  rm -r "$TMP/llama3" "$TMP/llama3.gguf" "$TMP/llama3.back"
done
sed 's/"high_freq_factor": 4.0/"high_freq_factor": 3.0/' "$TMP/llama3.json" >"$TMP/other.json"
"$SETUN" synth --config "$TMP/other.json" --as hf -o "$TMP/other" -q || bad "a model with other factors"
fails "llama3 with factors 1 and 4" "$SETUN" convert "$TMP/other" "$TMP/none" --to iq2_bn -q
"$SETUN" synth --like tiny --master --as hf -o "$TMP/master" -q
"$SETUN" convert "$TMP/master" "$TMP/master.gguf" --to iq2_bn --lossless -q || bad "master to iq2_bn"
same "master" "$(hash_of "$TMP/master.gguf")" "$(hash_of "$TMP/master")"
"$SETUN" convert "$MODEL" "$TMP/q8.gguf" --to tq2_0 --float q8_0 >"$TMP/report" || bad "--float q8_0"
grep -q "model.embed_tokens.weight, BF16 to Q8_0: .* values, by at most" "$TMP/report" || bad "changed floats are not reported"
"$SETUN" convert "$MODEL" "$TMP/flat" --to hf-float >"$TMP/report" || bad "to hf-float"
grep -q "^activations: " "$TMP/report" || bad "hf-float does not say that activations are used otherwise"
"$SETUN" diff "$MODEL" "$TMP/flat" >"$TMP/out" && bad "int8 and float activations are one model"
grep -q "^activations: equal until the models have other steps: rmsnorm_i8 in blk.0, .*; what leaves layer 0 differs$" "$TMP/out" ||
  bad "other steps: $(grep ^activations "$TMP/out")"
"$SETUN" convert "$TMP/flat" "$TMP/packed" --to hf --ternary exact --activations int8 --lossless -q || bad "from hf-float"
same "packed again" "$(hash_of "$TMP/packed")" "$want"

# Refusals, each one sentence, and nothing is left.
fails "exists" "$SETUN" convert "$MODEL" "$TMP/flat" --to hf
fails "says of no matrix that it is ternary" "$SETUN" convert "$TMP/flat" "$TMP/none" --to iq2_bn
fails "'gguf' is not a form" "$SETUN" convert "$MODEL" "$TMP/none" --to gguf
fails "does not exist" "$SETUN" convert "$MODEL" "$TMP/no/where" --to hf
fails "no config.json" "$SETUN" convert "$TMP" "$TMP/none" --to hf
fails "larger than the system allows" bash -c "ulimit -f 100; '$SETUN' convert '$MODEL' '$TMP/none' --to hf -q"
"$SETUN" convert "$MODEL" 2>/dev/null; same "usage" $? 2
"$SETUN" convert "$MODEL" "$TMP/none" 2>/dev/null; same "usage without --to" $? 2
"$SETUN" diff "$MODEL" "$TMP/none" >/dev/null 2>&1; same "diff with nothing" $? 2
"$SETUN" diff "$MODEL" >/dev/null 2>&1; same "diff usage" $? 2
[ -z "$(ls "$TMP" | grep -E '^none|tmp$|old$')" ] || bad "left behind: $(ls "$TMP")"

# Stopped, early and late.  A shell's & makes Ctrl-C be ignored; the other signals are the same to setun.
sed 's/"hidden_size": 256/"hidden_size": 1024/; s/"intermediate_size": 768/"intermediate_size": 4096/; s/"num_hidden_layers": 4/"num_hidden_layers": 8/' \
  "$MODEL/config.json" >"$TMP/big.json"
"$SETUN" synth --config "$TMP/big.json" --as hf -o "$TMP/big" -q || bad "a larger model"
# begun OUT PID: it makes something.  A signal before that is none of the program's business.
begun() { for _ in $(seq 3000); do compgen -G "$1.*.tmp" >/dev/null && break; sleep 0.01; done; }
# left NAME "when": exit code and files of the program that was stopped last.
left() {
  wait $!
  same "exit code when stopped $2" $? 130
  [ -z "$(ls "$TMP" | grep -E "^$1")" ] || bad "stopped $2, it leaves $(ls "$TMP" | grep "^$1")"
}
for wait in 0 0.2; do
  "$SETUN" convert "$TMP/big" "$TMP/none" --to tq1_0 -q 2>"$TMP/err" &
  begun "$TMP/none"
  sleep $wait
  kill -TERM $! 2>/dev/null
  left none "after $wait s"
done
# Again before the first signal is seen: while a process is stopped, signals wait, and then all come at once.
impatient() { kill -STOP $! && kill -TERM $! && kill -HUP $! && kill -CONT $! || bad "the program ended too early"; }
for to in tq1_0 hf-float; do
  "$SETUN" convert "$TMP/big" "$TMP/none" --to $to -q 2>"$TMP/err" &
  begun "$TMP/none"
  impatient
  left none "twice, to $to"
done
"$SETUN" synth --config "$TMP/big.json" --as hf -o "$TMP/none" -q 2>"$TMP/err" &
begun "$TMP/none"
impatient
left none "twice, by synth"
finish
