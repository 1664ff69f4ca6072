/* runtime/lab_measure.c -- what setun lab measures of one loaded model; speeds are in lab_speed.c.
 *
 * It depends on the inputs alone, bit for bit.  Layers are compared while the models run: what leaves a
 * layer is the last float result of its scope (runtime/trace.c), and its error is the length of the difference
 * as a share of the longer of the two:
 *
 *     error = sqrt(sum (x - y)^2 / max(sum x^2, sum y^2))        0: equal; 1.41: as different as chance */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "runtime/lab.h"
#include "runtime/requantise.h"
#include "runtime/session.h"
#include "runtime/trace.h"

#define MOST_LAYERS 10000

void st_lab_put(st_lab_result *to, const char *name, double x)
{
    to->value[to->n++] = (st_lab_value){name, x};
}

static int go_on(const st_lab_run *r, int64_t done, int64_t total)
{
    return !r->o->progress || r->o->progress(r->o->user, done, total) == 0;
}

/* ---------------------------------------------------------------- size */

void st_lab_size(st_lab_run *r)
{
    const setun_model_stats *s = &r->m->stats;
    st_lab_result *to = st_lab_at(r, r->variant, ST_LAB_SIZE);
    if (s->ternary_weights)
        st_lab_put(to, "bits_per_weight", 8.0 * (double)s->ternary_bytes / (double)s->ternary_weights);
    st_lab_put(to, "ternary_weights", (double)s->ternary_weights);
    st_lab_put(to, "ternary_bytes", (double)s->ternary_bytes);
    st_lab_put(to, "bytes_per_token", (double)s->weight_bytes);
    st_lab_put(to, "weights_changed", (double)r->m->packed.changed);
    st_lab_put(to, "scales_changed", (double)r->m->packed.scales_changed);
    if (r->m->packed.from_floats)
        st_lab_put(to, "weights_error", st_requantise_error(&r->m->packed));
}

/* ---------------------------------------------------------------- perplexity and divergence */

static int on_ppl(void *user, int64_t done, int64_t total, double ppl)
{
    (void)ppl;
    return !go_on(user, done, total);
}

/* One run gives both; a row that is already there is written again with the same numbers. */
static void put_ppl(st_lab_run *r, const setun_ppl *p, int compared)
{
    st_lab_result *to = st_lab_at(r, r->variant, ST_LAB_PERPLEXITY);
    to->n = 0;
    st_lab_put(to, "ppl", p->ppl);
    st_lab_put(to, "error", p->error);
    st_lab_put(to, "nll", p->nll);
    st_lab_put(to, "tokens", (double)p->tokens);
    st_lab_put(to, "window", (double)p->window);
    if (!compared)
        return;
    to = st_lab_at(r, r->variant, ST_LAB_KL);
    to->n = 0;
    st_lab_put(to, "kl", p->kl);
    st_lab_put(to, "error", p->kl_error);
    st_lab_put(to, "median", p->kl_at[0]);
    st_lab_put(to, "most", p->kl_max);
    st_lab_put(to, "same_top", p->same_top);
    st_lab_put(to, "same_top_error", p->same_top_error);
    st_lab_put(to, "ppl_ratio", p->ratio);
    st_lab_put(to, "ppl_ratio_error", p->ratio_error);
}

static int32_t convention_of(const char *name)
{
    int32_t c = 0;
    while (name && setun_ppl_name(c) && strcmp(setun_ppl_name(c), name) != 0)
        c++;
    return name ? c : SETUN_PPL_DISJOINT;
}

setun_status st_lab_perplexity(st_lab_run *r, int save, setun_error *err)
{
    const st_script_lab *x = r->l->x;
    int compare = st_lab_missing(r, r->variant, ST_LAB_KL);
    setun_ppl p = {.size = sizeof p};
    setun_ppl_options o = {.size = sizeof o, .convention = convention_of(x->convention), .window = x->window, .stride = x->stride,
                           .windows = x->windows, .save = save ? r->logits_path : NULL, .against = compare ? r->logits_path : NULL,
                           .progress = on_ppl, .user = r};
    if (!setun_ppl_name(o.convention))
        return st_fail(err, SETUN_UNKNOWN, "convention of setun.lab is '%s'; there are disjoint, llama.cpp and huggingface", x->convention);
    ST_TRY(setun_perplexity(r->m, r->text, (size_t)r->n_text, &o, &p, err));
    put_ppl(r, &p, compare);
    return SETUN_OK;
}

/* ---------------------------------------------------------------- layers */

typedef struct watcher {
    st_lab_layers *k;
    const st_trace *t;
} watcher;

static int grow(st_lab_layers *k, int64_t n)
{
    st_lab_layer *more = realloc(k->layer, (size_t)n * sizeof *more);
    if (!more)
        return 0;
    memset(more + k->n, 0, (size_t)(n - k->n) * sizeof *more);
    k->layer = more;
    k->n = n;
    return 1;
}

