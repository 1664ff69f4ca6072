local g = setun.graph()
local x = g:input("x", "f32[n,256]")
local b = g:scope("blk.%d", 3)
b:relu2(g:input("t", "i32[n]"), { at = "ffn" }) -- expect error: shape_error.lua:4: relu2 in blk.3.ffn: x is i32[n], wants f32 of rank 1
