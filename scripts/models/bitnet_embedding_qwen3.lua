-- models/bitnet_embedding_qwen3.lua -- BitNet's text embedding model of 0.6B: Qwen3 with ternary linear
-- layers that normalise their input, each with gains of its own.
local nn, names = require "nn", require "names"

return setun.model {
  architectures = { "Qwen3ForCausalLM", "Qwen3Model" },
  tensors = { "blk.0.attn_q_norm_in" }, -- nothing in its configuration tells it from Qwen3
  pooling = "last",
  ignore = nn.both(nn.harmless, nn.window_keys),
  names = names.bare(names.extend(names.qwen3, names.norms_in)),

  build = function(g, hp)
    local c = nn.llama_config(hp, { hidden_act = nn.only "silu", head_dim = nn.count })
    nn.full_attention(hp, c)
    c.input = nn.norm_in(hp)
    nn.llama(g, hp, c, { theta = 10000, act = "silu", head_norm = true, finish = nn.states })
  end,
}
