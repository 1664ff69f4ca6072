-- packings/ptq1_0.lua -- PTQ1_0: 24 bytes of five trits, two of four, and a scale of 16 bits for 128 weights.
--
-- What is public says how many trits are where; their order here is that of GGUF's TQ1_0: strided, the first trit
-- most significant, each byte a fraction.  Four trits are five whose last is 0.
return setun.packing "ptq1_0" {
  doc = "five and four trits in a byte, and an f16 scale for each 128: 1.75 bits",
  alphabet = { -1, 0, 1 },
  group = 128, unit = 128, bytes = 28,
  { fields = 24, bits = 8, digits = 5, base = "fraction", order = "strided" },
  { fields = 2, bits = 8, digits = 4, base = "fraction", order = "strided" },
  { scale = "f16" },
}
