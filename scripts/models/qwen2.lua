-- models/qwen2.lua -- Qwen2 and Qwen2.5: Llama with a bias on queries, keys and values (and on nothing
-- else).  The configuration does not mention the biases: the architecture has them.
local nn, names = require "nn", require "names"

return setun.model {
  architectures = { "Qwen2ForCausalLM" },
  ignore = nn.both(nn.harmless, nn.window_keys),
  names = names.extend(names.llama, {
    ["blk.%d.attn_q_bias"] = "model.layers.%d.self_attn.q_proj.bias",
    ["blk.%d.attn_k_bias"] = "model.layers.%d.self_attn.k_proj.bias",
    ["blk.%d.attn_v_bias"] = "model.layers.%d.self_attn.v_proj.bias",
  }),

  build = function(g, hp)
    local c = nn.llama_config(hp, {
      hidden_act = nn.only "silu", attention_bias = nn.only(true, true), use_mrope = nn.only(false, true),
    })
    nn.full_attention(hp, c)
    nn.llama(g, hp, c, { theta = 10000, act = "silu", bias = true })
  end,
}
