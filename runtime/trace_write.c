/* runtime/trace_write.c -- setun trace: what steps compute, as NumPy files.
 *
 * Not here: how steps are watched (trace.c) and what the files look like (model/npy.c, model/trace_index.c).
 * A tensor's name has to mean the same in another run, on another backend and for other packings of the same
 * weights, so it says nothing of how it was computed where a weight says what it is:
 *
 *     logits            an output of the graph
 *     blk.0.attn_q      made with the weight blk.0.attn_q (or its parts, blk.0.attn_q.scale), whatever the operator
 *     blk.0.attn_norm.q     the same, of an operator with several results
 *     blk.0.add.2       no weight of its scope: scope and operator, and which of several it is */
#include <fnmatch.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/table.h"
#include "model/newdir.h"
#include "model/npy.h"
#include "model/trace_index.h"
#include "runtime/session.h"
#include "runtime/trace.h"

#define MOST_NAME 200 /* with .npy it is a file's name */

typedef struct writer {
    const setun_trace_options *o;
    const st_program *program;
    st_arena        *arena;
    st_trace_tensor *tensor;  /* the selected ones, in the order of steps */
    setun_view      *view;    /* of each, at the sizes of this run */
    int64_t          n, bytes;
    int64_t         *tensor_of; /* per value of the graph: index into tensor, or -1 */
    uint8_t         *there;   /* per tensor: it is written */
    int64_t          done;
    st_newdir        dir;
    setun_status     status;  /* of the first write that failed; nothing is written after it */
    setun_error      why;
} writer;

static setun_status no_memory(setun_error *err) { return st_fail(err, SETUN_NO_MEMORY, "no memory for a trace"); }

/* ---------------------------------------------------------------- names */

/* "blk.0.ffn_down.t" and "blk.0.ffn_down.scale" are parts of one weight: the first says only how it lies. */
static size_t whole_name(const char *name)
{
    static const char *const parts[] = {".t", ".scale"};
    size_t n = strlen(name);
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        size_t k = strlen(parts[i]);
        if (n > k && strcmp(name + n - k, parts[i]) == 0)
            return n - k;
    }
    return n;
}

/* The weight of its scope that a node reads; its length is returned, 0: none. */
static size_t weight_of(const st_graph *g, const st_node *node, const char **name)
{
    size_t n = strlen(node->scope);
    for (uint32_t i = 0; i < node->op->n_in; i++) {
        const st_value *v = &g->value[g->value[node->in[i]].root];
        if (v->kind != ST_CONST || strncmp(v->name, node->scope, n) || (n && v->name[n] && v->name[n] != '.'))
            continue;
        *name = v->name;
        return whole_name(v->name);
    }
    return 0;
}

static void add_base_name(const st_graph *g, const st_node *node, uint32_t port, st_str *s)
{
    const char *name = NULL;
    for (uint32_t i = 0; i < g->n_output; i++)
        if (g->output[i].value == node->out[port]) {
            st_str_add(s, g->output[i].name);
            return;
        }
    size_t n = weight_of(g, node, &name);
    if (n)
        st_str_addn(s, name, n);
    else
        st_str_addf(s, "%s%s%s", node->scope, node->scope[0] ? "." : "", node->op->name);
    if (node->op->n_out > 1)
        st_str_addf(s, ".%s", node->op->out[port].name);
}

/* Names come from scripts: what is no plain file name becomes one. */
static void make_plain(st_str *s)
{
    for (size_t i = 0; i < s->len; i++) {
        char c = s->text[i];
        int good = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' || (c == '.' && i);
        s->text[i] = good ? c : '_';
    }
    if (s->len > MOST_NAME)
        s->text[s->len = MOST_NAME] = 0;
}

/* The name of a value, in the arena; of equal ones all but the first get a number. */
static setun_status name_value(const writer *w, const st_node *node, uint32_t port, st_table *names, const char **out, setun_error *err)
{
    st_str s = {0};
    int64_t before;
    add_base_name(w->program->graph, node, port, &s);
    if (!s.failed)
        make_plain(&s);
    const char *name = s.failed ? NULL : st_arena_strndup(w->arena, s.text, s.len);
    st_str_free(&s);
    *out = name;
    for (int64_t k = 2; *out && st_table_get(names, *out, strlen(*out), &before); k++)
        *out = st_arena_printf(w->arena, "%s.%" PRId64, name, k);
    return !*out || st_table_put(names, *out, strlen(*out), 0) ? no_memory(err) : SETUN_OK;
}

/* ---------------------------------------------------------------- which tensors */

static int is_selected(const setun_trace_options *o, const char *name, uint8_t *used)
{
    int selected = o->n_select == 0;
    for (int32_t i = 0; i < o->n_select; i++)
        if (fnmatch(o->select[i], name, 0) == 0)
            selected = used[i] = 1;
    return selected;
}

