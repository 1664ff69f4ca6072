# setun chat: pipes, commands, files, Ctrl-C, and formats that are chosen or refused.
. "$(dirname "$0")/lib.sh"
CHAT=("$SETUN" chat "$MODEL" -n 12 --seed 3)

# A pipe: a message per line, answers on stdout and nothing else.
printf 'Who art thou?\n\nWhy?\n' | "${CHAT[@]}" -q >"$TMP/a" 2>"$TMP/err"; same "two questions" $? 0
same "quiet" "$(cat "$TMP/err")" ""
[ -s "$TMP/a" ] || bad "no answers"
printf 'Who art thou?\nWhy?' | "${CHAT[@]}" -q -t 1 2>/dev/null | cmp - "$TMP/a" || bad "equal seeds, other answers"
# The first answer is what run makes of the rendered prompt.
prompt='User: Who art thou?<|eot_id|>Assistant: '
same "the first answer" "$(echo 'Who art thou?' | "${CHAT[@]}" -q)" "$("$SETUN" run "$MODEL" -p "$prompt" --special -n 12 --seed 3 -q)"
prompt="System: Be brief.<|eot_id|>$prompt"
same "a system message" "$(echo 'Who art thou?' | "${CHAT[@]}" -q -s ' Be brief. ')" "$("$SETUN" run "$MODEL" -p "$prompt" --special -n 12 --seed 3 -q)"
same "another system message" "$(printf '/system Be brief.\nWho art thou?\n' | "${CHAT[@]}" -q -s long)" \
  "$("$SETUN" run "$MODEL" -p "$prompt" --special -n 12 --seed 3 -q)"

