/* runtime/tune.c -- see tune.h.
 *
 * A subject is a question (operator, shapes, attributes) whose operator has knobs, with all the nodes of
 * a program that ask it: the same matrix of every layer.  One pass runs it over all of them in turn, each cut over the threads as the
 * backend cuts it, so weights come from where they come from in use.  Knobs are tried one after the
 * other; the candidates of one take turns, pass by pass, so that what else the machine does hits them
 * alike.  What counts is the shortest time of each worker at each piece of a matrix, added up: a piece takes
 * less than the slice of time after which the system lets another process run, so that even on a busy
 * machine some of the turns are undisturbed.  In the end the winner meets the defaults once more. */
#include "runtime/tune.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/hash.h"
#include "graph/registry.h"
#include "runtime/choices.h"

#define DUEL_NS 50000000
#define BUDGET_NS 2000000000 /* of measuring, for all subjects */
#define LEAST_SHARE 0.05     /* of a program's cost; smaller subjects keep the defaults */
#define LEAST_BYTES ((int64_t)64 << 20) /* per token; smaller models are fast anyway */
#define MANY_TOKENS 128
#define MAX_NODES 64         /* of a subject: enough to come from memory */
#define MAX_SUBJECTS 24
#define MIN_ROUNDS 3
#define MAX_ROUNDS 12
#define CLEAR 0.985          /* a candidate is better if it takes less than this share of the time */

struct st_tune {
    st_engine *engine;
    st_arena  *arena;
    st_choices choices;
    const char *used[MAX_SUBJECTS]; /* questions that the model asked and that have an answer */
    int64_t    n_used;
};

static uint32_t n_knobs(const setun_op *op)
{
    return SETUN_HAS(setun_op, op, knob) ? op->n_knob : 0;
}

/* ---------------------------------------------------------------- what is remembered */

setun_status st_tune_open(st_tune **out, st_engine *e, st_arena *arena, setun_error *err)
{
    const st_target *t = &e->target;
    st_tune *tune = st_arena_alloc(arena, sizeof *tune);
    /* Everything about the machine that may make another candidate the fastest. */
    const char *identity = st_arena_printf(
        arena, "setun %s llvm %u, %s, %s, %d of %d cores, caches %" PRId64 " %" PRId64 " %" PRId64 ", features %016" PRIx64,
        SETUN_VERSION, t->llvm_version, t->cpu, e->cpu.name, e->o.n_threads, e->cpu.n_cores, e->cpu.l1d_bytes,
        e->cpu.l2_bytes, e->cpu.l3_bytes, st_hash(ST_HASH_INIT, t->features, strlen(t->features)));
    if (!tune || !identity)
        return st_fail(err, SETUN_NO_MEMORY, "no memory for the tuner");
    tune->engine = e;
    tune->arena = arena;
    *out = tune;
    int keep = e->compiles && e->o.tune != SETUN_TUNE_NEVER && e->o.tune < SETUN_TUNE_FORCE;
    return st_choices_open(&tune->choices, keep ? st_cache_dir(e->cache) : NULL, identity, arena, &e->log, err);
}

/* Operator, shapes and attributes as text.  Tabs and line ends can come in by attributes only. */
static void describe(const setun_args *a, st_str *t)
{
    st_str_addf(t, "%s/%u", a->op->name, a->op->version);
    for (uint32_t i = 0; i < a->n_in; i++) {
        st_str_add(t, " ");
        st_view_print(&a->in[i], t);
    }
    for (uint32_t i = 0; i < a->n_attr; i++)
        if (a->op->attr[i].kind == SETUN_ATTR_STRING)
            st_str_addf(t, " %016" PRIx64, st_hash(ST_HASH_INIT, a->attr[i].s, strlen(a->attr[i].s)));
        else
            st_str_addf(t, " %" PRId64, a->attr[i].i);
}

/* The same in the tuner's arena; NULL: no memory. */
static const char *question_of(st_tune *t, const setun_args *a)
{
    st_str text = {0};
    describe(a, &text);
    const char *q = text.failed ? NULL : st_arena_strdup(t->arena, text.text);
    st_str_free(&text);
    return q;
}

