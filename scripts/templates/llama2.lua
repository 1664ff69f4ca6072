-- templates/llama2.lua -- Llama 2: [INST] and [/INST], the system prompt inside the first question.
--
-- The text cuts white space around each question as a whole, so where a system prompt stands in front only
-- behind it, and leaves the system prompt as it is.
return setun.template {
  name = "llama2",
  must = { "<<SYS>>\n", "\n<</SYS>>\n\n", "{bos_token}", "[INST] ", "{.strip()}", " [/INST]", " ", "{eos_token}" },
  stop = { "</s>" },

  render = function(c)
    local system
    for i, m in ipairs(c.messages) do
      if m.role == "system" then
        system = m
      elseif m.role == "assistant" then
        c:mark(" "):text(m:trim()):mark(" " .. c.eos)
      else
        c:mark(c.bos .. "[INST] ")
        if system then
          c:mark("<<SYS>>\n"):text(system):mark("\n<</SYS>>\n\n"):text(m:rtrim())
          system = nil
        else
          c:text(m:trim())
        end
        c:mark " [/INST]"
      end
    end
  end,
}
