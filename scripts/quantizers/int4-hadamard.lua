-- quantizers/int4-hadamard.lua -- 4 bits, behind a Hadamard transform where activations have outliers: in front of the
-- output of attention and the down matrix, as BitNet v2 (arXiv 2504.18415) does.  Elsewhere it is int4.
--
-- A transform spreads an outlier over its block, and rounding loses less.  A model that was trained so has weights for
-- transformed rows.  Weights of other models want them turned back, as is done here: y = H round(H x), H its own inverse.
-- Rounding is that of int4.lua; blocks are the largest power of two that divides the row, up to 4096.
local signs = {} -- of a length: all +1, since v2 has none

return setun.quantizer "int4-hadamard" {
  doc = "4-bit integers, for attn_out and ffn_down in the space of a Hadamard transform",
  source = "BitNet v2, arXiv 2504.18415",
  floats = true,
  apply = function(g, x, _, name)
    if name ~= "attn_out" and name ~= "ffn_down" then return g:quantize_bits(x, { bits = 4, by = "absmean" }) end
    local d = x.dims[2]
    local block = math.min(d & -d, 4096)
    if block == 1 then error(("rows of %d elements cannot be transformed: no power of two divides them"):format(d), 0) end
    if not signs[d] then
      local list = {}
      for i = 1, d do list[i] = 1 end
      signs[d] = g:const("hadamard_signs_" .. d, "f32", { d }, list)
    end
    local y = g:round_groups(g:hadamard(x, signs[d], { block = block }), { bits = 4, by = "absmean" })
    return g:hadamard(y, signs[d], { block = block, inverse = 1 })
  end,
}
