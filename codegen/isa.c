/* codegen/isa.c -- see isa.h.  Three tables: features, architectures, classes. */
#include "codegen/isa.h"

#include <stdio.h>
#include <string.h>

#include "setun/op.h"

/* How a feature is proved on the machine that has it: a bit of the words that Linux hands to every process
 * (AT_HWCAP, AT_HWCAP2), or of x86's cpuid: leaf and sub-leaf, register a b c d, bit. */
#define CAP1(bit) (1u << 8 | (bit))
#define CAP2(bit) (2u << 8 | (bit))
#define CPUID(leaf, sub, reg, bit) (4u << 8 | (uint32_t)(leaf) << 16 | (uint32_t)(sub) << 24 | (reg) << 5 | (bit))
enum { EAX, EBX, ECX, EDX };

/* After LLVM's X86.td.  A feature missing here that the host has is known all the same; it is then taken to
 * be built on nothing and to carry nothing. */
static const st_isa_feature x86[] = {
    { "sse", "", NULL, NULL, CPUID(1, 0, EDX, 25) },
    { "sse2", "sse", NULL, NULL, CPUID(1, 0, EDX, 26) },
    { "sse3", "sse2", NULL, NULL, CPUID(1, 0, ECX, 0) },
    { "ssse3", "sse3", NULL, NULL, CPUID(1, 0, ECX, 9) },
    { "sse4.1", "ssse3", NULL, NULL, CPUID(1, 0, ECX, 19) },
    { "sse4.2", "sse4.1", NULL, NULL, CPUID(1, 0, ECX, 20) },
    { "sse4a", "sse3", NULL, NULL, 0 },
    { "aes", "sse2", NULL, NULL, CPUID(1, 0, ECX, 25) },
    { "pclmul", "sse2", NULL, NULL, CPUID(1, 0, ECX, 1) },
    { "gfni", "sse2", NULL, NULL, CPUID(7, 0, ECX, 8) },
    { "sha", "sse2", NULL, NULL, CPUID(7, 0, EBX, 29) },
    { "kl", "sse2", NULL, NULL, 0 },
    { "widekl", "kl", NULL, NULL, 0 },
    { "avx", "sse4.2", NULL, NULL, CPUID(1, 0, ECX, 28) },
    { "avx2", "avx", NULL, NULL, CPUID(7, 0, EBX, 5) },
    { "f16c", "avx", NULL, NULL, CPUID(1, 0, ECX, 29) },
    { "fma", "avx", NULL, NULL, CPUID(1, 0, ECX, 12) },
    { "fma4", "avx sse4a", NULL, NULL, 0 },
    { "xop", "fma4", NULL, NULL, 0 },
    { "vaes", "aes avx2", NULL, NULL, CPUID(7, 0, ECX, 9) },
    { "vpclmulqdq", "avx pclmul", NULL, NULL, CPUID(7, 0, ECX, 10) },
    { "sha512", "avx2", NULL, NULL, CPUID(7, 1, EAX, 0) },
    { "sm3", "avx", NULL, NULL, CPUID(7, 1, EAX, 1) },
    { "sm4", "avx2", NULL, NULL, CPUID(7, 1, EAX, 2) },
    { "avxvnni", "avx2", NULL, NULL, CPUID(7, 1, EAX, 4) },
    { "avxvnniint8", "avx2", NULL, NULL, CPUID(7, 1, EDX, 4) },
    { "avxvnniint16", "avx2", NULL, NULL, CPUID(7, 1, EDX, 10) },
    { "avxifma", "avx2", NULL, NULL, CPUID(7, 1, EAX, 23) },
    { "avxneconvert", "avx2", NULL, NULL, CPUID(7, 1, EDX, 5) },
    { "avx512f", "avx2 f16c fma", NULL, NULL, CPUID(7, 0, EBX, 16) },
    { "evex512", "avx512f", NULL, NULL, CPUID(7, 0, EBX, 16) },
    { "avx512cd", "avx512f", NULL, NULL, CPUID(7, 0, EBX, 28) },
    { "avx512dq", "avx512f", NULL, NULL, CPUID(7, 0, EBX, 17) },
    { "avx512bw", "avx512f", NULL, NULL, CPUID(7, 0, EBX, 30) },
    { "avx512vl", "avx512f", NULL, NULL, CPUID(7, 0, EBX, 31) },
    { "avx512ifma", "avx512f", NULL, NULL, CPUID(7, 0, EBX, 21) },
    { "avx512vnni", "avx512f", NULL, NULL, CPUID(7, 0, ECX, 11) },
    { "avx512vpopcntdq", "avx512f", NULL, NULL, CPUID(7, 0, ECX, 14) },
    { "avx512vp2intersect", "avx512f", NULL, NULL, CPUID(7, 0, EDX, 8) },
    { "avx512vbmi", "avx512bw", NULL, NULL, CPUID(7, 0, ECX, 1) },
    { "avx512vbmi2", "avx512bw", NULL, NULL, CPUID(7, 0, ECX, 6) },
    { "avx512bitalg", "avx512bw", NULL, NULL, CPUID(7, 0, ECX, 12) },
    { "avx512bf16", "avx512bw", NULL, NULL, CPUID(7, 1, EAX, 5) },
    { "avx512fp16", "avx512bw avx512vl avx512dq", NULL, NULL, CPUID(7, 0, EDX, 23) },
    { "avx10.1-256", "avx512cd avx512vbmi avx512ifma avx512vnni avx512bf16 avx512vpopcntdq "
      "avx512vbmi2 avx512bitalg avx512fp16 avx512vl", NULL, NULL, CPUID(7, 1, EDX, 19) },
    { "avx10.1-512", "avx10.1-256 evex512", NULL, NULL, CPUID(0x24, 0, EBX, 18) },
    { "avx10.1", "avx512cd avx512vbmi avx512ifma avx512vnni avx512bf16 avx512vpopcntdq avx512vbmi2 "
      "avx512bitalg avx512fp16 avx512vl", NULL, NULL, CPUID(7, 1, EDX, 19) },
    /* The low byte of the word is the version, 2 or 3. */
    { "avx10.2", "avx512fp16", NULL, NULL, CPUID(0x24, 0, EBX, 1) },
    { "avx10.2-256", "avx10.1-256", NULL, NULL, CPUID(0x24, 0, EBX, 1) },
    { "avx10.2-512", "avx10.2-256 avx10.1-512", NULL, NULL, CPUID(0x24, 0, EBX, 1) },
    { "amx-tile", "", NULL, NULL, CPUID(7, 0, EDX, 24) },
    { "amx-int8", "amx-tile", NULL, NULL, CPUID(7, 0, EDX, 25) },
    { "amx-bf16", "amx-tile", NULL, NULL, CPUID(7, 0, EDX, 22) },
    { "amx-fp16", "amx-tile", NULL, NULL, CPUID(7, 1, EAX, 21) },
    { "amx-complex", "amx-tile", NULL, NULL, CPUID(7, 1, EDX, 8) },
};

