-- templates/llama3.lua -- Llama 3, and models made from it (Llama3-8B-1.58).
return setun.template {
  name = "llama3",
  must = { "<|start_header_id|>", "<|end_header_id|>\n\n", "{|trim}", "<|eot_id|>",
           "<|start_header_id|>assistant<|end_header_id|>\n\n" },
  may = { "{bos_token}" },
  tokens = { "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>" },
  stop = { "<|eot_id|>", "<|end_of_text|>" },

  render = function(c)
    for _, m in ipairs(c.messages) do
      c:mark("<|start_header_id|>" .. m.role .. "<|end_header_id|>\n\n"):text(m:trim()):mark "<|eot_id|>"
    end
    if c.prompt then c:mark "<|start_header_id|>assistant<|end_header_id|>\n\n" end
  end,
}
