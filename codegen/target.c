/* codegen/target.c -- the machine this process runs on, as a st_target: names, features, idioms.
 *
 * Not here: cache sizes (base/cpu.h knows them; they are left 0) and anything about kernels.
 *
 * LLVM reports the CPU's name and every instruction-set feature it can detect, present (+) or
 * absent (-).  The user's list is applied to that.  Taking a feature away takes away what is built
 * on it: "-avx2" also means no AVX-512.  The CPU name alone would imply all of them again, so the
 * complete list of + and - goes into every function.  Unknown names are refused here because LLVM
 * only warns on stderr. */
#include <stdlib.h>
#include <string.h>

#include <llvm-c/Target.h>

#include "base/cpu.h"
#include "base/error.h"
#include "codegen/llvm_priv.h"

/* x86 features and what each is directly built on, after LLVM's X86.td.  A feature missing here
 * that the host has is known all the same; it is then taken to be built on nothing and to carry
 * nothing. */
static const struct x86_row {
    const char *name, *needs;
} x86_rows[] = {
    { "sse", "" },              { "sse2", "sse" },           { "sse3", "sse2" },
    { "ssse3", "sse3" },        { "sse4.1", "ssse3" },       { "sse4.2", "sse4.1" },
    { "sse4a", "sse3" },        { "aes", "sse2" },           { "pclmul", "sse2" },
    { "gfni", "sse2" },         { "sha", "sse2" },           { "kl", "sse2" },
    { "widekl", "kl" },         { "avx", "sse4.2" },         { "avx2", "avx" },
    { "f16c", "avx" },          { "fma", "avx" },            { "fma4", "avx sse4a" },
    { "xop", "fma4" },          { "vaes", "aes avx2" },      { "vpclmulqdq", "avx pclmul" },
    { "sha512", "avx2" },       { "sm3", "avx" },            { "sm4", "avx2" },
    { "avxvnni", "avx2" },      { "avxvnniint8", "avx2" },   { "avxvnniint16", "avx2" },
    { "avxifma", "avx2" },      { "avxneconvert", "avx2" },  { "avx512f", "avx2 f16c fma" },
    { "evex512", "avx512f" },   { "avx512cd", "avx512f" },   { "avx512dq", "avx512f" },
    { "avx512bw", "avx512f" },  { "avx512vl", "avx512f" },   { "avx512ifma", "avx512f" },
    { "avx512vnni", "avx512f" },           { "avx512vpopcntdq", "avx512f" },
    { "avx512vp2intersect", "avx512f" },   { "avx512vbmi", "avx512bw" },
    { "avx512vbmi2", "avx512bw" },         { "avx512bitalg", "avx512bw" },
    { "avx512bf16", "avx512bw" },          { "avx512fp16", "avx512bw avx512vl avx512dq" },
    { "avx10.1-256", "avx512cd avx512vbmi avx512ifma avx512vnni avx512bf16 avx512vpopcntdq "
      "avx512vbmi2 avx512bitalg avx512fp16 avx512vl" },
    { "avx10.1-512", "avx10.1-256 evex512" },
    { "avx10.1", "avx512cd avx512vbmi avx512ifma avx512vnni avx512bf16 avx512vpopcntdq avx512vbmi2 "
      "avx512bitalg avx512fp16 avx512vl" },
    { "avx10.2", "avx512fp16" },           { "avx10.2-256", "avx10.1-256" },
    { "avx10.2-512", "avx10.2-256 avx10.1-512" },
    { "amx-tile", "" },         { "amx-int8", "amx-tile" },  { "amx-bf16", "amx-tile" },
    { "amx-fp16", "amx-tile" }, { "amx-complex", "amx-tile" },
};

typedef struct feature {
    const char *name; /* into the host string, NUL-terminated */
    int         host, on;
} feature;

typedef struct features {
    feature *row;
    size_t   n;
    int      x86;
} features;

static feature *find(const features *f, const char *name, size_t n)
{
    for (size_t i = 0; i < f->n; i++)
        if (strlen(f->row[i].name) == n && !memcmp(f->row[i].name, name, n))
            return &f->row[i];
    return NULL;
}

