-- tests/e2e/llama3.lua -- a rank file ("base64 rank" a line) as tokenizer.json, and as a GGUF file that is only a vocabulary.
--
--     lua5.4 llama3.lua RANKS DIRECTORY
local ranks, dir = arg[1], arg[2]
local value = {}
for i = 1, 64 do value[("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"):byte(i)] = i - 1 end
local function unbase64(s)
  local out = {}
  for i = 1, #s, 4 do
    local a, b, c, d = s:byte(i, i + 3)
    local bits = value[a] << 18 | value[b] << 12 | (value[c] or 0) << 6 | (value[d] or 0)
    out[#out + 1] = string.char(bits >> 16, bits >> 8 & 255, bits & 255):sub(1, (c == 61 and 1) or (d == 61 and 2) or 3)
  end
  return table.concat(out)
end
local token, id, shown = {}, {}, {}
for line in io.lines(ranks) do
  local text, rank = line:match("^(%S+) (%d+)$")
  text = unbase64(text)
  token[tonumber(rank) + 1], id[text] = text, tonumber(rank)
end
local char, next_code = {}, 0x100
for b = 0, 255 do
  local plain = b >= 0x21 and b <= 0x7e or b >= 0xa1 and b <= 0xac or b >= 0xae
  char[string.char(b)] = utf8.char(plain and b or next_code)
  next_code = next_code + (plain and 0 or 1)
end
for i, text in ipairs(token) do shown[i] = text:gsub(".", char) end
-- A merge for every way to cut a token in two tokens: in the order of the token, then of its parts.
local merges = {}
for _, text in ipairs(token) do
  local ways = {}
  for cut = 1, #text - 1 do
    local a, b = id[text:sub(1, cut)], id[text:sub(cut + 1)]
    if a and b then ways[#ways + 1] = { a, b } end
  end
  table.sort(ways, function(x, y) return x[1] < y[1] or x[1] == y[1] and x[2] < y[2] end)
  for _, w in ipairs(ways) do merges[#merges + 1] = shown[w[1] + 1] .. " " .. shown[w[2] + 1] end
end
assert(#token == 128000 and #merges == 280147, "not the rank file of LLaMA-3")
local special = { "begin_of_text", "end_of_text" }
local named = { [6] = "start_header_id", [7] = "end_header_id", [9] = "eot_id" }
for i = 2, 255 do special[i + 1] = named[i] or ("reserved_special_token_%d"):format(i) end
local function quote(s) return '"' .. s:gsub('[\\"]', "\\%0") .. '"' end
local function list(t, f) local out = {} for i, v in ipairs(t) do out[i] = f(v, i) end return table.concat(out, ",") end
local regex = [[(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+]]
local f = assert(io.open(dir .. "/tokenizer.json", "wb"))
f:write('{"added_tokens":[', list(special, function(s, i)
  return ('{"id":%d,"content":"<|%s|>","special":true,"normalized":false}'):format(127999 + i, s)
end), '],"normalizer":null,"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":', quote(regex),
  '},"behavior":"Isolated","invert":false},{"type":"ByteLevel","add_prefix_space":false,"use_regex":false}]},',
  '"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"b"}},{"Sequence":{"id":"A"}}],',
  '"special_tokens":{"b":{"ids":[128000]}}},"decoder":{"type":"ByteLevel"},"model":{"type":"BPE","ignore_merges":true,"vocab":{',
  list(shown, function(s, i) return quote(s) .. ":" .. i - 1 end), '},"merges":[', list(merges, quote), ']}}')
f:close()
local types, scores, n = {}, ("\0"):rep(4 * 128256), #shown
for i = 1, 128256 do types[i] = string.pack("<i4", i > n and 3 or 1) end
for _, s in ipairs(special) do shown[#shown + 1] = "<|" .. s .. "|>" end
local function strings(t) local out = {} for i, s in ipairs(t) do out[i] = string.pack("<s8", s) end return table.concat(out) end
local function text(k, v) return string.pack("<s8I4s8", k, 8, v) end
local function array(k, type, t, bytes) return string.pack("<s8I4I4I8", k, 9, type, t) .. bytes end
-- As in the official file of 2B4T, which does not name its expressions.
f = assert(io.open(dir .. "/vocab.gguf", "wb"))
f:write("GGUF", string.pack("<I4I8I8", 3, 0, 8), text("general.architecture", "bitnet-b1.58"),
  string.pack("<s8I4B", "tokenizer.ggml.add_bos_token", 7, 1), text("tokenizer.ggml.model", "gpt2"),
  array("tokenizer.ggml.tokens", 8, #shown, strings(shown)), array("tokenizer.ggml.scores", 6, #shown, scores),
  array("tokenizer.ggml.token_type", 5, #shown, table.concat(types)), array("tokenizer.ggml.merges", 8, #merges, strings(merges)),
  string.pack("<s8I4I4", "tokenizer.ggml.bos_token_id", 4, 128000))
f:close()
