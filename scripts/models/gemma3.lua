-- models/gemma3.lua -- Gemma 3, text only: see lib/gemma.lua.
local nn, names, gemma = require "nn", require "names", require "gemma"

return setun.model {
  architectures = { "Gemma3ForCausalLM" },
  ignore = nn.harmless,
  names = names.gemma3,
  build = function(g, hp) gemma.build(g, hp, nil, nn.head) end,
}
