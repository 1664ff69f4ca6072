-- packings/sherry.lua -- 3:4 sparsity: of four neighbouring weights exactly one is 0.  1.25 bits per weight.
--
-- Where the zero is and three signs make 32 codes.  Weights that are not so come back as the nearest
-- that are: a model that was not trained with it is changed by it, and a warning says by how much.
return setun.packing "sherry" {
  doc = "four weights in five bits, one of the four is 0",
  alphabet = { -1, 0, 1 },
  unit = 256, bytes = 40,
  { fields = 64, planes = { 4, 1 }, digits = 4, sparse = "3:4", order = "strided", columns = "packed" },
}
