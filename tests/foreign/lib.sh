# Shared by the checks that build programs for other machines and run them in an emulator; read after e2e/lib.sh.
SOURCE=$(cd "$SOURCE" && pwd)
BIN=$(cd "$(dirname "$SETUN")" && pwd)
TARGETS=$SOURCE/tests/replay/targets.txt
CLANG=$(command -v clang-19 || command -v clang || true)
LLD=$(command -v ld.lld-19 || command -v ld.lld || true)
can_build() { [ -n "$CLANG" ] && [ -n "$LLD" ] && [ -x "$BIN/foreign_cases" ]; }

# A row of targets.txt becomes name, arch, features, abi for clang, and qemu, the command that runs a program.
# Fails, and says why, where nothing here does; an x86 runs itself, unless EMULATE_X86 is set.
machine() {
  name=$1 arch=$2 features=$3 vlen=$4 cpu=$5 qemu=qemu-$2-static abi=
  [ "$cpu" = none ] && { echo "skipped: $name, no emulator has it"; return 1; }
  case $arch in
    powerpc64) qemu=qemu-ppc64-static abi=-mabi=elfv2 ;;
    powerpc64le) qemu=qemu-ppc64le-static ;;
    riscv64) abi="-march=rv64gc -mabi=lp64d" ;;
    loongarch64) abi="-mabi=lp64d -mno-lsx" ;;
    x86_64) [ -n "${EMULATE_X86:-}" ] && cpu=max || qemu=env ;;
  esac
  command -v "$qemu" >/dev/null || { echo "skipped: $name, there is no $qemu"; return 1; }
  [ "$cpu" = - ] || qemu="$qemu -cpu $cpu"
  [ "$features" = - ] && features=
  return 0
}

# foreign_kernels DIR STRIDE FIRST [OPERATOR CASE]: what foreign_cases writes for the machine.
foreign_kernels() {
  local dir=$1 stride=$2 first=$3
  shift 3
  "$BIN/foreign_cases" "$BIN/../lib/setun/codegen_llvm.so" "$dir" "$stride" "$first" "$arch" "$features" "$vlen" "$@"
}

# foreign_object SOURCE OBJECT [flags]: for the machine, without a C library.
foreign_object() {
  local from=$1 to=$2
  shift 2
  # shellcheck disable=SC2086
  "$CLANG" --target="$arch-unknown-linux-gnu" $abi -ffreestanding -fno-builtin -fno-pic -fno-stack-protector "$@" -c "$from" -o "$to"
}
