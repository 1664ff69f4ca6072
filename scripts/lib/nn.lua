-- lib/nn.lua -- what model scripts have in common: reading a configuration strictly, and the
-- blocks that models are made of.  A block is a Lua function over operators; it leaves no trace in
-- the graph but its nodes.
--
-- Errors are raised with level 0: the host puts the line of the model script in front, not a line
-- of this file.
local nn = {}

local function fail(form, ...)
  error(form:format(...), 0)
end

-- A value as a message says it: a key that is absent or null has none.
local function show(v)
  if type(v) == "string" then return "'" .. v .. "'" end
  return v == nil and "missing" or type(v) == "userdata" and "a list or an object" or tostring(v)
end

---------------------------------------------------------------- configuration

-- Keys that say nothing about what the forward pass computes.  Any other key that a script did not
-- read is refused by name, because ignoring it might mean computing another model.
nn.harmless = {
  "_name_or_path", "architectures.*", "attention_dropout", "auto_map.*", "bos_token_id", "chunk_size_feed_forward",
  "dtype", "eos_token_id", "eos_token_id.*", "generation.*", "gguf.pooling", "hidden_dropout", "initializer_range", "is_bitnet_config",
  "max_position_embeddings", "model_type", "output_attentions", "output_hidden_states", "pad_token_id",
  "pretraining_tp", "quantization_config.*", "resid_dropout", "return_dict", "torch_dtype", "transformers_version",
  "unk_token_id", "use_cache",
}

-- Rules for nn.config: functions of (key, value as the file has it) that give the value to use.

-- A whole number from 1 on.
function nn.count(key, v)
  if math.type(v) ~= "integer" or v < 1 then
    fail("config.json: %s must be a whole number from 1 on, it is %s", key, show(v))
  end
  return v
end

-- A number above 0, also when it is rounded to f32, and of a size that operators take.
function nn.positive(key, v)
  if type(v) ~= "number" or not (v > 0) or v == math.huge then
    fail("config.json: %s must be a number above 0, it is %s", key, show(v))
  end
  if setun.f32(v) == 0 or v >= 1e30 then
    fail("config.json: %s is %s, which is too %s to compute with", key, show(v), v < 1 and "small" or "large")
  end
  return v
end

function nn.flag(key, v)
  if type(v) ~= "boolean" then
    fail("config.json: %s must be true or false, it is %s", key, show(v))
  end
  return v
end

-- The same rule, but a key that is absent or null gives fallback.
function nn.optional(rule, fallback)
  return function(key, v)
    if v == nil then return fallback end
    return rule(key, v)
  end
end

-- Exactly this value; with absent = true the key may also be missing.
function nn.only(want, absent)
  return function(key, v)
    if v == nil and absent then return want end
    if v ~= want then
      fail("config.json: %s is %s, but this script computes only %s", key, show(v), tostring(want))
    end
    return v
  end
end

-- Reads every key of rules from hp, in the order of their names, and gives a table of the results.
function nn.config(hp, rules)
  local c = {}
  for key, rule in pairs(rules) do
    c[key] = rule(key, hp[key])
  end
  return c
end

-- Keys that mean nothing where use_sliding_window is false, as nn.full_attention makes sure.
nn.window_keys = { "sliding_window", "max_window_layers" }

-- Refuses layers that do not see all positions.
function nn.full_attention(hp, c)
  nn.only(false, true)("use_sliding_window", hp.use_sliding_window)
  local types = hp.layer_types
  for i = 1, types and c.num_hidden_layers or 0 do
    nn.only("full_attention")("layer_types." .. i, types[i])
  end
end