static void print_knobs(const setun_op *op, const int64_t *knob, st_str *t)
{
    for (uint32_t i = 0; i < op->n_knob; i++)
        st_str_addf(t, "%s%s=%" PRId64, i ? " " : "", op->knob[i].name, knob[i]);
}

/* The inverse.  Anything but one listed candidate for each knob, in order, is refused. */
static int parse_knobs(const setun_op *op, const char *text, int64_t *knob)
{
    for (uint32_t i = 0; i < op->n_knob; i++) {
        char word[32];
        size_t n = strlen(op->knob[i].name), len;
        if (strncmp(text, op->knob[i].name, n) || text[n] != '=')
            return 0;
        text += n + 1;
        len = strcspn(text, " ");
        if (len >= sizeof word)
            return 0;
        memcpy(word, text, len);
        word[len] = 0;
        text += len + (text[len] == ' ');
        uint32_t v = 0;
        if (st_parse_i64(word, INT64_MIN, INT64_MAX, &knob[i]))
            return 0;
        while (v < op->knob[i].n_value && op->knob[i].value[v] != knob[i])
            v++;
        if (v == op->knob[i].n_value)
            return 0;
    }
    return !*text;
}

static void note_used(st_tune *t, const char *question)
{
    for (int64_t i = 0; i < t->n_used; i++)
        if (strcmp(t->used[i], question) == 0)
            return;
    if (t->n_used < MAX_SUBJECTS)
        t->used[t->n_used++] = question;
}

setun_status st_tune_knobs(st_tune *t, setun_args *shape, setun_error *err)
{
    uint32_t n = n_knobs(shape->op);
    int32_t forced = t->engine->o.tune - SETUN_TUNE_FORCE;
    if (!n || (forced < 0 && !t->choices.n))
        return SETUN_OK;
    st_mark mark = st_arena_mark(t->arena);
    int64_t *knob = st_arena_array(t->arena, n, sizeof *knob);
    const char *question = question_of(t, shape);
    if (!knob || !question)
        return st_fail(err, SETUN_NO_MEMORY, "no memory for the tuner");
    const st_choice *c = forced < 0 ? st_choices_find(&t->choices, question) : NULL;
    for (uint32_t i = 0; i < n && forced >= 0; i++)
        knob[i] = shape->op->knob[i].value[(uint32_t)forced % shape->op->knob[i].n_value];
    if (forced >= 0 || (c && parse_knobs(shape->op, c->choice, knob)))
        shape->knob = knob;
    else
        st_arena_rewind(t->arena, mark);
    if (shape->knob && c)
        note_used(t, c->question);
    return SETUN_OK;
}

void st_tune_print(const st_tune *t, const char *before, const char *between, st_str *out)
{
    for (int64_t i = 0, n = 0; i < t->n_used; i++) {
        const st_choice *c = st_choices_find(&t->choices, t->used[i]);
        if (c && c->gain > 0)
            st_str_addf(out, "%s%s: %s, +%.1f %%", n++ ? between : before, c->question, c->choice, 0.1 * (double)c->gain);
    }
}

/* ---------------------------------------------------------------- one pass */

typedef struct subject {
    const char       *question;
    const st_kernel  *kernel;  /* with the knobs it was asked with */
    setun_args        shape;
    setun_args        node[MAX_NODES];
    int32_t           n_node;
    double            cost, share;
    int               many;
    void             *data[ST_MAX_ARGS]; /* arguments that are no weights */
} subject;

typedef struct pass {
    const subject    *s;
    const setun_code *code;
    char             *scratch;
    int64_t           scratch_step, n_threads;
    int64_t          *best; /* ns by worker and piece of a node: the shortest so far */
} pass;

static const setun_view *view_of(const setun_args *a, uint32_t i)
{
    return i < a->n_in ? &a->in[i] : &a->out[i - a->n_in];
}

/* Pieces of a worker's share that are timed apart, so that no piece takes long.  Kernels for many tokens
 * do work once per launch, so their shares stay whole. */
static int64_t pieces(const subject *s)
{
    return s->many ? 1 : MAX_NODES / s->n_node;
}

