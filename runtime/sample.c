/* runtime/sample.c -- from logits to a token.
 *
 * Order: repeat penalty, temperature, top-k, top-p, min-p, then one draw.  Deterministic in the seed:
 * the generator is counter-based, and ties are broken by token id.
 *
 * With temperature only, the draw is the arg max of logit / temp + noise (setun_gumbel in numerics.h),
 * because that can be found without most logits.  Where top-k or min-p limits the draw, the largest
 * logits are enough.  A repeat penalty above 1 lowers the logits of at most repeat_last tokens and no
 * others.  So if a token is among the k best after it, then of those before it in the old order fewer
 * than k are not lowered, and at most repeat_last are: it was among the k + repeat_last best, and the
 * same holds with ties, which ids break in both orders.  A penalty below 1 may lift a token from anywhere,
 * and top-p alone needs the sum over all: these read all logits. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "setun/numerics.h"
#include "setun/setun.h"

typedef struct candidate {
    float   logit;
    int32_t id;
} candidate;

struct setun_sampler {
    setun_sampling p;
    int64_t        n_vocab;
    candidate     *c;
    int32_t       *recent; /* ring of repeat_last tokens */
    int64_t        n_recent;
    uint64_t       count;  /* draws so far */
};

void setun_sampling_init(setun_sampling *p)
{
    memset(p, 0, sizeof *p);
    p->size = (uint32_t)sizeof *p;
    p->temp = 0.8f;
    p->top_k = 40;
    p->top_p = 0.95f;
    p->repeat_penalty = 1.0f;
    p->repeat_last = 64;
    p->seed = 1;
}

setun_status setun_sampler_new(setun_sampler **out, const setun_sampling *p, int64_t n_vocab, setun_error *err)
{
    setun_sampling all;
    *out = NULL;
    /* A caller built against an older header has a shorter struct; the rest keeps its default. */
    setun_sampling_init(&all);
    if (p->size <= offsetof(setun_sampling, temp) || n_vocab < 1)
        return st_fail(err, SETUN_BAD_ARG, "sampling from %lld tokens with a setun_sampling.size of %u; call "
                       "setun_sampling_init first", (long long)n_vocab, p->size);
    memcpy(&all, p, p->size < sizeof all ? p->size : sizeof all);
    p = &all;
    if (!(p->temp >= 0.0f) || !(p->top_p > 0.0f && p->top_p <= 1.0f) || !(p->min_p >= 0.0f && p->min_p <= 1.0f) ||
        !(p->repeat_penalty > 0.0f) || p->top_k < 0 || p->repeat_last < 0 || p->repeat_last > 1 << 20)
        return st_fail(err, SETUN_BAD_ARG, "sampling needs temp >= 0, 0 < top-p <= 1, 0 <= min-p <= 1, top-k >= 0, "
                       "repeat-penalty > 0 and repeat-last in 0..1048576");
    setun_sampler *s = calloc(1, sizeof *s);
    if (s) {
        s->p = *p;
        s->n_vocab = n_vocab;
        s->c = malloc((size_t)n_vocab * sizeof *s->c);
        s->recent = malloc(((size_t)p->repeat_last + 1) * sizeof *s->recent);
    }
    if (!s || !s->c || !s->recent) {
        setun_sampler_free(s);
        return st_fail(err, SETUN_NO_MEMORY, "no memory for a sampler");
    }
    *out = s;
    return SETUN_OK;
}

void setun_sampler_free(setun_sampler *s)
{
    if (!s)
        return;
    free(s->c);
    free(s->recent);
    free(s);
}

void setun_sampler_accept(setun_sampler *s, int32_t token)
{
    if (s->p.repeat_last)
        s->recent[s->n_recent++ % s->p.repeat_last] = token;
}

