-- templates/gemma3.lua -- Gemma 3, text only: the system prompt stands in front of the first question.
return setun.template {
  name = "gemma3",
  must = { "{bos_token}", "\n\n", "model", "<start_of_turn>", "\n", "{|trim}", "<end_of_turn>\n", "<start_of_turn>model\n" },
  may = { "<start_of_image>" },
  tokens = { "<start_of_turn>", "<end_of_turn>" },
  stop = { "<end_of_turn>", "<eos>" },

  render = function(c)
    local system
    for i, m in ipairs(c.messages) do
      if m.role == "system" then
        system = m
      else
        c:mark("<start_of_turn>" .. (m.role == "assistant" and "model" or "user") .. "\n")
        if system then c:text(system):mark "\n\n" end
        c:text(m:trim()):mark "<end_of_turn>\n"
        system = nil
      end
    end
    if c.prompt then c:mark "<start_of_turn>model\n" end
  end,
}