/* One worker's share of every node.  No barriers: who is interrupted must not hold up the clocks of others. */
static void walk(void *arg, int32_t worker)
{
    const pass *p = arg;
    int64_t n_piece = pieces(p->s), *best = p->best + worker * MAX_NODES;
    for (int32_t j = 0; j < p->s->n_node; j++) {
        const setun_args *a = &p->s->node[j];
        const setun_view *view[ST_MAX_ARGS];
        void *data[ST_MAX_ARGS];
        int64_t dim[ST_MAX_SLOTS];
        for (uint32_t i = 0; i < a->n_in + a->n_out; i++) {
            view[i] = view_of(a, i);
            data[i] = p->s->data[i] ? p->s->data[i] : view[i]->data;
        }
        for (uint32_t i = 0; i < p->code->n_slot; i++)
            dim[i] = view[p->code->slot[i].arg]->dim[p->code->slot[i].dim];
        int64_t units = st_grid_units(&p->code->grid, view), each = units / p->n_threads, rest = units % p->n_threads;
        setun_launch launch = {data, dim, p->code->self};
        int64_t begin = worker * each + (worker < rest ? worker : rest), share = each + (worker < rest);
        for (int64_t i = 0; i < n_piece; i++, best++) {
            setun_tile tile = {begin + share * i / n_piece, begin + share * (i + 1) / n_piece,
                               p->scratch + worker * p->scratch_step};
            int64_t start = st_now_ns();
            if (tile.begin < tile.end)
                p->code->fn(&launch, &tile);
            int64_t ns = st_now_ns() - start;
            *best = ns < *best ? ns : *best;
        }
    }
}

static void run_pass(const subject *s, const st_kernel *kernel, st_pool *pool, int64_t *best)
{
    pass p = {s, &kernel->code, NULL, (kernel->code.scratch_bytes + 63) / 64 * 64 + 128, st_pool_size(pool), best};
    p.scratch = aligned_alloc(64, (size_t)(p.scratch_step * p.n_threads));
    if (!p.scratch)
        return; /* not measured, not chosen */
    memset(p.scratch, 0, (size_t)(p.scratch_step * p.n_threads));
    st_pool_run(pool, walk, &p);
    free(p.scratch);
}

/* Any contents do (setun/op.h), but they should be ordinary: both signs, finite, no denormals. */
static void fill(void *data, const setun_view *v, int64_t bytes)
{
    uint64_t x = 88172645463325252u;
    for (int64_t i = 0; i < bytes; i += 4) {
        int32_t word = 0;
        float f;
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        f = x & 1 ? 1.0f : -1.0f;
        if (v->dtype == SETUN_F32)
            memcpy(&word, &f, 4);
        else if (v->dtype == SETUN_I8)
            word = (int32_t)(x & 0x3f3f3f3f);
        memcpy((char *)data + i, &word, 4);
    }
}

/* Memory for what is not a weight, as large as the largest node wants it. */
static setun_status make_data(subject *s, setun_error *err)
{
    const setun_args *a = &s->node[0];
    for (uint32_t i = 0; i < a->n_in + a->n_out; i++) {
        int64_t bytes = 0;
        for (int32_t j = 0; j < s->n_node; j++) {
            int64_t b = setun_view_bytes(view_of(&s->node[j], i));
            bytes = b > bytes ? b : bytes;
        }
        if (view_of(a, i)->data)
            continue;
        bytes = (bytes + 127) / 64 * 64;
        s->data[i] = aligned_alloc(64, (size_t)bytes);
        if (!s->data[i])
            return st_fail(err, SETUN_NO_MEMORY, "no memory to measure kernels");
        fill(s->data[i], view_of(a, i), bytes);
    }
    return SETUN_OK;
}

/* ---------------------------------------------------------------- one subject */

#define MAX_CANDIDATES 16

typedef struct contest {
    const st_kernel *kernel[MAX_CANDIDATES];
    int64_t          value[MAX_CANDIDATES];
    double           us[MAX_CANDIDATES]; /* of all workers together */
    uint32_t         n;
} contest;