# Messages of several lines, slashes, and what is remembered, in JSON.
printf 'a\\\nb\n"""\nx\n\ny\n"""\n//slash\n"""one"""\n"""two\nlines"""\n/save %s\n' "$TMP/h.json" | "${CHAT[@]}" --json -q >"$TMP/json" 2>"$TMP/err"
same "messages of several lines" "$?" 0
same "their answers" "$(grep -c '^{"text": ".*", "end": "[a-z]*", "tokens": [0-9]*, "prompt_tokens": [0-9]*, "reused_tokens": [0-9]*, "forgotten_messages": 0}$' "$TMP/json")" 5
same "what was said" "$(grep -o '"user", "content": "[^"]*"' "$TMP/h.json" | cut -d' ' -f3- | tr '\n' ' ')" \
  '"a\u000ab" "x\u000a\u000ay" "/slash" "one" "two\u000alines" '
lua5.4 - "$TMP/json" <<'L' || bad "tokens were read again: $(cat "$TMP/json")"
local before
for line in io.lines(arg[1]) do
  local made, prompt, reused = line:match('"tokens": (%d+), "prompt_tokens": (%d+), "reused_tokens": (%d+)')
  -- The last token of an answer that was cut has not been read yet.
  if before then assert(tonumber(reused) >= before - 1 and tonumber(reused) <= before, line) else assert(reused == "0") end
  before = prompt + made
end
L

# Saved and loaded, a conversation goes on as if it had not ended.
printf 'One\nTwo\n/save %s\n' "$TMP/h.json" | "${CHAT[@]}" --temp 0 -q >"$TMP/a" || bad "/save"
printf 'One\nTwo\nThree\n' | "${CHAT[@]}" --temp 0 -q >"$TMP/b"
printf '/load %s\nThree\n' "$TMP/h.json" | "${CHAT[@]}" --temp 0 -q >"$TMP/c" || bad "/load"
tail -c +$(($(wc -c <"$TMP/a") + 1)) "$TMP/b" >"$TMP/d"
[ -s "$TMP/c" ] || bad "no answer after /load"
printf 'One\nTwo\n/clear\nOne\n' | "${CHAT[@]}" --temp 0 -q >"$TMP/e"
printf 'One\n' | "${CHAT[@]}" --temp 0 -q >"$TMP/f"
tail -c "$(wc -c <"$TMP/f")" "$TMP/e" | cmp - "$TMP/f" || bad "/clear does not forget"
printf 'x\n/stats\n/help\n/exit\nnever read\n' | "${CHAT[@]}" >"$TMP/out" 2>"$TMP/err"; same "/exit" $? 0
for word in 'template  bitnet' 'of 512 positions' 'tokens/s' '/system \[TEXT\]'; do grep -q -- "$word" "$TMP/err" || bad "stderr lacks $word"; done

# Mistakes are one sentence each; a pipe goes on and fails at its end.
refused() { # input, words
  printf "$1" | "${CHAT[@]}" -q >"$TMP/out" 2>"$TMP/err"; same "$2: exit code" $? 1
  same "$2: lines" "$(wc -l <"$TMP/err")" 1
  grep -qF -- "$2" "$TMP/err" || bad "'$2' expected: $(cat "$TMP/err")"
}
refused '/nonsense\n' "there is no command '/nonsense'"
refused '/save\n' "/save needs the name of a file"
refused '/save /nowhere/h.json\n' "/nowhere"
refused "/load $TMP/none\n" "$TMP/none"
refused 'a\xff\n' "the message is not text at byte 1: not valid UTF-8"
refused 'a\0b\n' "the message is not text at byte 1: a zero byte"
refused '"""a\n' 'the input ended inside """'
refused "$(printf 'z%.0s' $(seq 3000))\n" "the context of 512"
[ -s "$TMP/out" ] && bad "an answer to what does not fit"
echo '{"setun_chat": 1, "messages": [{"role": "user"}]}' >"$TMP/bad.json"
refused "/load $TMP/bad.json\n" "message 1 is not"
printf '/nonsense\nWho art thou?\n' | "${CHAT[@]}" -q 2>/dev/null >"$TMP/out"; same "a mistake before a question" $? 1
[ -s "$TMP/out" ] || bad "no answer behind a mistake"

# A context that is full: the oldest turns go, and it is said.
for i in $(seq 12); do echo "Question $i"; done | "$SETUN" chat "$MODEL" -n 16 --ctx 96 --json >"$TMP/json" 2>"$TMP/err"; same "a full context" $? 0
same "answers" "$(grep -c '^{"text"' "$TMP/json")" 12
grep -q '"forgotten_messages": [2-9]' "$TMP/json" || bad "nothing was forgotten"
grep -q 'the oldest [0-9]* messages are forgotten' "$TMP/err" || bad "forgotten without a word"
echo x | "$SETUN" chat "$MODEL" --ctx 24 --seed 2 --repeat-penalty 1.5 2>"$TMP/err" >/dev/null; same "an answer that fills the context" $? 0

# Formats: the file's text decides; what is not known is refused with the list.
cp -r "$MODEL" "$TMP/m"
template() {
  lua5.4 - "$1" >"$TMP/m/tokenizer_config.json" <<'L'
print(('{"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>", "chat_template": "%s"}'):format((arg[1]:gsub('[\\"]', "\\%0"))))
L
}
template "{% for m in messages %}{{ '### ' + m['content'] }}{% endfor %}"
fails "not a format that Setun knows (bitnet, chatml," "$SETUN" chat "$TMP/m" </dev/null
"$SETUN" info "$TMP/m" | grep -q '^chat_template  *none' || bad "info of an unknown template"
echo x | "$SETUN" chat "$TMP/m" --template plain -n 3 -q >/dev/null || bad "--template in place of one that is not known"
template "{{ 'a' "
fails "a tag without an end" "$SETUN" chat "$TMP/m" </dev/null
template "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
fails "chatml needs the special token <|im_start|>" "$SETUN" chat "$TMP/m" </dev/null
# The template of the published GGUF file is known to be wrong for this architecture.
template "{% for message in messages %}{% if loop.first %}{{ bos_token }}{% endif %}{% if message['role'] == 'user' %}{{ 'Human: ' + message['content'] + '\n\nBITNETAssistant: ' + eos_token }}{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token }}{% endif %}{% endfor %}"
"$SETUN" info "$TMP/m" >"$TMP/out"
grep -q '^chat_template  *bitnet$' "$TMP/out" && grep -q 'was not used: .*known mistake' "$TMP/out" || bad "the wrong template is not repaired"
same "the repaired format" "$(echo 'Who art thou?' | "$SETUN" chat "$TMP/m" -n 12 --seed 3 -q)" "$(echo 'Who art thou?' | "${CHAT[@]}" -q)"
rm "$TMP/m/tokenizer_config.json"
fails "the model's files have no chat template" "$SETUN" chat "$TMP/m" </dev/null
fails "there is no chat template 'nonsense'; there are bitnet, chatml," "$SETUN" chat "$MODEL" --template nonsense </dev/null
fails "cannot tell a model to think" "$SETUN" chat "$MODEL" --think </dev/null
"$SETUN" info "$MODEL" --json | grep -q '"chat_template": "bitnet"' || bad "info --json names the template"
"$SETUN" chat >/dev/null 2>&1; same "no model" $? 2
"$SETUN" chat "$MODEL" -n many </dev/null >/dev/null 2>&1; same "a number that is none" $? 2

# Interrupted, a pipe ends with 130, and what was written so far stays.
mkfifo "$TMP/keys"
"$SETUN" chat "$MODEL" --interpret <"$TMP/keys" >"$TMP/out" 2>/dev/null & pid=$!
exec 9>"$TMP/keys"
printf 'Who art thou?\n' >&9
for i in $(seq 400); do [ -s "$TMP/out" ] && break; sleep 0.05; done
kill -TERM $pid
wait $pid; same "an interrupted pipe" $? 130
[ -s "$TMP/out" ] || bad "what was written is lost"
exec 9>&-
[ -e /dev/full ] && { echo x | "$SETUN" chat "$MODEL" >/dev/full 2>"$TMP/err"; same "a full disk under the output" $? 1; }

# A terminal: Ctrl-C ends the answer, and where there is none the program.
if command -v script >/dev/null; then
  set -m # without job control a shell tells what runs behind it to ignore Ctrl-C
  script -qec "trap : INT; '$SETUN' chat '$MODEL' --interpret; echo code \$?" /dev/null <"$TMP/keys" >"$TMP/screen" 2>&1 & job=$!
  exec 9>"$TMP/keys"
  shows() { for i in $(seq 400); do grep -q -- "$1" "$TMP/screen" && return; sleep 0.05; done; bad "the terminal does not show '$1': $(tail -c 400 "$TMP/screen")"; }
  shows '/help lists commands'
  printf 'Who art thou?\n' >&9
  # Something stands behind the question.
  for i in $(seq 400); do tr -d '\r' <"$TMP/screen" | sed '1,/art thou/d' | grep -q . && break; sleep 0.02; done
  printf '\003' >&9
  shows '(interrupted)'
  printf '/stats\n' >&9
  shows 'messages  2'
  printf '\003' >&9
  shows 'code 130'
  exec 9>&-
  wait $job
  set +m
fi
finish
