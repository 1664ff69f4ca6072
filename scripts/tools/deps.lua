-- tools/deps.lua -- who may include whom.  Run from the root of the tree; fails naming file and line.
--
--     lua5.4 scripts/tools/deps.lua [ROOT]
--
-- Includes are written from the root ("graph/plan.h"), so the layer of a file and of what it
-- includes can be read off the line.  Each layer lists the layers it may see; "setun" is include/.

local root = arg and arg[1] or "."

local may_see = {
  base     = "base setun",
  graph    = "graph base setun",
  codegen  = "codegen base setun",
  model    = "model base setun",
  plugins  = "plugins base setun",
  backends = "backends codegen base setun",
  scripts  = "scripts graph base setun",
  ops      = "ops setun",
  rt       = "rt backends codegen model base setun",
  runtime  = "runtime rt scripts plugins backends codegen model graph base setun",
  cli      = "cli setun",
  bench    = "bench cli setun",
  include  = "setun",
  sample   = "setun", -- plugins/sample_*, template: users of the ABI like any other plugin
}

-- Stricter words for single layers: the only headers of ours that may be named.
local only = {
  base = { ["setun/types.h"] = true },
  ops  = { ["setun/op.h"] = true, ["setun/packing.h"] = true },
}

-- System headers that only some files may see: what they declare must stay behind one door.
local owners = {
  ["^pthread%.h$"]   = { "^base/pool%.c$", "^base/guard%.c$" },
  ["^threads%.h$"]   = { "^codegen/llvm_door%.c$" },
  ["^sys/stat%.h$"]  = { "^base/file%.c$" },
  ["^hwloc%.h$"]     = { "^base/cpu%.c$" },
  ["^dlfcn%.h$"]     = { "^plugins/host%.c$" },
  ["^lua.*/"]        = {}, -- the build says where they lie
  ["^lua%.h$"]       = { "^scripts/host%.c$", "^scripts/bind" },
  ["^lauxlib%.h$"]   = { "^scripts/host%.c$", "^scripts/bind" },
  ["^lualib%.h$"]    = { "^scripts/host%.c$" },
  ["^llvm"]          = { "^codegen/llvm", "^codegen/target%.c$" },
  ["^jansson%.h$"]   = { "^model/" },
  ["^pcre2%.h$"]     = { "^model/pretok%.c$", "^model/pattern_read%.c$" },
  ["intrin%.h$"]     = {},
  ["^arm_neon%.h$"]  = {},
}

-- Public headers and operators also compile where there is little else.
local plain = { ["stdarg.h"] = true, ["stddef.h"] = true, ["stdint.h"] = true, ["stdio.h"] = true,
                ["math.h"] = true, ["string.h"] = true }

local faults, n_files = 0, 0

local function fault(file, line, form, ...)
  io.stderr:write(("%s:%d: "):format(file, line), form:format(...), "\n")
  faults = faults + 1
end

local function check_ours(layer, file, n, name)
  local dir = name:match("^([%w_]+)/")
  if name:find("..", 1, true) then
    fault(file, n, '"%s": includes are written from the root', name)
  elseif not dir then
    -- Users of the library keep their one header beside them.
    if layer ~= "cli" and layer ~= "bench" then
      fault(file, n, '"%s": includes are written from the root: "%s/%s"', name, layer, name)
    end
  elseif not (" " .. may_see[layer] .. " "):find(" " .. dir .. " ", 1, true) then
    fault(file, n, '%s may not include "%s"; it sees only %s', layer, name, may_see[layer]:gsub(" ", ", "))
  elseif only[layer] and dir == "setun" and not only[layer][name] then
    fault(file, n, '%s may include only "%s" of the public headers, not "%s"', layer, next(only[layer]), name)
  end
end

local function check_system(layer, file, n, name)
  for pattern, files in pairs(owners) do
    if name:find(pattern) then
      local allowed = false
      for _, owner in ipairs(files) do allowed = allowed or file:find(owner) end
      if not allowed then fault(file, n, "<%s> may not be included here", name) end
    end
  end
  if (layer == "include" or layer == "ops") and not plain[name] then
    fault(file, n, "%s may not include <%s>", layer, name)
  end
end

local function check_file(layer, file)
  local f, why = io.open(root .. "/" .. file)
  if not f then return fault(file, 0, "cannot be read: %s", why) end
  n_files = n_files + 1
  local n = 0
  for line in f:lines() do
    n = n + 1
    local ours = line:match('^%s*#%s*include%s*"([^"]+)"')
    local system = line:match("^%s*#%s*include%s*<([^>]+)>")
    if line:find("^%s*#%s*include") and not ours and not system then
      fault(file, n, "an include names its file, in quotes or angle brackets")
    end
    if ours then check_ours(layer, file, n, ours) end
    if system then check_system(layer, file, n, system) end
  end
  f:close()
end

for dir in pairs(may_see) do
  local list = io.popen(("cd '%s' && find %s -name '*.[ch]' -o -name '*.def' 2>/dev/null | sort"):format(root, dir))
  for file in list:lines() do
    check_file((file:find("^plugins/sample_") or file:find("^plugins/template/")) and "sample" or dir, file)
  end
  list:close()
end

if n_files < 20 then
  io.stderr:write("deps: only ", n_files, " files found; run it from the root of the tree\n")
  os.exit(1)
end
if faults > 0 then
  io.stderr:write("deps: ", faults, " includes break the rules of docs/architecture.md\n")
  os.exit(1)
end
print(("deps: %d files, every include points the right way"):format(n_files))
