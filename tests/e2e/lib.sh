# Shared by the whole-program checks: $1 the program, $2 the source directory.
set -uo pipefail
SETUN=$1
SOURCE=$2
MODEL=$SOURCE/tests/models/shakespeare
TMP=$(mktemp -d)
trap 'rm -rf "$TMP"' EXIT
export XDG_CACHE_HOME=$TMP/cache
unset SETUN_PLUGIN_PATH
failures=0
bad() { echo "FAILED: $*" >&2; failures=$((failures + 1)); }

# fails "part of the sentence" command...: exit code 1, one line on stderr that has the part.
fails() {
  local want=$1 code
  shift
  "$@" >"$TMP/out" 2>"$TMP/err"
  code=$?
  [ $code -eq 1 ] || bad "exit code $code, not 1: $* ($(head -c 300 "$TMP/err"))"
  [ "$(wc -l <"$TMP/err")" -eq 1 ] || bad "not one line on stderr: $* ($(head -c 600 "$TMP/err"))"
  grep -qF -- "$want" "$TMP/err" || bad "stderr lacks '$want': $* ($(head -c 300 "$TMP/err"))"
}
# same "what" value expected
same() { [ "$2" = "$3" ] || bad "$1: '$2' is not '$3'"; }
finish() { [ $failures -eq 0 ] && echo "all held" && exit 0; exit 1; }
