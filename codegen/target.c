/* codegen/target.c -- a machine as a st_target: the one this process runs on, or one by name.
 *
 * Not here: what architectures and features there are (isa.c), cache sizes (base/cpu.h knows them; they
 * are left 0) and anything about kernels.
 *
 * LLVM reports the CPU's name and every instruction-set feature it can detect, present (+) or
 * absent (-).  The user's list is applied to that.  Taking a feature away takes away what is built
 * on it: "-avx2" also means no AVX-512.  The CPU name alone would imply all of them again, so the
 * complete list of + and - goes into every function.  Unknown names are refused here because LLVM
 * only warns on stderr. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <llvm-c/Target.h>

#include "base/cpu.h"
#include "base/error.h"
#include "codegen/isa.h"
#include "codegen/llvm_priv.h"

typedef struct feature {
    const char *name; /* into the host string, NUL-terminated */
    int         host, on;
} feature;

typedef struct features {
    feature           *row;
    size_t             n;
    const st_isa_arch *arch; /* NULL: an architecture without rows */
    int                named; /* a target by name: everything its architecture has is allowed */
} features;

static feature *find(const features *f, const char *name, size_t n)
{
    for (size_t i = 0; i < f->n; i++)
        if (strlen(f->row[i].name) == n && !memcmp(f->row[i].name, name, n))
            return &f->row[i];
    return NULL;
}

/* Switch on a feature and what it is built on.  The table has no cycle, so this ends. */
static void switch_on(features *f, const char *name, size_t n)
{
    feature *x = find(f, name, n);
    if (x)
        x->on = 1;
    const st_isa_feature *row = st_isa_feature_find(f->arch, name, n);
    const char *w, *at = row ? row->needs : "";
    while (st_isa_word(&at, ' ', &w, &n))
        switch_on(f, w, n);
}

/* Switch off whatever is built on something that is off, until nothing changes. */
static void settle(features *f)
{
    for (int changed = f->arch != NULL; changed;) {
        changed = 0;
        for (size_t i = 0; i < f->arch->n_feature; i++) {
            const st_isa_feature *row = &f->arch->feature[i];
            feature *x = find(f, row->name, strlen(row->name));
            const char *w, *at = row->needs;
            size_t n;
            while (x && x->on && st_isa_word(&at, ' ', &w, &n)) {
                const feature *need = find(f, w, n);
                if (need && !need->on) {
                    x->on = 0;
                    changed = 1;
                }
            }
        }
    }
}

/* Is the word in a list of words? */
static int listed(const char *list, const char *name, size_t n)
{
    const char *w;
    size_t m;
    while (st_isa_word(&list, ' ', &w, &m))
        if (m == n && !memcmp(w, name, n))
            return 1;
    return 0;
}

/* Every CPU with 512-bit registers that kernels are made for has Skylake's set. */
static void switch_on_named(features *f, const char *name, size_t n)
{
    static const char *const set[] = { "avx512bw", "avx512cd", "avx512dq", "avx512vl" };
    for (size_t i = 0; n > 6 && !memcmp(name, "avx512", 6) && i < SETUN_LEN(set); i++)
        switch_on(f, set[i], strlen(set[i]));
    switch_on(f, name, n);
}

static setun_status unknown(const features *f, const char *name, int n, setun_error *err)
{
    char known[1024];
    if (!f->named)
        return st_fail(err, SETUN_UNKNOWN, "CPU feature \"%.*s\" is not one this compiler knows", n, name);
    st_isa_feature_names(f->arch, known, sizeof known);
    return st_fail(err, SETUN_UNKNOWN, "CPU feature \"%.*s\" is not known of %s; %s are", n, name,
                   f->arch->name, known);
}