static const st_isa_feature arm[] = {
    { "neon", "", NULL, NULL, CAP1(1) },
    { "dotprod", "neon", NULL, NULL, CAP1(20) },
    { "i8mm", "neon", NULL, NULL, CAP2(13) },
    { "fullfp16", "neon", NULL, NULL, CAP1(10) },
    { "sve", "fullfp16", NULL, NULL, CAP1(22) },
    { "sve2", "sve", NULL, NULL, CAP2(1) },
};

/* Linux tells single letters only; vlen is asked of the CPU itself. */
static const st_isa_feature riscv[] = {
    { "m", "", NULL, NULL, CAP1('m' - 'a') }, { "a", "", NULL, NULL, CAP1(0) },
    { "f", "", NULL, NULL, CAP1('f' - 'a') }, { "d", "f", NULL, NULL, CAP1('d' - 'a') },
    { "c", "", NULL, NULL, CAP1('c' - 'a') }, { "v", "d", NULL, NULL, CAP1('v' - 'a') },
};

/* From POWER8 on, where little-endian systems begin. */
static const st_isa_feature power[] = {
    { "pwr8", "", "altivec vsx power8-vector", "pwr8", CAP2(31) },
    { "pwr9", "pwr8", "power9-vector", "pwr9", CAP2(23) },
    { "pwr10", "pwr9", "power10-vector", "pwr10", CAP2(18) },
};

/* z13 is the first with vector registers, z14 the first with vectors of binary32. */
static const st_isa_feature z[] = {
    { "z13", "", "vector", "z13", CAP1(11) },
    { "z14", "z13", "vector-enhancements-1", "z14", CAP1(13) },
    { "z15", "z14", "vector-enhancements-2", "z15", CAP1(15) },
    { "z16", "z15", "nnp-assist", "z16", CAP1(20) },
};

/* There is no bit for 64 bits, and a program for them proves it by running: that of the FPU, which its calls use, stands in. */
static const st_isa_feature loong[] = {
    { "64bit", "", NULL, NULL, CAP1(3) }, { "ual", "", NULL, NULL, CAP1(2) }, { "f", "", NULL, NULL, CAP1(3) },
    { "d", "f", NULL, NULL, CAP1(3) },    { "lsx", "d", NULL, NULL, CAP1(4) }, { "lasx", "lsx", NULL, NULL, CAP1(5) },
};