/* Descending by logit, then ascending by id: a total order, so the result never depends on qsort. */
static int better(const void *a, const void *b)
{
    const candidate *x = a, *y = b;
    if (x->logit != y->logit)
        return x->logit > y->logit ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

/* Move the k best to the front, unsorted: quickselect with a median-of-three pivot. */
static void select_best(candidate *c, int64_t n, int64_t k)
{
    int64_t lo = 0, hi = n - 1;
    while (lo < hi) {
        candidate p = c[lo + (hi - lo) / 2];
        int64_t i = lo, j = hi;
        while (i <= j) {
            while (better(&c[i], &p) < 0)
                i++;
            while (better(&c[j], &p) > 0)
                j--;
            if (i <= j) {
                candidate t = c[i];
                c[i++] = c[j];
                c[j--] = t;
            }
        }
        if (k - 1 <= j)
            hi = j;
        else if (k - 1 >= i)
            lo = i;
        else
            return;
    }
}

/* splitmix64 of seed and counter. */
static uint64_t bits(const setun_sampler *s, uint64_t count)
{
    uint64_t z = s->p.seed * 0x9e3779b97f4a7c15u + count * 0xd1b54a32d192ed03u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* 53 uniform bits in [0, 1). */
static double uniform(setun_sampler *s)
{
    return (double)(bits(s, ++s->count) >> 11) * (1.0 / 9007199254740992.0);
}

/* One of the k best, which are in order in s->c. */
static int32_t draw(setun_sampler *s, int64_t k)
{
    candidate *c = s->c;
    double sum = 0;
    float top = c[0].logit;
    for (int64_t i = 0; i < k; i++) {
        c[i].logit = setun_expf((c[i].logit - top) / s->p.temp);
        sum += (double)c[i].logit;
    }
    /* Probabilities fall along the list, so both limits cut its end; the first one always stays. */
    double kept = 0;
    int64_t m = 0;
    while (m < k && (m == 0 || ((s->p.top_p >= 1.0f || kept < (double)s->p.top_p * sum) && c[m].logit >= s->p.min_p)))
        kept += (double)c[m++].logit;
    double u = uniform(s) * kept;
    for (int64_t i = 0; i < m; i++) {
        u -= (double)c[i].logit;
        if (u < 0)
            return c[i].id;
    }
    return c[m - 1].id;
}

static int32_t top_k(const setun_sampler *s)
{
    return s->p.temp == 0.0f ? 1 : s->p.top_k && s->p.top_k < s->n_vocab ? s->p.top_k : 0;
}

/* Nothing but the temperature shapes the draw. */
static int is_free(const setun_sampler *s)
{
    return !top_k(s) && s->p.top_p >= 1.0f && s->p.min_p == 0.0f;
}

/* Each repeated token is penalised once, if it is among the n candidates. */
static void penalise(const setun_sampler *s, candidate *c, int64_t n)
{
    int64_t m = s->n_recent < s->p.repeat_last ? s->n_recent : s->p.repeat_last;
    if (s->p.repeat_penalty == 1.0f)
        return;
    for (int64_t i = 0; i < m; i++) {
        int64_t j = 0, id = s->recent[i], at = id >= 0 && id < n && c[id].id == id ? id : 0; /* in a full row it is there */
        while (j < i && s->recent[j] != s->recent[i])
            j++;
        if (j < i)
            continue;
        while (at < n && c[at].id != id)
            at++;
        if (at < n)
            c[at].logit = c[at].logit > 0 ? c[at].logit / s->p.repeat_penalty : c[at].logit * s->p.repeat_penalty;
    }
}

/* From n candidates in any order. */
static int32_t choose(setun_sampler *s, int64_t n)
{
    candidate *c = s->c, best = c[0];
    if (s->p.temp == 0.0f) {
        for (int64_t i = 1; i < n; i++)
            if (better(&c[i], &best) < 0)
                best = c[i];
        return best.id;
    }
    if (is_free(s)) {
        uint64_t key = bits(s, ++s->count);
        float most = -INFINITY;
        for (int64_t i = 0; i < n; i++) {
            float z = c[i].logit / s->p.temp + setun_gumbel((uint32_t)key, (uint32_t)(key >> 32), (uint32_t)c[i].id);
            if (z > most) {
                most = z;
                best = c[i];
            }
        }
        return best.id;
    }
    int64_t k = top_k(s) && top_k(s) < n ? top_k(s) : n;
    if (k < n)
        select_best(c, n, k);
    qsort(c, (size_t)k, sizeof *c, better);
    return draw(s, k);
}

int32_t setun_sampler_pick(setun_sampler *s, const float *logits)
{
    for (int64_t i = 0; i < s->n_vocab; i++)
        /* A NaN compares with nothing and would break the order; it can never be chosen. */
        s->c[i] = (candidate){logits[i] == logits[i] ? logits[i] : -INFINITY, (int32_t)i};
    penalise(s, s->c, s->n_vocab);
    return choose(s, s->n_vocab);
}

int32_t setun_sampler_needs(const setun_sampler *s)
{
    int64_t k = top_k(s);
    if (!k || s->p.repeat_penalty < 1.0f)
        return 0;
    if (s->p.repeat_penalty > 1.0f)
        k += s->p.repeat_last;
    return (int32_t)(k < s->n_vocab ? k : s->n_vocab);
}

#define LEAST_MIN_P 1e-6f /* the rest of the sum must not vanish beside it; nobody wants less */

int32_t setun_sampler_screen(const setun_sampler *s, setun_screen *screen)
{
    setun_screen all = {(uint32_t)sizeof all, setun_sampler_needs(s), 0, 0, {0, 0}};
    if (!all.n) {
        if (s->p.repeat_penalty != 1.0f || top_k(s) || s->p.top_p < 1.0f)
            return 0;
        all.n = 1;
        uint64_t key = bits(s, s->count + 1);
        if (is_free(s)) {
            all.temp = s->p.temp;
            all.key[0] = (uint32_t)key;
            all.key[1] = (uint32_t)(key >> 32);
        } else if (s->p.min_p >= LEAST_MIN_P) {
            /* 0.01 is far more than the errors of setun_expf and setun_logf at a probability of 1e-6. */
            all.below = s->p.temp * (setun_logf(s->p.min_p) - 0.01f);
        }
        if (!(all.temp > 0.0f || all.below < 0.0f))
            return 0;
    }
    uint32_t size = screen->size;
    memcpy(screen, &all, size < sizeof all ? size : sizeof all);
    screen->size = size;
    return all.n <= SETUN_MAX_TOP;
}

int32_t setun_sampler_pick_top(setun_sampler *s, const setun_top *top)
{
    if (is_free(s)) {
        s->count++; /* the session has drawn */
        return top->id[0];
    }
    for (int64_t i = 0; i < top->n; i++)
        s->c[i] = (candidate){top->logit[i], top->id[i]};
    penalise(s, s->c, top->n);
    return choose(s, top->n);
}

/* Reporting only: libm's exp and log in double, far below the precision that is printed. */
double setun_nll(const float *logits, int64_t n_vocab, int32_t target)
{
    double top = (double)logits[0], sum = 0;
    for (int64_t i = 1; i < n_vocab; i++)
        if ((double)logits[i] > top)
            top = (double)logits[i];
    for (int64_t i = 0; i < n_vocab; i++)
        sum += exp((double)logits[i] - top);
    return top + log(sum) - (double)logits[target];
}
