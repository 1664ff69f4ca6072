/* tests/unit/replay.c -- what kernels become, for a fixed list of shapes and machines: every change shows.
 *
 * tests/replay/hashes.txt has a hash of each kernel's text and, for one major version of LLVM, of its
 * assembly.  After a change that is meant
 *
 *     SETUN_REPLAY=write build/bin/unit_replay
 *
 * writes the file and the table of docs/isa.md anew; the commit that brings them says why. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <dlfcn.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/hash.h"
#include "codegen/codegen.h"
#include "graph/registry.h"

#define HASHES SETUN_SOURCE_DIR "/tests/replay/hashes.txt"
#define TARGETS SETUN_SOURCE_DIR "/tests/replay/targets.txt"
#define DIR SETUN_BINARY_DIR "/tests/isa"
#define TABLE "lua5.4 '" SETUN_SOURCE_DIR "/scripts/tools/isa.lua' '" TARGETS "' '" DIR "' '" SETUN_SOURCE_DIR "/docs/isa.md'"

/* The first is what the table of docs/isa.md counts.  Tokens: where targets.txt asks for it. */
static const struct { const char *name, *op, *shape; } kernels[] = {
    {"product", "ternary_matmul", "q:i8[1,2560] scale:f32[1] sum:i32[1] w:t2[64,2560] ws:f32[1]"},
    {"transposed", "ternary_matmul_t", "q:i8[1,256] scale:f32[1] sum:i32[1] w:t2[256,512] ws:f32[1]"},
    {"norm", "rmsnorm_i8", "x:f32[1,640] w:f32[640] eps=1e-5"},
    {"head", "matmul", "x:f32[1,640] w:bf16[64,640]"},
    {"tokens", "ternary_matmul", "q:i8[64,512] scale:f32[64] sum:i32[64] w:t2[64,512] ws:f32[1]"},
};
#define N_KERNEL (sizeof kernels / sizeof kernels[0])

typedef struct state {
    const st_codegen *cg;
    char             *file;   /* hashes.txt as it is */
    st_str            now;    /* as it should be */
    unsigned          major;
    int               n_missing, n_kir, n_asm;
} state;

