-- A mistake found inside a library is shown where the script made it.
local nn = require "nn"
local g = setun.graph()
local x = g:input("x", "f32[n,6]")
nn.heads(g, g:relu2(x), 4) -- expect error: lib_error.lua:5: reshape: 6 columns do not split into 4 heads
