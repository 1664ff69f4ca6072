# The documents tell the truth: listings are in the tree, commands work, files that are named exist.
. "$(dirname "$0")/lib.sh"
cd "$SOURCE"

# A path in backquotes or in a listing of paths names a file, a directory or a pattern that matches one.
lua5.4 - <<'L' >"$TMP/paths" || bad "reading the documents"
local docs = { "README.md", "plugins/README.md", "ops/README.md" }
for f in io.popen("ls docs/*.md"):lines() do docs[#docs + 1] = f end
local n = 0
for _, doc in ipairs(docs) do
  local text = io.open(doc):read("a"):gsub("```.-```", "")
  local here = doc:match("^(.*/)") or ""
  for code in text:gmatch("`([^`\n]+)`") do
    local path = code:match("^[%w_%./%*-]+$")
    local dir = path and path:match("^(%w+)/")
    if dir and not code:find("%.%.%.") and (dir ~= "build") then print(doc, here, path) n = n + 1 end
  end
  for link in text:gmatch("%]%(([^)#]+)%)") do
    if not link:find("^%a+:") then print(doc, here, link) n = n + 1 end
  end
end
assert(n > 60, "the documents name only " .. n .. " paths")
L
while IFS=$'\t' read -r doc here path; do
  top=${path%%/*} found=0
  [ -d "$top" ] || [ -e "$here$top" ] || [ -d "include/$top" ] || continue # a place in another project
  for at in $path $here$path include/$path; do [ -e "$at" ] && found=1; done
  [ $found = 1 ] || bad "$doc names $path, which is not there"
done <"$TMP/paths"

# The pieces of docs/writing-an-operator.md are ops/relu2_cap.c, all but the kernel that is written out.
lua5.4 - <<'L' || bad "docs/writing-an-operator.md and ops/relu2_cap.c differ"
local file = io.open("ops/relu2_cap.c"):read("a")
local body = file:match('#include "setun/op.h"\n(.*)'):gsub("/%*.-%*/\n", "")
local text, n = io.open("docs/writing-an-operator.md"):read("a"), 0
for piece in text:gmatch("```c\n(.-)```") do
  if not piece:find("k_grid", 1, true) then
    for part in (piece .. "\n"):gmatch("(.-)\n\n") do
      local at, to = body:find(part, 1, true)
      if not at then io.stderr:write("not in the file:\n", part, "\n") os.exit(1) end
      body = body:sub(1, at - 1) .. body:sub(to + 1)
      n = n + 1
    end
  end
end
if body:find("%S") then io.stderr:write("not in the document:\n", body, "\n") os.exit(1) end
os.exit(n >= 6)
L

# And those of its last chapter are lines of ops/head_bounds.c.
sed -n '/^## Knobs/,$p' docs/writing-an-operator.md | sed -n '/^```$/,/^```$/{/^```$/d;p}' >"$TMP/knobs"
[ -s "$TMP/knobs" ] || bad "docs/writing-an-operator.md shows no knobs"
while IFS= read -r line; do
  grep -qxF -- "$line" ops/head_bounds.c || bad "not in ops/head_bounds.c: $line"
done <"$TMP/knobs"

# Its chapter on Lua: listings are lines of the file, commands work, the kernel looks as it is shown, the mistake is found.
lua5.4 - "$TMP" <<'L' || bad "docs/writing-an-operator.md: listings of Lua"
local dir, text = arg[1], io.open("docs/writing-an-operator.md"):read("a"):match("\n## The same in Lua\n(.-)\n## ")
local files, n = { "rmsnorm_lua", "rmsnorm_lua", "rmsnorm_lua", "rmsnorm_lua", "head_rescore_lua" }, 0
for piece in text:gmatch("```lua\n(.-)```") do
  n = n + 1
  local name = "scripts/ops/" .. assert(files[n], "listings") .. ".lua"
  if not io.open(name):read("a"):find(piece, 1, true) then io.stderr:write("not in ", name, ":\n", piece) os.exit(1) end
end
assert(n == #files, "listings")
local plain = {}
for piece in text:gsub("```lua\n.-```", ""):gmatch("```\n(.-)```") do plain[#plain + 1] = piece end
assert(#plain == 2, "outputs")
for i, name in ipairs { "loop", "sentence" } do
  local f = assert(io.open(dir .. "/" .. name, "w")) f:write(plain[i]) f:close()
end
L
sed -n '/^## The same in Lua/,/^## Knobs/p' docs/writing-an-operator.md | grep -E '^    setun ' | sed "s,^    setun,\"$SETUN\"," >"$TMP/commands"
same "commands in docs/writing-an-operator.md" "$(wc -l <"$TMP/commands")" 5
while IFS= read -r line; do
  case $line in *--llvm|*--asm) [ "${SETUN_LLVM:-1}" = 1 ] || continue ;; esac
  eval "$line" >"$TMP/out" 2>"$TMP/err" || bad "docs/writing-an-operator.md: $line ($(head -c 300 "$TMP/err"))"
  case $line in
  *_lua.lua*--kir) echo 'os.exit(io.open(arg[1]):read("a"):find(io.open(arg[2]):read("a"), 1, true) ~= nil)' >"$TMP/part.lua"
    lua5.4 "$TMP/part.lua" "$TMP/out" "$TMP/loop" || bad "docs/writing-an-operator.md shows another kernel: $(cat "$TMP/out")" ;;
  *_lua.lua*--llvm) grep -q 'fmul.* ; rmsnorm_lua.lua:56$' "$TMP/out" || bad "no lines in LLVM IR: $(head -c 600 "$TMP/out")" ;;
  *_lua.lua*--asm) grep -qE '^.(#|//) rmsnorm_lua.lua:56$' "$TMP/out" || bad "no lines in assembly: $(head -c 600 "$TMP/out")" ;;
  *rmsnorm\ *) grep -q '^kernel rmsnorm$' "$TMP/out" || bad "$line: $(head -c 300 "$TMP/out")" ;;
  esac