static const struct x86_row *x86_find(const char *name, size_t n)
{
    for (size_t i = 0; i < SETUN_LEN(x86_rows); i++)
        if (strlen(x86_rows[i].name) == n && !memcmp(x86_rows[i].name, name, n))
            return &x86_rows[i];
    return NULL;
}

/* Next word of a list of words separated by sep; 0 at the end. */
static int word(const char **at, char sep, const char **w, size_t *n)
{
    while (**at == sep)
        (*at)++;
    *w = *at;
    while (**at && **at != sep)
        (*at)++;
    *n = (size_t)(*at - *w);
    return *n != 0;
}

/* Switch on a feature and what it is built on.  The table has no cycle, so this ends. */
static void switch_on(features *f, const char *name, size_t n)
{
    feature *x = find(f, name, n);
    if (x)
        x->on = 1;
    const struct x86_row *row = f->x86 ? x86_find(name, n) : NULL;
    const char *w, *at = row ? row->needs : "";
    while (word(&at, ' ', &w, &n))
        switch_on(f, w, n);
}

/* Switch off whatever is built on something that is off, until nothing changes. */
static void settle(features *f)
{
    for (int changed = f->x86; changed;) {
        changed = 0;
        for (size_t i = 0; i < SETUN_LEN(x86_rows); i++) {
            feature *x = find(f, x86_rows[i].name, strlen(x86_rows[i].name));
            const char *w, *at = x86_rows[i].needs;
            size_t n;
            while (x && x->on && word(&at, ' ', &w, &n)) {
                const feature *need = find(f, w, n);
                if (need && !need->on) {
                    x->on = 0;
                    changed = 1;
                }
            }
        }
    }
}

static setun_status apply(features *f, const char *user, setun_error *err)
{
    const char *w;
    size_t n;
    while (word(&user, ',', &w, &n)) {
        if ((w[0] != '+' && w[0] != '-') || n < 2)
            return st_fail(err, SETUN_BAD_ARG,
                           "CPU feature \"%.*s\" must be written +name or -name", (int)n, w);
        const char *name = w + 1;
        feature *x = find(f, name, --n);
        if (!x && !(f->x86 && x86_find(name, n)))
            return st_fail(err, SETUN_UNKNOWN,
                           "CPU feature \"%.*s\" is not one this compiler knows", (int)n, name);
        if (w[0] == '+') {
            if (!x || !x->host)
                return st_fail(err, SETUN_BAD_ARG,
                               "CPU feature \"%.*s\": this machine does not have it", (int)n, name);
            switch_on(f, name, n);
        } else if (f->x86 &&
                   ((n == 3 && !memcmp(name, "sse", 3)) || (n == 4 && !memcmp(name, "sse2", 4)))) {
            return st_fail(err, SETUN_BAD_ARG,
                           "CPU feature \"%.*s\" cannot be switched off: x86-64 computes "
                           "floats with it",
                           (int)n, name);
        } else if (x) {
            x->on = 0;
            settle(f);
        }
    }
    return SETUN_OK;
}

int st_llvm_has(const st_target *t, const char *name)
{
    const char *w, *at = t->features;
    size_t n, want = strlen(name);
    int has = 0;
    while (word(&at, ',', &w, &n))
        if (n == want + 1 && !memcmp(w + 1, name, want))
            has = w[0] == '+';
    return has;
}

static void put(char *to, size_t cap, const char *from)
{
    size_t n = strlen(from);
    if (n >= cap)
        n = cap - 1;
    memcpy(to, from, n);
    to[n] = 0;
}

