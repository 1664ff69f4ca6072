-- ops/rmsnorm_lua.lua -- ops/rmsnorm.c once more: a reduction, and the same kernel made by a script.
--
--     y = (x * r) * w,     r = 1 / sqrt(sum of squares / d + eps)
--
-- A test compares the two kernels instruction by instruction, so this one is as fast.  eval rounds after
-- every operation, as f32 arithmetic does; the sum runs in 32 stripes (docs/numerics.md).
local f32 = setun.f32

local function sum_of_squares(x, first, d)
  local p = {}
  for i = 1, 32 do p[i] = 0.0 end
  for i = 0, d - 1 do
    local j, v = i % 32 + 1, x[first + i]
    p[j] = f32(p[j] + f32(v * v))
  end
  return setun.tree32(p)
end

return setun.op "rmsnorm_lua" {
  doc    = "y = (x * r) * w with r = 1 / sqrt(mean of squares of the row + eps)",
  input  = { { "x", "f32[n,d] or f32[n,h,d]", doc = "rows, or rows of heads" },
             { "w", "f32[d]", doc = "gain of each column" } },
  output = { { "y", "like x" } },
  attr   = { eps = { "float", doc = "added to the mean square; rounded to f32" } },

  infer = function(_, a)
    if not (a.eps >= 0 and a.eps < 1e30) then
      error(("eps is %g, wants a number from 0 to below 1e30"):format(a.eps))
    end
  end,

  eval_all = function(input, output, a)
    local x, w, y = input.x, input.w, output.y
    local d, eps = #w, f32(a.eps)
    for row = 0, #x - d, d do
      local mean = f32(f32(sum_of_squares(x, row, d) / d) + eps)
      local r = f32(1 / f32(math.sqrt(mean)))
      for i = 0, d - 1 do
        y[row + i] = f32(f32(x[row + i] * r) * w[i])
      end
    end
  end,

  lower = function(k, a)
    local x, w, y = k.input.x, k.input.w, k.output.y
    local d = k:size(w, 0)
    local whole, heads = d // 32 * 32, k:rank(x) == 3 and k:size(x, 1) or 1

    local function norm(row)
      local mean = k:div(k:dot32(x, row, x, row, d), d)
      local r = k:div(1, k:sqrt(k:add(mean, a.eps)))
      local r32 = k:splat(r, 32)
      if whole > 0 then
        k:loop(0, whole, 32, function(i)
          local at = k:add(row, i)
          k:store(y, at, k:mul(k:mul(k:load(x, at, 32), r32), k:load(w, i, 32)))
        end)
      end
      if d > whole then
        local at, rest = k:add(row, whole), d - whole
        local v = k:mul(k:load_pad(x, at, rest, 32), r32)
        k:store_part(y, at, k:mul(v, k:load_pad(w, whole, rest, 32)), rest)
      end
    end

    k:grid(x, 0, 1) -- a row is one unit: a row stays in the first-level cache
    local first, last = k:tile()
    k:loop(first, last, 1, function(t)
      local row = k:mul(t, heads * d)
      if heads == 1 then return norm(row) end
      k:loop(0, heads, 1, function(h) norm(k:add(row, k:mul(h, d))) end)
    end)
  end,

  cost  = { float_ops = "4*#x" },
  cases = {
    "x:f32[n3,256] w:f32[256] eps=1e-5", "x:f32[n2,1] w:f32[1] eps=1e-5",
    "x:f32[1,7] w:f32[7] eps=0.001", "x:f32[n5,129] w:f32[129] eps=1e-6",
    "x:f32[n7,31] w:f32[31] eps=0", "x:f32[2,2560] w:f32[2560] eps=1e-5",
    "x:f32[n3,5,128] w:f32[128] eps=1e-6", "x:f32[2,1,7] w:f32[7] eps=1e-6",
  },
}