static setun_status race(contest *c, const subject *s, st_pool *pool, int64_t until, setun_error *err)
{
    int64_t each = (int64_t)MAX_NODES * st_pool_size(pool), *best = calloc((size_t)(each * c->n), sizeof *best);
    if (!best)
        return st_fail(err, SETUN_NO_MEMORY, "no memory to measure kernels");
    run_pass(s, c->kernel[0], pool, best); /* pages and caches; its times are forgotten */
    for (int64_t i = 0; i < each * c->n; i++)
        best[i] = INT64_MAX / each;
    for (int round = 0; round < MAX_ROUNDS && (round < MIN_ROUNDS || st_now_ns() < until); round++)
        for (uint32_t i = 0; i < c->n; i++)
            run_pass(s, c->kernel[i], pool, best + i * each);
    for (uint32_t i = 0; i < c->n; i++) {
        c->us[i] = 0;
        for (int32_t w = 0; w < st_pool_size(pool); w++)
            for (int64_t j = 0; j < s->n_node * pieces(s); j++)
                c->us[i] += 1e-3 * (double)best[i * each + w * MAX_NODES + j];
    }
    free(best);
    return SETUN_OK;
}

/* The subject's kernel with other knobs, asked for; built by whoever builds next. */
static setun_status variant(st_tune *t, setun_model *m, const subject *s, const int64_t *knob, st_kernel **out, setun_error *err)
{
    setun_args shape = s->shape;
    int64_t *copy = st_arena_array(t->arena, shape.op->n_knob, sizeof *copy);
    if (!copy)
        return st_fail(err, SETUN_NO_MEMORY, "no memory for the tuner");
    memcpy(copy, knob, shape.op->n_knob * sizeof *copy);
    shape.knob = copy;
    return st_kernels_ask(m->kernels, &shape, s->kernel->where, out, err);
}

/* All candidates of one knob that make different kernels, the present one first. */
static setun_status candidates(st_tune *t, setun_model *m, const subject *s, int64_t *knob, uint32_t k, contest *c,
                               setun_error *err)
{
    const setun_knob *row = &s->shape.op->knob[k];
    int64_t now = knob[k];
    c->n = 0;
    for (int32_t v = -1; v < (int32_t)row->n_value; v++) {
        st_kernel *one;
        uint32_t i = 0;
        knob[k] = v < 0 ? now : row->value[v];
        setun_status st = variant(t, m, s, knob, &one, err);
        knob[k] = now;
        if (st == SETUN_DECLINED)
            continue;
        ST_TRY(st);
        while (i < c->n && c->kernel[i] != one)
            i++;
        if (i < c->n || c->n == MAX_CANDIDATES)
            continue;
        c->kernel[c->n] = one;
        c->value[c->n++] = v < 0 ? now : row->value[v];
    }
    return SETUN_OK;
}

static void defaults(const setun_op *op, int64_t *knob)
{
    for (uint32_t i = 0; i < op->n_knob; i++)
        knob[i] = op->knob[i].value[0];
}

static setun_status tune_subject(st_tune *t, setun_model *m, subject *s, st_pool *pool, int64_t until, const st_kernel **best,
                                 int64_t *knob, int64_t *gain, setun_error *err)
{
    const setun_op *op = s->shape.op;
    contest c;
    st_kernel *first;
    defaults(op, knob);
    ST_TRY(variant(t, m, s, knob, &first, err));
    ST_TRY(make_data(s, err));
    *best = first;
    for (uint32_t k = 0; k < op->n_knob; k++) {
        ST_TRY(candidates(t, m, s, knob, k, &c, err));
        setun_status built = st_kernels_build(m->kernels, pool, err);
        if (built != SETUN_OK) {
            st_wrap(err, "measuring kernels (--no-tune does without)");
            return built;
        }
        if (c.n < 2)
            continue;
        int64_t now = st_now_ns();
        ST_TRY(race(&c, s, pool, now + (until - now) / (op->n_knob - k), err));
        uint32_t win = 0;
        for (uint32_t i = 0; i < c.n; i++)
            st_logf(&t->engine->log, ST_LOG_DEBUG, "  %s %s=%" PRId64 ": %.1f us", op->name, op->knob[k].name, c.value[i],
                    c.us[i]);
        for (uint32_t i = 1; i < c.n; i++)
            if (c.us[i] < c.us[win])
                win = i;
        if (c.us[win] < CLEAR * c.us[0]) {
            knob[k] = c.value[win];
            *best = c.kernel[win];
        }
    }
    *gain = 0;
    if (*best == first)
        return SETUN_OK;
    c = (contest){.kernel = {first, *best}, .n = 2};
    ST_TRY(race(&c, s, pool, st_now_ns() + DUEL_NS, err));
    *gain = (int64_t)(1000.0 * (c.us[0] / c.us[1] - 1.0));
    if (c.us[1] > CLEAR * c.us[0]) { /* what looked better was luck */
        defaults(op, knob);
        *best = first;
        *gain = 0;
    }
    return SETUN_OK;
}