/* The idioms' widths follow from the features; llvm_idiom.c relies on exactly these rules. */
static void describe_x86(st_target *t, int avx512)
{
    int avx2 = st_llvm_has(t, "avx2"), ssse3 = st_llvm_has(t, "ssse3");
    int vnni = avx512 && st_llvm_has(t, "avx512vnni"), avxvnni = avx2 && st_llvm_has(t, "avxvnni");
    t->x86 = 1;
    /* AVX without AVX2 has 256 bits for floats only; kernels are planned by their integers. */
    t->vector_bytes = avx512 ? 64 : avx2 ? 32 : 16;
    t->n_registers = avx512 ? 32 : 16;
    t->dot2 = ssse3 ? t->vector_bytes : 0;
    t->dot4 = vnni ? 64 : avxvnni ? 32 : 0;
    t->lut16 = t->dot2;
    t->lut32 = avx512 ? 16 : avx2 ? 4 : 0; /* vpermps, vpermilps */
    t->sign = !ssse3 ? 0 : avx2 ? 32 : 16; /* psign never got a 512-bit form */
    t->f16 = st_llvm_has(t, "f16c");
    t->tiles = vnni && st_llvm_has(t, "amx-int8");
    put(t->isa, sizeof t->isa, t->tiles ? "avx512-amx" : vnni ? "avx512-vnni" : avx512 ? "avx512" : avxvnni ? "avx2-vnni" :
        avx2 ? "avx2" : st_llvm_has(t, "avx") ? "avx" : st_llvm_has(t, "sse4.1") ? "sse4.1" :
        ssse3 ? "ssse3" : "sse2");
}

static void describe(st_target *t, int avx512)
{
    t->vector_bytes = 16;
    t->n_registers = 16;
    if (!strncmp(t->triple, "x86_64", 6)) {
        describe_x86(t, avx512);
    } else if (!strncmp(t->triple, "aarch64", 7) || !strncmp(t->triple, "arm64", 5)) {
        t->n_registers = 32;
        t->dot4 = st_llvm_has(t, "dotprod") ? 16 : 0;
        t->lut16 = 16;
        t->f16 = 1;
        put(t->isa, sizeof t->isa, t->dot4 ? "neon-dotprod" : "neon");
    } else {
        size_t n = strcspn(t->triple, "-");
        put(t->isa, sizeof t->isa, t->triple);
        if (n < sizeof t->isa)
            t->isa[n] = 0;
    }
}

static setun_status fill(char *host, const char *user, features *f, st_target *t, setun_error *err)
{
    const char *w;
    size_t n, len = 0;
    for (const char *at = host; word(&at, ',', &w, &n);)
        f->n++;
    f->row = calloc(f->n + 1, sizeof *f->row);
    if (!f->row)
        return st_fail(err, SETUN_NO_MEMORY, "no memory for the list of CPU features");
    f->n = 0;
    for (char *p = host; *p;) {
        size_t m = strcspn(p, ",");
        int last = !p[m];
        p[m] = 0;
        if (m >= 2)
            f->row[f->n++] = (feature){ p + 1, p[0] == '+', p[0] == '+' };
        p += m + !last;
    }
    /* Tiles are there only for those whom the system allows them. */
    feature *tile = find(f, "amx-tile", 8);
    if (tile && tile->on && !st_cpu_allow_tiles())
        for (size_t i = 0; i < f->n; i++)
            if (!strncmp(f->row[i].name, "amx-", 4))
                f->row[i].host = f->row[i].on = 0;
    settle(f); /* a hypervisor may hide a feature and forget what is built on it */
    ST_TRY(apply(f, user ? user : "", err));

    for (size_t i = 0; i < f->n; i++) {
        n = strlen(f->row[i].name);
        if (len + n + 3 > sizeof t->features)
            return st_fail(err, SETUN_FULL, "the list of CPU features is longer than %zu bytes",
                           sizeof t->features);
        if (len)
            t->features[len++] = ',';
        t->features[len++] = f->row[i].on ? '+' : '-';
        memcpy(t->features + len, f->row[i].name, n);
        len += n;
    }
    t->features[len] = 0;
    /* The AVX-512 class starts with Skylake's set: without VL and BW its registers are of no use to
     * byte kernels.  A compiler that tells 512-bit registers apart (evex512) must allow them. */
    const feature *wide = find(f, "evex512", 7);
    describe(t, st_llvm_has(t, "avx512f") && st_llvm_has(t, "avx512bw") &&
                    st_llvm_has(t, "avx512vl") && st_llvm_has(t, "avx512dq") &&
                    (!wide || wide->on));
    return SETUN_OK;
}

