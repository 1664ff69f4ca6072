-- ops/relu2_cap.lua -- an operator written without C: a squared rectifier with a ceiling.
--
-- eval says what it means, lower how it is computed, and `setun check scripts/ops/relu2_cap.lua`
-- compares the two on every case.  Lua computes in double, so a result counts only after rounding:
-- the product of two 24-bit significands has at most 48 bits, so r * r is exact in double, and
-- rounding it to f32 gives what one f32 multiplication gives.  (An exponent below the range of f32
-- is no exception: the product is still exact in double and is rounded once.)
--
-- ops/relu2_cap.c is the same operator in C, field by field; two operators need two names.
return setun.op "relu2_cap_lua" {
  doc    = "y = min(max(x, 0)^2, cap): squared rectifier with a ceiling",
  input  = { x = "f32[...]" },
  attr   = { cap = 6.0 },
  output = { y = "like x" },

  eval = function(x, a)
    -- Comparisons as kernels have them: a NaN or an equal zero gives the second operand.
    local r = x > 0 and x or 0.0
    local square, cap = setun.f32(r * r), setun.f32(a.cap)
    return square < cap and square or cap
  end,

  lower = function(k, a)
    k:map(k.input.x, k.output.y, function(v)
      local r = k:max(v, 0)
      return k:min(k:mul(r, r), a.cap)
    end)
  end,

  cases = { "x:f32[1]", "x:f32[7]", "x:f32[n3,129] cap=0.5", "x:f32[n2,6912]", "x:f32[2,3,5]" },
}
