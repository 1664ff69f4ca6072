/* runtime/perplexity.c -- how well a model predicts a text, by several conventions, and how far two
 * models' predictions are from each other.
 *
 * A convention cuts the tokens of a text into windows and says which tokens of a window count.  All
 * else is common to them: each window is read from an empty context, every counted token adds
 * -ln of its probability, and ppl is e to their mean.  docs/numerics.md has the rules.
 *
 * Sums are in binary64 in the order of the text, so the figure depends on the logits' bits and on
 * libm's exp and log only. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/hash.h"
#include "runtime/divergence.h"
#include "runtime/model.h"
#include "runtime/saved_logits.h"
#include "setun/setun.h"

static const char *const names[] = {"disjoint", "llama.cpp", "huggingface"};
#define N_NAMES ((int32_t)(sizeof names / sizeof names[0]))

const char *setun_ppl_name(int32_t convention) { return convention >= 0 && convention < N_NAMES ? names[convention] : NULL; }

/* One window: tokens of the text, in front of them or instead of the first one BOS; counted are those
 * from place `first` on, each predicted by what stands before it. */
typedef struct window {
    int64_t begin, n, first;
    int     bos_in_front, bos_instead;
} window;

typedef struct run {
    const setun_model       *m;
    const setun_ppl_options *o;
    setun_ppl               *r;
    setun_session           *s;
    int32_t                 *id, *fed; /* of the text; of one window */
    int64_t                  n_id, window, stride, n_window;
    int32_t                  bos;
    st_saved_out            *save;
    st_saved_in              base;
    double                   sum, squares, ratio_sum, ratio_squares, kl_sum, kl_squares;
    double                  *kl;  /* of every counted token */
    int64_t                  done, agree;
} run;

static window window_at(const run *r, int64_t i)
{
    window w = {i * r->window, r->window, 1, 0, 0};
    if (r->o->convention == SETUN_PPL_DISJOINT) {
        w.bos_in_front = r->bos >= 0;
    } else if (r->o->convention == SETUN_PPL_LLAMA_CPP) {
        w.bos_instead = r->bos >= 0;
        w.first = r->window / 2 + 1;
    } else {
        w.begin = i * r->stride;
        w.n = r->n_id - w.begin < r->window ? r->n_id - w.begin : r->window;
        if (i > 0 && r->stride < r->window) /* what the window before ended with is new from here on */
            w.first = r->window - r->stride;
    }
    return w;
}

static int64_t counted(const window *w) { return w->n + w->bos_in_front - w->first; }

/* Tokens of the text, and how many windows they make. */
static setun_status cut(run *r, const char *text, size_t n_bytes, setun_error *err)
{
    const setun_vocab *v = setun_model_vocab(r->m);
    int32_t kind = r->o->convention;
    const char *path = r->m->path;
    r->bos = setun_vocab_bos(v);
    ST_TRY(setun_vocab_encode(v, text, n_bytes, kind == SETUN_PPL_DISJOINT ? 0 : SETUN_ENCODE_BOS, &r->id, &r->n_id, err));
    r->window = r->o->window ? r->o->window : kind == SETUN_PPL_DISJOINT ? 256 : kind == SETUN_PPL_LLAMA_CPP ? 512 : setun_model_n_ctx(r->m);
    r->stride = kind != SETUN_PPL_HUGGINGFACE ? r->window : r->o->stride ? r->o->stride : (r->window + 1) / 2;
    int64_t least = kind == SETUN_PPL_LLAMA_CPP ? 2 * r->window : kind == SETUN_PPL_DISJOINT ? r->window : 2;
    if (r->window < (kind == SETUN_PPL_LLAMA_CPP ? 4 : 2) || r->stride < 1 || r->stride > r->window)
        return st_fail(err, SETUN_BAD_ARG, "windows of %lld tokens every %lld are not possible with convention %s",
                       (long long)r->window, (long long)r->stride, names[kind]);
    if (r->window > setun_model_n_ctx(r->m))
        return st_fail(err, SETUN_BAD_ARG, "%s: a window of %lld does not fit a context of %lld", path, (long long)r->window,
                       (long long)setun_model_n_ctx(r->m));
    if (r->n_id < least)
        return st_fail(err, SETUN_BAD_ARG, "the text has %lld tokens; convention %s with a window of %lld needs %lld",
                       (long long)r->n_id, names[kind], (long long)r->window, (long long)least);
    r->n_window = r->n_id / r->window;
    if (kind == SETUN_PPL_HUGGINGFACE) /* the last one is the first that reaches the end */
        r->n_window = r->n_id <= r->window ? 1 : 1 + (r->n_id - r->window + r->stride - 1) / r->stride;
    if (r->o->windows && r->n_window > r->o->windows)
        r->n_window = r->o->windows;
    r->r->tokens = 0;
    for (int64_t i = 0; i < r->n_window; i++) {
        window w = window_at(r, i);
        r->r->tokens += counted(&w);
    }
    r->fed = malloc((size_t)(r->window + 1) * sizeof *r->fed);
    return r->fed ? SETUN_OK : st_fail(err, SETUN_NO_MEMORY, "no memory for a window of %lld tokens", (long long)r->window);
}

