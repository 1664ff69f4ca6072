-- quantizers/int8.lua -- 8 bits with one scale for each token: what BitNet b1.58 (arXiv 2402.17764) was trained with.
--
--     scale = 127 / max(largest |x|, 1e-5)     q = x * scale, to the nearest integer, ties to even
return setun.quantizer "int8" {
  doc = "8-bit integers, a scale for each token by its largest magnitude",
  source = "BitNet b1.58, arXiv 2402.17764",
  apply = function(g, x) return g:quantize_i8(x) end,
}
