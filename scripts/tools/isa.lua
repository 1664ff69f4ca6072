-- tools/isa.lua -- how many instructions the inner loop of the ternary product takes, from its assembly.
--
--     lua5.4 scripts/tools/isa.lua TARGETS DIR            prints the table of docs/isa.md
--     lua5.4 scripts/tools/isa.lua TARGETS DIR FILE.md    fails unless FILE.md has that table
--     lua5.4 scripts/tools/isa.lua TARGETS DIR FILE.md write
--
-- DIR has NAME.s and NAME.kir of each row of TARGETS (tests/replay/targets.txt), as unit.replay leaves them.
-- The inner loop is the innermost one with the most vector instructions.  How many bytes of weights it
-- passes is read off the kernel: what its own inner loop loads from the weights.  Counted are vector
-- instructions that compute; loads, stores and moves between registers are not.  No CPU is simulated.
--
-- The loop must multiply with the instruction that TARGETS names, on registers of the width it names, and so must
-- the kernel for many tokens, NAME.tokens.s, where it names one: a lowering that has lost its instruction is still
-- correct, and would go unseen.

-- Per architecture: does the instruction use vector registers, and is it a mere transport?
local function starts(...)
  local list = { ... }
  return function(op)
    for _, p in ipairs(list) do
      if op:find("^" .. p) then return true end
    end
  end
end
local rules = {
  x86_64 = { vector = function(_, rest) return rest:find("%%[xyz]mm%d") end, transport = starts("v?mov", "prefetch") },
  aarch64 = { vector = function(_, rest) return rest:find("%f[%w][vqds]%d+%f[^%w]") end,
              transport = starts("ld", "st", "mov$", "prfm") },
  riscv64 = { vector = starts("v"), transport = starts("vset", "vl%d?%w*[%d]", "vle", "vse%d", "vs%dr", "vmv%d?") },
  powerpc64 = { vector = starts("v", "xx", "xv", "lxv", "stxv", "lvx", "stvx"),
                transport = starts("lxv", "stxv", "lvx", "stvx", "vmr", "xxlor$") },
  s390x = { vector = function(op, rest) return op:find("^v") and rest:find("%%v%d") end,
            transport = starts("vl$", "vlr", "vlm", "vst$", "vstm") },
  loongarch64 = { vector = function(_, rest) return rest:find("%$[vx]r%d") end,
                  transport = starts("x?vld", "x?vst", "x?vori.b") },
}
rules.powerpc64le = rules.powerpc64