static void save(const char *path, const char *text, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static char *load(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        return NULL;
    char *text = calloc(1, 1 << 20);
    assert_non_null(text);
    size_t n = fread(text, 1, (1 << 20) - 1, f);
    assert_true(n < (1 << 20) - 1);
    (void)fclose(f);
    return text;
}

/* One line of the file: is it there already? */
static void line(state *s, const char *what, const char *target, const char *kernel, uint64_t hash)
{
    char text[256];
    int n = snprintf(text, sizeof text, "%s %s %s %016llx\n", what, target, kernel, (unsigned long long)hash);
    assert_true(n > 0 && n < (int)sizeof text);
    st_str_addn(&s->now, text, (size_t)n);
    if (s->file && strstr(s->file, text))
        return;
    print_message("changed: %s", text);
    s->n_missing++;
}

static void one_kernel(state *s, const st_target *t, const char *target, size_t i)
{
    st_arena *arena = st_arena_new();
    setun_error err = {0};
    st_case c;
    st_kir *k;
    st_str text = {0};
    char *assembly, path[512], what[16];
    int64_t n;
    const setun_op *const *op = st_builtin_ops;
    while (*op && strcmp((*op)->name, kernels[i].op))
        op++;
    assert_non_null(*op);
    if (st_case_make(*op, kernels[i].shape, 1, arena, &c, &err) != SETUN_OK ||
        st_kir_lower(&k, &c.shape, t, arena, &err) != SETUN_OK ||
        s->cg->emit(k, t, "kernel", &(st_emit){ST_EMIT_ASM, 0, 0}, &assembly, &n, &err) != SETUN_OK)
        fail_msg("%s for %s: %s", kernels[i].op, target, err.text);
    st_kir_print(k, &text);
    line(s, "kir", target, kernels[i].name, st_hash(ST_HASH_INIT, text.text, text.len));
    (void)snprintf(what, sizeof what, "llvm%u", s->major);
    char any[32];
    (void)snprintf(any, sizeof any, "%s ", what);
    int known = s->file && strstr(s->file, any) != NULL;
    if (known || getenv("SETUN_REPLAY"))
        line(s, what, target, kernels[i].name, st_hash(ST_HASH_INIT, assembly, (size_t)n));
    s->n_kir++;
    s->n_asm += known;
    if (i == 0 || i == N_KERNEL - 1) {
        (void)snprintf(path, sizeof path, i ? DIR "/%s.tokens.s" : DIR "/%s.s", target);
        save(path, assembly, (size_t)n);
    }
    if (i == 0) {
        (void)snprintf(path, sizeof path, DIR "/%s.kir", target);
        save(path, text.text, text.len);
    }
    free(assembly);
    st_str_free(&text);
    st_arena_free(arena);
}

/* Lines of other versions of LLVM stay as they are. */
static void keep_others(state *s)
{
    char mine[32];
    int n = snprintf(mine, sizeof mine, "llvm%u ", s->major);
    for (char *at = s->file; at && *at;) {
        size_t length = strcspn(at, "\n") + 1;
        if (!strncmp(at, "llvm", 4) && strncmp(at, mine, (size_t)n))
            st_str_addn(&s->now, at, length);
        at += length;
    }
}

static void test_replay(void **p)
{
    state *s = *p;
    char row[256], name[32], arch[32], features[128], many[64];
    int vlen, n_target = 0, write = getenv("SETUN_REPLAY") != NULL;
    FILE *f = fopen(TARGETS, "r");
    assert_non_null(f);
    (void)mkdir(SETUN_BINARY_DIR "/tests", 0777);
    (void)mkdir(DIR, 0777);
    while (fgets(row, sizeof row, f)) {
        st_target t;
        setun_error err = {0};
        if (*row == '#' || sscanf(row, "%31s %31s %127s %d %*s %*s %63s", name, arch, features, &vlen, many) != 5)
            continue;
        if (s->cg->target(arch, strcmp(features, "-") ? features : NULL, vlen, &t, &err) != SETUN_OK)
            fail_msg("%s: %s", name, err.text);
        t.l1_bytes = 32768;
        t.l2_bytes = 262144;
        n_target++;
        for (size_t i = 0; i < N_KERNEL - !strcmp(many, "-"); i++)
            one_kernel(s, &t, name, i);
    }
    (void)fclose(f);
    assert_true(n_target > 20);
    if (!s->n_asm)
        print_message("skipped: there are no hashes of assembly by LLVM %u\n", s->major);
    if (write) {
        keep_others(s);
        save(HASHES, s->now.text, s->now.len);
        return;
    }
    if (s->n_missing)
        fail_msg("%d hashes changed; if that is meant: SETUN_REPLAY=write build/bin/unit_replay", s->n_missing);
}

/* Only of the version that the table was made with. */
static void test_table(void **p)
{
    const state *s = *p;
    int write = getenv("SETUN_REPLAY") != NULL;
    if (s->major != 19) {
        print_message("skipped: the table of docs/isa.md was made with LLVM 19, this is %u\n", s->major);
        skip();
    }
    assert_int_equal(system(write ? TABLE " write" : TABLE), 0);
}

/* Names and features that are not known, and values that make no sense, are refused with what is known. */
static void test_refusals(void **p)
{
    static const struct { const char *arch, *features; int32_t vlen; setun_status status; const char *part; } bad[] = {
        {"vax", NULL, 0, SETUN_UNKNOWN, "loongarch64"},
        {"", NULL, 0, SETUN_UNKNOWN, "x86_64, aarch64"},
        {"x86_64x", NULL, 0, SETUN_UNKNOWN, "is not known"},
        {"aarch64", "+vsx", 0, SETUN_UNKNOWN, "neon, dotprod, i8mm"},
        {"aarch64", "-neon", 0, SETUN_BAD_ARG, "cannot be switched off"},
        {"aarch64", "dotprod", 0, SETUN_BAD_ARG, "must be written +name or -name"},
        {"aarch64", NULL, 128, SETUN_BAD_ARG, "RISC-V"},
        {"riscv64", NULL, 128, SETUN_BAD_ARG, "+v"},
        {"riscv64", "+v", 512, SETUN_BAD_ARG, "not 512"},
        {"riscv64", "+v", -1, SETUN_BAD_ARG, "not -1"},
    };
    const state *s = *p;
    st_target t;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        setun_error err = {0};
        assert_int_equal(s->cg->target(bad[i].arch, bad[i].features, bad[i].vlen, &t, &err), bad[i].status);
        if (!strstr(err.text, bad[i].part))
            fail_msg("'%s' lacks '%s'", err.text, bad[i].part);
    }
}

