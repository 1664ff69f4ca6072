-- templates/plain.lua -- for models that were never taught a format: a transcript.  Only taken when asked for.
local title = { system = "", user = "User: ", assistant = "Assistant:" }

return setun.template {
  name = "plain",
  render = function(c)
    for _, m in ipairs(c.messages) do
      c:mark(title[m.role]):mark(m.role == "assistant" and " " or ""):text(m:trim()):mark(m.role == "system" and "\n\n" or "\n")
    end
    if c.prompt then c:mark(title.assistant) end
  end,
}
