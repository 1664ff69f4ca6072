#!/usr/bin/env bash
# From a fresh clone to generated text: install what is missing, build, run the bundled model.
# Arguments go to `setun run` after the model: scripts/try.sh -p "JULIET:" --seed 3
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/setup.sh
setun_setup
[ -f build/build.ninja ] || cmake -B build -G Ninja -DCMAKE_BUILD_TYPE=Release >&2
cmake --build build --target setun_program backend_cpu backend_reference codegen_llvm setun_scripts >&2
[ $# -gt 0 ] || set -- -p "ROMEO:
" --echo -n 200
exec build/bin/setun run tests/models/shakespeare "$@"