-- A list of all the strings of two.
function nn.both(a, b)
  local list = {}
  for _, part in ipairs { a, b } do
    for _, v in ipairs(part) do list[#list + 1] = v end
  end
  return list
end

-- The rules that all of the Llama family share; more adds to them or replaces some.
function nn.llama_config(hp, more)
  local rules = {
    hidden_size = nn.count, intermediate_size = nn.count, num_hidden_layers = nn.count,
    num_attention_heads = nn.count, num_key_value_heads = nn.optional(nn.count),
    head_dim = nn.optional(nn.count), vocab_size = nn.count, rms_norm_eps = nn.positive,
    tie_word_embeddings = nn.optional(nn.flag, false),
    attention_bias = nn.only(false, true), mlp_bias = nn.only(false, true),
  }
  for key, rule in pairs(more) do rules[key] = rule end
  local c = nn.config(hp, rules)
  c.num_key_value_heads = c.num_key_value_heads or c.num_attention_heads
  if c.num_attention_heads % c.num_key_value_heads ~= 0 then
    fail("config.json: %d heads do not share %d key and value heads evenly", c.num_attention_heads,
         c.num_key_value_heads)
  end
  if not c.head_dim then
    if c.hidden_size % c.num_attention_heads ~= 0 then
      fail("config.json: hidden_size %d does not divide into %d heads", c.hidden_size, c.num_attention_heads)
    end
    c.head_dim = c.hidden_size // c.num_attention_heads
  end
  if c.head_dim % 2 ~= 0 or c.head_dim > 4096 then
    fail("config.json: heads of %d, by head_dim or by hidden_size and num_attention_heads; an even number up to 4096 can be computed",
         c.head_dim)
  end
  return c
end

---------------------------------------------------------------- weights and layers

-- Sizes are checked against the configuration here, so that a file that contradicts its config.json
-- is refused with both numbers.
local function check_dims(w, rows, columns)
  local d = w.dims
  if d[1] ~= rows or d[2] ~= columns then
    fail("tensor %s is %s, but config.json makes it [%d%s]", w.name, w.shape, rows,
         columns and "," .. columns or "")
  end
  return w
end

-- A matrix as the file has it, in 16 or 32 bits.
function nn.matrix(g, name, rows, columns)
  return check_dims(g:weight(name), rows, columns)
end

-- plus: a vector that is added to the stored gain (see nn.ones).
function nn.rmsnorm(g, x, name, eps, plus)
  local w = check_dims(g:weight(name, "f32"), x.dims[#x.dims])
  if plus then w = w + plus(x.dims[#x.dims]) end
  return g:rmsnorm(x, w, { eps = eps, at = name })
end

-- x times the transpose of weight `name`, in whatever form the file has it; at: where messages say it is.
local function product(g, x, name, rows, at)
  local columns = x.dims[2]
  local w, scale, across, form = g:ternary(name, x)
  if not w then
    return g:matmul(x, nn.matrix(g, name, rows, columns), { at = at })
  end
  local q, s, sum = g:quantize(x, name, form.weight_only)
  if not s then
    return g:ternary_matmul_f32(q, check_dims(w, rows, columns), scale, { at = at, group = form.group })
  end
  if across then
    return g:ternary_matmul_t(q, s, sum, check_dims(w, columns, rows), scale, { at = at })
  end
  return g:ternary_matmul(q, s, sum, check_dims(w, rows, columns), scale, { at = at, group = form.group })
end

-- x times the transpose of weight `name`, [rows, columns of x].  A ternary weight is a bitlinear
-- layer: the activations of each row become 8-bit integers with one scale (or what --quantizer says),
-- the sums are exact integers, and both scales are applied at the end.  Several layers that read the same x quantise it
-- once: equal nodes are merged when the graph is simplified.  Where x is likely to have many zeros the
-- weights come transposed, so that those of a zero need not be read; the result is the same.  Of a model
-- that was trained with ternary weights alone (weight_only) the activations stay floats.
function nn.linear(g, x, name, rows)
  return product(g, x, name, rows, name)
end

-- The rows of the embedding that the tokens name.
function nn.embedding(g, c)
  local w, scale, _, form = g:ternary "token_embd"
  if w then
    return g:embed_ternary(check_dims(w, c.vocab_size, c.hidden_size), scale, g:input "tokens", { group = form.group })
  end
  return g:embed(nn.matrix(g, "token_embd", c.vocab_size, c.hidden_size), g:input "tokens")
end

-- The same with c.input, what layers of some models do to their input first: a function of (g, x, name).
function nn.linear_of(g, c, x, name, rows)
  return nn.linear(g, c.input and c.input(g, x, name) or x, name, rows)
end

-- An input for nn.linear_of: a norm before each layer, with a gain of its own (never one less 1).
function nn.norm_in(hp)
  local eps = nn.positive("rms_norm_eps", hp.rms_norm_eps)
  return function(g, x, name) return nn.rmsnorm(g, x, name .. "_norm_in", eps) end
end

-- For files that store a norm's gain less 1: a function of d that gives the constant of d ones.
function nn.ones(g)
  local made = {}
  return function(d)
    if not made[d] then
      local list = {}
      for i = 1, d do list[i] = 1 end
      made[d] = g:const(("ones_%d"):format(d), "f32", { d }, list)
    end
    return made[d]
  end
end

-- x with the bias `name` added to every row.
function nn.bias(g, x, name)
  return g:add_row(x, check_dims(g:weight(name, "f32"), x.dims[2]), { at = name })
end

-- f32[n,h*d] as f32[n,h,d] and back; no element moves.
function nn.heads(g, x, n) return g:reshape(x, { heads = n }) end
function nn.merge(g, x) return g:reshape(x, { heads = 0 }) end

-- The table of cosines and sines for all positions of the session.  Older files have rope_theta and
-- perhaps rope_scaling, newer ones rope_parameters with both.
function nn.rope_table(g, hp, c, theta)
  local scaling = hp.rope_scaling or hp.rope_parameters
  if scaling and type(scaling) ~= "userdata" then
    fail("config.json: rope_scaling is %s, not an object", show(scaling))
  end
  local function of(key, rule)
    return rule("rope_scaling." .. key, scaling[key])
  end
  local a = { theta = hp.rope_theta or hp.rope_parameters and hp.rope_parameters.rope_theta or theta,
              dim = c.head_dim, positions = hp.n_ctx }
  nn.positive("rope_theta", a.theta)
  if a.theta < 1 or a.theta > 1e15 then
    fail("config.json: rope_theta is %s; a number from 1 to 1e15 can be computed with", show(a.theta))
  end
  local kind, old = scaling and scaling.rope_type, scaling and scaling.type
  if kind and old and kind ~= old then
    fail("config.json: rope_scaling has the types %s and %s", tostring(kind), tostring(old))
  end
  kind = kind or old or "default"
  if kind == "linear" or kind == "llama3" then
    a.scaling = kind
    a.factor = of("factor", nn.positive)
  elseif kind ~= "default" then
    fail("config.json: rope_scaling of type '%s' is not known; linear and llama3 are", tostring(kind))
  end
  if kind == "llama3" then
    a.low_freq_factor = of("low_freq_factor", nn.positive)
    a.high_freq_factor = of("high_freq_factor", nn.positive)
    a.original_positions = of("original_max_position_embeddings", nn.count)
  end
  return g:rope_table(a)
end

-- Causal grouped-query attention over the session's cache, before the output projection: f32[n,h*d].
-- t holds what every layer shares: c, kv (element type), n_ctx, rope, pos; bias: queries, keys and
-- values have one; head_norm: every head of queries and keys is normalised before it is turned; scale: of
-- the scores, where it is not 1 / sqrt(head_dim); window: how many positions a row sees, nil: all.
-- c.plus: as in nn.rmsnorm; c.input: as in nn.linear_of.
function nn.attention(g, x, t)
  local c = t.c
  local function project(name, heads)
    local y = nn.linear_of(g, c, x, name, heads * c.head_dim)
    return nn.heads(g, t.bias and nn.bias(g, y, name .. "_bias") or y, heads)
  end
  local function turned(name, heads)
    local y = project(name, heads)
    if t.head_norm then y = nn.rmsnorm(g, y, name .. "_norm", c.rms_norm_eps, c.plus) end
    return g:rope(y, t.rope, t.pos, { pairing = "neox" })
  end
  local function cache(name, v)
    local rows = g:state(name, t.kv, { c.num_key_value_heads, t.n_ctx, c.head_dim })
    return g:kv_append(v, rows, t.pos)
  end
  local q = turned("attn_q", c.num_attention_heads)
  local k = turned("attn_k", c.num_key_value_heads)
  local v = project("attn_v", c.num_key_value_heads)
  local y = g:attention(q, cache("k", k), cache("v", v), t.pos,
                        { scale = t.scale or 1 / math.sqrt(c.head_dim), window = t.window })
  return nn.merge(g, y)
end

-- The last hidden states of the rows that the caller asked for, and of no others.
local function last_states(g, x, c)
  x = g:embed(x, g:input "outputs")
  return nn.rmsnorm(g, x, "output_norm", c.rms_norm_eps, c.plus)
end

-- The end of a model that makes embeddings: those states.
function nn.states(g, x, c)
  g:output("embedding", last_states(g, x, c))
end

-- The end of a model that predicts tokens: their logits.  The head is the largest matrix.
function nn.head(g, x, c)
  x = last_states(g, x, c)
  local name = c.tie_word_embeddings and "token_embd" or "output"
  -- Some files repeat a tied matrix as a head; one that differs would be another model.
  if c.tie_word_embeddings and g:has "output" and not g:repeats("output", "token_embd") then
    fail("config.json: tie_word_embeddings is true, but the file has a head that is not the embedding")
  end
  if c.input then x = c.input(g, x, name) end
  g:output("logits", product(g, x, name, c.vocab_size))
end

-- All of a model of the Llama family, from tokens to logits.  o: act, the operator of the gate; theta, the
-- base of the angles where config.json has none; sub_norms: a norm after attention, and one behind the gate;
-- bias and head_norm: as in nn.attention; finish: nn.head if nil, or nn.states.  c.embedded: what becomes of
-- rows of the embedding, a function of (g, x).  models/bitnet_b158.lua has it written out, for reading, and so
-- that every node has a line of its own.
function nn.llama(g, hp, c, o)
  local eps = c.rms_norm_eps
  local t = { c = c, kv = hp.kv, n_ctx = hp.n_ctx, pos = g:input "positions", bias = o.bias,
              head_norm = o.head_norm, rope = nn.rope_table(g, hp, c, o.theta) }

  local x = nn.embedding(g, c)
  if c.embedded then x = c.embedded(g, x) end
  for i = 0, c.num_hidden_layers - 1 do
    local b = g:scope("blk.%d", i)
    local function sub_norm(v, name) return o.sub_norms and nn.rmsnorm(b, v, name, eps) or v end
    local h = nn.attention(b, nn.rmsnorm(b, x, "attn_norm", eps), t)
    x = x + nn.linear_of(b, c, sub_norm(h, "attn_sub_norm"), "attn_out", c.hidden_size)

    h = nn.rmsnorm(b, x, "ffn_norm", eps)
    local gate = b[o.act](b, nn.linear_of(b, c, h, "ffn_gate", c.intermediate_size))
    h = gate * nn.linear_of(b, c, h, "ffn_up", c.intermediate_size)
    x = x + nn.linear_of(b, c, sub_norm(h, "ffn_sub_norm"), "ffn_down", c.hidden_size)
  end
  local finish = o.finish or nn.head
  finish(g, x, c)
end

return nn
