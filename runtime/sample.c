/* runtime/sample.c -- from logits to a token.
 *
 * Order: repeat penalty, temperature, top-k, top-p, min-p, then one draw.  Deterministic in the seed:
 * the generator is counter-based, and ties are broken by token id. */
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

/* splitmix64 of seed and counter: 53 uniform bits in [0, 1). */
static double uniform(setun_sampler *s)
{
    uint64_t z = s->p.seed * 0x9e3779b97f4a7c15u + ++s->count * 0xd1b54a32d192ed03u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    z ^= z >> 31;
    return (double)(z >> 11) * (1.0 / 9007199254740992.0);
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
    while (m < k && (m == 0 || (kept < (double)s->p.top_p * sum && c[m].logit >= s->p.min_p)))
        kept += (double)c[m++].logit;
    double u = uniform(s) * kept;
    for (int64_t i = 0; i < m; i++) {
        u -= (double)c[i].logit;
        if (u < 0)
            return c[i].id;
    }
    return c[m - 1].id;
}

int32_t setun_sampler_pick(setun_sampler *s, const float *logits)
{
    candidate *c = s->c;
    int64_t n = s->n_vocab;
    for (int64_t i = 0; i < n; i++) {
        /* A NaN compares with nothing and would break the order; it can never be chosen. */
        c[i].logit = logits[i] == logits[i] ? logits[i] : -INFINITY;
        c[i].id = (int32_t)i;
    }
    if (s->p.repeat_penalty != 1.0f) {
        int64_t m = s->n_recent < s->p.repeat_last ? s->n_recent : s->p.repeat_last;
        for (int64_t i = 0; i < m; i++) {
            int64_t j = 0;
            while (j < i && s->recent[j] != s->recent[i])
                j++;
            if (j < i || s->recent[i] < 0 || s->recent[i] >= n)
                continue; /* each repeated token is penalised once */
            float *l = &c[s->recent[i]].logit;
            *l = *l > 0 ? *l / s->p.repeat_penalty : *l * s->p.repeat_penalty;
        }
    }
    if (s->p.temp == 0.0f) {
        candidate best = c[0];
        for (int64_t i = 1; i < n; i++)
            if (better(&c[i], &best) < 0)
                best = c[i];
        return best.id;
    }
    int64_t k = s->p.top_k && s->p.top_k < n ? s->p.top_k : n;
    if (k < n)
        select_best(c, n, k);
    qsort(c, (size_t)k, sizeof *c, better);
    return draw(s, k);
}

/* A penalty changes logits that may be anywhere, so it needs all. */
int32_t setun_sampler_needs(const setun_sampler *s)
{
    if (s->p.repeat_penalty != 1.0f)
        return 0;
    return s->p.temp == 0.0f ? 1 : s->p.top_k && s->p.top_k < s->n_vocab ? s->p.top_k : 0;
}

int32_t setun_sampler_pick_top(setun_sampler *s, const setun_top *top)
{
    if (s->p.temp == 0.0f)
        return top->id[0];
    int64_t k = setun_sampler_needs(s);
    k = k > 0 && k < top->n ? k : top->n;
    for (int64_t i = 0; i < k; i++)
        s->c[i] = (candidate){top->logit[i], top->id[i]};
    return draw(s, k);
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
