-- Lua computes in double; setun.f32 rounds to binary32.
print(setun.f32(0.1) == 0.1, setun.f32(0.5) == 0.5) -- expect: false	true
print(string.format("%.9g", setun.f32(16777217)), setun.f32(1e39) == math.huge) -- expect: 16777216	true
print(setun.f32(1e-46)) -- expect: 0.0
setun.f32("1") -- expect error: f32.lua:5: setun.f32 wants a number, not string
