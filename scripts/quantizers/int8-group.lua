-- quantizers/int8-group.lua -- 8 bits with a scale for every few columns of a token, so that a large element makes only its
-- own group coarse.
--
--     scale = 127 / max(largest |x| of the group, 1e-5)     q = x * scale, to the nearest integer, ties to even
--
-- Sums of several groups have no common scale, so the product takes q / scale, and adds in floats (docs/numerics.md).
return setun.quantizer "int8-group" {
  doc = "8-bit integers, a scale for each group of columns by its largest magnitude",
  floats = true,
  value = { default = 64, from = 1, to = 1048576, whole = true, means = "the number of columns that share a scale" },
  apply = function(g, x, group) return g:round_groups(x, { group = group, bits = 8, by = "absmax" }) end,
}
