-- quantizers/int4.lua -- 4 bits with one scale for each token, by the mean: the INT4 quantiser of BitNet a4.8
-- (arXiv 2411.04965, equation 4), here for all ternary layers.
--
--     scale = sqrt(7) / max(mean |x|, 1e-5)     q = x * scale, clamped to -8 .. 7, to the nearest integer, ties to even
return setun.quantizer "int4" {
  doc = "4-bit integers, a scale for each token by its mean magnitude",
  source = "BitNet a4.8, arXiv 2411.04965",
  apply = function(g, x) return g:quantize_bits(x, { bits = 4, by = "absmean" }) end,
}
