-- A value that was reshaped lives on under its new sizes only.
local g = setun.graph()
local x = g:relu2(g:input("x", "f32[n,8]"))
local h = g:reshape(x, { heads = 2 })
-- expect error: stale.lua:6: relu2: x reads a value after reshape at stale.lua:4 has updated it in place; use the result of that
g:relu2(x)
