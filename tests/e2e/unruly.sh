# What goes wrong around a model: odd files and places, signals, closed outputs, sloppy command lines.
. "$(dirname "$0")/lib.sh"
"$SETUN" synth --like tiny --as hf -o "$TMP/tiny" -q || bad "synth"
M=$TMP/m
copy() { chmod -R u+rwx "$M" 2>/dev/null; rm -rf "$M"; cp -r "$TMP/tiny" "$M"; }
go() { timeout 60 "$SETUN" logits "$M" --tokens 1,2 --hash "$@"; }
want=$("$SETUN" logits "$TMP/tiny" --tokens 1,2 --hash)

# What is there but no regular file is said to be so, at once.
for f in config.json generation_config.json tokenizer.json model.safetensors; do
  copy; rm "$M/$f"; mkfifo "$M/$f"; fails "$f is a device or pipe" go
  copy; rm "$M/$f"; mkdir "$M/$f"; fails "$f is a directory" go
  copy; ln -sf "$f" "$M/$f"; fails "$f" go
  copy; ln -sf /dev/zero "$M/$f"; fails "$f is a device or pipe" go
  copy; : >"$M/$f"; fails "$f" go
done
copy; echo '{"weight_map": {"a": "s"}}' >"$M/model.safetensors.index.json"; mkfifo "$M/s"; fails "device or pipe" go
mkfifo "$TMP/fifo"; mkdir "$TMP/empty"
fails "fifo is not a file that can be loaded" timeout 60 "$SETUN" plugins --plugin "$TMP/fifo"
fails "device or pipe" timeout 60 "$SETUN" check "$TMP/fifo"
fails "not a model directory" timeout 60 "$SETUN" info "$TMP/fifo"
fails "has no config.json" "$SETUN" info "$TMP/empty"
fails "more than 256 MiB" "$SETUN" run "$TMP/tiny" -f /dev/zero
if [ "$(id -u)" -ne 0 ]; then
  copy; chmod 0 "$M/config.json"; fails "Permission denied" go
  copy; chmod 0 "$M"; fails "Permission denied" go; chmod 700 "$M"
fi

# Names: spaces, line breaks, other alphabets, long ones.  A name cannot break the line or talk to the terminal.
for name in "a b" $'a\nb' $'caf\xc3\xa9' '%s%n' "-x"; do
  cp -r "$TMP/tiny" "$TMP/$name"; same "a model in '$name'" "$("$SETUN" logits "$TMP/$name" --tokens 1,2 --hash)" "$want"
done
rm "$TMP"/a$'\n'b/config.json; fails "a b has no config.json" "$SETUN" info "$TMP"/a$'\n'b
copy; sed -i 's/BitNetForCausalLM/A\\nB\\u001b[31m/' "$M/config.json"; fails "'A B?[31m'" go
long=$(printf 'x%.0s' $(seq 900)); fails "is not a model directory" "$SETUN" info "$TMP/$long"

# Half-understood configurations.
config() { copy; sed -i "$1" "$M/config.json"; fails "$2" go; }
config 's/"rope_theta": 10000.0/"rope_theta": []/' "rope_theta is an empty list"
config 's/"rope_theta": 10000.0/"rope_theta": 0/' "rope_theta must be a number above 0"
config 's/"rope_theta": 10000.0/"rope_theta": 1e308/' "theta is 1e+308"
config 's/"rope_theta": 10000.0/"rope_theta": 10000.0, "magic": {}/' "the key magic is not known"
config 's/"num_attention_heads": 4/"num_attention_heads": 0/' "num_attention_heads must be"
config 's/"hidden_size": 256/"hidden_size": 9223372036854775807/' "hidden_size"
config 's/"hidden_act": "relu2",//' "hidden_act is missing"
config 's/"max_position_embeddings": 512/"max_position_embeddings": "many"/' "max_position_embeddings is not a whole number"
config 's/"eos_token_id": 1022/"eos_token_id": 4294967297/' "eos_token_id is not the id of a token"
config 's/"eos_token_id": 1022/"eos_token_id": "x"/' "eos_token_id is not the id of a token"
config 's/"vocab_size": 1024/"vocab_size": 1024, "vocab_size": 1024/' "duplicate"
copy; echo '{"eos_token_id": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17]}' >"$M/generation_config.json"; fails "more than 16 tokens" go
copy; sed -i 's/"version"/"novelty": 1, "version"/' "$M/tokenizer.json"; fails "novelty" go
# Embeddings that are no numbers make logits that are none: said, not printed as text.
copy; n=$(head -c 8 "$M/model.safetensors" | od -An -tu8 | tr -d ' ')
head -c 524288 /dev/zero | tr '\0' '\377' | dd of="$M/model.safetensors" bs=4096 seek=$((8 + n)) oflag=seek_bytes conv=notrunc 2>/dev/null
fails "not numbers" "$SETUN" run "$M" -p a -n 3 -q

# A deep recursion is found quickly, though every call is looked at.
echo 'local function f() return f() + 1 end f()' >"$TMP/s.lua"; copy
SECONDS=0; fails "stack overflow" go --script "$TMP/s.lua"; [ $SECONDS -lt 15 ] || bad "a deep recursion took $SECONDS s"