static setun_status apply(features *f, const char *user, setun_error *err)
{
    const char *w;
    size_t n;
    while (st_isa_word(&user, ',', &w, &n)) {
        if ((w[0] != '+' && w[0] != '-') || n < 2)
            return st_fail(err, SETUN_BAD_ARG,
                           "CPU feature \"%.*s\" must be written +name or -name", (int)n, w);
        const char *name = w + 1;
        feature *x = find(f, name, --n);
        const st_isa_feature *row = st_isa_feature_find(f->arch, name, n);
        if (!x && !row)
            return unknown(f, name, (int)n, err);
        if (!x && row->llvm)
            return st_fail(err, SETUN_BAD_ARG, "CPU feature \"%.*s\": of this machine name what it stands for: %s", (int)n,
                           name, row->llvm);
        if (w[0] == '+') {
            if (!x || !x->host)
                return st_fail(err, SETUN_BAD_ARG,
                               "CPU feature \"%.*s\": this machine does not have it", (int)n, name);
            if (f->named)
                switch_on_named(f, name, n);
            else
                switch_on(f, name, n);
        } else if (f->arch && listed(f->arch->base, name, n)) {
            return st_fail(err, SETUN_BAD_ARG, "CPU feature \"%.*s\" cannot be switched off: all code for %s is made with it",
                           (int)n, name, f->arch->name);
        } else if (x) {
            x->on = 0;
            settle(f);
        }
    }
    return SETUN_OK;
}

static void put(char *to, size_t cap, const char *from)
{
    size_t n = strlen(from);
    if (n >= cap)
        n = cap - 1;
    memcpy(to, from, n);
    to[n] = 0;
}

static setun_status add_feature(st_target *t, char sign, const char *name, size_t n, setun_error *err)
{
    size_t len = strlen(t->features);
    if (len + n + 3 > sizeof t->features)
        return st_fail(err, SETUN_FULL, "the list of CPU features is longer than %zu bytes", sizeof t->features);
    if (len)
        t->features[len++] = ',';
    t->features[len++] = sign;
    memcpy(t->features + len, name, n);
    t->features[len + n] = 0;
    return SETUN_OK;
}

static setun_status fill(char *host, const char *user, features *f, st_target *t, setun_error *err)
{
    const char *w;
    size_t n;
    for (const char *at = host; st_isa_word(&at, ',', &w, &n);)
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
    /* Code is made with nothing that this machine could not prove to have where LLVM is not at hand: what is exported
     * here runs here. */
    for (size_t i = 0; i < f->n; i++) {
        const st_isa_feature *row = st_isa_feature_find(f->arch, f->row[i].name, strlen(f->row[i].name));
        if (row && !row->proof && !listed(f->arch->base, row->name, strlen(row->name)))
            f->row[i].on = 0;
    }
    settle(f); /* a hypervisor may hide a feature and forget what is built on it */
    ST_TRY(apply(f, user ? user : "", err));

    for (size_t i = 0; i < f->n; i++)
        ST_TRY(add_feature(t, f->row[i].on ? '+' : '-', f->row[i].name, strlen(f->row[i].name), err));
    st_isa_describe(t);
    return SETUN_OK;
}

/* Two promises of the contract that not every machine keeps; better to say so than to guess. */
static setun_status check_machine(const st_target *t, setun_error *err)
{
    LLVMTargetMachineRef tm;
    setun_status s = st_llvm_machine(t, 0, &tm, err);
    if (s != SETUN_OK)
        return s;
    LLVMTargetDataRef layout = LLVMCreateTargetDataLayout(tm);
    if ((LLVMByteOrder(layout) == LLVMBigEndian) != t->big_endian || LLVMPointerSize(layout) != 8)
        s = st_fail(err, SETUN_UNKNOWN, "no kernels can be compiled for %s: they need %s-endian bytes and 64-bit pointers",
                    t->triple, t->big_endian ? "big" : "little");
    LLVMDisposeTargetData(layout);
    LLVMDisposeTargetMachine(tm);
    return s;
}

static uint32_t version(void)
{
    unsigned major, minor, patch;
    LLVMGetVersion(&major, &minor, &patch);
    return major << 16 | minor << 8 | patch;
}

static void take_arch(st_target *t, const st_isa_arch *a)
{
    t->arch = a ? a->arch : ST_ARCH_OTHER;
    t->big_endian = a ? a->big_endian : 0;
}

