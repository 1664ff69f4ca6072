/* codegen/isa_host.c -- may this machine run code that was made for a target?  No LLVM is asked.
 *
 * What a CPU has is told by cpuid on x86, where the system must also keep the wide registers (XCR0), and
 * elsewhere by the words of bits that Linux hands to every process.  A feature that nothing proves is
 * not believed. */
#include "codegen/isa.h"

#include <string.h>
#if defined(__linux__)
#include <sys/auxv.h>
#endif
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "base/cpu.h"
#include "base/error.h"
#include "setun/op.h"

#if defined(__x86_64__)
#define HERE "x86_64"
#elif defined(__aarch64__)
#define HERE "aarch64"
#elif defined(__riscv) && __riscv_xlen == 64
#define HERE "riscv64"
#elif defined(__powerpc64__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define HERE "powerpc64le"
#elif defined(__powerpc64__)
#define HERE "powerpc64"
#elif defined(__s390x__)
#define HERE "s390x"
#elif defined(__loongarch64)
#define HERE "loongarch64"
#else
#define HERE "an architecture without kernels"
#endif

#if defined(__x86_64__)
/* Does the system save the registers that the feature uses?  XCR0: bits 1 and 2 SSE and AVX, 5 to 7 AVX-512,
 * 17 and 18 tiles. */
static int system_keeps(const char *name)
{
    uint32_t a, b, c, d, low, high, want = 0;
    if (strncmp(name, "avx512", 6) == 0 || strncmp(name, "avx10", 5) == 0 || strcmp(name, "evex512") == 0)
        want = 0xe6;
    else if (strncmp(name, "avx", 3) == 0 || strcmp(name, "f16c") == 0 || strcmp(name, "fma") == 0)
        want = 6;
    else if (strncmp(name, "amx", 3) == 0)
        return st_cpu_allow_tiles();
    if (!want)
        return 1;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c >> 27 & 1)) /* OSXSAVE: xgetbv may be asked */
        return 0;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (low & want) == want;
}

static int cpuid_has(uint32_t proof)
{
    uint32_t r[4] = { 0, 0, 0, 0 }, leaf = proof >> 16 & 255, sub = proof >> 24;
    return __get_cpuid_count(leaf, sub, &r[0], &r[1], &r[2], &r[3]) && (r[proof >> 5 & 3] >> (proof & 31) & 1);
}
#endif

static int has(const st_isa_feature *f)
{
    uint32_t kind = f->proof >> 8 & 255;
#if defined(__x86_64__)
    return kind == 4 && cpuid_has(f->proof) && system_keeps(f->name);
#elif defined(__linux__)
    unsigned long word = kind == 1 ? getauxval(AT_HWCAP) : kind == 2 ? getauxval(AT_HWCAP2) : 0;
    return word >> (f->proof & 31) & 1;
#else
    return kind != kind;
#endif
}

/* Is the target made with it?  A feature may be several of LLVM's. */
static int is_used(const st_target *t, const st_isa_feature *f)
{
    const char *w, *at = f->llvm ? f->llvm : f->name;
    char name[64];
    size_t n;
    while (st_isa_word(&at, ' ', &w, &n)) {
        if (n >= sizeof name)
            return 0;
        memcpy(name, w, n);
        name[n] = 0;
        if (!st_isa_has(t, name))
            return 0;
    }
    return 1;
}

/* Bits of a vector register; it must have vectors. */
static int64_t vector_length(void)
{
#if defined(__riscv)
    uint64_t bytes;
    __asm__("csrr %0, 0xc22" : "=r"(bytes)); /* vlenb */
    return (int64_t)bytes * 8;
#else
    return 0;
#endif
}

setun_status st_isa_fits(const st_target *t, setun_error *err)
{
    const st_isa_arch *a = st_isa_find(t->triple);
    if (!a || strcmp(a->name, HERE) != 0)
        return st_fail(err, SETUN_UNKNOWN, "made for %.*s, and this machine is %s", (int)strcspn(t->triple, "-"), t->triple,
                       HERE);
    for (size_t i = 0; i < a->n_feature; i++)
        if (is_used(t, &a->feature[i]) && !has(&a->feature[i]))
            return st_fail(err, SETUN_UNKNOWN, "made for a CPU with %s, which this one has not", a->feature[i].name);
    if (t->vlen && vector_length() < t->vlen)
        return st_fail(err, SETUN_UNKNOWN, "made for vectors of %d bits, and this CPU has %lld", t->vlen,
                       (long long)vector_length());
    return SETUN_OK;
}
