-- packings/q2_0.lua -- GGUF's Q2_0 with groups of 128: a scale of 16 bits, then four neighbouring weights in a byte.
return setun.packing "q2_0" {
  doc = "two bits a weight, neighbours in a byte, and an f16 scale for each 128: 2.125 bits",
  alphabet = { -1, 0, 1, 2 },
  group = 128, unit = 128, bytes = 34,
  { scale = "f16" },
  { fields = 128, bits = 2, order = "packed" },
}
