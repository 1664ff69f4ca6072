-- A graph without a model: inputs of any type, operators by name, shapes as text.
local g = setun.graph()
local x = g:input("x", "f32[n,256]")
print(g:relu2(x).shape) -- expect: f32[n,256]
local q, scale, sum = g:quantize_i8(x)
print(q.shape, scale.dtype, #sum.dims) -- expect: i8[n,256]	f32	1
print((x + g:relu2(x) * x).shape) -- expect: f32[n,256]
local h = g:reshape(g:relu2(x), { heads = 4 })
print(h.shape, h.dims[1], h.dims[3]) -- expect: f32[n,4,64]	n	64
print(g:reshape(h, { heads = 0 }).shape) -- expect: f32[n,256]
