-- tools/size.lua -- the line budget.  Run from the root of the tree.
--
--     lua5.4 scripts/tools/size.lua [ROOT]
--
-- The budget is raised only by a commit of its own that says what the lines buy.  Lines of code are
-- counted: blank lines and lines of comment are free, so that nobody saves on the explanation.
-- Tests and documents are not counted, nor are tables that a tool wrote (their first line says so).
-- A file as a whole, comments and all, must still fit a reader's head.

local root = arg and arg[1] or "."

local budget = { c = 64000, lua = 5600, file = 1000 }
local c_dirs = "include base graph ops codegen backends plugins scripts model rt runtime cli bench"
local lua_dirs = "scripts/lib scripts/models scripts/ops scripts/packings scripts/quantizers scripts/templates scripts/tools"

local faults = 0

-- Lines of code, all lines, and the first one.
local function count(path)
  local f = assert(io.open(root .. "/" .. path))
  local code, all, first, inside = 0, 0, nil, false
  for line in f:lines() do
    first = first or line
    all = all + 1
    local rest = line:gsub("^%s+", "")
    if path:find("%.lua$") then
      rest = rest:gsub("^%-%-.*", "")
    else
      if inside then
        local close = rest:find("*/", 1, true)
        rest = close and rest:sub(close + 2) or ""
        inside = not close
      end
      rest = rest:gsub("/%*.-%*/", "")
      local open = rest:find("/*", 1, true)
      if open then
        rest, inside = rest:sub(1, open - 1), true
      end
    end
    if rest:find("%S") then code = code + 1 end
  end
  f:close()
  return code, all, first or ""
end

local function sum(dirs, names)
  local rows, total = {}, 0
  local list = io.popen(("cd '%s' && find %s -type f %s 2>/dev/null | sort"):format(root, dirs, names))
  for path in list:lines() do
    local n, all, first = count(path)
    local dir = path:match("^[^/]+")
    if not first:find("[Gg]enerated by") then
      rows[dir] = (rows[dir] or 0) + n
      total = total + n
      if all > budget.file then
        io.stderr:write(("%s: %d lines; a file has at most %d\n"):format(path, all, budget.file))
        faults = faults + 1
      end
    end
  end
  list:close()
  return rows, total
end

local rows, c = sum(c_dirs, "\\( -name '*.[ch]' -o -name '*.def' \\)")
local _, lua = sum(lua_dirs, "-name '*.lua'")

for dir in c_dirs:gmatch("%S+") do
  print(("%-10s %6d"):format(dir, rows[dir] or 0))
end
print(("%-10s %6d of %d lines of code"):format("C", c, budget.c))
print(("%-10s %6d of %d lines of code"):format("Lua", lua, budget.lua))

if c == 0 or lua == 0 then
  io.stderr:write("size: nothing found; run it from the root of the tree\n")
  faults = faults + 1
end
if c > budget.c then
  io.stderr:write(("size: %d lines of C are over the budget of %d\n"):format(c, budget.c))
  faults = faults + 1
end
if lua > budget.lua then
  io.stderr:write(("size: %d lines of Lua are over the budget of %d\n"):format(lua, budget.lua))
  faults = faults + 1
end
os.exit(faults == 0)
