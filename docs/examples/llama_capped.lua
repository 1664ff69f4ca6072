-- llama_capped.lua -- Llama with a capped squared ReLU: the example of docs/writing-a-model.md.
local nn, names = require "nn", require "names"

return setun.model {
  architectures = { "LlamaCappedForCausalLM" },
  ignore = nn.harmless,
  names = names.llama,

  build = function(g, hp)
    local c = nn.llama_config(hp, { hidden_act = nn.only "relu2_cap" })
    local t = { c = c, kv = hp.kv, n_ctx = hp.n_ctx, pos = g:input "positions",
                rope = nn.rope_table(g, hp, c, 10000) }
    local x = nn.embedding(g, c)
    for i = 0, c.num_hidden_layers - 1 do
      local b = g:scope("blk.%d", i)
      local h = nn.attention(b, nn.rmsnorm(b, x, "attn_norm", c.rms_norm_eps), t)
      x = x + nn.linear(b, h, "attn_out", c.hidden_size)
      h = nn.rmsnorm(b, x, "ffn_norm", c.rms_norm_eps)
      local gate = b:relu2_cap(nn.linear(b, h, "ffn_gate", c.intermediate_size), { cap = 6.0 })
      x = x + nn.linear(b, gate * nn.linear(b, h, "ffn_up", c.intermediate_size), "ffn_down", c.hidden_size)
    end
    nn.head(g, x, c)
  end,
}
