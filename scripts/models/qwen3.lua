-- models/qwen3.lua -- Qwen3: Llama with a norm on every head of queries and keys, before rotation, and
-- with heads whose size does not follow from the hidden size.
local nn, names = require "nn", require "names"

return setun.model {
  architectures = { "Qwen3ForCausalLM" },
  ignore = nn.both(nn.harmless, nn.window_keys),
  names = names.qwen3,

  build = function(g, hp)
    -- The reference takes 128, not a quotient, where head_dim is missing; better to be told.
    local c = nn.llama_config(hp, { hidden_act = nn.only "silu", head_dim = nn.count })
    nn.full_attention(hp, c)
    nn.llama(g, hp, c, { theta = 10000, act = "silu", head_norm = true })
  end,
}
