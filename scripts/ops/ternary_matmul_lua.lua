-- ops/ternary_matmul_lua.lua -- the decode kernel of ops/ternary_matmul.c once more: int8 activations of one
-- token times packed ternary weights, with knobs, dot4 or dot2 by what the machine has, and prefetches.
--
--     y[0][r] = (float)S * (ws / scale),     S = sum over k of (code[r][k] - 1) * q[k]
--     y[0][r] = ((float)S * (1 / scale)) * ws[r]              with a scale for each row
--
-- Weights are t2 (include/setun/types.h): a block of 128 takes 32 bytes, whose byte j holds the codes of
-- columns j, 32 + j, 64 + j and 96 + j in its four fields of two bits.  S is an exact integer, so the order of
-- its sums is free.  Why the numbers below are what they are stands in ops/ternary_kernels.h, function by
-- function; a test compares the kernels of both files instruction by instruction.
local f32 = setun.f32
local granule = 16 -- rows of a unit

local function eval_all(input, output)
  local q, sum, w, ws, y = input.q, input.sum, input.w, input.ws, output.y
  local rows, columns, own = w.dims[1], w.dims[2], #ws > 1
  local m = f32((own and 1 or ws[0]) / input.scale[0])
  for r = 0, rows - 1 do
    local s = 0
    for c = 0, columns - 1 do s = s + w[r * columns + c] * q[c] end
    y[r] = own and f32(f32(s * m) * ws[r]) or s * m
  end
end

