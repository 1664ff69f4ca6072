-- templates/falcon3.lua -- Falcon3-Instruct: a line for who speaks, and an end token behind answers.
return setun.template {
  name = "falcon3",
  must = { "<|system|>\n", "\n", "<|user|>\n", "<|assistant|>\n", "{eos_token}" },
  tokens = {},
  stop = { "<|endoftext|>" },

  render = function(c)
    for i, m in ipairs(c.messages) do
      c:mark("<|" .. m.role .. "|>\n"):text(m)
      if m.role ~= "assistant" then
        c:mark "\n"
      else
        c:mark(c.eos)
        if i < #c.messages then c:mark "\n" end
      end
    end
    if c.prompt then c:mark "<|assistant|>\n" end
  end,
}
