# setun embed: vectors of texts by the last states of the bundled model, which a script asks for.
. "$(dirname "$0")/lib.sh"
SCRIPT=$SOURCE/docs/examples/states.lua
embed() { "$SETUN" embed "$MODEL" --script "$SCRIPT" "$@"; }

# usage "part of the sentence" arguments...: exit code 2.
usage() {
  local want=$1
  shift
  embed "$@" >"$TMP/out" 2>"$TMP/err" </dev/null
  same "exit code of embed $*" $? 2
  grep -qF -- "$want" "$TMP/err" || bad "stderr lacks '$want': embed $* ($(head -c 300 "$TMP/err"))"
}

printf 'To be, or not to be\nthat is the question\r\n\nWhether tis nobler' >"$TMP/texts"
embed -f "$TMP/texts" >"$TMP/vectors" || bad "embed -f"
same "lines" "$(wc -l <"$TMP/vectors")" 4
same "columns" "$(awk '{print NF}' "$TMP/vectors" | sort -u)" 256
# Each line is the text's own vector, however it was given, on any kernels and threads.
same "-p" "$(embed -p "To be, or not to be" -p "that is the question")" "$(head -2 "$TMP/vectors")"
same "standard input" "$(embed <"$TMP/texts" | md5sum)" "$(md5sum <"$TMP/vectors")"
same "chunks" "$(embed -f "$TMP/texts" --batch 3 -t 1 | md5sum)" "$(md5sum <"$TMP/vectors")"
same "reference" "$(embed -f "$TMP/texts" --backend reference | md5sum)" "$(md5sum <"$TMP/vectors")"

awk '{ s = 0; for (i = 1; i <= NF; i++) s += $i * $i; if (s < 0.999999 || s > 1.000001) exit 1 }' "$TMP/vectors" ||
  bad "not of length 1"
for pool in last cls mean; do embed --pool $pool --no-normalize -p "To be, or not to be" >"$TMP/$pool" || bad "--pool $pool"; done
cmp -s "$TMP/last" "$TMP/cls" && bad "the last token's state is the first one's"
# The mean of the states of a text of one token is that state; that of more is another.
same "the first token" "$(embed --pool cls --no-normalize -p "To")" "$(cat "$TMP/cls")"
cmp -s "$TMP/mean" "$TMP/last" && bad "the mean is the last one"
same "--dim" "$(embed --dim 5 --no-normalize -p "To be, or not to be")" "$(cut -d' ' -f1-5 "$TMP/mean")"

# The cosine is the product of vectors of length 1.
got=$(embed --similarity "To be, or not to be" "that is the question") || bad "--similarity"
want=$(awk 'NR == 1 { n = split($0, a, " ") } NR == 2 { for (i = 1; i <= n; i++) s += a[i] * $i; printf "%.6f", s }' "$TMP/vectors")
same "cosine" "$(printf %.6f "$got")" "$want"
same "cosine with itself" "$(printf %.6f "$(embed --similarity x x)")" 1.000000
same "cosine in JSON" "$(embed --similarity "To be, or not to be" "that is the question" --json)" "{\"cosine\":$got}"

embed --json -f "$TMP/texts" >"$TMP/json" || bad "--json"
lua5.4 - "$TMP/json" "$TMP/vectors" <<'L' || bad "--json differs"
local rows = io.lines(arg[2])
local i = 0
for line in io.lines(arg[1]) do
  local index, tokens, list = line:match('^{"index":(%d+),"tokens":(%d+),"embedding":%[(.-)%]}$')
  assert(tonumber(index) == i and tonumber(tokens) > 0 and list:gsub(",", " ") == rows(), line)
  i = i + 1
end
assert(i == 4)
L

embed -f "$TMP/texts" --npy "$TMP/v.npy" >"$TMP/out" || bad "--npy"
[ -s "$TMP/out" ] && bad "--npy prints"
lua5.4 - "$TMP/v.npy" "$TMP/vectors" <<'L' || bad "the array differs"
local s = io.open(arg[1], "rb"):read("a")
assert(s:sub(1, 10) == "\x93NUMPY\1\0\x76\0" and s:byte(128) == 10 and #s == 128 + 4 * 4 * 256)
assert(s:sub(11, 127):match("^{'descr': '<f4', 'fortran_order': False, 'shape': %(4, 256%), } *$"))
local at = 129
for line in io.lines(arg[2]) do
  for number in line:gmatch("%S+") do
    assert(string.pack("<f", tonumber(number)) == s:sub(at, at + 3), number)
    at = at + 4
  end
end
L
fails "$TMP/none/v.npy" embed -p x --npy "$TMP/none/v.npy"
[ -z "$(ls "$TMP" | grep part)" ] || bad "a part of a file was left behind"

fails "makes no embeddings" "$SETUN" embed "$MODEL" -p x
fails "it predicts no tokens" "$SETUN" run "$MODEL" --script "$SCRIPT" -p x -n 1
fails "257 columns wanted of a vector of 256" embed -p x --dim 257
fails "text 2: the text is not valid UTF-8 at byte 1" embed -p x -p $'a\xff'
fails "text 2: no room for" embed -p x -p "$(yes word | head -70)" --ctx 64
fails "cannot read $TMP/none" embed -f "$TMP/none"
sed '/pooling/d' "$SCRIPT" >"$TMP/silent.lua"
fails "choose last, mean or cls" "$SETUN" embed "$MODEL" --script "$TMP/silent.lua" -p x
same "a pooling of one's own" "$("$SETUN" embed "$MODEL" --script "$TMP/silent.lua" --pool mean -p x)" "$(embed -p x)"
sed 's/"mean"/"max"/' "$SCRIPT" >"$TMP/max.lua"
fails "the pooling 'max' is not known" "$SETUN" embed "$MODEL" --script "$TMP/max.lua" -p x
sed 's/"mean"/3/' "$SCRIPT" >"$TMP/three.lua"
fails "pooling must be a string" "$SETUN" embed "$MODEL" --script "$TMP/three.lua" -p x
sed 's/pooling = "mean"/tensors = "blk.0.attn_q"/' "$SCRIPT" >"$TMP/list.lua"
fails "tensors must be a list of strings" "$SETUN" embed "$MODEL" --script "$TMP/list.lua" -p x
usage "-p and -f exclude each other" -p x -f "$TMP/texts"
usage "--pool takes last, mean or cls, not 'max'" --pool max -p x
usage "--similarity takes two texts" --similarity x
usage "--similarity goes without -p" --similarity x y -p z
usage "--npy goes without --json" -p x --npy "$TMP/v" --json
usage "there is no text in standard input"
"$SETUN" info "$MODEL" --script "$SCRIPT" >"$TMP/out" || bad "info"
grep -q '^pooling  *mean$' "$TMP/out" || bad "info does not tell the pooling"
grep -q '^decision  *there is no head: the model makes vectors of texts$' "$TMP/out" || bad "info does not tell that there is no head"
"$SETUN" doctor "$MODEL" --script "$SCRIPT" --quick >"$TMP/out" || bad "doctor: $(cat "$TMP/out")"
same "the doctor's checks of vectors" "$(sed '/^$/,$d' "$TMP/out" | awk '{ print $1, $2 }' | tr '\n' ' ')" \
  "files ok numbers ok cuts ok head left tokenizer ok kernels left "
grep -q '^cuts *ok *the same bits, alone and beside other texts$' "$TMP/out" || bad "doctor does not compare vectors"
finish
