-- templates/chatml.lua -- ChatML as it is: also of Falcon-E and others, where their files say so.
local chat = require "chat"

return setun.template {
  name = "chatml",
  must = chat.chatml_marks {},
  may = { "<|im_start|>system\n", "{bos_token}", "{|length}" },
  tokens = chat.chatml_tokens,
  stop = chat.chatml_stop,
  render = function(c) chat.chatml(c) end,
}
