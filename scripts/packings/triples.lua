-- packings/triples.lua -- three trits in five bits (27 of 32 codes): 1.67 bits per weight.
--
-- Five bits do not fill bytes, so they lie in two planes: low nibbles of all 32 triples, then their fifth bits.
return setun.packing "triples" {
  doc = "three trits in five bits, nibbles and fifth bits apart",
  alphabet = { -1, 0, 1 },
  unit = 96, bytes = 20,
  { fields = 32, planes = { 4, 1 }, digits = 3, base = "integer", order = "strided" },
}
