# setun doctor: a sound model, and models that are not.  Its whole page, operators and all, is read in check.sh.
. "$(dirname "$0")/lib.sh"
"$SETUN" doctor "$MODEL" --quick --json | lua5.4 -e '
  local t = io.read("a")
  assert(t:match("^{.*}%s*$") and t:find("\"sound\": true") and t:find("\"head\", \"result\": \"ok\""), t)' || bad "--json"

# A NaN among the last norm's gains: what is computed from it is no number.
mkdir "$TMP/nan" "$TMP/short"
cp "$MODEL"/* "$TMP/nan"; cp "$MODEL"/* "$TMP/short"
size=$(stat -c %s "$TMP/nan/model.safetensors")
printf '\xc0\x7f' | dd of="$TMP/nan/model.safetensors" bs=1 seek=$((size - 2)) conv=notrunc 2>/dev/null
"$SETUN" doctor "$TMP/nan" --quick >"$TMP/out" 2>/dev/null; same "a NaN" $? 1
grep -q '^numbers *WRONG *logit [0-9]* after' "$TMP/out" || bad "a NaN is not found: $(cat "$TMP/out")"
grep -q '^NOT SOUND: 1 wrong$' "$TMP/out" || bad "a NaN has no verdict: $(cat "$TMP/out")"

truncate -s -100 "$TMP/short/model.safetensors"
"$SETUN" doctor "$TMP/short" >"$TMP/out" 2>/dev/null; same "a short file" $? 1
grep -q '^files *WRONG .*model.safetensors: tensor' "$TMP/out" || bad "a short file is not found: $(cat "$TMP/out")"
"$SETUN" doctor "$TMP/there is \"none" --json >"$TMP/out" 2>/dev/null; same "no model" $? 1
lua5.4 -e 'assert(io.read("a"):find("\\\"none.*\"sound\": false"))' <"$TMP/out" || bad "no model, as JSON: $(cat "$TMP/out")"
"$SETUN" doctor >/dev/null 2>&1; same "no model named" $? 2
finish
