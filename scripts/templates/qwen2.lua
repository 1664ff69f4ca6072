-- templates/qwen2.lua -- Qwen 1.5, Qwen2 and the base models of Qwen2.5: ChatML with a system prompt of its own.
return require "chat".chatml_template { name = "qwen2", system = "You are a helpful assistant." }