/* The last one of a layer stays.  Nodes may run in any order that suits their inputs, so their numbers say which is last. */
static void on_result(void *user, int64_t node, uint32_t port, const setun_view *v)
{
    const watcher *w = user;
    st_lab_layers *k = w->k;
    int64_t at = st_trace_layer(w->t->step[node].scope), bytes = v->dtype == SETUN_F32 ? setun_view_bytes(v) : 0;
    if (at < 0 || v->rank != 2 || bytes <= 0 || port || k->status != SETUN_OK)
        return;
    if (at >= MOST_LAYERS || (at >= k->n && !grow(k, at + 1))) {
        k->status = SETUN_NO_MEMORY;
        return;
    }
    st_lab_layer *l = &k->layer[at];
    if (l->x && node < l->node)
        return;
    float *x = realloc(l->x, (size_t)bytes);
    if (!x) {
        k->status = SETUN_NO_MEMORY;
        return;
    }
    memcpy(x, v->data, (size_t)bytes);
    *l = (st_lab_layer){node, v->dim[0], v->dim[1], x};
}

/* The first tokens of the text through the model, which keeps what leaves its layers. */
static setun_status watch(const st_lab_run *r, st_lab_layers *k, st_arena *arena, setun_error *err)
{
    setun_session *s = NULL;
    st_trace t = {.arena = arena, .see = on_result};
    watcher w = {k, &t};
    const float *logits = NULL;
    size_t bytes;
    t.user = &w;
    k->n_token = r->n_id < r->l->x->tokens ? r->n_id : r->l->x->tokens;
    k->n_vocab = r->m->n_vocab;
    bytes = (size_t)(k->n_token * k->n_vocab) * sizeof *k->logits;
    setun_status st = setun_session_new(&s, r->m, err);
    if (st == SETUN_OK)
        st = st_trace_start(s, &t, err);
    if (st == SETUN_OK)
        st = setun_session_feed(s, r->id, k->n_token, SETUN_LOGITS_ALL, &logits, err);
    if (st == SETUN_OK && (k->status != SETUN_OK || !(k->logits = malloc(bytes))))
        st = st_fail(err, SETUN_NO_MEMORY, "no memory to keep what leaves the layers");
    if (st == SETUN_OK)
        memcpy(k->logits, logits, bytes);
    setun_session_free(s);
    return st;
}

static setun_status keep_layers(const st_lab_run *r, st_lab_layers *k, setun_error *err)
{
    st_arena *arena = st_arena_new();
    setun_status st = arena ? watch(r, k, arena, err) : st_fail(err, SETUN_NO_MEMORY, "no memory to watch the layers");
    st_arena_free(arena);
    return st;
}

void st_lab_layers_free(st_lab_layers *k)
{
    for (int64_t i = 0; i < k->n; i++)
        free(k->layer[i].x);
    free(k->layer);
    free(k->logits);
    memset(k, 0, sizeof *k);
}

setun_status st_lab_keep_base(st_lab_run *r, setun_error *err) { return keep_layers(r, &r->base, err); }

/* Sums in double, in order. */
static double error_of(const float *x, const float *y, int64_t n)
{
    double d = 0, xx = 0, yy = 0;
    for (int64_t i = 0; i < n; i++) {
        double a = (double)x[i], b = (double)y[i];
        d += (a - b) * (a - b);
        xx += a * a;
        yy += b * b;
    }
    double most = xx > yy ? xx : yy;
    return most > 0 ? sqrt(d / most) : d; /* where both are 0, d is, too; NaN goes through */
}

static setun_status compare_layers(st_lab_run *r, const st_lab_layers *k, setun_error *err)
{
    const st_lab_layers *b = &r->base;
    st_lab_result *to = st_lab_at(r, r->variant, ST_LAB_LAYERS);
    double worst = 0;
    if (k->n != b->n || k->n_vocab != b->n_vocab || k->n_token != b->n_token)
        return st_fail(err, SETUN_BAD_SHAPE, "layers cannot be compared: %lld layers, %lld logits and %lld tokens, where the base has "
                       "%lld, %lld and %lld; leave \"layers\" out of measure", (long long)k->n, (long long)k->n_vocab,
                       (long long)k->n_token, (long long)b->n, (long long)b->n_vocab, (long long)b->n_token);
    to->layer = st_arena_array(r->arena, k->n + 1, sizeof *to->layer);
    if (!to->layer)
        return st_fail(err, SETUN_NO_MEMORY, "no memory for %lld layers", (long long)k->n);
    for (int64_t i = 0; i < k->n; i++) {
        const st_lab_layer *x = &b->layer[i], *y = &k->layer[i];
        if (!x->x || !y->x || x->rows != y->rows || x->columns != y->columns)
            return st_fail(err, SETUN_BAD_SHAPE, "what leaves layer %lld has another shape than in the base; leave \"layers\" out of measure",
                           (long long)i);
        to->layer[i] = error_of(x->x, y->x, x->rows * x->columns);
        worst = to->layer[i] > worst ? to->layer[i] : worst;
        if (!isfinite(to->layer[i]))
            return st_fail(err, SETUN_FAILED, "what leaves layer %lld is not finite", (long long)i);
    }
    double logits = error_of(b->logits, k->logits, k->n_token * k->n_vocab);
    if (!isfinite(logits))
        return st_fail(err, SETUN_FAILED, "the logits are not finite");
    to->n_layer = k->n;
    st_lab_put(to, "logits", logits);
    st_lab_put(to, "worst_layer", worst);
    st_lab_put(to, "tokens", (double)k->n_token);
    return SETUN_OK;
}

setun_status st_lab_layers_error(st_lab_run *r, setun_error *err)
{
    st_lab_layers k = {0};
    setun_status st = keep_layers(r, &k, err);
    if (st == SETUN_OK)
        st = compare_layers(r, &k, err);
    st_lab_layers_free(&k);
    return st;
}
