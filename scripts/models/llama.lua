-- models/llama.lua -- Llama and its relatives: RMS norms, rotary positions, grouped-query attention,
-- a SiLU gate.  Linear layers are ternary where the file has them so (Falcon3 and Llama3 in 1.58
-- bits), else 16-bit floats.
local nn, names = require "nn", require "names"

return setun.model {
  architectures = { "LlamaForCausalLM" },
  ignore = nn.harmless,
  names = names.llama,

  build = function(g, hp)
    local c = nn.llama_config(hp, { hidden_act = nn.only "silu" })
    nn.llama(g, hp, c, { theta = 10000, act = "silu" })
  end,
}
