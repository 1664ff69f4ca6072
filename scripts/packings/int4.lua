-- packings/int4.lua -- four bits for each weight, and a scale of 16 bits for 32 of them: where GGUF's Q4_0 has its bits.
--
-- Byte j of 16 holds the columns j and j + 16.  With --from-floats the scale is the smallest that brings all of the 32 into
-- -8 to 7; Q4_0's takes the largest to -8 and lets others fall out.
return setun.packing "int4" {
  doc = "four bits a weight, and an f16 scale for each 32: 4.5 bits",
  levels = 16, zero = 8,
  group = 32, unit = 32, bytes = 18,
  quantise = "absmax",
  { scale = "f16" },
  { fields = 32, bits = 4, order = "strided" },
}