# Caches that cannot be had: a warning, and the same result.
warns() {
  local what=$1; shift
  "$@" >"$TMP/out" 2>"$TMP/err"; same "$what: exit code" $? 0
  same "$what: result" "$(cat "$TMP/out")" "$want"
  [ "$(wc -l <"$TMP/err")" -eq 1 ] && grep -q "warning: no cache: " "$TMP/err" || bad "$what: $(cat "$TMP/err")"
}
copy
mkdir -m 777 "$TMP/open"; chmod 777 "$TMP/open"; warns "a world-writable cache" go --cache-dir "$TMP/open"
: >"$TMP/file"; warns "a file as a cache" go --cache-dir "$TMP/file"
ln -s loop "$TMP/loop"; warns "a loop as a cache" go --cache-dir "$TMP/loop"
warns "HOME nowhere" env -u XDG_CACHE_HOME HOME=/proc timeout 60 "$SETUN" logits "$M" --tokens 1,2 --hash
same "no HOME" "$(env -u XDG_CACHE_HOME -u HOME "$SETUN" logits "$M" --tokens 1,2 --hash 2>&1)" "$want"
[ "$(id -u)" -eq 0 ] || { mkdir "$TMP/shut"; chmod 500 "$TMP/shut"; warns "a read-only cache" go --cache-dir "$TMP/shut"; }
# Full disks: file systems of their own where we may mount, and a limit on files that nobody told the program about.
full() {
  "$@" >"$TMP/out" 2>"$TMP/err"; same "a full disk: exit code" $? 1
  [ "$(wc -l <"$TMP/err")" -eq 1 ] || bad "a full disk: $(cat "$TMP/err")"
  [ -z "$(find "$TMP/disk" -name '*tmp*')" ] || bad "a full disk: temporary files stay"
}
mkdir -m 700 "$TMP/disk"
for kb in 4 64 256; do
  mount -t tmpfs -o size=${kb}k,mode=700 none "$TMP/disk" 2>/dev/null || break
  full "$SETUN" logits "$M" --tokens 1,2 --hash --cache-dir "$TMP/disk"; grep -q "disk is full" "$TMP/err" || bad "a full disk: $(cat "$TMP/err")"
  full "$SETUN" synth --like tiny --as hf -o "$TMP/disk/new" -q; [ ! -e "$TMP/disk/new" ] || bad "half a model stays"
  umount "$TMP/disk"
done
limited() { ( ulimit -f 64; "$@" ); }
full limited "$SETUN" logits "$M" --tokens 1,2 --hash --cache-dir "$TMP/disk"

# Signals: 130, and no temporary file, whenever they come.  (A child that was started in the background
# ignores SIGINT, so the others are sent.)
for sig in TERM HUP; do
  for delay in 0.02 0.1 0.4; do
    rm -rf "$TMP/signal"
    "$SETUN" run "$M" -p a -n -1 --ignore-eos --interpret --cache-dir "$TMP/signal" >/dev/null 2>&1 & pid=$!
    sleep $delay; kill -$sig $pid; wait $pid; code=$?
    # Before the program has set its handlers the signal ends it: 128 + number.
    [ $code -eq 130 ] || [ $code -eq $((128 + $(kill -l $sig))) ] || bad "SIG$sig after $delay s: exit code $code"
    [ -z "$(find "$TMP/signal" -name '*tmp*' 2>/dev/null)" ] || bad "SIG$sig after $delay s leaves temporary files"
  done
done
"$SETUN" synth --like 2b4t --as hf -o "$TMP/large" -q 2>/dev/null & pid=$!
sleep 0.3; kill -HUP $pid; wait $pid; same "synth, hung up" $? 130
[ -z "$(find "$TMP" -maxdepth 1 -name 'large*')" ] || bad "synth leaves $(ls "$TMP")"

# Output that cannot be written is a failure, of every command, in one sentence.
if [ -e /dev/full ]; then
  lost() { timeout 60 "$SETUN" "$@" >/dev/full 2>"$TMP/err"; same "$1 into a full disk" $? 1; grep -qE '^setun: writing .* failed' "$TMP/err" || bad "$*: $(cat "$TMP/err")"; }
  lost --help; lost --version; lost run --help; lost doc ops; lost plugins; lost tokenize "$M" -p a; lost detokenize "$M" 5
  lost info "$M"; lost dump "$M" --graph; lost dump "$M" --plan; lost run "$M" -p a -n 2 -q; lost logits "$M" --tokens 1 --hash
fi

# Sloppy command lines.
usage() { local want=$1; shift; "$@" >"$TMP/out" 2>"$TMP/err" </dev/null; same "$*" $? 2; grep -qF -- "$want" "$TMP/err" || bad "$*: $(cat "$TMP/err")"; [ ! -s "$TMP/out" ] || bad "$*: writes to stdout"; }
usage "setun run: " "$SETUN" run "$M" -p a --nonsense
usage "see setun run --help" "$SETUN" run "$M" -p a --nonsense
usage "--cache-dir needs a name" "$SETUN" run "$M" -p a --cache-dir ""
usage "--plugin needs a name" "$SETUN" plugins --plugin ""
usage "-o is missing" "$SETUN" synth --like tiny --as hf -o ""
usage "no tokens" "$SETUN" logits "$M" --tokens ""
usage "'x' is not a token id" "$SETUN" detokenize "$M" 1 x 2
usage "-n takes" "$SETUN" run "$M" -p a -n -2
fails "an empty name is not a model directory" "$SETUN" run "" -p a
same "help of a command" "$("$SETUN" help run)" "$("$SETUN" run --help)"
same "-n 0" "$("$SETUN" run "$M" -p a -n 0 -q)" ""
"$SETUN" run "$M" -p "" -n 1 -q >/dev/null || bad "an empty prompt"
if command -v script >/dev/null; then
  script -qec "'$SETUN' run '$M'" /dev/null </dev/null >"$TMP/out" 2>&1; same "run without a prompt on a terminal" $? 2
  grep -q "a prompt is missing" "$TMP/out" || bad "run without a prompt on a terminal: $(cat "$TMP/out")"
fi
finish