/* ---------------------------------------------------------------- one token */

static double log_sum(const float *x, int64_t n, int64_t *top)
{
    double sum = 0;
    *top = 0;
    for (int64_t i = 1; i < n; i++)
        if (x[i] > x[*top])
            *top = i;
    for (int64_t i = 0; i < n; i++)
        sum += exp((double)x[i] - (double)x[*top]);
    return (double)x[*top] + log(sum);
}

double st_divergence(const float *p, const float *q, int64_t n, double *log_p, int *same_top)
{
    int64_t top_p, top_q;
    double kl = 0;
    *log_p = log_sum(p, n, &top_p);
    double log_q = log_sum(q, n, &top_q);
    for (int64_t i = 0; i < n; i++) {
        double lp = (double)p[i] - *log_p;
        kl += exp(lp) * (lp - ((double)q[i] - log_q));
    }
    *same_top = top_p == top_q;
    return kl;
}

/* p: the saved run's row, q: this one's. */
static setun_status compare(run *r, const float *q, int32_t token, double nll, setun_error *err)
{
    const float *p;
    double log_p;
    int same;
    ST_TRY(st_saved_next(&r->base, token, &p, err));
    double kl = st_divergence(p, q, r->m->n_vocab, &log_p, &same);
    double ratio = nll - (log_p - (double)p[token]);
    r->ratio_sum += ratio;
    r->ratio_squares += ratio * ratio;
    r->kl_sum += kl;
    r->kl_squares += kl * kl;
    r->kl[r->done] = kl;
    r->agree += same;
    return SETUN_OK;
}

static setun_status take(run *r, const float *logits, int32_t token, setun_error *err)
{
    double nll = setun_nll(logits, r->m->n_vocab, token);
    if (!isfinite(nll))
        return st_fail(err, SETUN_BAD_FILE, "%s: the logits of predicted token %lld are not finite", r->m->path, (long long)r->done);
    r->sum += nll;
    r->squares += nll * nll;
    if (r->save)
        ST_TRY(st_saved_write(r->save, token, logits, err));
    if (r->o->against)
        ST_TRY(compare(r, logits, token, nll, err));
    r->done++;
    return SETUN_OK;
}

static setun_status read_window(run *r, const window *w, setun_error *err)
{
    int64_t n = w->n + w->bos_in_front, most = setun_model_n_outputs(r->m), step;
    const float *logits;
    memcpy(r->fed + w->bos_in_front, r->id + w->begin, (size_t)w->n * sizeof *r->fed);
    if (w->bos_in_front || w->bos_instead)
        r->fed[0] = r->bos;
    ST_TRY(setun_session_rewind(r->s, 0, err));
    if (w->first > 1)
        ST_TRY(setun_session_feed(r->s, r->fed, w->first - 1, SETUN_LOGITS_NONE, NULL, err));
    for (int64_t i = w->first - 1; i < n - 1; i += step) { /* the last one is only predicted */
        step = n - 1 - i < most ? n - 1 - i : most;
        if (r->o->progress && r->o->progress(r->o->user, r->done, r->r->tokens, r->done ? exp(r->sum / (double)r->done) : 0))
            return st_fail(err, SETUN_CANCELLED, "cancelled by the caller after %lld tokens", (long long)r->done);
        ST_TRY(setun_session_feed(r->s, r->fed + i, step, SETUN_LOGITS_ALL, &logits, err));
        for (int64_t k = 0; k < step; k++)
            ST_TRY(take(r, logits + k * r->m->n_vocab, r->fed[i + k + 1], err));
    }
    return SETUN_OK;
}

/* ---------------------------------------------------------------- the whole text */

