/* runtime/dump.c -- every stage of a loaded model, or of one operator, printed in its own input syntax. */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "runtime/session.h"
#include "scripts/host.h"

static setun_status dump_plans(const setun_model *m, st_str *t)
{
    const char *names[2];
    for (uint32_t b = 0; b < m->n_backend; b++)
        names[b] = m->backend[b]->backend_info.name;
    static const char *const titles[ST_N_PROGRAM] = {"decode: one token", "prefill: up to n_batch tokens",
                                                     "decode: one token, its largest logits",
                                                     "prefill: up to n_batch tokens, the largest logits of the last"};
    for (int i = 0; i < m->n_program; i++) {
        st_str_addf(t, "# %s\n", titles[i]);
        st_plan_print(m->program[i].plan, names, t);
    }
    return SETUN_OK;
}

/* The forms of a kernel. */
static const struct { const char *name; uint32_t emit; } stages[] = {{"kir", 0}, {"llvm", ST_EMIT_IR}, {"asm", ST_EMIT_ASM}};

/* SETUN_UNKNOWN: there is none of this name, or not here. */
static setun_status find_stage(const st_engine *e, const char *what, uint32_t *emit, setun_error *err)
{
    size_t i = 0, n = sizeof stages / sizeof stages[0];
    while (i < n && strcmp(stages[i].name, what))
        i++;
    if (i == n)
        return st_fail(err, SETUN_UNKNOWN, "stage '%s' is not known; graph, graph=script, graph=dot, graph=html, plan, kir, "
                       "llvm and asm are", what);
    *emit = stages[i].emit;
    if (*emit && !(e->compiles && e->codegen_file))
        return st_fail(err, SETUN_UNKNOWN, "there is no %s: kernels are not compiled here (%s)", what, st_engine_isa(e));
    return SETUN_OK;
}

/* With the lines of the script that made it, if one did. */
static setun_status dump_kernel(const st_engine *e, const st_kir *kir, const char *name, uint32_t what, st_str *t,
                                setun_error *err)
{
    char *bytes = NULL;
    int64_t n = 0;
    st_str_addf(t, "%s %s\n", what == ST_EMIT_IR ? ";" : "#", name);
    if (!what) {
        st_kir_print_lines(kir, t);
        return SETUN_OK;
    }
    const st_codegen *cg;
    const st_emit how = {kir->origin ? what | ST_EMIT_LINES : what, 0, 0};
    ST_TRY(st_engine_compiler(e, &cg, err));
    ST_TRY(cg->emit(kir, &e->target, "kernel", &how, &bytes, &n, err));
    st_str_addn(t, bytes, (size_t)n);
    free(bytes);
    return SETUN_OK;
}

/* ---------------------------------------------------------------- the graph as a page */

#define TIMED_TOKENS 32

/* Mean nanoseconds per node while a token is decoded, behind one that fills the caches. */
static setun_status time_nodes(const setun_model *m, setun_session *s, double *ns, setun_error *err)
{
    const float *logits;
    const st_runner *r = &s->run[ST_ONE];
    int64_t n = m->n_ctx < TIMED_TOKENS ? m->n_ctx : TIMED_TOKENS;
    for (int64_t i = -1; i < n; i++) {
        int32_t token = (int32_t)((i + 1) % m->n_vocab);
        if (i == 0) {
            ST_TRY(setun_session_rewind(s, 0, err));
            ST_TRY(setun_session_note(s, SETUN_NOTE_TIME, err));
        }
        ST_TRY(st_session_chunk(s, &token, 1, 0, 1, ST_ONE, &logits, err));
    }
    for (uint32_t i = 0; i < r->n_run_step; i++)
        ns[s->program[ST_ONE]->plan->step[r->of[i]].node] += (double)r->ns[i] / (double)n;
    return SETUN_OK;
}

static setun_status dump_page(const setun_model *m, int timed, st_str *t, setun_error *err)
{
    setun_session *s = NULL;
    setun_status st = SETUN_OK;
    double *ns = timed ? calloc(m->simple->n_node + 1, sizeof *ns) : NULL;
    if (timed)
        st = ns ? setun_session_new(&s, m, err) : st_fail(err, SETUN_NO_MEMORY, "no memory for times");
    if (st == SETUN_OK && timed)
        st = time_nodes(m, s, ns, err); /* the programs' graphs have the same nodes */
    if (st == SETUN_OK)
        st_graph_html(m->simple, m->path, ns, t);
    setun_session_free(s);
    free(ns);
    return st;
}

/* What was printed to whoever asked, unless that failed; ends the text. */
static setun_status hand_over(st_str *t, const char *what, setun_status s, setun_write_fn *out, void *user, setun_error *err)
{
    if (s == SETUN_OK && t->failed)
        s = st_fail(err, SETUN_NO_MEMORY, "no memory to print %s", what);
    if (s == SETUN_OK && out(user, t->text ? t->text : "", t->len))
        s = st_fail(err, SETUN_CANCELLED, "cancelled by the caller, who took no more text");
    st_str_free(t);
    return s;
}

