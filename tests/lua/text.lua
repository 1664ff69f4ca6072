-- The text form of what was built, with the line that made each node.
local g = setun.graph()
local x = g:input("x", "f32[n,4]")
local y = g:scope("blk.0"):rmsnorm(x, g:const("w", "f32", { 4 }, { 1, 2, 3, 4 }), { eps = 0.5, at = "norm" })
g:output("y", y)
print((g:text():gsub("\n$", "")))
-- expect: graph setun/1
-- expect: input x f32[n,4]
-- expect: const w f32[4]
-- expect: %2 = rmsnorm x w {eps=0.5} @"text.lua:4" in "blk.0.norm"
-- expect: output y %2