/* ---------------------------------------------------------------- all subjects */

/* Every kernel with knobs of a program, with its nodes; symbolic sizes become MANY_TOKENS. */
static setun_status find_subjects(st_tune *t, const st_program *p, int many, subject *s, int32_t *n, setun_error *err)
{
    int64_t size[SETUN_N_SYMBOLS];
    double all = 0;
    for (int i = 0; i < SETUN_N_SYMBOLS; i++)
        size[i] = p->bound[i] < MANY_TOKENS ? p->bound[i] : MANY_TOKENS;
    int32_t before = *n;
    for (st_node_id v = 0; v < p->graph->n_node; v++) {
        setun_args a;
        setun_cost cost = {0, 0, 0};
        int32_t i = 0;
        ST_TRY(st_node_args(p->graph, v, t->arena, &a, err));
        if (a.op->cost)
            a.op->cost(&a, &cost);
        double c = many ? cost.int_ops + cost.float_ops : cost.bytes;
        all += c;
        if (!n_knobs(a.op) || !p->kernel[v])
            continue;
        const char *question = question_of(t, &a);
        if (!question)
            return st_fail(err, SETUN_NO_MEMORY, "no memory for the tuner");
        while (i < *n && strcmp(s[i].question, question))
            i++;
        if (i == MAX_SUBJECTS || i < before) /* a row of logits is the same work behind many tokens */
            continue;
        if (i == *n) {
            memset(&s[i], 0, sizeof s[i]);
            s[i].question = question;
            s[i].kernel = p->kernel[v];
            s[i].shape = a;
            s[i].many = many;
            ++*n;
        }
        s[i].cost += c;
        if (s[i].n_node == (many ? 2 : MAX_NODES))
            continue;
        setun_args *bound = &s[i].node[s[i].n_node++];
        ST_TRY(st_node_args(p->graph, v, t->arena, bound, err));
        for (uint32_t j = 0; j < bound->n_in + bound->n_out; j++)
            st_view_bind((setun_view *)(uintptr_t)view_of(bound, j), size);
    }
    int32_t kept = before;
    for (int32_t i = before; i < *n; i++) {
        subject one = s[i];
        one.share = one.cost / (all > 0 ? all : 1);
        if (one.share < LEAST_SHARE)
            continue;
        int32_t at = kept++;
        for (; at > before && s[at - 1].share < one.share; at--) /* what matters most first */
            s[at] = s[at - 1];
        s[at] = one;
    }
    *n = kept;
    return SETUN_OK;
}

/* Put the better kernel where the question is asked, and remember the choice. */
static setun_status settle(st_tune *t, setun_model *m, const subject *s, const st_kernel *best, const int64_t *knob,
                           int64_t gain, setun_error *err)
{
    st_str choice = {0};
    for (int i = 0; i < m->n_program; i++)
        for (st_node_id v = 0; v < m->program[i].graph->n_node; v++) {
            setun_args a;
            if (m->program[i].kernel[v] != s->kernel)
                continue;
            st_mark mark = st_arena_mark(t->arena);
            ST_TRY(st_node_args(m->program[i].graph, v, t->arena, &a, err));
            const char *question = question_of(t, &a); /* others may share the kernel that is replaced */
            if (!question)
                return st_fail(err, SETUN_NO_MEMORY, "no memory for the tuner");
            if (strcmp(question, s->question) == 0)
                m->program[i].kernel[v] = best;
            st_arena_rewind(t->arena, mark);
        }
    print_knobs(s->shape.op, knob, &choice);
    setun_status status = choice.failed ? st_fail(err, SETUN_NO_MEMORY, "no memory for the tuner")
                                        : st_choices_put(&t->choices, s->question, choice.text, gain, err);
    if (status == SETUN_OK) {
        note_used(t, s->question);
        st_logf(&t->engine->log, ST_LOG_INFO, "tuned %s: %s, %.1f %% faster than the defaults", s->question, choice.text,
                0.1 * (double)gain);
    }
    st_str_free(&choice);
    return status;
}

