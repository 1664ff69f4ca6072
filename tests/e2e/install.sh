# What is installed is whole, may be moved, and is enough to build plugins and programs: by CMake and by pkg-config, with the
# commands of plugins/template/README.md, and nothing from the source directory.
. "$(dirname "$0")/lib.sh"
build=$(cd "$(dirname "$SETUN")/.." && pwd)
DESTDIR=$TMP/root cmake --install "$build" --prefix /opt/setun >"$TMP/log" 2>&1 || bad "cmake --install: $(tail -3 "$TMP/log")"
# Moved as a whole, so that no place of the build is left in it.
export SETUN_PREFIX="$TMP/a place"
mv "$TMP/root/opt/setun" "$SETUN_PREFIX"
same "outside the prefix" "$(find "$TMP/root" -type f)" ""
for f in bin/setun include/setun/op.h include/setun/setun.h share/setun/lib/nn.lua share/setun/samples/sample_op.c include/setun/format.h share/setun/samples/sample_format.c; do
  [ -f "$SETUN_PREFIX/$f" ] || bad "$f is not installed"
done
grep -rIl -e "$build" -e "$SOURCE/" "$SETUN_PREFIX" >"$TMP/out" && bad "names of the build's places: $(head -3 "$TMP/out")"
same "headers" "$(ls "$SETUN_PREFIX/include/setun")" "$(ls "$SOURCE/include/setun")"
SETUN=$SETUN_PREFIX/bin/setun
same "logits of the installed program" "$("$SETUN" logits "$MODEL" --tokens 1,2,3,4,5 --hash)" 94ab00825ba531f2

# The template, copied from where it is installed.
cp -r "$SETUN_PREFIX/share/setun/samples/template" "$TMP/mine" && cd "$TMP/mine" || bad "there is no template"
pc=$(dirname "$(find "$SETUN_PREFIX" -name setun-plugin.pc)")
grep -E '^    (cmake|ctest|PKG_CONFIG_PATH=|setun) ?' README.md | sed 's/^ *//' >"$TMP/commands"
same "commands in the template's README" "$(wc -l <"$TMP/commands")" 6
# A model whose script uses the operator: Llama with it in place of SiLU.
"$SETUN" synth --like llama-tiny-158 --as hf -o "$TMP/llama" -q || bad "synth"
sed -i 's/LlamaForCausalLM/LlamaCappedForCausalLM/; s/"silu"/"relu2_cap"/' "$TMP/llama/config.json"
sed 's/b:relu2_cap(\(.*\), { cap = 6.0 })/b:leaky_relu(\1, { slope = 0.25 })/' "$SOURCE/docs/examples/llama_capped.lua" >my_model.lua
grep -q 'b:leaky_relu' my_model.lua || bad "the model does not use the operator"
while IFS= read -r line; do
  line=${line//\$SETUN_PREFIX\/lib\/pkgconfig/\"$pc\"}
  line=${line//\$SETUN_PREFIX/\"\$SETUN_PREFIX\"}
  case $line in *my_model.lua*) line=${line//MODEL/\"$TMP/llama\"}" -n 4" ;; *) line=${line//MODEL/\"$MODEL\"} ;; esac
  PATH=$SETUN_PREFIX/bin:$PATH eval "$line" >"$TMP/out" 2>"$TMP/err" </dev/null || bad "the template: $line ($(cat "$TMP/out" "$TMP/err" | tail -5))"
  grep -qi warning "$TMP/out" "$TMP/err" && bad "the template: $line warns: $(grep -i warning "$TMP/out" "$TMP/err" | head -2)"
  case $line in
  *"make check"*)
    grep -q '^leaky_relu ' "$TMP/out" || bad "make check does not check leaky_relu: $(head -5 "$TMP/out")"
    grep -q 'org.setun.sample_backend' "$TMP/out" && grep -q 'org.example.leaky_relu' "$TMP/out" || bad "make check does not list both plugins"
    ;;
  ctest*) grep -q '100% tests passed, 0 tests failed out of 2' "$TMP/out" || bad "ctest: $(tail -5 "$TMP/out")" ;;
  esac
done <"$TMP/commands"

# Both builds are the plugin that the sources are: the same logits, which are those of the scalar definition, and not another slope's.
hash_of() { "$SETUN" logits "$TMP/llama" --tokens 1,2,3 --hash --script my_model.lua "$@"; }
want=$(hash_of --plugin ./build/leaky_relu.so) || bad "the plugin that CMake built"
same "what make built" "$(hash_of --plugin ./leaky_relu.so)" "$want"
same "by the scalar definition" "$(hash_of --plugin ./leaky_relu.so --backend reference)" "$want"
sed -i 's/slope = 0.25/slope = 0.5/' my_model.lua
[ "$(hash_of --plugin ./leaky_relu.so)" != "$want" ] || bad "the slope does nothing"
sed -i 's/slope = 0.5/slope = 1.5/' my_model.lua
fails "leaky_relu: slope is 1.5" hash_of --plugin ./leaky_relu.so
fails "leaky_relu" hash_of
same "symbols that the plugin exports" "$(nm -D --defined-only leaky_relu.so | awk '{print $3}')" setun_plugin_entry

# A program that embeds Setun, both ways.  (One without sanitizers cannot load a library that has them.)
cat >embed.c <<'C'
#include <setun/setun.h>
#include <stdio.h>

int main(int argc, char **argv)
{
    setun_model *m = NULL;
    setun_error err = {0};
    setun_options o;
    setun_options_init(&o);
    if (argc < 2 || setun_model_load(&m, argv[1], &o, &err) != SETUN_OK)
        return printf("%s\n", err.text), 1;
    printf("%s %lld\n", setun_version(), (long long)setun_model_n_vocab(m));
    setun_model_free(m);
    return 0;
}
C
if nm -D "$build/lib/libsetun.so" | grep __asan >/dev/null; then
  echo "skipped: programs that embed a Setun with sanitizers"
else
  export PKG_CONFIG_PATH=$pc
  eval "cc -std=c11 -Wall -Wextra -Werror embed.c -o embed $(pkg-config --cflags --libs setun) -Wl,-rpath,$(pkg-config --variable=libdir setun)" 2>"$TMP/err" ||
    bad "pkg-config setun: $(head -3 "$TMP/err")"
  same "a program by pkg-config" "$(./embed "$MODEL")" "$("$SETUN" --version | cut -d' ' -f2) 1024"
  mkdir embedded && mv embed.c embedded
  cat >embedded/CMakeLists.txt <<'C'
cmake_minimum_required(VERSION 3.16)
project(embed LANGUAGES C)
find_package(Setun REQUIRED)
add_executable(embed embed.c)
target_link_libraries(embed PRIVATE Setun::setun)
C
  { cmake -S embedded -B embedded/build -DCMAKE_PREFIX_PATH="$SETUN_PREFIX" && cmake --build embedded/build; } >"$TMP/log" 2>&1 || bad "CMake: $(tail -5 "$TMP/log")"
  same "a program by CMake" "$(embedded/build/embed "$MODEL")" "$("$SETUN" --version | cut -d' ' -f2) 1024"
fi
finish
