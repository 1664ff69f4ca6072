-- templates/qwen3.lua -- Qwen3: ChatML, with thoughts before answers.
--
-- Thoughts stay in an answer only until the next question: of earlier answers what stands behind </think>
-- is kept.  Not thinking is told by an empty thought that the answer has to begin with.
local chat = require "chat"

return setun.template {
  name = "qwen3",
  must = chat.chatml_marks { "<|im_start|>system\n", "\n<think>\n", "\n</think>\n\n", "<think>\n\n</think>\n\n",
                             '{.split("</think>")}', '{.split("<think>")}', '{.lstrip("\n")}', '{.rstrip("\n")}',
                             '{.strip("\n")}' },
  may = { "{|length}" },
  tokens = chat.chatml_tokens,
  stop = chat.chatml_stop,
  thinks = true,

  render = function(c)
    local n, last = #c.messages, 0
    for i, m in ipairs(c.messages) do
      if m.role == "user" then last = i end
    end
    for i, m in ipairs(c.messages) do
      if m.role ~= "assistant" then
        chat.chatml_turn(c, m.role, m)
      else
        local said = m
        if m:has "</think>" then said = m:after("</think>"):ltrim "\n" end
        chat.chatml_turn(c, m.role)
        if i > last then
          c:mark "<think>\n"
          if m:has "</think>" then c:text(m:before("</think>"):rtrim("\n"):after("<think>"):ltrim("\n"):trim "\n") end
          c:mark "\n</think>\n\n"
          said = said:ltrim "\n"
        end
        c:text(said):mark "<|im_end|>\n"
      end
    end
    if c.prompt then
      chat.chatml_turn(c, "assistant")
      if c.think == false then c:mark "<think>\n\n</think>\n\n" end
    end
  end,
}
