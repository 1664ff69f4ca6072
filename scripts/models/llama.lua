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
    local eps = c.rms_norm_eps
    local t = { c = c, kv = hp.kv, n_ctx = hp.n_ctx, pos = g:input "positions",
                rope = nn.rope_table(g, hp, c, 10000) }

    local x = g:embed(nn.matrix(g, "token_embd", c.vocab_size, c.hidden_size), g:input "tokens")
    for i = 0, c.num_hidden_layers - 1 do
      local b = g:scope("blk.%d", i)
      local h = nn.attention(b, nn.rmsnorm(b, x, "attn_norm", eps), t)
      x = x + nn.linear(b, h, "attn_out", c.hidden_size)

      h = nn.rmsnorm(b, x, "ffn_norm", eps)
      local gate = b:silu(nn.linear(b, h, "ffn_gate", c.intermediate_size))
      h = gate * nn.linear(b, h, "ffn_up", c.intermediate_size)
      x = x + nn.linear(b, h, "ffn_down", c.hidden_size)
    end
    nn.head(g, x, c)
  end,
}