/* What is built on a feature comes and goes with it, and the classes follow. */
static void test_classes(void **p)
{
    static const struct { const char *arch, *features, *isa; int32_t bytes, dot4, big, vlen; } want[] = {
        {"x86_64", NULL, "sse2", 16, 0, 0, 0},
        {"amd64", "+avx2", "avx2", 32, 0, 0, 0},
        {"x86_64-pc-linux-gnu", "+avx512vnni", "avx512-vnni", 64, 64, 0, 0},
        {"x86_64", "+avx512vnni,-avx512bw", "avx2", 32, 0, 0, 0},
        {"x86_64", "+avx512vnni,-avx2", "avx", 16, 0, 0, 0},
        {"arm64", "+sve2,+i8mm", "neon", 16, 0, 0, 0},
        {"aarch64", "+dotprod", "neon-dotprod", 16, 16, 0, 0},
        {"riscv64", NULL, "rv64", 16, 0, 0, 0},
        {"riscv64", "+v", "rvv128", 16, 0, 0, 128},
        {"ppc64le", "+pwr10", "power10", 16, 16, 0, 0},
        {"ppc64le", "+pwr10,-pwr9", "power8", 16, 16, 0, 0},
        {"powerpc64", NULL, "power8", 16, 16, 1, 0},
        {"s390x", "+z15", "z14", 16, 0, 1, 0},
        {"loongarch64", "+lasx", "lasx", 32, 0, 0, 0},
    };
    const state *s = *p;
    st_target t;
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++) {
        setun_error err = {0};
        if (s->cg->target(want[i].arch, want[i].features, 0, &t, &err) != SETUN_OK)
            fail_msg("%s: %s", want[i].arch, err.text);
        assert_string_equal(t.isa, want[i].isa);
        assert_int_equal(t.vector_bytes, want[i].bytes);
        assert_int_equal(t.dot4, want[i].dot4);
        assert_int_equal(t.big_endian, want[i].big);
        assert_int_equal(t.vlen, want[i].vlen);
    }
}

static int setup(void **p)
{
    static state s;
    void *lib = dlopen(SETUN_BINARY_DIR "/lib/setun/codegen_llvm.so", RTLD_NOW | RTLD_LOCAL);
    union { void *p; const st_codegen *(*fn)(uint32_t); } entry = {lib ? dlsym(lib, "st_codegen_entry") : NULL};
    st_target t;
    if (!entry.p || !(s.cg = entry.fn(ST_CODEGEN_ABI)) || s.cg->target("x86_64", NULL, 0, &t, NULL) != SETUN_OK)
        return -1;
    s.major = t.llvm_version >> 16;
    s.file = load(HASHES);
    *p = &s;
    return 0;
}

static int teardown(void **p)
{
    state *s = *p;
    free(s->file);
    st_str_free(&s->now);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replay),
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_classes),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
