-- tools/globals.lua -- no mutable data.  Fails if an object or library holds a variable that is not
-- constant: such a variable is shared by all models and threads of a process.
--
--     lua5.4 scripts/tools/globals.lua FILE...
--
-- nm names the class and the section of each symbol.  Data is mutable, but for .data.rel.ro: it holds
-- constants with pointers in them, and is read-only once loaded.

-- What the linker and the C start-up files put into every shared object.
local allowed = {
  ["__dso_handle"] = true, ["__TMC_END__"] = true, ["completed.0"] = true, ["__bss_start"] = true,
  ["_edata"] = true, ["_end"] = true, ["_GLOBAL_OFFSET_TABLE_"] = true,
  ["targets_filled"] = true, -- codegen/llvm_door.c: LLVM's list of targets is filled once in a process
  ["guard"] = true, ["way_back"] = true, -- base/guard.c: a signal's handler belongs to the process
}

-- class: nm's letter, d for data, b for zeroed data, s and g for their small kin, c for common; any
-- section may hold them, whatever its name.  The linker's own tables count as data, too.
local function is_mutable(class, section)
  if section:find("^%.data%.rel%.ro") or section == ".dynamic" or section:find("^%.got") or
     section:find("^%.init_array") or section:find("^%.fini_array") then
    return false
  end
  return class:find("^[dbsgcDBSGC]$")
end

if not arg[1] then
  io.stderr:write("usage: lua5.4 scripts/tools/globals.lua FILE...\n")
  os.exit(2)
end

local faults = 0
for _, file in ipairs(arg) do
  local n = 0
  local nm = io.popen(("nm --format=sysv --defined-only '%s' 2>&1"):format((file:gsub("'", "'\\''"))))
  for line in nm:lines() do
    -- name |value |class |type |size |line |section
    local name, class, section = line:match("^(%S+)%s*|[^|]*|%s*(%a)%s*|.*|%s*([^|%s]*)%s*$")
    if name and name ~= "Name" then
      n = n + 1
      if is_mutable(class, section) and not allowed[name] then
        io.stderr:write(("%s: %s is mutable (%s)\n"):format(file, name, section))
        faults = faults + 1
      end
    end
  end
  if not nm:close() or n == 0 then
    io.stderr:write(file, ": nm finds no symbols\n")
    faults = faults + 1
  end
end

if faults > 0 then
  io.stderr:write("globals: ", faults, " faults\n")
  os.exit(1)
end
print(("globals: nothing mutable in %d files"):format(#arg))
