-- templates/qwen2.lua -- Qwen 1.5, Qwen2 and the base models of Qwen2.5: ChatML with a system prompt of its own.
local chat = require "chat"
local system = "You are a helpful assistant."

return setun.template {
  name = "qwen2",
  must = chat.chatml_marks { "<|im_start|>system\n" .. system .. "<|im_end|>\n" },
  may = { "<|im_start|>system\n" },
  tokens = chat.chatml_tokens,
  stop = chat.chatml_stop,
  render = function(c) chat.chatml(c, system) end,
}
