# The first command of the README ends in Shakespeare-like text, and the README's other commands work.
. "$(dirname "$0")/lib.sh"
out=$("$SETUN" run "$MODEL" -p $'ROMEO:\n' --echo -n 200 2>/dev/null) || bad "run"
[ "$(printf %s "$out" | wc -w)" -ge 60 ] || bad "too little text: $out"
# Speakers' names in capitals with a colon, and common words: what the model was trained on.
[ "$(printf '%s\n' "$out" | grep -cE '^[A-Z][A-Za-z ]+:$')" -ge 2 ] || bad "no speakers: $out"
[ "$(printf '%s\n' "$out" | grep -oiwE 'the|and|to|my|of|I|you|that|is|not' | wc -l)" -ge 15 ] || bad "no common words: $out"
# Every line of the README that starts with "$ setun" is run, from the source directory.
cd "$SOURCE" && cp -r tests/models/shakespeare "$TMP/shakespeare"
grep -oE '^\$ setun .*' README.md | sed 's/^\$ setun //' >"$TMP/commands"
[ -s "$TMP/commands" ] || bad "the README shows no commands"
while IFS= read -r line; do
  # Kernels for other machines are made by the code generator.
  [[ ${SETUN_LLVM:-1} = 1 || $line != compile* && $line != export* ]] || continue
  line=${line//\/tmp\//$TMP/}
  eval "\"$SETUN\" $line" >"$TMP/out" 2>"$TMP/err" </dev/null || bad "README: setun $line ($(head -c 300 "$TMP/err"))"
done <"$TMP/commands"
finish
