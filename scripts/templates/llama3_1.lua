-- templates/llama3_1.lua -- Llama 3.1, 3.2 and 3.3: a system message always, with two dates.
--
-- Some of their texts write the day of the conversation.  A prompt that changes overnight would change every
-- answer, so it is written only when the caller gives it; otherwise the one all of the texts fall back to.
local header = "<|start_header_id|>%s<|end_header_id|>\n\n"

return setun.template {
  name = "llama3.1",
  must = { "{bos_token}", "<|start_header_id|>", "<|end_header_id|>\n\n", "{|trim}", "<|eot_id|>",
           "<|start_header_id|>system<|end_header_id|>\n\n", "Cutting Knowledge Date: December 2023\n", "Today Date: ",
           "26 Jul 2024", "\n\n", "<|start_header_id|>assistant<|end_header_id|>\n\n" },
  may = { "{strftime_now()}", "%d %b %Y" },
  tokens = { "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>" },
  stop = { "<|eot_id|>", "<|end_of_text|>", "<|eom_id|>" },

  render = function(c)
    local first = c.messages[1]
    local system = first and first.role == "system"
    c:mark(header:format "system" .. "Cutting Knowledge Date: December 2023\nToday Date: " .. c.date .. "\n\n")
    if system then c:text(first:trim()) end
    c:mark "<|eot_id|>"
    for i, m in ipairs(c.messages) do
      if i > 1 or not system then c:mark(header:format(m.role)):text(m:trim()):mark "<|eot_id|>" end
    end
    if c.prompt then c:mark(header:format "assistant") end
  end,
}
