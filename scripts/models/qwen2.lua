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
    local eps = c.rms_norm_eps
    local t = { c = c, kv = hp.kv, n_ctx = hp.n_ctx, pos = g:input "positions", bias = true,
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
