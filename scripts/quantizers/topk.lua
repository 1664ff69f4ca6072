-- quantizers/topk.lua -- only the largest elements of each token, and these in 8 bits: Q-Sparse (arXiv 2407.10969).
--
-- Of a row of d elements round(value * d) are kept, at least 1, by magnitude; of equal ones the first (ops/keep_largest.c).
-- All others are 0, and weights that a 0 would meet need not be read where matrices are transposed (--down).  The largest
-- element is always kept, so the scale is that of int8.lua, and to mask before rounding or after it is the same.
return setun.quantizer "topk" {
  doc = "8-bit integers of the largest elements of each token, and zeros",
  source = "Q-Sparse, arXiv 2407.10969",
  value = { default = 0.5, from = 0.0001, to = 1, means = "the share of a row's elements that is kept" },
  apply = function(g, x, share)
    local d = x.dims[2]
    return g:quantize_i8(g:keep_largest(x, { keep = math.max(1, math.floor(share * d + 0.5)) }))
  end,
}
