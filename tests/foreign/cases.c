/* tests/foreign/cases.c -- operators' cases compiled for another machine, to be run there or emulated.
 *
 *     foreign_cases CODEGEN.so DIR STRIDE FIRST ARCH FEATURES VLEN [OPERATOR CASE]
 *
 * Of all operators' cases every STRIDE-th from number FIRST on, or the one case that is given, is lowered and
 * compiled for the target.  DIR gets an object per
 * kernel; blob.bin with the arguments and, from the operator's eval on this machine, the wanted results, in
 * the target's byte order; and cases.s, a table of all that for run.c.  Compiling all cases is itself a test:
 * LLVM ends the process where it cannot select an instruction. */
#include <dlfcn.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "codegen/codegen.h"
#include "graph/registry.h"

#define CHECK(ok, ...)                              \
    do {                                            \
        if (!(ok)) {                                \
            (void)fprintf(stderr, __VA_ARGS__);     \
            (void)fprintf(stderr, "\n");            \
            exit(1);                                \
        }                                           \
    } while (0)

typedef struct writer {
    const st_codegen *cg;
    st_target         t;
    const char       *dir;
    FILE             *blob, *table;
    int64_t           at, scratch; /* bytes in the blob; most that any kernel wants */
    int               n;
} writer;

static FILE *create(const char *dir, const char *name)
{
    char path[4096];
    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    CHECK(f, "%s: cannot be written", path);
    return f;
}

/* Bytes of one number; blocks and packed weights are bytes on every machine. */
static int number_bytes(uint32_t dtype)
{
    switch (dtype) {
    case SETUN_F32: case SETUN_I32: return 4;
    case SETUN_F16: case SETUN_BF16: case SETUN_I16: return 2;
    case SETUN_I64: return 8;
    default: return 1;
    }
}

/* Contents in the target's order, with a margin behind; returns where. */
static int64_t put(writer *w, const setun_view *v, const void *data)
{
    int64_t from = w->at, bytes = setun_view_bytes(v), size = number_bytes(v->dtype);
    const uint8_t *p = data;
    for (int64_t i = 0; i < bytes; i++)
        (void)fputc(w->t.big_endian ? p[i / size * size + size - 1 - i % size] : p[i], w->blob);
    for (w->at += bytes; w->at % 64 || w->at < from + bytes + 64; w->at++)
        (void)fputc(0, w->blob);
    return from;
}

static void write_case(writer *w, const setun_op *op, const char *text)
{
    st_arena *arena = st_arena_new();
    setun_error err = { 0 };
    st_case c;
    st_kir *k;
    char name[64], *object;
    int64_t n, at[ST_MAX_ARGS];
    CHECK(st_case_make(op, text, 1, arena, &c, &err) == SETUN_OK, "%s: %s", op->name, err.text);
    setun_status s = st_kir_lower(&k, &c.shape, &w->t, arena, &err);
    if (s == SETUN_DECLINED) {
        st_arena_free(arena);
        return;
    }
    CHECK(s == SETUN_OK, "%s: %s", op->name, err.text);
    (void)snprintf(name, sizeof name, "kernel%d", w->n);
    CHECK(w->cg->emit(k, &w->t, name, &(st_emit){ ST_EMIT_OBJECT, 0, 0 }, &object, &n, &err) == SETUN_OK, "%s of %s: %s", text, op->name, err.text);
    (void)snprintf(name, sizeof name, "kernel%d.o", w->n);
    FILE *f = create(w->dir, name);
    (void)fwrite(object, 1, (size_t)n, f);
    CHECK(fclose(f) == 0, "%s: not written", name);
    free(object);

    const setun_args *a = &c.run;
    const setun_view *view[ST_MAX_ARGS];
    for (uint32_t i = 0; i < a->n_in + a->n_out; i++) {
        uint32_t shares = i < a->n_in ? 0 : op->out[i - a->n_in].shares;
        view[i] = i < a->n_in ? &a->in[i] : &a->out[i - a->n_in];
        if (i >= a->n_in && !shares)
            memset(view[i]->data, 0x5a, (size_t)setun_view_bytes(view[i]));
        at[i] = shares ? at[shares - 1] : put(w, view[i], view[i]->data);
    }
    CHECK(op->eval(a, &err) == SETUN_OK, "%s: %s", op->name, err.text);
    (void)fprintf(w->table, "args%d:\n", w->n);
    for (uint32_t i = 0; i < a->n_in + a->n_out; i++)
        (void)fprintf(w->table, " .quad blob + %" PRId64 "\n", at[i]);
    (void)fprintf(w->table, "dims%d:\n", w->n);
    for (uint32_t i = 0; i < k->n_slot; i++)
        (void)fprintf(w->table, " .quad %" PRId64 "\n", view[k->slot[i].arg]->dim[k->slot[i].dim]);
    (void)fprintf(w->table, "outs%d:\n", w->n);
    for (uint32_t i = 0; i < a->n_out; i++) {
        const setun_view *v = &a->out[i];
        int kind = v->dtype == SETUN_F32 ? 4 : v->dtype == SETUN_F16 || v->dtype == SETUN_BF16 ? 2 : 1;
        int64_t want = put(w, v, v->data);
        (void)fprintf(w->table, " .quad blob + %" PRId64 ", blob + %" PRId64 ", %" PRId64 ", %d\n", at[a->n_in + i], want,
                      setun_view_bytes(v), kind);
    }
    (void)fprintf(w->table, "name%d: .asciz \"%s", w->n, op->name);
    for (const char *p = text; *p; p++)
        (void)fprintf(w->table, *p == '"' || *p == '\\' ? "\\%c" : "%c", *p);
    (void)fprintf(w->table, "\"\n .balign 8\n");
    (void)fprintf(w->table, ".section .cases,\"aw\"\n .quad kernel%d, args%d, dims%d, outs%d, %u, %" PRId64 ", name%d\n.data\n",
                  w->n, w->n, w->n, w->n, a->n_out, st_grid_units(&k->grid, view), w->n);
    w->scratch = k->scratch_bytes > w->scratch ? k->scratch_bytes : w->scratch;
    w->n++;
    st_arena_free(arena);
}