#define FEATURES(f) f, SETUN_LEN(f)
static const st_isa_arch arches[] = {
    { ST_ARCH_X86, 0, "x86_64", "amd64", "x86_64-unknown-linux-gnu", "x86-64", NULL, "sse sse2", FEATURES(x86) },
    { ST_ARCH_ARM, 0, "aarch64", "arm64", "aarch64-unknown-linux-gnu", "generic", NULL, "neon", FEATURES(arm) },
    { ST_ARCH_RISCV, 0, "riscv64", NULL, "riscv64-unknown-linux-gnu", "generic-rv64", "lp64d", "m a f d c", FEATURES(riscv) },
    { ST_ARCH_POWER, 0, "powerpc64le", "ppc64le", "powerpc64le-unknown-linux-gnu", "pwr8", NULL, "pwr8", FEATURES(power) },
    { ST_ARCH_POWER, 1, "powerpc64", "ppc64", "powerpc64-unknown-linux-gnu", "pwr8", "elfv2", "pwr8", FEATURES(power) },
    { ST_ARCH_Z, 1, "s390x", NULL, "s390x-unknown-linux-gnu", "z13", NULL, "z13", FEATURES(z) },
    { ST_ARCH_LOONG, 0, "loongarch64", NULL, "loongarch64-unknown-linux-gnu", "loongarch64", "lp64d", "64bit ual f d", FEATURES(loong) },
};

/* Classes of CPUs; of each architecture the first row whose features are there.  "name?" means: unless it
 * is switched off by name.  Widths in bytes: registers, and what one primitive of llvm_isa.c or llvm_idiom.c
 * takes, 0 where there is none.  llvm_idiom.c relies on exactly these.
 *
 * The AVX-512 class starts with Skylake's set: without VL and BW its registers are of no use to byte kernels.
 * A compiler that tells 512-bit registers apart (evex512) must allow them.  AVX without AVX2 has 256 bits for
 * floats only; kernels are planned by their integers.  psign never got a 512-bit form.  SVE's registers are
 * used as NEON's, which are part of them: kernels are made for a fixed width. */
#define WIDE "avx512f avx512bw avx512vl avx512dq evex512?"
static const struct isa_class {
    int32_t     arch;
    const char *isa, *needs, *f16;
    int32_t     vector_bytes, n_registers, dot2, dot4, lut16, lut32, sign, tiles;
} classes[] = {
    { ST_ARCH_X86, "avx512-amx", WIDE " avx512vnni amx-int8", "f16c", 64, 32, 64, 64, 64, 16, 32, 1 },
    { ST_ARCH_X86, "avx512-vnni", WIDE " avx512vnni", "f16c", 64, 32, 64, 64, 64, 16, 32, 0 },
    { ST_ARCH_X86, "avx512", WIDE " avxvnni", "f16c", 64, 32, 64, 32, 64, 16, 32, 0 },
    { ST_ARCH_X86, "avx512", WIDE, "f16c", 64, 32, 64, 0, 64, 16, 32, 0 },
    { ST_ARCH_X86, "avx2-vnni", "avx2 avxvnni", "f16c", 32, 16, 32, 32, 32, 4, 32, 0 },
    { ST_ARCH_X86, "avx2", "avx2", "f16c", 32, 16, 32, 0, 32, 4, 32, 0 },
    { ST_ARCH_X86, "avx", "avx", "f16c", 16, 16, 16, 0, 16, 0, 16, 0 },
    { ST_ARCH_X86, "sse4.1", "sse4.1", "f16c", 16, 16, 16, 0, 16, 0, 16, 0 },
    { ST_ARCH_X86, "ssse3", "ssse3", "f16c", 16, 16, 16, 0, 16, 0, 16, 0 },
    { ST_ARCH_X86, "sse2", "", "f16c", 16, 16, 0, 0, 0, 0, 0, 0 },
    { ST_ARCH_ARM, "neon-i8mm", "dotprod i8mm", "", 16, 32, 0, 16, 16, 0, 0, 0 },
    { ST_ARCH_ARM, "neon-dotprod", "dotprod", "", 16, 32, 0, 16, 16, 0, 0, 0 },
    { ST_ARCH_ARM, "neon", "", "", 16, 32, 0, 0, 16, 0, 0, 0 },
    { ST_ARCH_RISCV, "rvv256", "v zvl256b", NULL, 32, 32, 0, 0, 0, 0, 0, 0 },
    { ST_ARCH_RISCV, "rvv128", "v", NULL, 16, 32, 0, 0, 0, 0, 0, 0 },
    { ST_ARCH_RISCV, "rv64", "", NULL, 16, 16, 0, 0, 0, 0, 0, 0 },
    { ST_ARCH_POWER, "power10", "power10-vector", NULL, 16, 32, 0, 16, 16, 0, 0, 0 },
    { ST_ARCH_POWER, "power9", "power9-vector", NULL, 16, 32, 0, 16, 16, 0, 0, 0 },
    { ST_ARCH_POWER, "power8", "", NULL, 16, 32, 0, 16, 16, 0, 0, 0 },
    { ST_ARCH_Z, "z14", "vector-enhancements-1", NULL, 16, 32, 16, 0, 16, 0, 0, 0 },
    { ST_ARCH_Z, "z13", "", NULL, 16, 32, 16, 0, 16, 0, 0, 0 },
    { ST_ARCH_LOONG, "lasx", "lasx", NULL, 32, 32, 32, 0, 32, 0, 32, 0 },
    { ST_ARCH_LOONG, "lsx", "lsx", NULL, 16, 32, 16, 0, 16, 0, 16, 0 },
    { ST_ARCH_LOONG, "la64", "", NULL, 16, 16, 0, 0, 0, 0, 0, 0 },
    { ST_ARCH_OTHER, NULL, "", NULL, 16, 16, 0, 0, 0, 0, 0, 0 },
};

