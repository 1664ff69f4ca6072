-- lib/gemma.lua -- Gemma 3, text only.  Unlike Llama: norms after attention and after the feed-forward
-- block, too, before they join the residual; gains stored less 1; a norm on every head; embeddings times
-- sqrt(hidden_size); most layers see a sliding window only, and turn by angles of another base.
-- The reference rounds sqrt(hidden_size) to the type of the weights; here it is exact.
local nn = require "nn"
local gemma = {}

-- Which layers see everything: layer_types says it, or every pattern-th layer.
local function full_layers(hp, c)
  local n, old = hp.sliding_window_pattern, hp._sliding_window_pattern
  if n and old then nn.only(n)("_sliding_window_pattern", old) end
  n = n or old
  local types, full = hp.layer_types, {}
  if not types then nn.count("sliding_window_pattern", n) end
  for i = 1, c.num_hidden_layers do
    if types then
      full[i] = types[i] == "full_attention"
      if not full[i] then nn.only("sliding_attention")("layer_types." .. i, types[i]) end
    end
    if n then
      local want = i % nn.count("sliding_window_pattern", n) == 0
      if types and full[i] ~= want then
        error(("config.json: layer_types.%d and sliding_window_pattern %d do not agree"):format(i, n), 0)
      end
      full[i] = want
    end
  end
  return full
end

-- All of the model.  input: as in nn.linear_of; finish: nn.head or nn.states.
function gemma.build(g, hp, input, finish)
  local function none(key, v)
    if v ~= nil then error(("config.json: %s is %s, but this script computes none"):format(key, tostring(v)), 0) end
  end
  local c = nn.llama_config(hp, {
    hidden_act = nn.optional(nn.only "gelu_pytorch_tanh"), hidden_activation = nn.only "gelu_pytorch_tanh",
    head_dim = nn.count, tie_word_embeddings = nn.optional(nn.flag, true), query_pre_attn_scalar = nn.positive,
    rope_local_base_freq = nn.positive, sliding_window = nn.count, use_bidirectional_attention = nn.only(false, true),
    attn_logit_softcapping = none, final_logit_softcapping = none,
  })
  c.input = input
  -- A GGUF file has the 1 in its gains already.
  if not (hp.gguf and hp.gguf.norms_include_one) then c.plus = nn.ones(g) end
  local eps, full, pos = c.rms_norm_eps, full_layers(hp, c), g:input "positions"
  local function kind(rope, window)
    return { c = c, kv = hp.kv, n_ctx = hp.n_ctx, pos = pos, head_norm = true, rope = rope, window = window,
             scale = 1 / math.sqrt(c.query_pre_attn_scalar) }
  end
  local all = kind(nn.rope_table(g, hp, c, 1000000))
  local near = kind(g:rope_table { theta = c.rope_local_base_freq, dim = c.head_dim, positions = hp.n_ctx },
                    c.sliding_window)

  local x = nn.embedding(g, c)
  x = g:scale(x, { by = math.sqrt(c.hidden_size) })
  for i = 0, c.num_hidden_layers - 1 do
    local b = g:scope("blk.%d", i)
    local function norm(v, name) return nn.rmsnorm(b, v, name, eps, c.plus) end
    local h = nn.attention(b, norm(x, "attn_norm"), full[i + 1] and all or near)
    x = x + norm(nn.linear_of(b, c, h, "attn_out", c.hidden_size), "attn_post_norm")

    h = norm(x, "ffn_norm")
    local gate = b:gelu_tanh(nn.linear_of(b, c, h, "ffn_gate", c.intermediate_size))
    h = gate * nn.linear_of(b, c, h, "ffn_up", c.intermediate_size)
    x = x + norm(nn.linear_of(b, c, h, "ffn_down", c.hidden_size), "ffn_post_norm")
  end
  finish(g, x, c)
end

return gemma