setun_status st_llvm_host(const char *user, st_target *t, setun_error *err)
{
    memset(t, 0, sizeof *t);
    unsigned major, minor, patch;
    LLVMGetVersion(&major, &minor, &patch);
    t->llvm_version = major << 16 | minor << 8 | patch;

    char *triple = LLVMGetDefaultTargetTriple(), *cpu = LLVMGetHostCPUName(),
         *host = LLVMGetHostCPUFeatures();
    setun_status s = SETUN_OK;
    if (strlen(triple) >= sizeof t->triple || strlen(cpu) >= sizeof t->cpu)
        s = st_fail(err, SETUN_FULL, "target triple \"%.80s\" or CPU name \"%.80s\" is too long",
                    triple, cpu);
    put(t->triple, sizeof t->triple, triple);
    put(t->cpu, sizeof t->cpu, cpu);
    features f = { NULL, 0, !strncmp(triple, "x86_64", 6) };
    if (s == SETUN_OK)
        s = fill(host, user, &f, t, err);
    free(f.row);
    LLVMDisposeMessage(triple);
    LLVMDisposeMessage(cpu);
    LLVMDisposeMessage(host);

    /* Two promises of the contract that not every machine keeps; better to say so than to guess. */
    LLVMTargetMachineRef tm = NULL;
    if (s == SETUN_OK)
        s = st_llvm_machine(t, 0, &tm, err);
    if (s == SETUN_OK) {
        LLVMTargetDataRef layout = LLVMCreateTargetDataLayout(tm);
        if (LLVMByteOrder(layout) != LLVMLittleEndian || LLVMPointerSize(layout) != 8)
            s = st_fail(err, SETUN_UNKNOWN,
                        "no kernels can be compiled for %s: they need little-endian bytes "
                        "and 64-bit pointers",
                        t->triple);
        LLVMDisposeTargetData(layout);
        LLVMDisposeTargetMachine(tm);
    }
    return s;
}

/* How code reaches its constants, in ways that image_link.c knows: relative to the code beside them.  AArch64
 * within 1 MiB, so that images need not start at a page; POWER by the distance from r2, since its small model
 * keeps a table of addresses. */
static LLVMCodeModel code_model(const char *triple)
{
    return !strncmp(triple, "aarch64", 7) ? LLVMCodeModelTiny : !strncmp(triple, "powerpc64", 9) ? LLVMCodeModelMedium
                                                                                                  : LLVMCodeModelSmall;
}

setun_status st_llvm_machine(const st_target *t, uint32_t simple, LLVMTargetMachineRef *tm, setun_error *err)
{
    LLVMTargetRef target;
    char *why = NULL;
    *tm = NULL;
    if (LLVMGetTargetFromTriple(t->triple, &target, &why)) {
        setun_status s = st_fail(err, SETUN_UNKNOWN, "LLVM has no code generator for \"%s\": %s",
                                 t->triple, why);
        LLVMDisposeMessage(why);
        return s;
    }
    LLVMTargetMachineOptionsRef o = LLVMCreateTargetMachineOptions();
    LLVMTargetMachineOptionsSetCPU(o, t->cpu);
    LLVMTargetMachineOptionsSetFeatures(o, t->features);
    LLVMTargetMachineOptionsSetCodeGenOptLevel(o, simple ? LLVMCodeGenLevelLess : LLVMCodeGenLevelAggressive);
    LLVMTargetMachineOptionsSetRelocMode(o, LLVMRelocPIC);
    LLVMTargetMachineOptionsSetCodeModel(o, code_model(t->triple));
    *tm = LLVMCreateTargetMachineWithOptions(target, t->triple, o);
    LLVMDisposeTargetMachineOptions(o);
    if (!*tm)
        return st_fail(err, SETUN_UNKNOWN, "LLVM cannot generate code for CPU \"%s\" of \"%s\"",
                       t->cpu, t->triple);
    return SETUN_OK;
}
