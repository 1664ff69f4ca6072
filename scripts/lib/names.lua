-- lib/names.lua -- what tensors are called in files, by the short names that model scripts use.
--
-- A table per convention.  A part that is a number stands as %d on both sides.  A model that differs
-- in some names, or has more tensors, says so in its own script:
--
--     names = names.extend(names.llama, { ["blk.%d.attn_sub_norm"] = "model.layers.%d...weight" })
local names = {}

-- Hugging Face checkpoints of the Llama family.
names.llama = {
  ["token_embd"]       = "model.embed_tokens.weight",
  ["output_norm"]      = "model.norm.weight",
  ["output"]           = "lm_head.weight",
  ["blk.%d.attn_norm"] = "model.layers.%d.input_layernorm.weight",
  ["blk.%d.attn_q"]    = "model.layers.%d.self_attn.q_proj.weight",
  ["blk.%d.attn_k"]    = "model.layers.%d.self_attn.k_proj.weight",
  ["blk.%d.attn_v"]    = "model.layers.%d.self_attn.v_proj.weight",
  ["blk.%d.attn_out"]  = "model.layers.%d.self_attn.o_proj.weight",
  ["blk.%d.ffn_norm"]  = "model.layers.%d.post_attention_layernorm.weight",
  ["blk.%d.ffn_gate"]  = "model.layers.%d.mlp.gate_proj.weight",
  ["blk.%d.ffn_up"]    = "model.layers.%d.mlp.up_proj.weight",
  ["blk.%d.ffn_down"]  = "model.layers.%d.mlp.down_proj.weight",
}

-- A copy of base in which the entries of more are added or replaced.
function names.extend(base, more)
  local result = {}
  for short, long in pairs(base) do result[short] = long end
  for short, long in pairs(more) do result[short] = long end
  return result
end

return names
