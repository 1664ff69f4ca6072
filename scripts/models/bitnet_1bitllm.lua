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
    local eps = c.rms_norm_eps
    local t = { c = c, kv = hp.kv, n_ctx = hp.n_ctx, pos = g:input "positions",
                rope = nn.rope_table(g, hp, c, 10000) }

    local x = g:embed(nn.matrix(g, "token_embd", c.vocab_size, c.hidden_size), g:input "tokens")
    for i = 0, c.num_hidden_layers - 1 do
      local b = g:scope("blk.%d", i)
      local h = nn.attention(b, nn.rmsnorm(b, x, "attn_norm", eps), t)
      h = nn.rmsnorm(b, h, "attn_sub_norm", eps)
      x = x + nn.linear(b, h, "attn_out", c.hidden_size)

      h = nn.rmsnorm(b, x, "ffn_norm", eps)
      local gate = b:silu(nn.linear(b, h, "ffn_gate", c.intermediate_size))
      h = gate * nn.linear(b, h, "ffn_up", c.intermediate_size)
      h = nn.rmsnorm(b, h, "ffn_sub_norm", eps)
      x = x + nn.linear(b, h, "ffn_down", c.hidden_size)
    end
    nn.head(g, x, c)
  end,
}
