-- templates/bitnet.lua -- BitNet b1.58 2B4T: "User: ...<|eot_id|>Assistant: ", nothing between turns.
--
-- The GGUF file that was published with the model has another template, left over from the program that
-- converted it.  The model was never trained on that, and answers it with noise.
local title = { system = "System: ", user = "User: ", assistant = "Assistant: " }

return setun.template {
  name = "bitnet",
  must = { "{|capitalize}", ": ", "{|trim}", "<|eot_id|>", "Assistant: " },
  may = { "{bos_token}" },
  repairs = {
    architectures = { "BitNetForCausalLM", "bitnet-b1.58" },
    must = { "{bos_token}", "Human: ", "\n\nBITNETAssistant: ", "{eos_token}" },
    why = "the file's own template (Human: ... BITNETAssistant:) is a known mistake of its converter",
  },
  tokens = { "<|eot_id|>" },
  stop = { "<|eot_id|>", "<|end_of_text|>" },

  render = function(c)
    for _, m in ipairs(c.messages) do
      c:mark(title[m.role]):text(m:trim()):mark "<|eot_id|>"
    end
    if c.prompt then c:mark(title.assistant) end
  end,
}
