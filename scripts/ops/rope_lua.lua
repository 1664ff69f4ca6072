-- ops/rope_lua.lua -- ops/rope.c once more: an index list, shuffles, and an unrolled head.
--
--     "neox":  element i with i + rd/2      "norm":  element 2i with 2i + 1      i < rd/2
--     y1 = x1 cos - x2 sin                  y2 = x2 cos + x1 sin
--
-- Row pos[t] of the table has rd/2 cosines, then as many sines; elements past rd are copied.  eval refuses
-- a position outside the table; a kernel's caller has checked.
local f32 = setun.f32
local max_head = 1024 -- the kernel is unrolled over a head

local function eval_all(input, output, a)
  local x, table, pos, y = input.x, input.table, input.pos, output.y
  local n, heads, hd, rd = x.dims[1], x.dims[2], x.dims[3], table.dims[2]
  local half, neox = rd // 2, a.pairing == "neox"
  for t = 0, n - 1 do
    if pos[t] < 0 or pos[t] >= table.dims[1] then
      error(("pos[%d] is %d, outside 0 to %d"):format(t, pos[t], table.dims[1] - 1))
    end
    local row = pos[t] * rd
    for at = t * heads * hd, (t + 1) * heads * hd - 1, hd do
      for i = 0, half - 1 do
        local i1, i2 = at + (neox and i or 2 * i), at + (neox and i + half or 2 * i + 1)
        local c, s, x1, x2 = table[row + i], table[row + i + half], x[i1], x[i2]
        y[i1] = f32(f32(x1 * c) - f32(x2 * s))
        y[i2] = f32(f32(x2 * c) + f32(x1 * s))
      end
      for i = at + rd, at + hd - 1 do y[i] = x[i] end
    end
  end
end

-- Lanes 0, 2, 4 ..., lanes 1, 3, 5 ..., and the two side by side again.
local function lanes_of_pairs(lanes)
  local even, odd, both = {}, {}, {}
  for j = 0, lanes - 1 do
    even[j + 1], odd[j + 1] = 2 * j, 2 * j + 1
    both[2 * j + 1], both[2 * j + 2] = j, j + lanes
  end
  return even, odd, both
end

local function lower(k, a)
  local x, table, pos, y = k.input.x, k.input.table, k.input.pos, k.output.y
  local heads, hd, rd = k:size(x, 1), k:size(x, 2), k:size(table, 1)
  local half, neox = rd // 2, a.pairing == "neox"
  if hd > max_head then return false end

  -- Turn lanes pairs from pair i on, of the head that begins at at.
  local function turn(at, row, i, lanes)
    local c, s = k:load(table, k:add(row, i), lanes), k:load(table, k:add(row, i + half), lanes)
    local at1, at2 = k:add(at, neox and i or 2 * i), k:add(at, i + half)
    local even, odd, both = lanes_of_pairs(lanes)
    local x1, x2
    if neox then
      x1, x2 = k:load(x, at1, lanes), k:load(x, at2, lanes)
    else
      local v = k:load(x, at1, 2 * lanes)
      x1, x2 = k:shuffle(v, v, even), k:shuffle(v, v, odd)
    end
    local y1 = k:sub(k:mul(x1, c), k:mul(x2, s))
    local y2 = k:add(k:mul(x2, c), k:mul(x1, s))
    if neox then
      k:store(y, at1, y1)
      k:store(y, at2, y2)
    else
      k:store(y, at1, k:shuffle(y1, y2, both))
    end
  end

  k:grid(x, 0, 1)
  local first, last = k:tile()
  k:loop(first, last, 1, function(t)
    local row = k:mul(k:sext(k:load(pos, t), "i64"), rd)
    k:loop(0, heads, 1, function(h)
      local at = k:mul(k:add(k:mul(t, heads), h), hd)
      local lanes, i = 32, 0
      while i < half do
        while lanes > half - i do lanes = lanes // 2 end
        turn(at, row, i, lanes)
        i = i + lanes
      end
      for rest = rd, hd - 1, 32 do
        local from = k:add(at, rest)
        k:store_part(y, from, k:load_pad(x, from, hd - rest, 32), hd - rest)
      end
    end)
  end)
end

return setun.op "rope_lua" {
  doc    = "turn pairs of elements of every head by the angles of its row's position",
  input  = { { "x", "f32[n,h,e]", doc = "rows of heads" },
             { "table", "f32[p,r]", doc = "from rope_table; r even, at most e" },
             { "pos", "i32[n]", doc = "position of each row; from 0 to p - 1" } },
  output = { { "y", "like x" } },
  attr   = { pairing = { "string", doc = "\"neox\": i with i + r/2; \"norm\": 2i with 2i + 1" } },

  infer = function(input, a)
    local r, e = input.table.dims[2], input.x.dims[3]
    if r % 2 ~= 0 or r > e then
      error(("the table's width is %d; it must be even and at most the last dimension of x, %d"):format(r, e))
    end
    if a.pairing ~= "neox" and a.pairing ~= "norm" then
      error(("pairing is \"%s\"; known are neox and norm"):format(a.pairing))
    end
  end,

  -- An index list holds indices, not any numbers.
  fill = function(input, seed)
    local pos, positions = input.pos, input.table.dims[1]
    for t = 0, #pos - 1 do pos[t] = (seed + 7 * t) % positions end
  end,

  eval_all = eval_all,
  lower = lower,
  cost  = { float_ops = "3*#x", bytes = "8*#x + 4*n" }, -- the table stays in cache
  cases = {
    "x:f32[n3,5,128] table:f32[40,128] pos:i32[n3] pairing=neox",
    "x:f32[n3,2,128] table:f32[40,128] pos:i32[n3] pairing=norm",
    "x:f32[1,3,100] table:f32[9,78] pos:i32[1] pairing=neox",
    "x:f32[n7,3,129] table:f32[9,46] pos:i32[n7] pairing=norm",
    "x:f32[2,1,2] table:f32[1,2] pos:i32[2] pairing=norm",
  },
}
