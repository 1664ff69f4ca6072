-- quantizers/none.lua -- activations stay floats: only the weights are ternary, as in TriLM (arXiv 2407.12327).
return setun.quantizer "none" {
  doc = "floats, as they are",
  floats = true,
  apply = function(_, x) return x end,
}