static setun_status add_tensor(writer *w, uint32_t step, const st_node *node, uint32_t port, const char *name, setun_error *err)
{
    const int64_t rows[SETUN_N_SYMBOLS] = {w->o->n_tokens, w->o->all ? w->o->n_tokens : 1};
    st_trace_tensor *t = &w->tensor[w->n];
    setun_view *v = &w->view[w->n];
    *v = w->program->graph->value[node->out[port]].view;
    st_view_bind(v, rows);
    int64_t bytes = st_npy_bytes(v);
    if (bytes < 0)
        return st_fail(err, SETUN_UNKNOWN, "%s is made of blocks (%s), which NumPy has no type for; leave it out with --select", name,
                       st_dtype_name(v->dtype));
    *t = (st_trace_tensor){name, node->op->name, node->where, st_dtype_name(v->dtype), step, v->rank, {0}};
    memcpy(t->dim, v->dim, sizeof t->dim);
    w->bytes += bytes;
    w->tensor_of[node->out[port]] = w->n++;
    return SETUN_OK;
}

static setun_status list_steps(writer *w, st_table *names, uint8_t *used, setun_error *err)
{
    const st_plan *plan = w->program->plan;
    const st_graph *g = w->program->graph;
    for (uint32_t i = 0; i < plan->n_step; i++) {
        const st_node *node = &g->node[plan->step[i].node];
        for (uint32_t k = 0; k < node->op->n_out; k++) {
            const char *name;
            if (node->op->out[k].shares || g->value[g->value[node->out[k]].root].kind != ST_TEMP)
                continue;
            ST_TRY(name_value(w, node, k, names, &name, err));
            if (is_selected(w->o, name, used))
                ST_TRY(add_tensor(w, i, node, k, name, err));
        }
    }
    for (int32_t i = 0; i < w->o->n_select; i++)
        if (!used[i])
            return st_fail(err, SETUN_BAD_ARG, "no tensor has a name like '%s'; setun trace --list shows all names", w->o->select[i]);
    return SETUN_OK;
}

static setun_status choose_tensors(writer *w, setun_error *err)
{
    const st_graph *g = w->program->graph;
    w->tensor = st_arena_array(w->arena, (int64_t)g->n_value + 1, sizeof *w->tensor);
    w->view = st_arena_array(w->arena, (int64_t)g->n_value + 1, sizeof *w->view);
    w->tensor_of = st_arena_array(w->arena, (int64_t)g->n_value + 1, sizeof *w->tensor_of);
    w->there = st_arena_array(w->arena, (int64_t)g->n_value + 1, 1);
    uint8_t *used = st_arena_array(w->arena, (int64_t)w->o->n_select + 1, 1);
    st_table *names = st_table_new(g->n_value);
    setun_status st = w->tensor && w->view && w->tensor_of && w->there && used && names ? SETUN_OK : no_memory(err);
    for (uint32_t v = 0; st == SETUN_OK && v < g->n_value; v++)
        w->tensor_of[v] = -1;
    if (st == SETUN_OK)
        st = list_steps(w, names, used, err);
    st_table_free(names);
    return st;
}

/* ---------------------------------------------------------------- writing */

static int looks(const setun_trace_options *o) { return SETUN_HAS(setun_trace_options, o, see) && !o->out; }

static void on_result(void *user, int64_t node, uint32_t port, const setun_view *v)
{
    writer *w = user;
    int64_t i = w->tensor_of[w->program->graph->node[node].out[port]];
    st_str path = {0};
    if (i < 0 || w->status != SETUN_OK || w->there[i])
        return;
    if (looks(w->o)) {
        w->o->see(w->o->see_user, w->tensor[i].name, v);
        w->there[i] = 1;
        return;
    }
    char name[MOST_NAME + 48];
    (void)snprintf(name, sizeof name, "%s.npy", w->tensor[i].name);
    w->status = st_newdir_path(&w->dir, name, &path, &w->why);
    if (w->status == SETUN_OK && !st_view_same(v, &w->view[i]))
        w->status = st_fail(&w->why, SETUN_BAD_SHAPE, "%s came in another shape than its step has", name);
    if (w->status == SETUN_OK)
        w->status = st_npy_save(path.text, v, 0, &w->why);
    st_str_free(&path);
    w->there[i] = 1;
    w->done++;
    if (w->status == SETUN_OK && w->o->progress && w->o->progress(w->o->user, w->done, w->n))
        w->status = st_fail(&w->why, SETUN_CANCELLED, "cancelled");
}

