-- templates/chatml.lua -- ChatML as it is: also of Falcon-E and others, where their files say so.
return require "chat".chatml_template { name = "chatml", may = { "{bos_token}", "{|length}" } }
