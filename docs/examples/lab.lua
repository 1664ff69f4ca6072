-- docs/examples/lab.lua -- how much do packings and the type of the cache cost, and what do they save?
return setun.lab {
  model = "../../tests/models/shakespeare",
  text = "../../tests/models/shakespeare/heldout.txt",
  window = 128, windows = 2, tokens = 16,
  prefill = 32, decode = 4, runs = 5,
  variants = {
    { name = "as it is" },
    { name = "base3", packing = "../../scripts/packings/base3.lua" },
    { name = "sherry", packing = "../../scripts/packings/sherry.lua" },
    { name = "q8 cache", kv = "q8" },
  },
}