local function lines_of(path)
  local t = {}
  for line in assert(io.open(path)):lines() do t[#t + 1] = line end
  return t
end

-- Bytes of weights in one turn of the kernel's inner loop: the largest of its innermost loops.
local function weight_bytes(path)
  local weights, open, most = {}, {}, 0
  for _, line in ipairs(lines_of(path)) do
    local id = line:match("^%s*(%%%d+) = arg%.i8 3$")
    if id then weights[id] = true end
    if line:find("= for ", 1, true) then
      for _, o in ipairs(open) do o.inner = true end
      open[#open + 1] = { bytes = 0 }
    elseif line:find("{%s*$") and #open > 0 then
      open[#open + 1] = { bytes = 0, inner = true } -- an if: its loads are of no loop
    elseif line:find("^%s*}%s*$") and #open > 0 then
      local o = table.remove(open)
      if not o.inner and o.bytes > most then most = o.bytes end
    end
    local lanes, from = line:match("= load%.i8x(%d+) (%%%d+) ")
    if lanes and weights[from] and #open > 0 then open[#open].bytes = open[#open].bytes + tonumber(lanes) end
  end
  return most
end

local function instruction(line)
  line = line:gsub("{%w+}%s*", ""):gsub("%s*#.*$", ""):gsub("%s*//.*$", ""):gsub("%s*;.*$", "")
  return line, line:match("^%s+([%w%.]+)%s*(.*)$")
end

-- Is one of the instructions "name:part of its operands"?
local function has(code, want)
  local name, part = want:match("^(.-):(.*)$")
  for _, c in ipairs(code) do
    if c.op == name and c.rest:find(part, 1, true) then return true end
  end
  return false
end

-- The loop: from a label to a jump back to it, without such a pair inside.
local function inner_loop(path, rule)
  local label, code, best = {}, {}, nil
  for _, line in ipairs(lines_of(path)) do
    local text, op, rest = instruction(line)
    local name = text:match("^(%S+):")
    if name then
      label[name] = #code + 1
    elseif op and not op:find("^%.") then
      code[#code + 1] = { op = op, rest = rest }
      local to = label[rest:match("([%w%._$]+)%s*$") or ""]
      if to then
        local loop = { vector = 0, all = 0, code = table.move(code, to, #code, 1, {}) }
        for _, c in ipairs(loop.code) do
          loop.all = loop.all + 1
          if rule.vector(c.op, c.rest) and not rule.transport(c.op) then loop.vector = loop.vector + 1 end
        end
        local is_inner = not code.last or code.last < to
        if is_inner and (not best or loop.vector > best.vector or loop.vector == best.vector and loop.all > best.all) then
          best = loop
        end
        code.last = to
      end
    end
  end
  return best
end

local targets, dir, doc, write = arg[1], arg[2], arg[3], arg[4]
if not dir then
  io.stderr:write("usage: lua5.4 scripts/tools/isa.lua TARGETS DIR [FILE.md [write]]\n")
  os.exit(2)
end

local out = { "| class | `--target` | `--features` | multiplies with | vector operations | all instructions | run by the tests |",
              "|---|---|---|---|--:|--:|---|" }
for _, line in ipairs(lines_of(targets)) do
  local name, arch, features, vlen, cpu, one, many = line:match("^(%S+)" .. ("%s+(%S+)"):rep(6))
  if name and not name:find("^#") then
    local base = dir .. "/" .. name
    local loop, bytes = inner_loop(base .. ".s", rules[arch]), weight_bytes(base .. ".kir")
    if not loop or bytes == 0 then
      io.stderr:write(name, ": no inner loop is found in ", base, ".s and .kir\n")
      os.exit(1)
    end
    if not has(loop.code, one) then
      io.stderr:write(base, ".s: the inner loop has no ", one, "\n")
      os.exit(1)
    end
    if many ~= "-" then
      local code = {}
      for _, l in ipairs(lines_of(base .. ".tokens.s")) do
        local _, op, rest = instruction(l)
        code[#code + 1] = op and { op = op, rest = rest }
      end
      if not has(code, many) then
        io.stderr:write(base, ".tokens.s: the kernel has no ", many, "\n")
        os.exit(1)
      end
    end
    local function per32(n) return ("%.1f"):format(n * 32 / bytes) end
    out[#out + 1] = ("| %s | %s | %s%s | `%s` | %s | %s | %s |"):format(name, arch,
      features == "-" and "" or "`" .. features .. "`", vlen == "0" and "" or ", `--vlen " .. vlen .. "`", one:match("^[^:]+"),
      loop.vector == 0 and "none" or per32(loop.vector), per32(loop.all), cpu == "none" and "compiled only" or "operators, the model")
  end
end
local made = table.concat(out, "\n") .. "\n"
if not doc then
  io.write(made)
  os.exit(0)
end

local f = assert(io.open(doc))
local text = f:read("a")
f:close()
local first, last = text:find("| class | `%-%-target`[^\n]*\n[^\n]*\n[|][^\n]*\n")
if not first then
  io.stderr:write(doc, ": has no table of classes\n")
  os.exit(1)
end
while text:sub(last + 1, last + 1) == "|" do last = text:find("\n", last + 1, true) end
if write then
  f = assert(io.open(doc, "w"))
  f:write(text:sub(1, first - 1), made, text:sub(last + 1))
  f:close()
elseif text:sub(first, last) ~= made then
  io.stderr:write(doc, ": the table is not what the compiler makes now, which is:\n", made)
  os.exit(1)
end
