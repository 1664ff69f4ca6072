-- lib/chat.lua -- what several chat templates share.
local chat = {}

-- The marks of ChatML in its usual spellings, with those of extra; see model/template.h.
function chat.chatml_marks(extra)
  local marks = { "<|im_start|>", "\n", "<|im_end|>\n", "<|im_start|>assistant\n" }
  for _, m in ipairs(extra) do marks[#marks + 1] = m end
  return marks
end

-- One turn; what is said may be a slice, or nil to leave the turn open.
function chat.chatml_turn(c, role, what)
  c:mark("<|im_start|>" .. role .. "\n")
  if what then c:text(what):mark "<|im_end|>\n" end
end

-- ChatML, with a system prompt of the model's own if there is none.
function chat.chatml(c, system)
  local first = c.messages[1]
  if system and not (first and first.role == "system") then
    c:mark("<|im_start|>system\n" .. system .. "<|im_end|>\n")
  end
  for _, m in ipairs(c.messages) do chat.chatml_turn(c, m.role, m) end
  if c.prompt then chat.chatml_turn(c, "assistant") end
end

chat.chatml_tokens = { "<|im_start|>", "<|im_end|>" }
chat.chatml_stop = { "<|im_end|>", "<|endoftext|>" }

-- The template t.name, which is ChatML and nothing else.  A model that writes t.system where nobody gave a
-- system prompt is known by just that text, so it is a mark that must be there; may adds to what all of them
-- may write, a header for the system prompt that somebody did give.
function chat.chatml_template(t)
  local may = { "<|im_start|>system\n" }
  for _, m in ipairs(t.may or {}) do may[#may + 1] = m end
  return setun.template {
    name = t.name,
    must = chat.chatml_marks(t.system and { "<|im_start|>system\n" .. t.system .. "<|im_end|>\n" } or {}),
    may = may,
    tokens = chat.chatml_tokens,
    stop = chat.chatml_stop,
    render = function(c) chat.chatml(c, t.system) end,
  }
end

return chat