int main(int argc, char **argv)
{
    writer w = { .dir = argc > 2 ? argv[2] : "" };
    setun_error err = { 0 };
    CHECK(argc == 8 || argc == 10, "usage: foreign_cases CODEGEN.so DIR STRIDE FIRST ARCH FEATURES VLEN [OPERATOR CASE]");
    union { void *p; const st_codegen *(*fn)(uint32_t); } entry = { .p = NULL };
    void *lib = dlopen(argv[1], RTLD_NOW);
    CHECK(lib && (entry.p = dlsym(lib, "st_codegen_entry")), "%s", dlerror());
    w.cg = entry.fn(ST_CODEGEN_ABI);
    CHECK(w.cg, "%s is of another build", argv[1]);
    CHECK(w.cg->target(argv[5], argv[6], atoi(argv[7]), &w.t, &err) == SETUN_OK, "%s", err.text);
    w.t.l1_bytes = 32768;
    w.t.l2_bytes = 262144;
    w.blob = create(w.dir, "blob.bin");
    w.table = create(w.dir, "cases.s");
    (void)fprintf(w.table, ".section .cases,\"aw\"\n .balign 8\n.globl cases_begin\ncases_begin:\n"
                  ".data\n .balign 64\nblob: .incbin \"blob.bin\"\n .balign 8\n");
    int seen = atoi(argv[3]) - atoi(argv[4]) % atoi(argv[3]);
    for (const setun_op *const *op = st_builtin_ops; *op; op++)
        if (argc == 10 && !strcmp((*op)->name, argv[8]))
            write_case(&w, *op, argv[9]);
    for (const setun_op *const *op = st_builtin_ops; argc == 8 && *op; op++)
        for (int i = 0; (*op)->lower && (*op)->cases[i]; i++)
            if (seen++ % atoi(argv[3]) == 0)
                write_case(&w, *op, (*op)->cases[i]);
    (void)fprintf(w.table, ".section .cases,\"aw\"\n.globl cases_end\ncases_end: .quad 0\n.bss\n .balign 64\n.globl scratch\n"
                  "scratch: .skip %" PRId64 "\n", w.scratch + 64);
    CHECK(fclose(w.blob) == 0 && fclose(w.table) == 0, "%s: not written", w.dir);
    CHECK(w.n, "there is no such operator, or none that is compiled");
    printf("%s: %d kernels\n", w.t.isa, w.n);
    return 0;
}