setun_status st_llvm_host(const char *user, st_target *t, setun_error *err)
{
    memset(t, 0, sizeof *t);
    t->llvm_version = version();
    char *triple = LLVMGetDefaultTargetTriple(), *cpu = LLVMGetHostCPUName(),
         *host = LLVMGetHostCPUFeatures();
    setun_status s = SETUN_OK;
    if (strlen(triple) >= sizeof t->triple || strlen(cpu) >= sizeof t->cpu)
        s = st_fail(err, SETUN_FULL, "target triple \"%.80s\" or CPU name \"%.80s\" is too long",
                    triple, cpu);
    put(t->triple, sizeof t->triple, triple);
    put(t->cpu, sizeof t->cpu, cpu);
    features f = { NULL, 0, st_isa_find(triple), 0 };
    take_arch(t, f.arch);
    if (s == SETUN_OK)
        s = fill(host, user, &f, t, err);
    free(f.row);
    LLVMDisposeMessage(triple);
    LLVMDisposeMessage(cpu);
    LLVMDisposeMessage(host);
    return s == SETUN_OK ? check_machine(t, err) : s;
}

static setun_status named_features(features *f, int32_t vlen, const char *user, st_target *t, setun_error *err)
{
    const st_isa_arch *a = f->arch;
    char zvl[24];
    f->row = calloc(a->n_feature, sizeof *f->row);
    if (!f->row)
        return st_fail(err, SETUN_NO_MEMORY, "no memory for the list of CPU features");
    for (f->n = 0; f->n < a->n_feature; f->n++) {
        const char *name = a->feature[f->n].name;
        f->row[f->n] = (feature){ name, 1, listed(a->base, name, strlen(name)) };
    }
    ST_TRY(apply(f, user, err));
    for (size_t i = 0; i < f->n; i++) {
        const st_isa_feature *row = &a->feature[i];
        const char *w, *at = row->llvm ? row->llvm : row->name;
        size_t n;
        if (!f->row[i].on)
            continue;
        if (row->cpu)
            put(t->cpu, sizeof t->cpu, row->cpu);
        while (st_isa_word(&at, ' ', &w, &n))
            ST_TRY(add_feature(t, '+', w, n, err));
    }
    if (a->arch == ST_ARCH_RISCV && st_isa_has(t, "v")) {
        t->vlen = vlen ? vlen : 128;
        (void)snprintf(zvl, sizeof zvl, "zvl%db", t->vlen);
        return add_feature(t, '+', zvl, strlen(zvl), err);
    }
    if (vlen)
        return st_fail(err, SETUN_BAD_ARG, "a vector length is only of use with RISC-V's vectors: riscv64 and +v");
    return SETUN_OK;
}

setun_status st_llvm_target(const char *arch, const char *user, int32_t vlen, st_target *t, setun_error *err)
{
    features f = { .arch = st_isa_find(arch), .named = 1 };
    char known[256];
    memset(t, 0, sizeof *t);
    t->llvm_version = version();
    st_isa_names(known, sizeof known);
    if (!f.arch)
        return st_fail(err, SETUN_UNKNOWN, "the target \"%.80s\" is not known; %s are", arch, known);
    if (vlen && vlen != 128 && vlen != 256)
        return st_fail(err, SETUN_BAD_ARG, "kernels are made for RISC-V vectors of 128 or 256 bits, not %d", vlen);
    take_arch(t, f.arch);
    put(t->triple, sizeof t->triple, f.arch->triple);
    put(t->cpu, sizeof t->cpu, f.arch->cpu);
    put(t->abi, sizeof t->abi, f.arch->abi ? f.arch->abi : "");
    setun_status s = named_features(&f, vlen, user ? user : "", t, err);
    free(f.row);
    if (s != SETUN_OK)
        return s;
    st_isa_describe(t);
    return check_machine(t, err);
}

void st_llvm_fill_targets(void)
{
#define FILL(name)                   \
    LLVMInitialize##name##TargetInfo(); \
    LLVMInitialize##name##Target();     \
    LLVMInitialize##name##TargetMC();   \
    LLVMInitialize##name##AsmPrinter(); \
    LLVMInitialize##name##AsmParser();
    FILL(X86) FILL(AArch64) FILL(RISCV) FILL(PowerPC) FILL(SystemZ) FILL(LoongArch)
#undef FILL
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
    if (*t->abi)
        LLVMTargetMachineOptionsSetABI(o, t->abi);
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