done <"$TMP/commands"
sed 's/k:sqrt(k:add(mean, a.eps))/k:sqrt(k:add(means, a.eps))/' scripts/ops/rmsnorm_lua.lua >"$TMP/rmsnorm_lua.lua"
"$SETUN" dump "$TMP/rmsnorm_lua.lua" --kir >"$TMP/out" 2>&1
same "a mistake in rmsnorm_lua.lua" "$(sed 's/^setun: rmsnorm_lua, case "[^"]*": //' "$TMP/out")" "$(cat "$TMP/sentence")"

# plugins/README.md: its compiler line, its commands.
cc=$(grep -o '`cc [^`]*`' plugins/README.md | tr -d '`')
[ -n "$cc" ] || bad "plugins/README.md shows no compiler line"
plugin() { # source, name
  local line=${cc//FILE.so/$TMP/$2.so}
  eval "${line//FILE.c/$1}" 2>"$TMP/err" || bad "$line ($(head -c 600 "$TMP/err"))"
}
plugin plugins/sample_op/sample_op.c sample_op
plugin plugins/sample_backend/sample_backend.c sample_backend
plugin plugins/sample_format/sample_format.c sample_format
cp "$TMP/sample_op.so" "$TMP/x.so"
cp "$TMP/sample_backend.so" "$TMP/y.so"
grep -E '^    (setun |SETUN_PLUGIN_PATH=)' plugins/README.md | sed 's/   *\(named\|or in\|every\|what\) .*//' >"$TMP/commands"
same "commands in plugins/README.md" "$(wc -l <"$TMP/commands")" 4
ln -s "$(realpath "$SETUN")" "$TMP/setun"
while IFS= read -r line; do
  line=${line//\/a\/x.so/$TMP/x.so}
  line=${line//\/b\/y.so/$TMP/y.so}
  line=${line/run MODEL/run $MODEL -p x -n 2 -q}
  (cd "$TMP" && PATH=$TMP:$PATH eval "$line") >"$TMP/out" 2>"$TMP/err" </dev/null || bad "plugins/README.md: $line ($(head -c 300 "$TMP/err"))"
done <"$TMP/commands"
same "the sample backend's logits" "$("$SETUN" logits "$MODEL" --tokens 1021,5 --hash --plugin "$TMP/y.so" --backend trace -q 2>/dev/null)" \
  "$("$SETUN" logits "$MODEL" --tokens 1021,5 --hash)"

# The kernel that is written out in docs/writing-an-operator.md, as a plugin, against the same eval.
lua5.4 - >"$TMP/flat.c" <<'L' || bad "making a plugin of the written-out kernel"
local file = io.open("ops/relu2_cap.c"):read("a")
local flat
for piece in io.open("docs/writing-an-operator.md"):read("a"):gmatch("```c\n(.-)```") do
  if piece:find("k_grid", 1, true) then flat = piece end
end
local function swap(from, to)
  local n
  file, n = file:gsub(from, function() return to end)
  assert(n == 1, from)
end
swap("    return k_lower_map%(k, a, map%);\n", flat .. "    return SETUN_OK;\n")
swap("static const char %*const cases%[%] = {.-};",
     'static const char *const cases[] = {"x:f32[1]", "x:f32[7] cap=0.5", "x:f32[2500]", NULL};')
swap("SETUN_OP%(relu2_cap%) = {", "static const setun_op flat = {")
swap('%.name = "relu2_cap"', '.name = "relu2_flat"')
swap('#include "setun/op.h"', '#include "setun/op.h"\n#include "setun/plugin.h"')
local rest = io.open("plugins/sample_op/sample_op.c"):read("a"):match("static setun_status init%(.*")
print(file .. "\n" .. rest:gsub("hard_tanh", "flat"):gsub("org.setun.sample_op", "org.example.flat"))
L
plugin "$TMP/flat.c" flat
"$SETUN" check --plugin "$TMP/flat.so" >"$TMP/out" 2>"$TMP/err" || bad "the written-out kernel: $(head -c 600 "$TMP/out" "$TMP/err")"
grep -q '^relu2_flat ' "$TMP/out" || bad "check did not see the written-out kernel: $(head -c 600 "$TMP/out")"

# docs/chat.md, without anybody at the terminal.
grep -E '^\$ ' docs/chat.md | sed 's/^\$ //' >"$TMP/commands"
same "commands in docs/chat.md" "$(wc -l <"$TMP/commands")" 2
while IFS= read -r line; do
  (PATH=$TMP:$PATH eval "$line") >"$TMP/out" 2>"$TMP/err" </dev/null || bad "docs/chat.md: $line ($(head -c 300 "$TMP/err"))"
done <"$TMP/commands"
grep -q '^{"text": "' "$TMP/out" || bad "docs/chat.md: no answer in JSON"

# docs/export.md: its commands, its program.
if [ "${SETUN_LLVM:-1}" = 1 ]; then
  ln -s "$(realpath "$(dirname "$SETUN")/setun-rt")" "$TMP/setun-rt"
  grep -E '^\$ ' docs/export.md | sed "s/^\$ //; s,/tmp/,$TMP/,g" >"$TMP/commands"
  same "commands in docs/export.md" "$(wc -l <"$TMP/commands")" 8
  while IFS= read -r line; do
    PATH=$TMP:$PATH eval "$line" >"$TMP/out" 2>"$TMP/err" </dev/null || bad "docs/export.md: $line ($(head -c 300 "$TMP/err"))"
  done <"$TMP/commands"
  if [ "${SETUN_HARD:-0}" != 1 ]; then # a program without sanitizers cannot use a library with them
    line=$(grep '^cc docs/examples/greedy.c' docs/export.md | sed "s,/tmp/,$TMP/,g; s,-Lbuild,-L$(realpath "$(dirname "$SETUN")/.."),")
    eval "$line" 2>"$TMP/err" || bad "docs/export.md: $line ($(head -c 600 "$TMP/err"))"
    line=$(grep '^/tmp/greedy' docs/export.md | sed "s,/tmp/,$TMP/,g")
    same "what greedy prints first" "$(eval "$line" | head -n 1)" \
      "$("$SETUN" logits "$MODEL" --tokens 1,2,3 | awk 'NR == 1 || $1 > most {most = $1; id = NR - 1} END {print id}')"
  fi
fi

# docs/tracing.md: its commands, one of which finds a difference, and its map.
grep -E '^\$ ' docs/tracing.md | sed "s/^\$ //; s,/tmp/,$TMP/,g" >"$TMP/commands"
same "commands in docs/tracing.md" "$(wc -l <"$TMP/commands")" 10
while IFS= read -r line; do
  want=0
  [ "$line" = "setun tracediff $TMP/trace $TMP/q8" ] && want=1
  PATH=$TMP:$PATH eval "$line" >"$TMP/out" 2>"$TMP/err" </dev/null
  code=$?
  same "docs/tracing.md: $line ($(head -c 300 "$TMP/err"))" $code $want
  [ $want = 0 ] || grep -q '^the first that differs is blk.0.attention,' "$TMP/out" || bad "docs/tracing.md: $line gives $(head -1 "$TMP/out")"
done <"$TMP/commands"
sed -n '/^# ours/,/^```$/p' docs/tracing.md | grep -v '^```' >"$TMP/map"
mkdir "$TMP/theirs"
cp "$TMP/trace/token_embd.npy" "$TMP/theirs/embed.npy"
cp "$TMP/trace/logits.npy" "$TMP/theirs/lm_head.npy"
for i in 0 1 2 3; do cp "$TMP/trace/blk.$i.attn_q.npy" "$TMP/theirs/layers.$i.q_proj.npy"; done
"$SETUN" tracediff "$TMP/trace" "$TMP/theirs" --map "$TMP/map" >"$TMP/out" 2>&1 || bad "the map in docs/tracing.md: $(cat "$TMP/out")"
grep -q '^6 tensors compared: all equal' "$TMP/out" || bad "the map in docs/tracing.md: $(cat "$TMP/out")"
# docs/repl.md: its commands, and all its lines in one session.
grep -E '^    \$ ' docs/repl.md | sed "s/^ *\$ //; s,/tmp/,$TMP/," >"$TMP/commands"
same "commands in docs/repl.md" "$(wc -l <"$TMP/commands")" 2
grep '^setun> ' docs/repl.md | sed 's/^setun> //' >"$TMP/lines"
same "lines in docs/repl.md" "$(wc -l <"$TMP/lines")" 13
while IFS= read -r line; do
  PATH=$TMP:$PATH eval "$line" >"$TMP/out" 2>"$TMP/err" <"$TMP/lines" || bad "docs/repl.md: $line ($(head -c 600 "$TMP/err"))"
done <"$TMP/commands"
grep -qx 'equal, bit for bit' "$TMP/out" || bad "docs/repl.md: $(head -c 300 "$TMP/out")"

# docs/writing-a-packing.md: its file, its picture, its commands, its mistakes.
lua5.4 - "$TMP" <<'L' || bad "docs/writing-a-packing.md: listings"
local dir, text = arg[1], io.open("docs/writing-a-packing.md"):read("a")
local function write(name, body) local f = assert(io.open(dir .. "/" .. name, "w")) f:write(body) f:close() end
local lua = {}
for piece in text:gmatch("```lua\n(.-)```") do lua[#lua + 1] = piece end
local plain = {}
for piece in text:gsub("```lua\n.-```", ""):gmatch("```\n(.-)```") do plain[#plain + 1] = piece end
assert(#lua == 4 and #plain == 4, "listings")
write("triples.lua", lua[1])
write("twn.lua", lua[3])
for i, file in ipairs { "triples", "q2_0" } do
  assert(io.open("scripts/packings/" .. file .. ".lua"):read("a"):find(lua[i], 1, true), file)
end
write("picture", plain[1])
write("sentences", plain[3] .. plain[4])
assert(io.open("scripts/packings/triples_by_hand.lua"):read("a"):find(lua[4], 1, true), "by hand")
write("rules", plain[2])
L
"$SETUN" check "$TMP/triples.lua" >"$TMP/out" 2>&1 || bad "docs/writing-a-packing.md: check ($(head -c 300 "$TMP/out"))"
same "the picture in docs/writing-a-packing.md" "$(head -n "$(wc -l <"$TMP/picture")" "$TMP/out")" "$(cat "$TMP/picture")"
cp scripts/packings/{sherry,int4,two_bit}.lua "$TMP"
grep -E '^    setun ' docs/writing-a-packing.md | sed "s,MODEL,$MODEL,g; s/^ *//" >"$TMP/commands"
same "commands in docs/writing-a-packing.md" "$(wc -l <"$TMP/commands")" 9
while IFS= read -r line; do
  (cd "$TMP" && PATH=$TMP:$PATH eval "$line") >"$TMP/out" 2>"$TMP/err" </dev/null || bad "docs/writing-a-packing.md: $line ($(head -c 300 "$TMP/err"))"
  cat "$TMP/out" >>"$TMP/all"
done <"$TMP/commands"
same "the two hashes of docs/writing-a-packing.md" "$(sed -n 1p "$TMP/all")" "$(sed -n 2p "$TMP/all")"
grep -q '^ppl 48.59' "$TMP/all" && grep -qE '^packing_error +0.00019' "$TMP/all" || bad "docs/writing-a-packing.md: two_bit or int4 from floats"
wrong() { # the rest of a declaration, whose sentence is the next of the document
  sentence=$((${sentence:-0} + 1))
  echo "return setun.packing 'wrong' { $1 }" >"$TMP/wrong.lua"
  "$SETUN" check "$TMP/wrong.lua" >"$TMP/out" 2>&1
  same "mistake $sentence of docs/writing-a-packing.md" "$(cat "$TMP/out")" "setun: $(sed -n "${sentence}p" "$TMP/sentences")"
}
trits="alphabet = { -1, 0, 1 },"
wrong "$trits unit = 128, { fields = 32, bits = 8, digits = 5, base = 'fraction' }"
wrong "$trits { fields = 32, bits = 8, digits = 6, base = 'fraction' }"
wrong "$trits { fields = 8, bits = 3, order = 'strided' }"
wrong "$trits group = 128, { fields = 128, bits = 2 }"
wrong "$trits { fields = 8, bits = 2, decode = function(c) if c < 3 then return { c - 1 } end end, encode = function(d) return 1 - d end }"
wrong "$trits { fields = 8, bits = 2, kernel = function(k, code) return code - code end }"
same "mistakes in docs/writing-a-packing.md" "$(wc -l <"$TMP/sentences")" $sentence
mv "$TMP/rules" "$TMP/sentences" && sentence=0
wrong "$trits quantise = 'mean', { fields = 8, bits = 2 }"
wrong "$trits quantise = function(x) return x, 1 end, { fields = 8, bits = 2 }"
wrong "alphabet = { 0, 1 }, quantise = 'absmax', { fields = 8, bits = 1 }"
same "rules in docs/writing-a-packing.md" "$(wc -l <"$TMP/sentences")" $sentence

# docs/lab.md: its experiments are read, its first is the file in the tree, its commands work, its sentences are said.
lua5.4 - "$TMP" <<'L' || bad "docs/lab.md: listings"
local dir, text = arg[1], io.open("docs/lab.md"):read("a")
local function write(name, body) local f = assert(io.open(dir .. "/" .. name, "w")) f:write(body) f:close() end
local lua, plain = {}, {}
for piece in text:gmatch("```lua\n(.-)```") do lua[#lua + 1] = piece end
for piece in text:gsub("```lua\n.-```", ""):gmatch("```\n(.-)```") do plain[#plain + 1] = piece end
assert(#lua == 2 and #plain == 3)
assert(io.open("docs/examples/lab.lua"):read("a"):find(lua[1], 1, true))
write("loops.lua", (lua[2]:gsub("%.%./%.%.", io.popen("pwd"):read())))
write("said", plain[2])
L
grep -E '^\$ ' docs/lab.md | sed "s/^\$ //; s,/tmp/,$TMP/,g" >"$TMP/commands"
same "commands in docs/lab.md" "$(wc -l <"$TMP/commands")" 4
if [ "${SETUN_LLVM:-1}" = 1 ] && [ "${SETUN_HARD:-0}" != 1 ]; then # interpreted, or with sanitizers, it is e2e.lab's smaller one that is run
  while IFS= read -r line; do
    (PATH=$TMP:$PATH eval "$line") >"$TMP/out" 2>"$TMP/err" </dev/null || bad "docs/lab.md: $line ($(head -c 300 "$TMP/err"))"
  done <"$TMP/commands"
  same "variants of docs/lab.md" "$(grep -c '"measure": "speed"' "$TMP/lab/results.json")" 4
fi
"$SETUN" lab "$TMP/loops.lua" -q >"$TMP/out" 2>"$TMP/err" || bad "the loops in docs/lab.md: $(cat "$TMP/err")"
same "variants of the loops in docs/lab.md" "$(wc -l <"$TMP/out")" 5
sentence=0
said() {
  sentence=$((sentence + 1))
  echo "setun.lab { $1 }" >"$TMP/lab.lua"
  (cd "$TMP" && ./setun lab lab.lua) >"$TMP/out" 2>&1
  same "mistake $sentence of docs/lab.md" "$(cat "$TMP/out")" "setun: $(sed -n "${sentence}p" "$TMP/said")"
}
said "modell = 'x'"
said "variants = { { name = 'a' } }"
said "model = 'x', text = 'y', measure = { 'speeed' }, variants = { { name = 'a' } }"
said "model = 'x', text = 'y', variants = { { name = 'a' }, { name = 'a' } }"
said "model = 'x', text = 'y', variants = { { name = 'a', kw = 'q8' } }"
said "model = 'x', text = 'y', variants = { { name = 'a', threads = 'many' } }"
same "mistakes in docs/lab.md" "$(wc -l <"$TMP/said")" $sentence

# docs/performance.md, with a small model in place of the large one.
"$SETUN" synth --like tiny --as hf -o "$TMP/DIR" -q || bad "synth"
grep -E '^    setun bench' docs/performance.md | sed 's/^ *setun //' >"$TMP/commands"
[ -s "$TMP/commands" ] || bad "docs/performance.md shows no commands"
while IFS= read -r line; do
  case $line in *cpu-features*) [ "${SETUN_LLVM:-1}" = 1 ] && [ "$(uname -m)" = x86_64 ] || continue ;; esac
  (cd "$TMP" && eval "\"$SETUN\" $line") >"$TMP/out" 2>"$TMP/err" || bad "docs/performance.md: setun $line ($(head -c 300 "$TMP/err"))"
done <"$TMP/commands"
# docs/testing.md: its targets are those of the tree, and its commands work, with less time.
grep -o '^| `[a-z_`, ]*` |' docs/testing.md | grep -o '`[a-z_]*`' | tr -d '`' | sort >"$TMP/said"
for f in tests/fuzz/*.c; do basename "$f" .c; done | grep -vxE 'common|replay' | sort >"$TMP/are"
same "the targets in docs/testing.md" "$(cat "$TMP/said")" "$(cat "$TMP/are")"
for t in $(cat "$TMP/are"); do [ -n "$(ls "tests/fuzz/corpus/$t")" ] && [ -f "tests/fuzz/$t.dict" ] || bad "fuzz target $t has no corpus or no dictionary"; done
fuzz=$(dirname "$SETUN")/fuzz_gguf
if [ -x "$fuzz" ]; then
  grep -o '^    build/bin/fuzz_gguf.*' docs/testing.md | sed "s,build/bin/fuzz_gguf,\"$fuzz\",; s/--seconds 30/--seconds 0.1/" >"$TMP/commands"
  same "commands in docs/testing.md" "$(wc -l <"$TMP/commands")" 2
  while IFS= read -r line; do eval "$line" >"$TMP/out" 2>&1 || bad "docs/testing.md: $line ($(head -c 300 "$TMP/out"))"; done <"$TMP/commands"
fi
scripts/fuzz.sh --help >"$TMP/out" 2>&1 || bad "scripts/fuzz.sh --help"
grep -q -- '--minutes' "$TMP/out" || bad "scripts/fuzz.sh --help says nothing"
scripts/fuzz.sh no_such_target >"$TMP/out" 2>&1; same "an unknown fuzz target" $? 2
scripts/fuzz.sh --minutes x >"$TMP/out" 2>&1; same "--minutes x" $? 2
finish
