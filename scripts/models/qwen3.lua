-- models/qwen3.lua -- Qwen3: Llama with a norm on every head of queries and keys, before rotation, and
-- with heads whose size does not follow from the hidden size.
local nn, names = require "nn", require "names"

return setun.model {
  architectures = { "Qwen3ForCausalLM" },
  ignore = nn.both(nn.harmless, nn.window_keys),
  names = names.extend(names.llama, {
    ["blk.%d.attn_q_norm"] = "model.layers.%d.self_attn.q_norm.weight",
    ["blk.%d.attn_k_norm"] = "model.layers.%d.self_attn.k_norm.weight",
  }),

  build = function(g, hp)
    -- The reference takes 128, not a quotient, where head_dim is missing; better to be told.
    local c = nn.llama_config(hp, { hidden_act = nn.only "silu", head_dim = nn.count })
    nn.full_attention(hp, c)
    local eps = c.rms_norm_eps
    local t = { c = c, kv = hp.kv, n_ctx = hp.n_ctx, pos = g:input "positions", head_norm = true,
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
