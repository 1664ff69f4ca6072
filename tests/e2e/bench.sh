# setun bench and setun info --stats: what is printed, the shape of the JSON, and that its keys are documented.
. "$(dirname "$0")/lib.sh"
bench() { "$SETUN" bench "$MODEL" -r 2 "$@" 2>"$TMP/err" || bad "bench $* ($(cat "$TMP/err"))"; }
has() { grep >/dev/null -E -- "$1" "$TMP/out" || bad "bench prints no line like '$1'"; }

bench -t 2 -p 9,64 -n 4 --depth 0,40 --roofline >"$TMP/out"
has '^threads 2, backend cpu'
has '^  limits    1 thread: read '
has '^  limits    2 threads: read '
has '^  load      [0-9.]+ s: engine .* tuning .* tokenizer '
has '^  first     .* prompt of 32; .* with loading'
has '^  prefill   .* over 9 tokens'
has '^  prefill   .* over 64 tokens'
has '^  decode    .* at depth 0'
has '^  decode    .* at depth 40'
has '^            per token, MB: ternary [0-9].* million operations: ternary [0-9]'
has '^            ternary [0-9.]+, head [0-9.]+, .* by mappings: code [0-9.]+, what is left: rest [0-9.]+$'
has '^  densities .*own tokens.*gates open [0-9]'
has '^  prefill of 64, every step timed'
has '^  decode behind 0, every step timed'
has '^attention .* of f16'
has '^sum '
bench -t 1 -p 8 -n 2 -f "$MODEL/heldout.txt" >"$TMP/out"
has '^  densities of the text: gates open'
# What nobody asked for and the context has no room for is left out; what was asked for is refused.
same "decode at default depths in a context of 512" "$(bench -p 0 -n 2 -t 1 | grep -c '^  decode')" 1
fails "4098 positions asked for" "$SETUN" bench "$MODEL" -p 0 -n 2 -r 1 --depth 4096
fails "heldouts.txt" "$SETUN" bench "$MODEL" -p 0 -n 2 -r 1 -f "$MODEL/heldouts.txt"
bench -t 1 -p 8 -n 2 --backend reference --roofline >"$TMP/out"
has 'runs on one thread through eval'

