/* runtime/lab_speed.c -- speeds of setun lab: variants side by side, in turns.
 *
 *     round          1           2           3           ...
 *     who runs       base a b    a b base    b base a    ...
 *
 * What else a machine does, and how warm it is, changes from minute to minute.  So variants that are to be compared
 * are loaded together and take turns, and a variant's ratio to the base is of neighbouring turns: what slows down a
 * round of both is no difference between them.  As many are loaded as memory lets, the base among them each time;
 * results are kept when such a group is done. */
#include <stdlib.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/memory.h"
#include "runtime/lab.h"
#include "runtime/session.h"

#define MOST_RUNS 101 /* as many as setun.lab lets through */
#define TOGETHER 8    /* variants of a group, the base among them */

/* A loaded variant. */
typedef struct runner {
    int32_t        variant;
    setun_model   *m;
    int32_t       *id; /* tokens of the text, for this model */
    int64_t        n_id;
    double         speed[2][MOST_RUNS]; /* tokens per second of prefill and of decoding, round by round */
} runner;

typedef struct group {
    runner  run[TOGETHER];
    int32_t n;
} group;

static void leave(group *g)
{
    for (int32_t i = 0; i < g->n; i++) {
        setun_free(g->run[i].id);
        setun_model_free(g->run[i].m);
    }
    g->n = 0;
}

static setun_status enter(st_lab_run *r, group *g, int32_t variant, setun_error *err)
{
    const st_script_lab *x = r->l->x;
    runner *one = &g->run[g->n++];
    *one = (runner){.variant = variant};
    if (r->o->begin)
        r->o->begin(r->o->user, x->variant[variant].name, "loading, to be timed");
    setun_status st = st_lab_load(r, variant, &one->m, err);
    if (st == SETUN_OK)
        st = st_lab_tokens(r, one->m, &one->id, &one->n_id, err);
    if (st == SETUN_OK && x->prefill + x->decode > one->m->n_ctx)
        st = st_fail(err, SETUN_FULL, "prefill and decode of setun.lab are %lld tokens, and the context holds %lld",
                     (long long)(x->prefill + x->decode), (long long)one->m->n_ctx);
    return st_lab_wrap(r, variant, st, err);
}

/* Would one more like the last fit twice?  The base and one other are loaded in any case. */
static int has_room(const group *g)
{
    const setun_model_stats *s = &g->run[g->n - 1].m->stats;
    int64_t room = st_memory_available();
    return g->n < TOGETHER && (g->n < 2 || room < 0 || (s->weight_bytes + s->kv_bytes + s->temp_bytes) < room / 2);
}

/* ---------------------------------------------------------------- a turn */

static setun_status feed_prompt(const st_script_lab *x, const runner *one, setun_session *s, setun_error *err)
{
    ST_TRY(setun_session_rewind(s, 0, err));
    for (int64_t done = 0, n; done < x->prefill; done += n) {
        n = x->prefill - done < one->n_id ? x->prefill - done : one->n_id;
        ST_TRY(setun_session_feed(s, one->id, n, done + n == x->prefill ? SETUN_LOGITS_TOP : SETUN_LOGITS_NONE, NULL, err));
    }
    return SETUN_OK;
}

static setun_status feed_token(const st_script_lab *x, const runner *one, setun_session *s, int64_t i, setun_error *err)
{
    return setun_session_feed(s, &one->id[(x->prefill + i) % one->n_id], 1, SETUN_LOGITS_TOP, NULL, err);
}

/* A prompt from an empty context, then single tokens of the same text, with what greedy decoding asks for.  Before it
 * the same prompt and a token that are not timed: they meet what the variant before has left in the caches. */
static setun_status run_once(const st_script_lab *x, const runner *one, setun_session *s, double speed[2], setun_error *err)
{
    ST_TRY(feed_prompt(x, one, s, err));
    ST_TRY(feed_token(x, one, s, 0, err));
    int64_t begin = st_now_ns();
    ST_TRY(feed_prompt(x, one, s, err));
    int64_t middle = st_now_ns();
    for (int64_t i = 0; i < x->decode; i++)
        ST_TRY(feed_token(x, one, s, i, err));
    int64_t end = st_now_ns();
    speed[0] = 1e9 * (double)x->prefill / (double)(middle - begin + 1);
    speed[1] = 1e9 * (double)x->decode / (double)(end - middle + 1);
    return SETUN_OK;
}