int st_isa_word(const char **at, char sep, const char **w, size_t *n)
{
    while (**at == sep)
        (*at)++;
    *w = *at;
    while (**at && **at != sep)
        (*at)++;
    *n = (size_t)(*at - *w);
    return *n != 0;
}

const st_isa_arch *st_isa_find(const char *triple)
{
    size_t n = strcspn(triple, "-");
    for (size_t i = 0; i < SETUN_LEN(arches); i++) {
        const char *name[2] = { arches[i].name, arches[i].alias };
        for (int j = 0; j < 2; j++)
            if (name[j] && strlen(name[j]) == n && memcmp(name[j], triple, n) == 0)
                return &arches[i];
    }
    return NULL;
}

const st_isa_feature *st_isa_feature_find(const st_isa_arch *a, const char *name, size_t n)
{
    for (size_t i = 0; a && i < a->n_feature; i++)
        if (strlen(a->feature[i].name) == n && !memcmp(a->feature[i].name, name, n))
            return &a->feature[i];
    return NULL;
}

static void add_name(char *text, size_t size, const char *name)
{
    size_t n = strlen(text);
    (void)snprintf(text + n, size - n, "%s%s", n ? ", " : "", name);
}

void st_isa_names(char *text, size_t n)
{
    *text = 0;
    for (size_t i = 0; i < SETUN_LEN(arches); i++)
        add_name(text, n, arches[i].name);
}

void st_isa_feature_names(const st_isa_arch *a, char *text, size_t n)
{
    *text = 0;
    for (size_t i = 0; i < a->n_feature; i++)
        add_name(text, n, a->feature[i].name);
}

static int list_has(const char *list, const char *name, size_t n, char sign)
{
    const char *w;
    size_t m;
    int has = 0;
    while (st_isa_word(&list, ',', &w, &m))
        if (m == n + 1 && !memcmp(w + 1, name, n))
            has = w[0] == sign;
    return has;
}

int st_isa_has(const st_target *t, const char *name)
{
    return list_has(t->features, name, strlen(name), '+');
}

static int has_all(const st_target *t, const char *needs)
{
    const char *w;
    size_t n;
    while (st_isa_word(&needs, ' ', &w, &n))
        if (w[n - 1] == '?' ? list_has(t->features, w, n - 1, '-') : !list_has(t->features, w, n, '+'))
            return 0;
    return 1;
}

void st_isa_describe(st_target *t)
{
    const struct isa_class *c = classes;
    while (c->arch != ST_ARCH_OTHER && (c->arch != t->arch || !has_all(t, c->needs)))
        c++;
    t->vector_bytes = c->vector_bytes;
    t->n_registers = c->n_registers;
    t->dot2 = c->dot2;
    t->dot4 = c->dot4;
    t->lut16 = c->lut16;
    t->lut32 = c->lut32;
    t->sign = c->sign;
    t->tiles = c->tiles;
    t->f16 = c->f16 && has_all(t, c->f16);
    (void)snprintf(t->isa, sizeof t->isa, "%.*s", c->isa ? (int)sizeof t->isa : (int)strcspn(t->triple, "-"),
                   c->isa ? c->isa : t->triple);
}