# The JSON by a reader that knows no mercy, key by key.
cat >"$TMP/json.lua" <<'L'
function read_json(s)
  local at = 1
  local function fail(why) error(("JSON: %s at byte %d: %s"):format(why, at, s:sub(at, at + 40)), 0) end
  local function space() at = s:find("[^ \n]", at) or #s + 1 end
  local value
  local function word()
    local text = s:match('^"([^"\\%c]*)"', at) or fail "no string"
    at = at + #text + 2
    return text
  end
  local function list(close, one)
    at = at + 1
    space()
    if s:sub(at, at) == close then at = at + 1 return end
    while true do
      one()
      space()
      local c = s:sub(at, at)
      at = at + 1
      if c == close then return elseif c ~= "," then fail("no comma") end
      space()
    end
  end
  function value()
    space()
    local c, t = s:sub(at, at), {}
    if c == "{" then
      list("}", function()
        local key = word()
        if t[key] ~= nil then fail("key " .. key .. " twice") end
        space()
        if s:sub(at, at) ~= ":" then fail "no colon" end
        at = at + 1
        t[key] = value()
      end)
      return t
    elseif c == "[" then
      list("]", function() t[#t + 1] = value() end)
      return t
    elseif c == '"' then
      return word()
    end
    local number = s:match("^-?%d+%.?%d*[eE]?[-+]?%d*", at)
    local name = s:match("^%a+", at)
    at = at + #(number or name or fail "no value")
    if number then return tonumber(number) end
    if name == "null" then return "null" end
    if name ~= "true" and name ~= "false" then fail("unknown " .. name) end
    return name == "true"
  end
  local t = value()
  space()
  if at <= #s then fail "more text" end
  return t
end

-- Every key that is there, documented; every key that is wanted, there.
function check_keys(t, where, keys)
  local want = {}
  for key in keys:gmatch("%S+") do
    want[key] = true
    if t[key] == nil then error(where .. " has no " .. key, 0) end
  end
  for key in pairs(t) do
    if not want[key] then error(where .. " has a key " .. key .. " that is not known", 0) end
    if not DOC:find("`" .. key .. "`", 1, true) then error("docs/performance.md does not name " .. key, 0) end
  end
end
DOC = io.open(arg[1] .. "/docs/performance.md"):read("a")
L
bench -t 1,2 -p 9,64 -n 4 --depth 0,40 --roofline --json >"$TMP/out"
cat "$TMP/json.lua" - >"$TMP/check.lua" <<'L'
local runs = read_json(io.read("a"))
assert(#runs == 2 and runs[1].threads == 1 and runs[2].threads == 2, "a row for each thread count")
local classes = "ternary head rows16 other kv"
for _, r in ipairs(runs) do
  check_keys(r, "a run", "version threads backend kernels n_kernels compiled cached runs limits load_s load first_token prefill decode " ..
             "resident_bytes peak_bytes load_peak_bytes kv_bytes temporary_bytes memory densities roofline_prefill roofline_decode")
  check_keys(r.limits, "limits", "read_gb_s int8_gmac_s int8_with float_gmac_s barrier_ns cache_bytes all_cache_bytes at")
  assert(#r.limits.at == r.threads and r.limits.at[r.threads].read_gb_s == r.limits.read_gb_s, "limits at 1..T")
  check_keys(r.limits.at[1], "limits.at", "threads read_gb_s plain_gb_s int8_gmac_s float_gmac_s barrier_ns")
  check_keys(r.load, "load", "engine_s files_s pack_s graph_s kernels_s tune_s tokenizer_s")
  local parts = 0
  for key, v in pairs(r.load) do parts = parts + (key == "tune_s" and 0 or v) end
  assert(parts <= r.load_s + 0.001, "parts of loading are more than all of it")
  check_keys(r.first_token, "first_token", "tokens median_s min_s max_s cold_s with_load_s")
  assert(r.first_token.with_load_s >= r.load_s and r.first_token.tokens == 32, "first token")
  assert(#r.prefill == 2 and r.prefill[2].tokens == 64 and #r.decode == 2 and r.decode[2].depth == 40, "stages")
  local stage = "tokens median min max gb_s share_of_read gmac_s share_of_int8 share_of_float bytes_per_token bytes ops " ..
                "int_ops_per_token float_ops_per_token"
  for _, s in ipairs(r.prefill) do check_keys(s, "prefill", stage) end
  for _, s in ipairs(r.decode) do check_keys(s, "decode", stage .. " depth survivors full_head_share") end
  for _, s in ipairs { r.prefill[1], r.prefill[2], r.decode[1], r.decode[2] } do
    check_keys(s.bytes, "bytes", classes .. " temporary")
    check_keys(s.ops, "ops", classes .. " temporary")
    local sum, ops = 0, s.ops.temporary
    for class in classes:gmatch("%S+") do sum, ops = sum + s.bytes[class], ops + s.ops[class] end
    assert(math.abs(ops - s.int_ops_per_token - s.float_ops_per_token) < 1e-4 * ops, "operations do not add up")
    assert(math.abs(sum - s.bytes_per_token) <= 6, "classes do not add up to bytes_per_token")
    assert(s.min <= s.median and s.median <= s.max and s.min > 0 and s.int_ops_per_token > 1e6, "speeds")
  end
  assert(r.decode[2].bytes.kv > r.decode[1].bytes.kv, "a deeper cache is more to read")
  assert(r.load_peak_bytes <= r.peak_bytes, "the peak of loading is more than the peak")
  if r.memory ~= "null" then
    check_keys(r.memory, "memory", "sum " .. classes .. " temporary code rest")
    local sum = r.memory.temporary + r.memory.code + r.memory.rest
    for class in classes:gmatch("%S+") do sum = sum + r.memory[class] end
    assert(sum == r.memory.sum, "memory does not add up")
  end
  check_keys(r.densities, "densities", "of gated_by_relu2 layers tokens gates_open gates_open_2 gates_open_4 gates_open_8 down_nonzero " ..
             "down_nonzero_2 down_nonzero_4 down_nonzero_8 other_nonzero dead_neurons")
  assert(r.densities.of == "own tokens" and r.densities.gated_by_relu2 and r.densities.layers == 4 and r.densities.gates_open_8 <= 1)
  for _, name in ipairs { "roofline_prefill", "roofline_decode" } do
    check_keys(r[name], name, "us floor_us rows")
    local us = 0
    for _, row in ipairs(r[name].rows) do
      check_keys(row, name, "op shape runs_as steps us share_of_time bytes temporary_bytes int_ops float_ops units rows limit " ..
                 "share_of_limit why")
      us = us + row.us
      assert(#row.why > 10 and ("memory int8 float barrier serial unknown"):find(row.limit, 1, true), "a limit and a reason")
    end
    assert(math.abs(us - r[name].us) < 0.01 * us, "rows do not add up")
  end
end
L
lua5.4 "$TMP/check.lua" "$SOURCE" <"$TMP/out" 2>"$TMP/err" || bad "bench --json: $(head -c 600 "$TMP/err")"

# Interrupted: no half of a result.
for signal in INT TERM; do
  "$SETUN" bench "$MODEL" -p 0 -n 64 -r 101 -t 1 --json >"$TMP/out" 2>"$TMP/err" & pid=$!
  sleep 0.7
  kill -$signal $pid 2>/dev/null
  wait $pid
  code=$?
  [ $code -eq 130 ] || [ $code -eq 0 ] || [ $code -eq $((128 + 15)) ] || bad "bench, signal $signal: exit code $code"
  [ $code -eq 0 ] || [ ! -s "$TMP/out" ] || bad "bench, signal $signal: a half of a result: $(head -c 100 "$TMP/out")"
done

# Densities of a text.
"$SETUN" info "$MODEL" --stats >/dev/null 2>"$TMP/err"; same "--stats without a text" $? 2
grep >/dev/null "give one" "$TMP/err" || bad "--stats does not ask for a text: $(cat "$TMP/err")"
"$SETUN" info "$MODEL" --stats -p "" >/dev/null 2>&1; same "--stats with an empty text" $? 2
"$SETUN" info "$MODEL" -p "To be" >/dev/null 2>&1; same "a text without --stats" $? 2
"$SETUN" info "$MODEL" --stats -f "$MODEL/heldout.txt" -n 700 >"$TMP/out" 2>"$TMP/err" || bad "--stats ($(cat "$TMP/err"))"
grep >/dev/null '^700 tokens' "$TMP/out" || bad "--stats does not say how many tokens"
same "--stats, layers" "$(grep -cE '^[0-3] +[0-9.]+ ' "$TMP/out")" 4
same "the same densities in the reference" "$("$SETUN" info "$MODEL" --stats -p "To be, or not to be" --backend reference)" \
  "$("$SETUN" info "$MODEL" --stats -p "To be, or not to be")"
cat "$TMP/json.lua" - >"$TMP/check.lua" <<'L'
local t = read_json(io.read("a"))
check_keys(t, "--stats", "gated_by_relu2 tokens mean layers")
local keys = "gates_open down_nonzero other_nonzero zero_gate_rows zero_up_rows dead_neurons"
check_keys(t.mean, "mean", "layers " .. keys)
assert(#t.layers == t.mean.layers)
local sum = 0
for i, l in ipairs(t.layers) do
  check_keys(l, "a layer", "layer " .. keys)
  assert(l.layer == i - 1 and #l.gates_open == 4 and #l.down_nonzero == 4)
  sum = sum + l.gates_open[1]
end
assert(#t.layers == 0 or math.abs(sum / #t.layers - t.mean.gates_open[1]) < 1e-4, "the mean is none")
L
"$SETUN" info "$MODEL" --stats -f "$MODEL/heldout.txt" -n 64 --json >"$TMP/out" && lua5.4 "$TMP/check.lua" "$SOURCE" <"$TMP/out" 2>"$TMP/err" ||
  bad "info --stats --json: $(head -c 600 "$TMP/err")"
"$SETUN" synth --like llama-tiny-158 --as hf -o "$TMP/silu" -q || bad "synth"
"$SETUN" info "$TMP/silu" --stats -p "To be" >"$TMP/out" 2>"$TMP/err" || bad "--stats of a model without relu2 ($(cat "$TMP/err"))"
grep >/dev/null '^not gated by relu2' "$TMP/out" || bad "--stats: not gated by relu2"
grep >/dev/null 'that are not 0: [0-9]' "$TMP/out" || bad "--stats: int8 zeros of a model without relu2"
finish
