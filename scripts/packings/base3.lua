-- packings/base3.lua -- five trits in a byte: 1.6 bits per weight, of at least log2(3) = 1.585.
--
-- A byte is the fraction v / 243 of its five trits v, rounded up to 256ths.  A product with 3 then carries the
-- next trit out of the byte, most significant first; 256 > 243 leaves room for the rounding.
return setun.packing "base3" {
  doc = "five trits in a byte, as a fraction in base 3",
  alphabet = { -1, 0, 1 },
  unit = 160, bytes = 32,
  { fields = 32, bits = 8, digits = 5, base = "fraction", order = "strided" },
}