/* Of a mean of n values: as llama.cpp has it. */
static double standard_error(double sum, double squares, int64_t n)
{
    double mean = sum / (double)n, variance = squares / (double)n - mean * mean;
    return variance > 0 && n > 1 ? sqrt(variance / (double)(n - 1)) : 0;
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Between two values in order, in proportion. */
static double percentile(const double *sorted, int64_t n, double share)
{
    double at = share * (double)(n - 1);
    int64_t i = (int64_t)at;
    return i + 1 < n ? sorted[i] + (at - (double)i) * (sorted[i + 1] - sorted[i]) : sorted[n - 1];
}

static void finish(run *r)
{
    setun_ppl *p = r->r;
    double n = (double)r->done;
    p->nll = r->sum / n;
    p->ppl = exp(p->nll);
    p->error = p->ppl * standard_error(r->sum, r->squares, r->done);
    if (!r->o->against)
        return;
    static const double shares[] = {0.5, 0.9, 0.95, 0.99, 0.999};
    qsort(r->kl, (size_t)r->done, sizeof *r->kl, compare_doubles);
    for (int i = 0; i < 5; i++)
        p->kl_at[i] = percentile(r->kl, r->done, shares[i]);
    p->kl = r->kl_sum / n;
    p->kl_error = standard_error(r->kl_sum, r->kl_squares, r->done);
    p->kl_max = r->kl[r->done - 1];
    p->same_top = (double)r->agree / n;
    p->same_top_error = r->done > 1 ? sqrt(p->same_top * (1 - p->same_top) / (n - 1)) : 0;
    p->ratio = exp(r->ratio_sum / n);
    p->ratio_error = p->ratio * standard_error(r->ratio_sum, r->ratio_squares, r->done);
    p->base_ppl = exp((r->sum - r->ratio_sum) / n);
}

/* Every token's bytes, in order: what ids mean. */
static uint64_t hash_vocab(const setun_vocab *v)
{
    uint64_t h = ST_HASH_INIT;
    for (int64_t id = 0; id < setun_vocab_size(v); id++) {
        const char *bytes;
        size_t n;
        uint8_t none = 0xff; /* in no UTF-8: where one ends */
        if (setun_vocab_piece(v, (int32_t)id, 1, &bytes, &n, NULL) == SETUN_OK)
            h = st_hash(h, bytes, n);
        h = st_hash(h, &none, 1);
    }
    return h;
}

static setun_status open_files(run *r, setun_error *err)
{
    const setun_ppl_options *o = r->o;
    st_saved_head h = {o->convention, r->window, r->stride, r->n_window, r->r->tokens, r->m->n_vocab, ST_HASH_INIT, 0};
    if (!o->save && !o->against)
        return SETUN_OK;
    for (int64_t i = 0; i < r->n_id; i++) {
        uint32_t u = (uint32_t)r->id[i];
        const uint8_t bytes[4] = {(uint8_t)u, (uint8_t)(u >> 8), (uint8_t)(u >> 16), (uint8_t)(u >> 24)};
        h.text = st_hash(h.text, bytes, 4);
    }
    h.vocab = hash_vocab(setun_model_vocab(r->m));
    r->r->save_bytes = o->save ? st_saved_bytes(&h) : 0;
    if (o->save && r->r->save_bytes < 0)
        return st_fail(err, SETUN_FULL, "%s: %lld rows of %lld logits are more than a file can hold", o->save, (long long)h.tokens,
                       (long long)h.n_vocab);
    if (o->against) {
        ST_TRY(st_saved_open(&r->base, o->against, &h, err));
        r->kl = malloc((size_t)h.tokens * sizeof *r->kl);
        if (!r->kl)
            return st_fail(err, SETUN_NO_MEMORY, "no memory for %lld divergences", (long long)h.tokens);
    }
    if (o->begin)
        o->begin(o->user, r->r);
    return o->save ? st_saved_create(&r->save, o->save, &h, err) : SETUN_OK;
}

setun_status setun_perplexity(const setun_model *m, const char *text, size_t n_bytes, const setun_ppl_options *o, setun_ppl *out,
                              setun_error *err)
{
    uint32_t size = out->size;
    setun_ppl result = {.size = sizeof result};
    run r = {.m = m, .o = o, .r = &result};
    if (!setun_ppl_name(o->convention))
        return st_fail(err, SETUN_BAD_ARG, "there is no convention %d of perplexity", o->convention);
    setun_status s = cut(&r, text, n_bytes, err);
    result.window = r.window;
    result.stride = r.stride;
    result.windows = r.n_window;
    if (s == SETUN_OK)
        s = open_files(&r, err);
    if (s == SETUN_OK)
        s = setun_session_new(&r.s, m, err);
    for (int64_t i = 0; i < r.n_window && s == SETUN_OK; i++) {
        window w = window_at(&r, i);
        s = read_window(&r, &w, err);
    }
    if (s == SETUN_OK && o->progress)
        (void)o->progress(o->user, r.done, result.tokens, exp(r.sum / (double)r.done));
    if (s == SETUN_OK && r.save) {
        s = st_saved_commit(r.save, err);
        r.save = NULL;
    }
    if (s == SETUN_OK) {
        finish(&r);
        memcpy(out, &result, size < sizeof result ? size : sizeof result);
        out->size = size;
    }
    st_saved_abort(r.save);
    st_saved_close(&r.base);
    setun_session_free(r.s);
    free(r.kl);
    free(r.fed);
    free(r.id);
    return s;
}
