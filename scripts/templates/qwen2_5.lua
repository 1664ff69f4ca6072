-- templates/qwen2_5.lua -- Qwen2.5-Instruct: ChatML with another system prompt of its own.
local chat = require "chat"
local system = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."

return setun.template {
  name = "qwen2.5",
  must = chat.chatml_marks { "<|im_start|>system\n" .. system .. "<|im_end|>\n" },
  may = { "<|im_start|>system\n" },
  tokens = chat.chatml_tokens,
  stop = chat.chatml_stop,
  render = function(c) chat.chatml(c, system) end,
}
