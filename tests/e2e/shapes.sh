# The same bits for shapes that no kernel was written for: odd widths, head sizes and head counts, whoever computes them.
. "$(dirname "$0")/lib.sh"

BITNET='"architectures": ["BitNetForCausalLM"], "model_type": "bitnet", "hidden_act": "relu2"'
LLAMA='"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu"'
AUTO=', "quantization_config": {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "offline"}'
CLASSIC=', "quantization_config": {"quant_method": "bitnet", "quantization_mode": "offline"}'
# shape NAME ARCHITECTURE HIDDEN FFN HEADS KV_HEADS HEAD_DIM TIED QUANTIZATION [option of synth]
shape() {
  cat >"$TMP/$1.json" <<JSON
{$2, "hidden_size": $3, "intermediate_size": $4, "num_hidden_layers": 1, "num_attention_heads": $5,
 "num_key_value_heads": $6, "head_dim": $7, "tie_word_embeddings": $8, "vocab_size": 1024,
 "max_position_embeddings": 512, "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "bos_token_id": 1021,
 "eos_token_id": 1022, "torch_dtype": "bfloat16"$9}
JSON
  "$SETUN" synth --config "$TMP/$1.json" ${10:-} --as hf -o "$TMP/$1" -q || bad "synth $1"
  models+=("$TMP/$1")
}
models=("$MODEL")
shape heads96 "$BITNET" 384 5460 4 1 96 true "$AUTO"
shape heads100 "$LLAMA" 600 129 6 3 100 false ""
shape heads80 "$LLAMA" 240 132 3 3 80 true "$CLASSIC"
shape master "$BITNET" 200 132 5 1 40 true "$AUTO" --master
shape odd "$LLAMA" 129 77 3 1 34 false ""
for like in tiny llama-tiny llama-tiny-158; do
  "$SETUN" synth --like $like --as hf -o "$TMP/$like" -q || bad "synth $like"
  models+=("$TMP/$like")
done

# 150 ids: more than one block of attention's 128 keys.
LONG=$(seq -s, 3 6 897)
SHORT=$(seq -s, 3 60 903)
h() { "$SETUN" logits "$m" --hash "$@" 2>"$TMP/err" || bad "$m $* ($(cat "$TMP/err"))"; }
n=0
for m in "${models[@]}"; do
  name=$(basename "$m")
  want=$(h --tokens "$SHORT" --all)
  [ ${#want} -eq 16 ] || bad "$name: no hash"
  same "$name, reference" "$(h --tokens "$SHORT" --all --backend reference)" "$want"
  same "$name, interpreter" "$(h --tokens "$(seq -s, 3 60 303)" --all --interpret)" "$(h --tokens "$(seq -s, 3 60 303)" --all)"
  long=$(h --tokens "$LONG")
  [ "$long" != "$want" ] || bad "$name: two prompts have one hash"
  # Threads 1 to 5, batches and chunks that are no multiple of anything: a different mix for each model.
  for t in 1 2 3 4 5; do
    n=$((n + 1))
    batch=$((1 + n * 37 % 151)) chunk=$((1 + n * 53 % 149))
    same "$name, $t threads, batches of $batch, chunks of $chunk" "$(h --tokens "$LONG" -t $t --batch $batch --chunk $chunk)" "$long"
  done
  if [ "${SETUN_LLVM:-1}" = 1 ] && [ "$(uname -m)" = x86_64 ]; then
    for features in -avx512f -avx2 -sse3; do
      same "$name, $features" "$(h --tokens "$LONG" --cpu-features=$features --chunk 149)" "$long" # 149, then 1
    done
  fi
done
finish