-- The four fields of w: masks 0x03 and 0x0c on w and on w >> 4.  A field under mask 0x0c holds four times
-- its code, so one exact shift of its sums replaces three shifts of the weights.  The shift runs on 16-bit
-- lanes, which every machine has; bits that cross a byte are masked off.
local function fields(k, w, n)
  local h = k:cast(k:shru(k:cast(w, "i16x" .. n // 2), 4), "i8x" .. n)
  return { k:band(w, 0x03), k:band(w, 0x0c), k:band(h, 0x03), k:band(h, 0x0c) }
end

-- Without dot4 a row is added up in 16 bits, for as long as they suffice: a span of 32 steps.  The sums are that
-- of the fields under mask 0x03 and two of those under 0x0c, columns 32 to 63 and 96 to 127 of each block.
local span, start_lanes = 32, 128
local sum_of_field = { 1, 2, 1, 3 }

-- Steps in one turn of a loop over n: a number from most down to 4 that leaves no rest, else 8.
local function steps_at_once(n, most)
  for d = most, 4, -1 do
    if n % d == 0 then return d end
  end
  return 8
end

-- What the sums of every span start with, for all rows: minus the sum of q, because codes are 0, 1, 2.
local function span_starts(k, c)
  local n, n_step = c.lanes, c.n_block * 32 // c.lanes
  local start = k:stack("i16", (n_step + span - 1) // span * start_lanes)
  local ones, none = k:const("i8x" .. n, 1), k:const("i16x" .. n // 2, 0)
  k:loop(0, n_step, span, function(from)
    local s = { k:var(none), k:var(none), k:var(none) }
    k:loop(from, k:min(k:add(from, span), n_step), 1, function(i)
      for j = 0, 3 do
        local x = k:dot2(ones, k:load(c.x, k:add(k:mul(i, 4 * n), n * j), n))
        local to = s[sum_of_field[j + 1]]
        k:set(to, k:sub(k:get(to), j % 2 == 1 and k:shl(x, 2) or x))
      end
    end)
    for t = 0, 2 do
      k:store(start, k:add(k:mul(from, start_lanes // span), n // 2 * t), k:get(s[t + 1]))
    end
  end)
  return start
end

-- Steps from on, count of them, of the row that begins at byte off.
local function add_steps(k, c, off, from, count, to)
  local n, s = c.lanes, {}
  for i = 0, count - 1 do
    local at = k:mul(k:add(from, i), n)
    local w = k:load(c.w, k:add(off, at), n)
    if n == 64 or i % 2 == 0 then k:fetch_ahead(c.w, k:add(off, at), c.prefetch) end
    for j, f in ipairs(fields(k, w, n)) do
      local xi = k:add(k:mul(from, 4 * n), n * (4 * i + j - 1))
      local d, t = k:dot2(f, k:load(c.x, xi, n)), sum_of_field[j]
      s[t] = s[t] and k:add(s[t], d) or d
    end
  end
  for t = 1, 3 do k:set(to[t], k:add(k:get(to[t]), s[t])) end
end

-- The sums of the span that begins at step from and has count steps, as lanes of 32 bits.
local function span_sums(k, c, off, from, count)
  local turn, s = steps_at_once(count, 11), {}
  local whole = count // turn * turn
  for t = 0, 2 do
    local at = k:add(k:mul(from, start_lanes // span), c.lanes // 2 * t)
    s[t + 1] = k:var(k:load(c.start, at, c.lanes // 2))
  end
  if whole > 0 then
    k:loop(from, k:add(from, whole), turn, function(i) add_steps(k, c, off, i, turn, s) end)
  end
  if count > whole then add_steps(k, c, off, k:add(from, whole), count - whole, s) end
  local four = k:add(k:shrs(k:get(s[2]), 2), k:shrs(k:get(s[3]), 2)) -- multiples of 4: exact
  return k:sext(k:add(k:get(s[1]), four), "i32")
end

-- Sums of (code - 1) * q without dot4, row by row.
local function sums_by_dot2(k, c, offs)
  local n_step, out = c.n_block * 32 // c.lanes, {}
  local last = (n_step - 1) // span * span
  for u, off in ipairs(offs) do
    local sum
    if last == 0 then
      sum = span_sums(k, c, off, k:const("i64", 0), n_step)
    else
      local whole = k:var(k:const("i32x" .. c.lanes // 2, 0))
      k:loop(0, last, span, function(from)
        k:set(whole, k:add(k:get(whole), span_sums(k, c, off, from, span)))
      end)
      local rest = span_sums(k, c, off, k:const("i64", last), n_step - last)
      sum = k:add(k:get(whole), rest)
    end
    out[u] = k:rsum(sum)
  end
  return out
end

-- Sums of code * q with dot4: 32 or 64 bytes of each row in a step, which share the activations.
local function sums_by_dot4(k, c, offs)
  local n, acc = c.lanes, {}
  local n_step = c.n_block * 32 // n
  local unroll = n_step % 2 == 0 and 2 or n_step % 3 == 0 and 3 or 1
  local zero = k:const("i32x" .. n // 4, 0)
  for u = 1, #offs do
    acc[u] = { k:var(zero), k:var(zero), k:var(zero), k:var(zero) }
  end
  k:loop(0, n_step, unroll, function(p)
    for i = 0, unroll - 1 do
      local f = {}
      for u, off in ipairs(offs) do
        local at = k:mul(k:add(p, i), n)
        k:fetch_ahead(c.w, k:add(off, at), c.prefetch)
        f[u] = fields(k, k:load(c.w, k:add(off, at), n), n)
      end
      for j = 1, 4 do
        local x = k:load(c.x, k:add(k:mul(p, 4 * n), n * (4 * i + j - 1)), n)
        for u = 1, #offs do k:set(acc[u][j], k:dot4(k:get(acc[u][j]), f[u][j], x)) end
      end
    end
  end)
  local out = {}
  for u, a in ipairs(acc) do
    local one, four = k:add(k:get(a[1]), k:get(a[3])), k:add(k:get(a[2]), k:get(a[4]))
    out[u] = k:rsum(k:add(one, k:shrs(four, 2)))
  end
  return out
end

-- For steps of two blocks: pieces of q that meet the same field side by side.
--     xs[256 p + 64 f + 32 h] = q[256 p + 128 h + 32 f]
local function interleave(k, q, columns)
  local xs = k:stack("i8", columns)
  k:loop(0, columns, 256, function(p)
    for f = 0, 3 do
      for h = 0, 1 do
        k:store(xs, k:add(p, 64 * f + 32 * h), k:load(q, k:add(p, 128 * h + 32 * f), 32))
      end
    end
  end)
  return xs
end

local function lower(k)
  local q, ws, y = k.input.q, k.input.ws, k.output.y
  local columns, own, dot4 = k:size(q, 1), k:size(ws, 0) ~= 1, k:info("dot4") ~= 0
  local c = { w = k.input.w, x = q, n_block = columns // 128, lanes = 32, prefetch = k.knob.prefetch }
  local rows = k:dim_run(c.w, 0)
  k:grid(c.w, 0, granule)
  local m = k:div(own and k:const("f32", 1) or k:load(ws, 0), k:load(k.input.scale, 0))
  local first, last = k:tile()
  local from, to = k:mul(first, granule), k:min(k:mul(last, granule), rows)
  if k:info("vector_bytes") >= 64 and c.n_block % 2 == 0 then
    c.x, c.lanes = interleave(k, q, columns), 64
  end
  local bias = dot4 and k:load(k.input.sum, 0)
  if not dot4 then c.start = span_starts(k, c) end
  -- Rows in pairs where the registers allow it; an odd last row goes alone.
  for n_row = dot4 and k.knob.rows == 2 and 2 or 1, 1, -1 do
    local stop = n_row == 1 and to or k:add(from, k:band(k:sub(to, from), -2))
    k:loop(from, stop, n_row, function(r)
      local offs = {}
      for u = 1, n_row do offs[u] = k:mul(k:add(r, u - 1), columns // 4) end
      for u, s in ipairs((dot4 and sums_by_dot4 or sums_by_dot2)(k, c, offs)) do
        local v, row = k:mul(k:i2f(bias and k:sub(s, bias) or s), m), k:add(r, u - 1)
        k:store(y, row, own and k:mul(v, k:load(ws, row)) or v)
      end
    end)
    from = stop
  end
end

return setun.op "ternary_matmul_lua" {
  doc    = "y = q . w^T * (ws / scale) for one token: exact integer sums of ternary weights and int8 activations",
  input  = {
    { "q", "i8[1,c]", doc = "quantised activations in -127..127, padded with 0 to c, a multiple of 128" },
    { "scale", "f32[1]", doc = "what the activations were multiplied with" },
    { "sum", "i32[1]", doc = "sum of q" },
    { "w", "t2[r,k]", doc = "ternary weights" },
    { "ws", "f32[1] or f32[r]", doc = "scales of the weights, multiplied" },
  },
  output = { { "y", "f32[1,r]" } },
  knobs  = {
    { "prefetch", { 16384, 4096, 32768 }, doc = "bytes of weights brought in ahead: 4 KB, or pages side by side" },
    { "rows", { 2, 1 }, doc = "rows that share the activations, with dot4" },
  },

  infer = function(input)
    local c, k = input.q.dims[2], input.w.dims[2]
    if c ~= (k + 127) // 128 * 128 then
      error(("q has %d columns, weight wants %d (%d rounded up to 128)"):format(c, (k + 127) // 128 * 128, k))
    end
    if k > 132104 then -- 127 * 132104 < 2^24
      error(("weight has %d columns; 1 to 132104 keep the sum exact in f32"):format(k))
    end
  end,

  -- sum must be that of q, nothing may stand behind the columns, and scales must be positive.  Every other
  -- seed all activations are as large as they get.
  fill = function(input, seed)
    local q, ws, s = input.q, input.ws, 0
    for i = 0, #q - 1 do
      if i >= input.w.dims[2] then q[i] = 0 elseif seed % 2 == 0 then q[i] = 127 end
      s = s + q[i]
    end
    input.sum[0], input.scale[0] = s, 3.25
    for i = 0, #ws - 1 do ws[i] = 0.75 + (seed + i) % 7 * 0.125 end
  end,

  eval_all = eval_all,
  lower = lower,
  cost  = { int_ops = "r*k", float_ops = "r", bytes = "0.25*r*c + 4*#ws + c + 4*r" },
  cases = {
    "q:i8[1,128] scale:f32[1] sum:i32[1] w:t2[1,1] ws:f32[1]",
    "q:i8[1,256] scale:f32[1] sum:i32[1] w:t2[7,129] ws:f32[1]",
    "q:i8[1,128] scale:f32[1] sum:i32[1] w:t2[16,128] ws:f32[1]",
    "q:i8[1,384] scale:f32[1] sum:i32[1] w:t2[33,300] ws:f32[1]",
    "q:i8[1,1024] scale:f32[1] sum:i32[1] w:t2[5,1024] ws:f32[1]",
    "q:i8[1,2560] scale:f32[1] sum:i32[1] w:t2[3,2560] ws:f32[1]",
    "q:i8[1,6912] scale:f32[1] sum:i32[1] w:t2[2,6912] ws:f32[1]",
    "q:i8[1,256] scale:f32[1] sum:i32[1] w:t2[7,129] ws:f32[7]",
    "q:i8[1,512] scale:f32[1] sum:i32[1] w:t2[33,512] ws:f32[33]",
  },
}
