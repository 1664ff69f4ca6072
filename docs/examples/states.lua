-- docs/examples/states.lua -- BitNet b1.58 as a text embedding model: last states in place of logits.
local nn, names = require "nn", require "names"

return setun.model {
  architectures = { "BitNetForCausalLM" },
  pooling = "mean",
  ignore = nn.harmless,
  names = names.extend(names.llama, {
    ["blk.%d.attn_sub_norm"] = "model.layers.%d.self_attn.attn_sub_norm.weight",
    ["blk.%d.ffn_sub_norm"]  = "model.layers.%d.mlp.ffn_sub_norm.weight",
  }),

  build = function(g, hp)
    local c = nn.llama_config(hp, { hidden_act = nn.only "relu2" })
    nn.llama(g, hp, c, { theta = 500000, act = "relu2", sub_norms = true, finish = nn.states })
  end,
}