setun_status setun_model_dump(const setun_model *m, const char *what, const char *kernel, setun_write_fn *out, void *user,
                              setun_error *err)
{
    st_str t = {0};
    setun_status s = SETUN_OK;
    if (strcmp(what, "graph") == 0) {
        st_graph_print(m->simple, &t);
    } else if (strcmp(what, "graph=script") == 0) {
        st_graph_print(m->graph, &t);
    } else if (strcmp(what, "graph=dot") == 0) {
        st_graph_dot(m->simple, &t);
    } else if (strcmp(what, "graph=html") == 0 || strcmp(what, "graph=html+time") == 0) {
        s = dump_page(m, what[10] != 0, &t, err);
    } else if (strcmp(what, "plan") == 0) {
        s = dump_plans(m, &t);
    } else {
        uint32_t emit = 0;
        size_t shown = 0;
        s = find_stage(m->engine, what, &emit, err);
        for (int32_t k = 0; s == SETUN_OK && k < m->kernels->n; k++)
            if (!kernel || strstr(m->kernels->kernel[k]->name, kernel)) {
                s = dump_kernel(m->engine, m->kernels->kernel[k]->kir, m->kernels->kernel[k]->name, emit, &t, err);
                shown++;
            }
        if (s == SETUN_OK && !shown)
            s = kernel ? st_fail(err, SETUN_UNKNOWN, "no kernel's name contains '%s'", kernel)
                       : st_fail(err, SETUN_UNKNOWN, "there are no kernels: operators run by eval");
    }
    return hand_over(&t, what, s, out, user, err);
}

/* ---------------------------------------------------------------- one operator */

/* The operator asked for: of the file, if there is one, and of several by name. */
static setun_status choose_op(st_engine *e, const char *file, const char *name, st_script *script, const setun_op **op,
                              setun_error *err)
{
    int64_t first = st_registry_count(e->registry), found = -1, n_found = 0;
    if (file) {
        ST_TRY(st_script_ops(script, file, err));
        if (st_registry_count(e->registry) == first)
            return st_fail(err, SETUN_BAD_SCRIPT, "%s defines no operator (setun.op)", file);
    } else {
        first = 0;
    }
    for (int64_t i = first; i < st_registry_count(e->registry); i++)
        if (!name || strcmp(name, st_registry_at(e->registry, i)->name) == 0) {
            found = i;
            n_found++;
        }
    if (found < 0)
        return st_fail(err, SETUN_UNKNOWN, "there is no operator named '%s'%s%s", name, file ? " in " : "", file ? file : "");
    if (n_found > 1)
        return st_fail(err, SETUN_BAD_ARG, "%s defines %d operators; say which with --op", file, (int)n_found);
    *op = st_registry_at(e->registry, found);
    return SETUN_OK;
}

static setun_status dump_op(st_engine *e, const setun_op *op, const char *text, uint32_t emit, st_arena *arena, st_str *t,
                            setun_error *err)
{
    int64_t size[SETUN_N_SYMBOLS];
    setun_args shape;
    st_kir *kir;
    setun_error why = {0};
    text = text ? text : op->cases[0];
    setun_status s = st_case_parse(op, text, arena, &shape, size, &why);
    if (s == SETUN_OK)
        s = st_infer(&shape, &why);
    if (s == SETUN_OK)
        s = st_kir_lower(&kir, &shape, &e->target, arena, &why);
    if (s == SETUN_DECLINED)
        s = st_fail(&why, SETUN_UNKNOWN, "there is no kernel: it runs by eval");
    if (s == SETUN_OK)
        return dump_kernel(e, kir, text, emit, t, err);
    st_wrap(&why, "%s, case \"%.200s\"", op->name, text);
    if (err)
        *err = why;
    return s;
}

setun_status setun_op_dump(const char *file, const char *name, const char *text, const char *what, const setun_options *o,
                           setun_write_fn *out, void *user, setun_error *err)
{
    st_arena *arena = st_arena_new();
    st_script *script = NULL;
    st_engine *e = NULL;
    const setun_op *op = NULL;
    uint32_t emit = 0;
    st_str t = {0};
    setun_status s = arena ? st_engine_open(&e, o, err) : st_fail(err, SETUN_NO_MEMORY, "no memory to print an operator");
    if (s == SETUN_OK)
        s = find_stage(e, what, &emit, err);
    if (s == SETUN_OK && file)
        s = st_script_open(&script, e->scripts, e->registry, arena, NULL, err);
    if (s == SETUN_OK)
        s = choose_op(e, file, name, script, &op, err);
    if (s == SETUN_OK)
        s = dump_op(e, op, text, emit, arena, &t, err);
    s = hand_over(&t, what, s, out, user, err);
    st_script_close(script);
    st_engine_close(e);
    st_arena_free(arena);
    return s;
}
