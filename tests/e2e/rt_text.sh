# Text from bundles: run and chat of setun-rt write what setun writes, byte by byte, and say what they cannot do.
. "$(dirname "$0")/lib.sh"
[ "${SETUN_LLVM:-1}" = 1 ] || { echo "skipped: a bundle needs compiled kernels, and this build has no code generator"; exit 77; }
RT=$(dirname "$SETUN")/setun-rt
B=$TMP/model.bundle
"$SETUN" export "$MODEL" -o "$B" -q || bad "export"

# ---- run
both() { # options: the same text
  "$SETUN" run "$MODEL" -q "$@" >"$TMP/want" || bad "setun run $*"
  "$RT" run "$B" -q "$@" >"$TMP/got" || bad "setun-rt run $*"
  cmp -s "$TMP/want" "$TMP/got" || bad "run $*: '$(head -c 200 "$TMP/got")' is not '$(head -c 200 "$TMP/want")'"
}
both -p "ROMEO:" -n 48 --greedy
both -p "ROMEO:" -n 48 --seed 7 --temp 0.9
both -p "O, naïve 日本 1234567  don't\n" -n 24 --seed 3 --top-p 0.8 --min-p 0.05 --echo
both -p "" -n 24 --top-k 0 --top-p 1 --temp 1 --seed 5
both -p "<|eot_id|>KING" -n 24 --repeat-penalty 1.3 --repeat-last 20 --special --echo --ignore-eos
head -c 900 "$MODEL/heldout.txt" >"$TMP/text"
both -f "$TMP/text" -n -1 --seed 2 -t 3
same "from standard input" "$("$RT" run "$B" -q -n 8 --greedy <"$TMP/text" | md5sum)" "$("$SETUN" run "$MODEL" -q -n 8 --greedy -f "$TMP/text" | md5sum)"
same "setun itself runs it" "$("$SETUN" run "$B" -q -p "ROMEO:" -n 8 --greedy)" "$("$RT" run "$B" -q -p "ROMEO:" -n 8 --greedy)"
"$RT" run "$B" -p x -n 4 2>"$TMP/err" >/dev/null
grep -q '^prompt 2 tokens, .* generated 4, ' "$TMP/err" || bad "run says: $(cat "$TMP/err")"
fails "not valid UTF-8 at byte 1" "$RT" run "$B" -p $'a\xff'
fails "$TMP/nowhere" "$RT" run "$B" -f "$TMP/nowhere"
if [ -w /dev/full ]; then
  "$RT" run "$B" -q -p x -n 2 --greedy >/dev/full 2>"$TMP/err"
  same "exit code when the disk is full" $? 1
  grep -q "writing the text failed" "$TMP/err" || bad "a full disk: $(cat "$TMP/err")"
fi
for wrong in "run" "run $B $B -p x" "run $B -p x -f y" "run $B -p x --temp hot" "run $B -p x --top-k 1.5" "run $B -p x --none" "chat" "chat $B -n x"; do
  # shellcheck disable=SC2086
  "$RT" $wrong >/dev/null 2>"$TMP/err" </dev/null
  same "exit code of setun-rt $wrong" $? 2
done
for c in run chat; do "$RT" $c --help | grep -q "^usage: setun-rt $c BUNDLE" || bad "$c --help"; done

# ---- chat: turns, a message of two lines, commands, a conversation that outgrows the context
printf 'Hello there\nWho are you?\\\nSay it.\n//x\n/clear\nAgain <|eot_id|>\n/system Be brief.\nAnd now?\n/quit\nnot read\n' >"$TMP/in"
for i in $(seq 12); do echo "Message $i tells of kings and of many things besides, so that there is little room."; done >"$TMP/long"
talk() { # file, options: the same answers; what is said besides stays in $TMP/err
  local in=$TMP/$1
  shift
  "$SETUN" chat "$MODEL" "$@" <"$in" >"$TMP/want" 2>"$TMP/err" || bad "setun chat $*: $(cat "$TMP/err")"
  "$RT" chat "$B" "$@" <"$in" >"$TMP/got" 2>"$TMP/err" || bad "setun-rt chat $*: $(cat "$TMP/err")"
  cmp -s "$TMP/want" "$TMP/got" || bad "chat $* <$in: '$(head -c 200 "$TMP/got")' is not '$(head -c 200 "$TMP/want")'"
}
talk in -q --greedy -n 20
talk in -q --seed 4 -n 24 -s Friend
talk long --seed 6 -n 30
grep -q "the context is full: the oldest" "$TMP/err" || bad "nothing is forgotten: $(cat "$TMP/err")"
printf '/stats\n/nope\n' | "$RT" chat "$B" >/dev/null 2>"$TMP/err"
same "exit code after a wrong command" $? 1
grep -q "there is no command '/nope'" "$TMP/err" && grep -q '^template  ' "$TMP/err" || bad "chat says: $(cat "$TMP/err")"

# ---- a template that is no table, and one that there is not: everything but chat works
cp -r "$MODEL" "$TMP/plain" && rm "$TMP/plain/tokenizer_config.json"
"$SETUN" export "$TMP/plain" -o "$TMP/p.bundle" -q || bad "export without a template"
fails "the bundle has no chat template: " "$RT" chat "$TMP/p.bundle"
"$RT" run "$TMP/p.bundle" -q -p x -n 2 >/dev/null || bad "run without a template"
finish
