-- templates/qwen2_5.lua -- Qwen2.5-Instruct: ChatML with another system prompt of its own.
return require "chat".chatml_template {
  name = "qwen2.5",
  system = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
}