/* Candidates that lost are no kernels of the model. */
static void drop_losers(setun_model *m)
{
    st_kernels *k = m->kernels;
    int32_t kept = 0;
    for (int32_t i = 0; i < k->n; i++) {
        int used = 0;
        for (int j = 0; j < m->n_program && !used; j++)
            for (st_node_id v = 0; v < m->program[j].graph->n_node && !used; v++)
                used = m->program[j].kernel[v] == k->kernel[i];
        if (used)
            k->kernel[kept++] = k->kernel[i];
    }
    k->n = k->n_built = kept;
}

/* Is there a remembered choice, one that is still a candidate? */
static int is_known(const st_tune *t, const subject *s)
{
    int64_t knob[SETUN_MAX_KNOBS];
    const st_choice *c = st_choices_find(&t->choices, s->question);
    return c && parse_knobs(s->shape.op, c->choice, knob) && t->engine->o.tune != SETUN_TUNE_AGAIN;
}

static int64_t bytes_per_token(const st_graph *g)
{
    int64_t sum = 0;
    for (uint32_t v = 0; v < g->n_value; v++)
        if (g->value[v].kind == ST_CONST)
            sum += setun_view_bytes(&g->value[v].view);
    return sum;
}

setun_status st_tune_measure(st_tune *t, setun_model *m, st_pool *pool, setun_error *err)
{
    const setun_options *o = &t->engine->o;
    int again = o->tune == SETUN_TUNE_AGAIN;
    int32_t n = 0;
    if (!t->engine->codegen_file || !t->engine->compiles || !m->backend[0]->backend_info.wants_code || o->tune == SETUN_TUNE_NEVER ||
        o->tune >= SETUN_TUNE_FORCE || (!again && (!t->choices.path || bytes_per_token(m->program[ST_ONE].graph) < LEAST_BYTES)))
        return SETUN_OK;
    subject *s = calloc(MAX_SUBJECTS, sizeof *s);
    if (!s)
        return st_fail(err, SETUN_NO_MEMORY, "no memory for the tuner");
    int one = m->n_program > ST_TOP ? ST_TOP : ST_ONE, many = m->n_program > ST_TOP ? ST_MANY_TOP : ST_MANY;
    setun_status status = find_subjects(t, &m->program[one], 0, s, &n, err);
    if (status == SETUN_OK)
        status = find_subjects(t, &m->program[many], 1, s, &n, err);
    double left = 0;
    int fresh = 0;
    for (int32_t i = 0; i < n; i++)
        left += is_known(t, &s[i]) ? 0 : s[i].share;
    if (left > 0)
        st_logf(&t->engine->log, ST_LOG_INFO, "tuning kernels for this machine, once, for about %d seconds",
                (int)(BUDGET_NS / 1000000000));
    int64_t end = st_now_ns() + BUDGET_NS;
    for (int32_t i = 0; i < n && status == SETUN_OK; i++) {
        const st_kernel *best = s[i].kernel;
        int64_t knob[SETUN_MAX_KNOBS], gain, now = st_now_ns();
        if (is_known(t, &s[i]) || now >= end) /* what there was no time for is measured next time */
            continue;
        status = tune_subject(t, m, &s[i], pool, now + (int64_t)((double)(end - now) * s[i].share / left), &best, knob, &gain,
                              err);
        left -= s[i].share;
        if (status == SETUN_DECLINED) { /* no kernel with the defaults: nothing to compare with */
            status = SETUN_OK;
            continue;
        }
        if (status == SETUN_OK)
            status = settle(t, m, &s[i], best, knob, gain, err);
        fresh++;
    }
    for (int32_t i = 0; i < n; i++)
        for (int j = 0; j < ST_MAX_ARGS; j++)
            free(s[i].data[j]);
    free(s);
    if (status != SETUN_OK || !fresh)
        return status;
    drop_losers(m);
    setun_error why;
    if (st_choices_save(&t->choices, &why) != SETUN_OK) /* costs the next start some time, nothing else */
        st_logf(&t->engine->log, ST_LOG_WARN, "what was tuned is not kept: %s", why.text);
    return SETUN_OK;
}