/* With a session of its own: threads are bound to the cores beside the one where we are when it is made, and those
 * of several sessions would be in each other's way. */
static setun_status take_turn(const st_lab_run *r, runner *one, int64_t round, setun_error *err)
{
    setun_session *s = NULL;
    double speed[2] = {0};
    setun_status st = setun_session_new(&s, one->m, err);
    if (st == SETUN_OK)
        st = run_once(r->l->x, one, s, speed, err);
    setun_session_free(s);
    for (int k = 0; k < 2; k++)
        one->speed[k][round] = speed[k];
    return st_lab_wrap(r, one->variant, st, err);
}

static setun_status take_turns(const st_lab_run *r, group *g, setun_error *err)
{
    const st_script_lab *x = r->l->x;
    int64_t total = x->runs * g->n, done = 0;
    for (int64_t round = 0; round < x->runs; round++)
        for (int32_t i = 0; i < g->n; i++) { /* each is first in its turn: none is always behind the same one */
            ST_TRY(take_turn(r, &g->run[(round + i) % g->n], round, err));
            if (r->o->progress && r->o->progress(r->o->user, ++done, total))
                return st_fail(err, SETUN_CANCELLED, "cancelled");
        }
    return SETUN_OK;
}

/* ---------------------------------------------------------------- results */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Median, least and most of x[i], or of x[i] / y[i]. */
static void put_range(st_lab_result *to, const char *const name[3], const double *x, const double *y, int64_t n)
{
    double v[MOST_RUNS];
    for (int64_t i = 0; i < n; i++)
        v[i] = y ? x[i] / y[i] : x[i];
    qsort(v, (size_t)n, sizeof *v, by_value);
    st_lab_put(to, name[0], (v[(n - 1) / 2] + v[n / 2]) / 2);
    st_lab_put(to, name[1], v[0]);
    st_lab_put(to, name[2], v[n - 1]);
}

static void put_speeds(const st_lab_run *r, const runner *one, const runner *base)
{
    static const char *const name[2][3] = {{"prefill_tokens_s", "prefill_least", "prefill_most"},
                                           {"decode_tokens_s", "decode_least", "decode_most"}};
    static const char *const ratio[2][3] = {{"prefill_ratio", "prefill_ratio_least", "prefill_ratio_most"},
                                            {"decode_ratio", "decode_ratio_least", "decode_ratio_most"}};
    st_lab_result *to = st_lab_at(r, one->variant, ST_LAB_SPEED);
    to->n = 0;
    to->is_speed = 1;
    for (int k = 0; k < 2; k++)
        put_range(to, name[k], one->speed[k], NULL, r->l->x->runs);
    for (int k = 0; k < 2 && one != base; k++)
        put_range(to, ratio[k], one->speed[k], base->speed[k], r->l->x->runs);
    st_lab_put(to, "load_s", 1e-9 * (double)one->m->stats.load_ns);
    st_lab_put(to, "threads", (double)one->m->stats.n_threads);
}

/* The next missing variants beside the base. */
static setun_status time_group(st_lab_run *r, group *g, setun_error *err)
{
    int32_t base = r->l->x->base;
    ST_TRY(enter(r, g, base, err));
    for (int32_t i = 0; i < r->l->x->n_variant && has_room(g); i++)
        if (i != base && st_lab_missing(r, i, ST_LAB_SPEED))
            ST_TRY(enter(r, g, i, err));
    if (r->o->begin)
        r->o->begin(r->o->user, g->n == 1 ? r->l->x->variant[base].name : "variants in turn", st_script_lab_measure(ST_LAB_SPEED));
    ST_TRY(take_turns(r, g, err));
    for (int32_t i = 0; i < g->n; i++)
        if (st_lab_missing(r, g->run[i].variant, ST_LAB_SPEED)) /* the base may have been there */
            put_speeds(r, &g->run[i], &g->run[0]);
    return st_lab_results_save(&r->results, r->json_path, err);
}

setun_status st_lab_speed(st_lab_run *r, setun_error *err)
{
    setun_status st = SETUN_OK;
    group *g = calloc(1, sizeof *g);
    if (!g)
        return st_fail(err, SETUN_NO_MEMORY, "no memory to time variants");
    for (int32_t i = 0; i < r->l->x->n_variant && st == SETUN_OK; i++)
        if (st_lab_missing(r, i, ST_LAB_SPEED)) {
            st = time_group(r, g, err); /* of which i is one, and others behind it may be */
            leave(g);
        }
    free(g);
    return st;
}
