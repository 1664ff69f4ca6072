-- ops/head_rescore_lua.lua -- ops/head_rescore.c once more: an operator that walks a list of rows, whose length
-- is known only when it runs, and that says afterwards what it really read.
--
--     y[t][j] = x[t] . w[id[t][j]] for j < count[t],     0 behind
--
-- A test compares the two kernels instruction by instruction, and both accounts of a step.  The list is cut into
-- equal shares where it runs; while a row is read, the next one is prefetched, because rows lie anywhere.
local f32 = setun.f32
local units = 64 -- shares of a list, at most

-- Rows of any float type, plain or in blocks.
local function rows_of(letters)
  local types = { "f32", "f16", "bf16", "q4_0", "q8_0", "q4_k", "q6_k" }
  for i, name in ipairs(types) do types[i] = name .. letters end
  return table.concat(types, " or ")
end

-- As matmul: 32 sums by column, then a tree.
local function dot(x, first, w, row, d)
  local p = {}
  for i = 1, 32 do p[i] = 0.0 end
  for i = 0, d - 1 do
    local s = i % 32 + 1
    p[s] = f32(p[s] + f32(x[first + i] * w[row * d + i]))
  end
  return setun.tree32(p)
end

return setun.op "head_rescore_lua" {
  doc    = "the logits of listed rows of the head, with matmul's bits",
  input  = { { "x", "f32[n,k]", doc = "rows" },
             { "w", rows_of "[r,k]", doc = "rows of the head" },
             { "id", "i32[n,m]", doc = "rows of w, from 0 to r - 1" },
             { "count", "i32[n]", doc = "how many of them count" } },
  output = { { "y", "f32[n,m]", doc = "x . w[id], 0 behind count" } },

  -- How many rows are listed is not known before it runs: cost has none of them, and counted has all.
  cost    = { bytes = "4*#x + 4*#id + 4*#count + 4*n*m" },
  counted = { rows = "sum(count)", row_bytes = "row_bytes(w)", float_ops = "sum(count)*k",
              bytes = "4*#x + sum(count)*row_bytes(w) + 8*sum(count)" },

  -- Every third list is full, and says that it is longer than that; the others are of any length, or of -1.
  fill = function(input, seed)
    local id, count, m = input.id, input.count, input.id.dims[2]
    for i = 0, #id - 1 do id[i] = (seed * 7 + i * 13) % input.w.dims[1] end
    for t = 0, #count - 1 do count[t] = (seed + t) % 3 == 0 and m + 1 or (seed * 37 + 5 * t) % (m + 2) - 1 end
  end,

  eval_all = function(input, output)
    local x, w, id, count, y = input.x, input.w, input.id, input.count, output.y
    local d, m, rows = x.dims[2], id.dims[2], w.dims[1]
    for i = 0, #id - 1 do
      if id[i] < 0 or id[i] >= rows then
        error(("id[%d] is %d, and w has rows 0 to %d"):format(i, id[i], rows - 1))
      end
    end
    for i = 0, #y - 1 do
      local t, j = i // m, i % m
      y[i] = j < count[t] and dot(x, t * d, w, id[i], d) or 0
    end
  end,

  lower = function(k)
    local x, id, count, y = k.input.x, k.input.id, k.input.count, k.output.y
    local d, m = k:size(x, 1), k:size(id, 1)
    local whole, granule = d // 32 * 32, (m + units - 1) // units
    local shares = (m + granule - 1) // granule
    local w, span = k:matrix(k.input.w)
    k:grid(id, 1, granule)
    local first, last = k:tile()
    local function share(n) -- this tile's part of n things
      return k:udiv(k:mul(n, first), shares), k:udiv(k:mul(n, last), shares)
    end
    k:loop(0, k:dim(x, 0), 1, function(t)
      local list, xi = k:mul(t, m), k:mul(t, d)
      -- What a list says of its length is data, and is kept within the list before it is believed.
      local n = k:min(k:max(k:sext(k:load(count, t), "i64"), 0), m)
      local from, to = share(n)
      k:loop(from, to, 1, function(j)
        local row = k:matrix_row(w, k:sext(k:load(id, k:add(list, j)), "i64"))
        local next = k:add(list, k:min(k:add(j, 1), m - 1))
        local ahead = k:matrix_row(w, k:sext(k:load(id, next), "i64"))
        local acc = k:var(k:const("f32x32", 0))
        if whole > 0 then
          k:loop(0, whole, span, function(i)
            for s = 0, span - 1, 32 do
              k:matrix_prefetch(w, ahead, i, s, 0)
              local xs = k:load(x, k:add(k:add(xi, i), s), 32)
              k:set(acc, k:add(k:get(acc), k:mul(xs, k:matrix_load(w, row, i, s, 32))))
            end
          end)
        end
        if d > whole then -- zeros behind the last columns change no partial sum
          local xs = k:load_pad(x, k:add(xi, whole), d - whole, 32, 0)
          k:set(acc, k:add(k:get(acc), k:mul(xs, k:matrix_load(w, row, whole, 0, d - whole))))
        end
        k:store(y, k:add(list, j), k:rsum(k:get(acc)))
      end)
      from, to = share(k:sub(m, n))
      k:loop(k:add(n, from), k:add(n, to), 1, function(j) k:store(y, k:add(list, j), 0) end)
    end)
  end,

  cases = {
    "x:f32[1,256] w:bf16[70,256] id:i32[1,100] count:i32[1]", "x:f32[n3,129] w:f32[33,129] id:i32[n3,64] count:i32[n3]",
    "x:f32[m2,7] w:f16[5,7] id:i32[m2,7] count:i32[m2]", "x:f32[2,1] w:f32[1,1] id:i32[2,1] count:i32[2]",
    "x:f32[n3,96] w:q8_0[33,96] id:i32[n3,64] count:i32[n3]", "x:f32[1,32] w:q4_0[5,32] id:i32[1,7] count:i32[1]",
    "x:f32[m2,256] w:q4_k[5,256] id:i32[m2,7] count:i32[m2]", "x:f32[1,512] w:q6_k[9,512] id:i32[1,200] count:i32[1]",
  },
}
