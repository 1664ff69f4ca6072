-- models/bitnet_b158.lua -- BitNet b1.58 2B4T: Llama-like, with ternary linear layers, a squared
-- ReLU, and two more norms: after attention and inside the feed-forward block.
local nn, names = require "nn", require "names"

return setun.model {
  architectures = { "BitNetForCausalLM" },
  ignore = nn.harmless,
  names = names.extend(names.llama, {
    ["blk.%d.attn_sub_norm"] = "model.layers.%d.self_attn.attn_sub_norm.weight",
    ["blk.%d.ffn_sub_norm"]  = "model.layers.%d.mlp.ffn_sub_norm.weight",
  }),

  build = function(g, hp)
    local c = nn.llama_config(hp, { hidden_act = nn.only "relu2" })
    local eps = c.rms_norm_eps
    local t = { c = c, kv = hp.kv, n_ctx = hp.n_ctx, pos = g:input "positions",
                rope = nn.rope_table(g, hp, c, 500000) }

    local x = nn.embedding(g, c)
    for i = 0, c.num_hidden_layers - 1 do
      local b = g:scope("blk.%d", i)
      local h = nn.attention(b, nn.rmsnorm(b, x, "attn_norm", eps), t)
      h = nn.rmsnorm(b, h, "attn_sub_norm", eps)
      x = x + nn.linear(b, h, "attn_out", c.hidden_size)

      h = nn.rmsnorm(b, x, "ffn_norm", eps)
      local gate = b:relu2(nn.linear(b, h, "ffn_gate", c.intermediate_size))
      h = gate * nn.linear(b, h, "ffn_up", c.intermediate_size)
      h = nn.rmsnorm(b, h, "ffn_sub_norm", eps)
      x = x + nn.linear(b, h, "ffn_down", c.hidden_size)
    end
    nn.head(g, x, c)
  end,
}
