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

local layer = "model.layers.%d."

-- What Qwen3 and Gemma 3 have besides.
names.qwen3 = names.extend(names.llama, {
  ["blk.%d.attn_q_norm"] = layer .. "self_attn.q_norm.weight",
  ["blk.%d.attn_k_norm"] = layer .. "self_attn.k_norm.weight",
})
names.gemma3 = names.extend(names.qwen3, {
  ["blk.%d.attn_post_norm"] = layer .. "post_attention_layernorm.weight",
  ["blk.%d.ffn_norm"]       = layer .. "pre_feedforward_layernorm.weight",
  ["blk.%d.ffn_post_norm"]  = layer .. "post_feedforward_layernorm.weight",
})

-- Norms inside linear layers, of BitNet's text embedding models.
names.norms_in = {
  ["blk.%d.attn_q_norm_in"]   = layer .. "self_attn.q_proj.norm.weight",
  ["blk.%d.attn_k_norm_in"]   = layer .. "self_attn.k_proj.norm.weight",
  ["blk.%d.attn_v_norm_in"]   = layer .. "self_attn.v_proj.norm.weight",
  ["blk.%d.attn_out_norm_in"] = layer .. "self_attn.o_proj.norm.weight",
  ["blk.%d.ffn_gate_norm_in"] = layer .. "mlp.gate_proj.norm.weight",
  ["blk.%d.ffn_up_norm_in"]   = layer .. "mlp.up_proj.norm.weight",
  ["blk.%d.ffn_down_norm_in"] = layer .. "mlp.down_proj.norm.weight",
}

-- Checkpoints of the bare model, saved without the class around it, lack "model." in front of names.  Each
-- such entry of base becomes a list of both; the one that the file has is taken.
function names.bare(base)
  local result = {}
  for short, long in pairs(base) do
    local rest = long:match("^model%.(.+)$")
    result[short] = rest and { long, rest } or long
  end
  return result
end

return names
