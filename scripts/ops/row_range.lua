-- ops/row_range.lua -- largest minus smallest element of each row: an operator whose output has
-- another shape than its input.
--
-- The types carry letters: n and d stand for any size and must agree wherever they appear.  The
-- output has the letter n only.  eval_all sees whole arrays, whose elements count from 0 in
-- row-major order; lower walks the rows of its tile.
return setun.op "row_range" {
  doc    = "y[i] = max of row i of x minus its min",
  input  = { x = "f32[n,d]" },
  output = { y = "f32[n]" },

  eval_all = function(input, output)
    local x, y = input.x, output.y
    local n, d = x.dims[1], x.dims[2]
    for i = 0, n - 1 do
      local low, high = x[i * d], x[i * d]
      for j = 1, d - 1 do
        local v = x[i * d + j]
        low, high = v < low and v or low, v > high and v or high
      end
      y[i] = high - low -- rounded to f32 when it is stored
    end
  end,

  lower = function(k)
    local x, y = k.input.x, k.output.y
    k:grid(x, 0, 1) -- a row is one unit of work
    local first, last = k:tile()
    local d = k:dim(x, 1)
    k:loop(first, last, 1, function(row)
      local start = k:mul(row, d)
      local low, high = k:var(k:load(x, start)), k:var(k:load(x, start))
      k:loop(1, d, 1, function(j)
        local v = k:load(x, k:add(start, j))
        k:set(low, k:min(v, k:get(low)))
        k:set(high, k:max(v, k:get(high)))
      end)
      k:store(y, row, k:sub(k:get(high), k:get(low)))
    end)
  end,

  cases = { "x:f32[n3,256]", "x:f32[1,1]", "x:f32[n2,7]", "x:f32[5,129]" },
}
