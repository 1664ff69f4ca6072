-- packings/two_bit.lua -- two bits for each weight, neighbours in neighbouring bytes: a shift and a mask decode it.
--
-- Byte j of 32 holds the columns j, j + 32, j + 64 and j + 96, lowest bits first: Setun's built-in form, declared.
return setun.packing "two_bit" {
  doc = "two bits a weight, strided by 32",
  alphabet = { -1, 0, 1 },
  unit = 128, bytes = 32,
  quantise = { "absmean", per = "matrix" }, -- BitNet b1.58
  { fields = 128, bits = 2, order = "strided" },
}