static setun_status run(writer *w, setun_session *s, int which, setun_error *err)
{
    const setun_trace_options *o = w->o;
    st_trace t = {.arena = w->arena, .see = on_result, .user = w};
    const float *logits;
    int64_t n_out = o->all ? o->n_tokens : 1;
    ST_TRY(st_session_check(s, o->tokens, o->n_tokens, err));
    ST_TRY(st_trace_start(s, &t, err));
    ST_TRY(st_session_chunk(s, o->tokens, o->n_tokens, o->n_tokens - n_out, n_out, which, &logits, err));
    for (int64_t i = 0; i < w->n && w->status == SETUN_OK; i++)
        if (!w->there[i])
            return st_fail(err, SETUN_FAILED, "%s was not shown by the backend that computes it", w->tensor[i].name);
    return w->status == SETUN_OK ? SETUN_OK : st_fail(err, w->status, "%s", w->why.text);
}

static setun_status write_all(writer *w, const setun_model *m, int which, const st_str *index, setun_error *err)
{
    setun_session *s = NULL;
    int writes = w->o->out != NULL;
    w->dir.mark = ST_TRACE_INDEX;
    setun_status st = writes ? st_newdir_begin(&w->dir, w->o->out, NULL, w->o->force, err) : SETUN_OK;
    if (st == SETUN_OK)
        st = setun_session_new(&s, m, err);
    if (st == SETUN_OK)
        st = run(w, s, which, err);
    setun_session_free(s);
    if (st == SETUN_OK && !writes)
        return st;
    if (st == SETUN_OK)
        st = st_newdir_text(&w->dir, ST_TRACE_INDEX, index->text, index->len, err);
    if (st == SETUN_OK)
        st = st_newdir_commit(&w->dir, err);
    st_newdir_end(&w->dir);
    return st;
}

/* ---------------------------------------------------------------- the whole */

static void print_list(const writer *w, st_str *s)
{
    for (int64_t i = 0; !w->o->out && i < w->n; i++) {
        st_str_addf(s, "%-28s ", w->tensor[i].name);
        st_view_print(&w->view[i], s);
        st_str_addf(s, "  %s  %" PRId64 " bytes\n", w->tensor[i].op, st_npy_bytes(&w->view[i]));
    }
    st_str_addf(s, "%" PRId64 " tensors behind %" PRId64 " token%s: %.1f MB\n", w->n, w->o->n_tokens, w->o->n_tokens == 1 ? "" : "s",
                1e-6 * (double)w->bytes);
}

static setun_status check_options(const setun_model *m, const setun_trace_options *o, setun_error *err)
{
    if (!o->tokens || o->n_tokens < 1)
        return st_fail(err, SETUN_BAD_ARG, "a trace needs tokens");
    if (o->n_tokens > m->n_ctx)
        return st_fail(err, SETUN_FULL, "no room for %" PRId64 " tokens: the context holds %" PRId64 " positions", o->n_tokens, m->n_ctx);
    if (o->n_tokens > m->n_batch)
        return st_fail(err, SETUN_BAD_ARG, "a trace of %" PRId64 " tokens, where the model was loaded for %" PRId64 " in a step (--batch)",
                       o->n_tokens, m->n_batch);
    if (o->all && o->n_tokens > m->n_outputs)
        return st_fail(err, SETUN_BAD_ARG, "logits of %" PRId64 " tokens wanted at once; this model was loaded for %" PRId64, o->n_tokens,
                       m->n_outputs);
    return SETUN_OK;
}

setun_status setun_trace(const setun_model *m, const setun_trace_options *o, setun_write_fn *write, void *user, setun_error *err)
{
    ST_TRY(check_options(m, o, err));
    /* The program that a feed of so many tokens runs. */
    int which = o->n_tokens == 1 ? ST_ONE : ST_MANY;
    writer w = {.o = o, .program = &m->program[which], .arena = st_arena_new(), .status = SETUN_OK};
    st_str text = {0}, index = {0};
    setun_status st = w.arena ? choose_tensors(&w, err) : no_memory(err);
    if (st == SETUN_OK) {
        st_trace_index_print(&(st_trace_index){m->path, o->tokens, o->n_tokens, w.tensor, w.n}, &index);
        print_list(&w, &text);
        st = text.failed || index.failed ? no_memory(err) : SETUN_OK;
    }
    if (st == SETUN_OK && index.len > ST_TRACE_INDEX_LIMIT)
        st = st_fail(err, SETUN_BAD_ARG, ST_TRACE_INDEX " would be longer than 8 MiB; trace fewer tensors (--select) or tokens");
    const st_str *said = o->json ? &index : &text;
    if (st == SETUN_OK && !looks(o) && write(user, said->text, said->len))
        st = st_fail(err, SETUN_CANCELLED, "cancelled by the caller, who took no more text");
    if (st == SETUN_OK && (o->out || looks(o)))
        st = write_all(&w, m, which, &index, err);
    st_str_free(&index);
    st_str_free(&text);
    st_arena_free(w.arena);
    return st;
}

setun_status setun_npy_save(const char *path, const setun_view *v, setun_error *err)
{
    ST_TRY(st_view_check(v, 0, err));
    return st_npy_save(path, v, 1, err);
}
