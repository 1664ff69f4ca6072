/* codegen/loader.c -- see loader.h.
 *
 * A mapping per call: pages that are executed are never made writable again, so what was loaded before
 * can run meanwhile.  A model loads nearly all of its kernels in one call. */
#include "codegen/loader.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/error.h"

typedef struct region {
    struct region *next;
    char          *at;
    int64_t        bytes;
} region;

struct st_loader {
    region *region;
};

/* What this very code was compiled for. */
#if defined(__x86_64__)
#define MACHINE ST_ELF_X86_64
#elif defined(__aarch64__)
#define MACHINE ST_ELF_AARCH64
#elif defined(__riscv) && __riscv_xlen == 64
#define MACHINE ST_ELF_RISCV
#elif defined(__powerpc64__)
#define MACHINE ST_ELF_PPC64
#elif defined(__s390x__)
#define MACHINE ST_ELF_S390
#elif defined(__loongarch64)
#define MACHINE ST_ELF_LOONGARCH
#else
#define MACHINE 0u /* no image fits */
#endif

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define BIG 1u
#else
#define BIG 0u
#endif

/* Kernels of POWER are called as ELF V2 says: at their first instruction, with its address in r12.  Programs of ELF V1, which
 * big-endian systems still have, mean by a pointer to a function one to a descriptor: three words that say where to go,
 * and what r2 and r11 shall be.  So a kernel gets a descriptor that goes to a trampoline, which takes the address from r11.  All
 * else that a kernel and its caller share is the same: arguments in r3 and r4, registers that are kept, the places for LR and CR in
 * the caller's frame; and V1's callers restore r2 themselves. */
#if defined(__powerpc64__) && (!defined(_CALL_ELF) || _CALL_ELF != 2)
#define TRAMPOLINE_BYTES 16
#define DESCRIPTOR_BYTES 24
static const uint32_t trampoline[] = {
    0x7d6c5b78, /* mr    r12, r11 */
    0x7d8903a6, /* mtctr r12 */
    0x4e800420, /* bctr */
};

/* The region ends with the trampoline and a descriptor per kernel. */
static void *callable(const region *r, int32_t i, int32_t n, void *entry)
{
    char *at = r->at + r->bytes - TRAMPOLINE_BYTES - (int64_t)n * DESCRIPTOR_BYTES, *to = at + TRAMPOLINE_BYTES + (int64_t)i * DESCRIPTOR_BYTES;
    const uint64_t word[] = { (uint64_t)(uintptr_t)at, 0, (uint64_t)(uintptr_t)entry };
    memcpy(at, trampoline, sizeof trampoline);
    memcpy(to, word, sizeof word);
    return to;
}
#else
#define TRAMPOLINE_BYTES 0
#define DESCRIPTOR_BYTES 0
static void *callable(const region *r, int32_t i, int32_t n, void *entry)
{
    (void)r, (void)i, (void)n;
    return entry;
}
#endif

setun_status st_loader_new(st_loader **l, setun_error *err)
{
    *l = calloc(1, sizeof **l);
    return *l ? SETUN_OK : st_fail(err, SETUN_NO_MEMORY, "no memory for the kernel loader");
}

void st_loader_free(st_loader *l)
{
    for (region *r = l ? l->region : NULL, *next; r; r = next) {
        next = r->next;
        (void)munmap(r->at, (size_t)r->bytes);
        free(r);
    }
    free(l);
}

int64_t st_loader_bytes(const st_loader *l)
{
    int64_t sum = 0;
    for (const region *r = l->region; r; r = r->next)
        sum += r->bytes;
    return sum;
}

setun_status st_loader_fits(const st_image *m, setun_error *err)
{
    if (m->machine != MACHINE || m->big != BIG)
        return st_fail(err, SETUN_UNKNOWN, "a kernel for machine %u, %s-endian; this is machine %u, %s-endian", m->machine,
                       m->big ? "big" : "little", MACHINE, BIG ? "big" : "little");
    if (m->launch_abi != SETUN_LAUNCH_ABI)
        return st_fail(err, SETUN_UNKNOWN, "a kernel to be called by launch ABI %u; this Setun has %u", m->launch_abi,
                       SETUN_LAUNCH_ABI);
    return SETUN_OK;
}

/* Where image m goes that may start at byte `from` of a region. */
static int64_t place(const st_image *m, int64_t from)
{
    /* At least 64: no two kernels share a line of the cache. */
    int64_t align = m->align > 64 ? m->align : 64;
    return (from + align - 1) & -align;
}

static setun_status fill(region *r, const st_image *m, int32_t n, setun_kernel_fn **fn, setun_error *err)
{
    int64_t at = 0;
    for (int32_t i = 0; i < n; i++) {
        at = place(&m[i], at);
        memcpy(r->at + at, m[i].code, m[i].bytes);
        /* A pointer to data as one to a function: C has no conversion for that, POSIX has this one. */
        void *entry = callable(r, i, n, r->at + at + m[i].entry);
        memcpy(&fn[i], &entry, sizeof fn[i]);
        at += m[i].bytes;
    }
    if (mprotect(r->at, (size_t)r->bytes, PROT_READ | PROT_EXEC))
        return st_fail(err, SETUN_IO, "the system does not let this process execute code that it has made; "
                       "--interpret does without");
    __builtin___clear_cache(r->at, r->at + r->bytes); /* instructions are fetched past the data caches */
    return SETUN_OK;
}

setun_status st_loader_load(st_loader *l, const st_image *m, int32_t n, setun_kernel_fn **fn, setun_error *err)
{
    int64_t bytes = 0;
    for (int32_t i = 0; i < n; i++) {
        ST_TRY(st_loader_fits(&m[i], err));
        bytes = place(&m[i], bytes) + m[i].bytes;
    }
    if (!bytes)
        return SETUN_OK;
    bytes = (bytes + 7) / 8 * 8 + TRAMPOLINE_BYTES + (int64_t)n * DESCRIPTOR_BYTES;
    region *r = malloc(sizeof *r);
    if (!r)
        return st_fail(err, SETUN_NO_MEMORY, "no memory for the kernel loader");
    void *at = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) {
        free(r);
        return st_fail(err, SETUN_NO_MEMORY, "no memory for %lld bytes of code", (long long)bytes);
    }
    *r = (region){ l->region, at, bytes };
    setun_status s = fill(r, m, n, fn, err);
    if (s != SETUN_OK) {
        (void)munmap(at, (size_t)bytes);
        free(r);
        return s;
    }
    l->region = r;
    return SETUN_OK;
}
