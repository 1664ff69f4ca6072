-- tools/globals.lua -- no mutable data.  Fails if an object or library holds a variable that is not
-- constant: such a variable is shared by all models and threads of a process.
--
--     lua5.4 scripts/tools/globals.lua FILE...
--
-- nm names the section of each symbol.  .data and .bss (and their thread-local kin) are mutable;
-- .data.rel.ro is not: it holds constants with pointers in them, and is read-only once loaded.

-- What the linker and the C start-up files put into every shared object.
local allowed = {
  ["__dso_handle"] = true, ["__TMC_END__"] = true, ["completed.0"] = true, ["__bss_start"] = true,
  ["_edata"] = true, ["_end"] = true, ["_GLOBAL_OFFSET_TABLE_"] = true,
}

local function is_mutable(section)
  if section:find("^%.data%.rel%.ro") then return false end
  return section:find("^%.data") or section:find("^%.bss") or section:find("^%.tdata") or
         section:find("^%.tbss") or section == "*COM*"
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
    local name, section = line:match("^(%S+)%s*|.*|%s*([^|%s]*)%s*$")
    if name and name ~= "Name" then
      n = n + 1
      if is_mutable(section) and not allowed[name] then
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
