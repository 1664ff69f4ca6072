-- templates/gemma2.lua -- Gemma and Gemma 2: turns like those of Gemma 3, and no system prompt.
return setun.template {
  name = "gemma2",
  must = { "model", "<start_of_turn>", "\n", "{|trim}", "<end_of_turn>\n", "<start_of_turn>model\n" },
  may = { "{bos_token}" },
  tokens = { "<start_of_turn>", "<end_of_turn>" },
  stop = { "<end_of_turn>", "<eos>" },

  render = function(c)
    for _, m in ipairs(c.messages) do
      if m.role == "system" then error("the template gemma2 has no system prompt", 0) end
      c:mark("<start_of_turn>" .. (m.role == "assistant" and "model" or "user") .. "\n")
      c:text(m:trim()):mark "<end_of_turn>\n"
    end
    if c.prompt then c:mark "<start_of_turn>model\n" end
  end,
}
