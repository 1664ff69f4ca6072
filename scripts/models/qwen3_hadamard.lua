-- models/qwen3_hadamard.lua -- Qwen3 whose matrices were folded with a rotation, as PrismML's Bonsai 2 has it:
--
--     W x = (W R') (R x),   R x = H (sign * x) / sqrt(block)
--
-- The file holds W R', so the input of each folded matrix is rotated first; rows of a folded embedding are
-- rotated back.  The configuration (prism.hadamard, the keys of their GGUF files) says which matrices are
-- folded, by the names of GGUF, and has a vector of signs for each width.  Only the dense form: the hybrids
-- with Gated DeltaNet are another architecture.
local nn, names = require "nn", require "names"

local function fail(form, ...)
  error(("config.json: prism.hadamard." .. form):format(...), 0)
end

-- The strings of a list, as the keys of a table; GGUF's name of a tensor as the short one here.
local function set_of(list)
  local set = {}
  for i = 1, math.maxinteger do
    local name = list and list[i]
    if not name then return set end
    local short = tostring(name):gsub("%.weight$", ""):gsub("attn_output$", "attn_out")
    set[short] = name
  end
end

-- What the configuration says: block, the sets folded and inverse, and sign(width).
local function rotation(g, hp)
  local all = hp.prism and hp.prism.hadamard
  if not all then error("config.json: prism.hadamard is missing", 0) end
  local function of(key, rule) return rule("prism.hadamard." .. key, all[key]) end
  of("version", nn.only(1))
  of("transform", nn.only "normalized-sylvester-walsh-hadamard")
  of("axis", nn.only "input-last-dimension")
  -- Of Gated DeltaNet, which is not supported.
  if all.gdn_v_grouped ~= false then of("gdn_v_grouped", nn.optional(nn.only(0))) end
  local ones, vectors, made, at = nn.ones(g), {}, {}, 0
  if all.sign_mode == "explicit" then
    if not all.sign_widths or not all.sign_values then fail("sign_widths and sign_values are missing") end
    for i = 1, math.maxinteger do
      local width, values = all.sign_widths[i], {}
      if not width then break end
      for k = 1, nn.count("prism.hadamard.sign_widths", width) do
        values[k] = all.sign_values[at + k]
        if values[k] ~= 1 and values[k] ~= -1 then
          fail("sign_values.%d is %s, not 1 or -1", at + k, tostring(values[k]))
        end
      end
      at = at + width
      vectors[width] = values
    end
    if all.sign_values[at + 1] ~= nil then fail("sign_values has more numbers than sign_widths (%d in all)", at) end
  elseif all.sign_mode ~= "identity" then
    fail("sign_mode is '%s'; explicit and identity are known", tostring(all.sign_mode))
  end
  local function sign(width)
    if all.sign_mode == "identity" then return ones(width) end
    if not vectors[width] then fail("sign_widths has no %d, which a folded matrix needs", width) end
    made[width] = made[width] or g:const(("sign_%d"):format(width), "f32", { width }, vectors[width])
    return made[width]
  end
  return { block = of("block_size", nn.count), sign = sign, folded = set_of(all.weight_names), inverse = set_of(all.inverse_weight_names) }
end

return setun.model {
  architectures = { "Qwen3ForCausalLM" },
  keys = { "prism.hadamard" },
  ignore = nn.both(nn.harmless, nn.window_keys),
  names = names.qwen3,

  build = function(g, hp)
    local c = nn.llama_config(hp, { hidden_act = nn.only "silu", head_dim = nn.count })
    nn.full_attention(hp, c)
    local r, left = rotation(g, hp), {}
    for _, name in pairs(r.folded) do left[name] = true end

    local function rotate(b, x, inverse)
      return b:hadamard(x, r.sign(x.dims[2]), { block = r.block, inverse = inverse })
    end
    c.input = function(b, x, name)
      local listed = r.folded[b:name(name)]
      if not listed then return x end
      left[listed] = nil
      return rotate(b, x, 0)
    end
    if r.inverse.token_embd then c.embedded = function(b, x) return rotate(b, x, 1) end end
    for short, name in pairs(r.inverse) do
      if short ~= "token_embd" then fail("inverse_weight_names has %s; only the embedding can be looked up", name) end
    end
    nn.llama(g, hp, c, { theta = 10000, act = "silu", head_norm = true })
    for name in pairs(left) do fail("weight_names has %s, which this model does not multiply with", name) end
  end,
}
