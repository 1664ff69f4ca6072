-- models/bitnet_1bitllm.lua -- the reproductions of BitNet b1.58 by 1bitLLM (large, xl, 3B): SiLU, a norm
-- after attention and one inside the feed-forward block, and float masters that are made ternary when
-- they are read, matrix by matrix.  Not the later 2B4T, which differs in the activation and in names.
local nn, names = require "nn", require "names"

return setun.model {
  architectures = { "BitnetForCausalLM" },
  ignore = nn.harmless,
  names = names.extend(names.llama, {
    ["blk.%d.attn_sub_norm"] = "model.layers.%d.self_attn.inner_attn_ln.weight",
    ["blk.%d.ffn_sub_norm"]  = "model.layers.%d.mlp.ffn_layernorm.weight",
  }),

  build = function(g, hp)
    -- Other widths would be other layers: float ones for 16 bits, coarser inputs below 8.
    local c = nn.llama_config(hp, { hidden_act = nn.only "silu", weight_bits = nn.only(1), input_bits = nn.only(8) })
    nn.llama(g, hp, c, { theta = 10000, act = "silu", sub_norms = true })
  end,
}
