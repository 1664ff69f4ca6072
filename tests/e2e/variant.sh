# A Llama variant is one script, and what the documents show is what is in the tree.
. "$(dirname "$0")/lib.sh"
lua5.4 - "$SOURCE" <<'L' || bad "docs/writing-a-model.md and docs/examples/llama_capped.lua differ"
local root = arg[1]
local shown = io.open(root .. "/docs/writing-a-model.md"):read("a"):match("```lua\n(.-)```")
local kept = io.open(root .. "/docs/examples/llama_capped.lua"):read("a"):gsub("^[^\n]*\n", "", 1)
os.exit(shown == kept)
L
for like in llama-tiny llama-tiny-158; do
  "$SETUN" synth --like $like --as hf -o "$TMP/$like" -q || bad "synth $like"
  want=$("$SETUN" logits "$TMP/$like" --tokens 1,2,3 --hash)
  sed -i 's/LlamaForCausalLM/LlamaCappedForCausalLM/; s/"silu"/"relu2_cap"/' "$TMP/$like/config.json"
  fails "LlamaCappedForCausalLM" "$SETUN" logits "$TMP/$like" --tokens 1,2,3 --hash
  got=$("$SETUN" logits "$TMP/$like" --tokens 1,2,3 --hash --script "$SOURCE/docs/examples/llama_capped.lua") || bad "the variant"
  [ ${#got} -eq 16 ] && [ "$got" != "$want" ] || bad "the variant computes the same as Llama: '$got'"
  same "the variant by the reference backend" "$("$SETUN" logits "$TMP/$like" --tokens 1,2,3 --hash --backend reference \
    --script "$SOURCE/docs/examples/llama_capped.lua")" "$got"
done
finish
