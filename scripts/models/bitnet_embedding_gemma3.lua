-- models/bitnet_embedding_gemma3.lua -- BitNet's text embedding model of 270M: Gemma 3 with ternary linear
-- layers that normalise their input, each with gains of its own, which are stored as they are.
local nn, names, gemma = require "nn", require "names", require "gemma"

return setun.model {
  architectures = { "Gemma3ForCausalLM", "Gemma3TextModel" },
  tensors = { "blk.0.attn_q_norm_in" }, -- nothing in its configuration tells it from Gemma 3
  pooling = "last",
  ignore = nn.harmless,
  names = names.bare(names.extend(names.gemma3, names.norms_in)),
  build = function(g, hp) gemma.build(g, hp, nn.norm_in(hp), nn.states) end,
}
