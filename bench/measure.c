/* bench/measure.c -- the runs of `setun bench`: speeds as medians, and what a session notes down.
 *
 * Speeds are taken with nothing noted; bytes, operations and densities come from a run of their own. */
#include "bench.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

double bench_seconds(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Of an even number of runs the mean of the two in the middle. */
bench_spread bench_sort(double *v, long long n)
{
    qsort(v, (size_t)n, sizeof *v, by_value);
    return (bench_spread){(v[(n - 1) / 2] + v[n / 2]) / 2, v[0], v[n - 1]};
}

void bench_say(const bench_run *r, const char *fmt, ...)
{
    va_list ap;
    if (!r->b || r->b->c.quiet || !isatty(2))
        return;
    fputs("\r\033[K", stderr);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
}

setun_status bench_check(setun_error *err)
{
    if (!cli_interrupted())
        return SETUN_OK;
    err->code = SETUN_CANCELLED;
    (void)snprintf(err->text, sizeof err->text, "interrupted; nothing was printed, because the runs were not complete");
    return SETUN_CANCELLED;
}

/* ---------------------------------------------------------------- tokens */

/* Without a text: the work does not depend on the tokens, except where operators skip zeros. */
static void make_any(int32_t *ids, int64_t n, int64_t n_vocab)
{
    for (int64_t i = 0; i < n; i++)
        ids[i] = (int32_t)((i * 7919 + 17) % n_vocab);
}

static setun_status read_text(bench_run *r, setun_error *err)
{
    const bench *b = r->b;
    int32_t *ids = NULL;
    int64_t n = 0;
    setun_status s = setun_vocab_encode(setun_model_vocab(r->m), b->text, b->n_text, SETUN_ENCODE_BOS, &ids, &n, err);
    if (s == SETUN_OK && n == 0) {
        s = err->code = SETUN_BAD_ARG;
        (void)snprintf(err->text, sizeof err->text, "%s has no tokens", b->file);
    }
    for (int64_t i = 0; s == SETUN_OK && i < r->n_ids; i++)
        r->ids[i] = ids[i % n];
    r->n_text = n < r->n_ids ? n : r->n_ids;
    setun_free(ids);
    return s;
}

/* A size that nobody asked for and that the context has no room for is left out. */
static int fits(const bench_run *r, const bench_list *l, int i, long long more)
{
    return l->given || l->v[i] + more <= setun_model_n_ctx(r->m);
}

setun_status bench_make_tokens(bench_run *r, setun_error *err)
{
    const bench *b = r->b;
    r->n_ids = BENCH_FIRST_TOKENS;
    for (int i = 0; i < b->prefill.n; i++)
        r->n_ids = b->prefill.v[i] > r->n_ids ? b->prefill.v[i] : r->n_ids;
    for (int i = 0; i < b->depth.n; i++)
        r->n_ids = b->depth.v[i] + b->n_decode > r->n_ids ? b->depth.v[i] + b->n_decode : r->n_ids;
    r->ids = malloc((size_t)r->n_ids * sizeof *r->ids);
    if (!r->ids)
        return SETUN_NO_MEMORY;
    if (b->text)
        return read_text(r, err);
    make_any(r->ids, r->n_ids, setun_model_n_vocab(r->m));
    return SETUN_OK;
}

/* ---------------------------------------------------------------- runs */

static int32_t want(const bench_run *r)
{
    return r->b->top && !r->b->c.o.full_head && r->b->top <= setun_model_n_vocab(r->m) ? SETUN_LOGITS_TOP : SETUN_LOGITS_LAST;
}

static setun_status feed_first(bench_run *r, long long n, setun_error *err)
{
    const float *logits;
    (void)setun_session_rewind(r->s, 0, NULL);
    setun_status s = setun_session_feed(r->s, r->ids, n, want(r), &logits, err);
    return s == SETUN_OK ? bench_check(err) : s;
}

static long long first_tokens(const bench_run *r)
{
    int64_t most = setun_model_n_ctx(r->m);
    return most < BENCH_FIRST_TOKENS ? most : BENCH_FIRST_TOKENS;
}

/* From the start of a short prompt to the logits of its end; picking a token from them takes microseconds. */
setun_status bench_first(bench_run *r, setun_error *err)
{
    double runs[BENCH_MAX_RUNS];
    r->n_first = (int)first_tokens(r);
    for (long long i = -1; i < r->b->n_run; i++) { /* run -1 is the cold one */
        bench_say(r, "first token, run %lld of %lld", i + 1, r->b->n_run);
        double t = bench_seconds();
        setun_status s = feed_first(r, r->n_first, err);
        if (s != SETUN_OK)
            return s;
        t = bench_seconds() - t;
        if (i < 0)
            r->first_cold = t;
        else
            runs[i] = t;
    }
    r->first = bench_sort(runs, r->b->n_run);
    return SETUN_OK;
}

/* Backends that cannot show their steps leave the account empty; speeds are measured all the same. */
static int note(bench_run *r, uint32_t what)
{
    return setun_session_note(r->s, what, NULL) == SETUN_OK;
}

static void keep_work(bench_run *r, int decode, setun_work *w)
{
    w->size = sizeof *w;
    setun_session_work(r->s, decode, w);
    r->density.size = sizeof r->density;
    setun_session_density(r->s, -1, &r->density);
    (void)note(r, 0);
}

setun_status bench_prefill(bench_run *r, setun_error *err)
{
    double runs[BENCH_MAX_RUNS];
    const bench_list *l = &r->b->prefill;
    setun_status s = SETUN_OK;
    for (int k = 0; k < l->n && s == SETUN_OK; k++) {
        bench_stage *stage = &r->prefill[r->n_prefill];
        stage->size = l->v[k];
        if (!stage->size || !fits(r, l, k, 0))
            continue;
        for (long long i = -1; i < r->b->n_run && s == SETUN_OK; i++) {
            bench_say(r, "prefill of %lld, run %lld of %lld", stage->size, i + 1, r->b->n_run);
            double t = bench_seconds();
            s = feed_first(r, stage->size, err);
            if (i >= 0)
                runs[i] = (double)stage->size / (bench_seconds() - t);
        }
        if (s != SETUN_OK)
            return s;
        stage->rate = bench_sort(runs, r->b->n_run);
        if (note(r, SETUN_NOTE_WORK | SETUN_NOTE_DENSITY))
            s = feed_first(r, stage->size, err);
        keep_work(r, 0, &stage->work);
        r->n_prefill++;
    }
    return s;
}

/* n tokens one by one behind `depth` others. */
static setun_status decode(bench_run *r, long long depth, long long n, bench_stage *stage, setun_error *err)
{
    const float *logits;
    setun_top last = {.size = sizeof last};
    setun_status s = setun_session_rewind(r->s, depth, err);
    for (long long j = 0; j < n && s == SETUN_OK; j++) {
        s = setun_session_feed(r->s, &r->ids[(depth + j) % r->n_ids], 1, want(r), &logits, err);
        setun_session_top(r->s, &last);
        if (stage) {
            stage->full += logits != NULL;
            stage->survivors += logits ? 0.0 : (double)last.survivors;
        }
        if (s == SETUN_OK)
            s = bench_check(err);
    }
    return s;
}

static setun_status fill(bench_run *r, long long depth, setun_error *err)
{
    bench_say(r, "a context of %lld tokens", depth);
    setun_status s = setun_session_rewind(r->s, 0, err);
    return s == SETUN_OK && depth ? setun_session_feed(r->s, r->ids, depth, SETUN_LOGITS_NONE, NULL, err) : s;
}

setun_status bench_decode(bench_run *r, setun_error *err)
{
    double runs[BENCH_MAX_RUNS];
    const bench_list *l = &r->b->depth;
    long long n = r->b->n_decode;
    for (int k = 0; k < l->n && n; k++) {
        bench_stage *stage = &r->decode[r->n_decode];
        setun_density before = r->density;
        stage->size = l->v[k];
        if (!fits(r, l, k, n))
            continue;
        setun_status s = fill(r, stage->size, err);
        for (long long i = -1; i < r->b->n_run && s == SETUN_OK; i++) {
            bench_say(r, "decode behind %lld, run %lld of %lld", stage->size, i + 1, r->b->n_run);
            double t = bench_seconds();
            s = decode(r, stage->size, i < 0 && n > 8 ? 8 : n, i < 0 ? NULL : stage, err);
            if (i >= 0)
                runs[i] = (double)n / (bench_seconds() - t);
        }
        if (s != SETUN_OK)
            return s;
        stage->rate = bench_sort(runs, r->b->n_run);
        stage->survivors /= (double)(n * r->b->n_run);
        stage->full /= (double)(n * r->b->n_run);
        if (note(r, SETUN_NOTE_WORK | SETUN_NOTE_DENSITY))
            s = decode(r, stage->size, n < 16 ? n : 16, NULL, err);
        keep_work(r, 1, &stage->work);
        if (r->n_prefill || r->n_decode) /* the first stage has more tokens, or as many */
            r->density = before;
        r->n_decode++;
        if (s != SETUN_OK)
            return s;
    }
    return SETUN_OK;
}

setun_status bench_memory(bench_run *r, setun_error *err)
{
    r->memory.size = sizeof r->memory;
    r->has_memory = setun_session_memory(r->s, &r->memory, NULL) == SETUN_OK; /* not every system tells */
    return bench_check(err);
}

/* Decode comes first: filling its context is prefill, which must not be noted as such. */
setun_status bench_roofline(bench_run *r, setun_error *err)
{
    setun_status s = SETUN_OK;
    long long n = r->n_decode ? r->b->n_decode : 0, length = r->n_prefill ? r->prefill[r->n_prefill - 1].size : 0;
    if (!r->b->roofline)
        return SETUN_OK;
    if (n)
        s = fill(r, r->decode[0].size, err);
    if (s == SETUN_OK)
        s = setun_session_note(r->s, SETUN_NOTE_TIME | SETUN_NOTE_WORK, err);
    bench_say(r, "timing every operator");
    if (s == SETUN_OK && n)
        for (int i = 0; i < 2 && s == SETUN_OK; i++) /* at least two tokens are needed, 32 are enough */
            s = decode(r, r->decode[0].size, n < 16 ? n : 16, NULL, err);
    for (int i = 0; i < 4 && s == SETUN_OK && length; i++)
        s = feed_first(r, length, err);
    (void)setun_session_note(r->s, 0, NULL);
    return s;
}

double bench_bytes(const setun_work *w)
{
    double sum = 0;
    for (int c = 0; c <= SETUN_CLASS_KV; c++)
        sum += w->bytes[c];
    return sum;
}
