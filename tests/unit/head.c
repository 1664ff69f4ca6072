/* tests/unit/head.c -- the screened head gives the values, bits and order of the full one.
 *
 * The operators are joined here as runtime/head.c joins them and compared with topk(matmul(x, w)),
 * on random and on hostile matrices; the quantiser's bounds are computed a second time; a sampler
 * must pick the same token from the largest logits as from all of them. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "graph/registry.h"
#include "model/head.h"
#include "runtime/head.h"

static const setun_op *find(const char *name)
{
    for (const setun_op *const *op = st_builtin_ops; *op; op++)
        if (!strcmp((*op)->name, name))
            return *op;
    fail_msg("there is no operator %s", name);
    return NULL;
}

static void run(const char *name, setun_view *in, setun_view *out, int64_t attr)
{
    const setun_op *op = find(name);
    setun_value v = {.i = attr};
    setun_args a = {sizeof a, op->n_in, op->n_out, op->n_attr, op, in, out, &v, NULL};
    setun_error err;
    memset(out, 0, op->n_out * sizeof *out);
    if (op->infer(&a, &err) != SETUN_OK)
        fail_msg("%s: %s", name, err.text);
    for (uint32_t i = 0; i < op->n_out; i++)
        out[i].data = malloc((size_t)setun_view_bytes(&out[i]) + 1);
    if (op->eval(&a, &err) != SETUN_OK)
        fail_msg("%s: %s", name, err.text);
}

typedef struct head {
    setun_view x, w, code, fine, meta;
} head;

static setun_view array(uint32_t dtype, int64_t rows, int64_t cols)
{
    setun_view v = {NULL, dtype, 2, {rows, cols, 1, 1}};
    v.data = calloc((size_t)setun_view_bytes(&v) + 1, 1);
    return v;
}

static void free_head(head *h)
{
    free(h->x.data);
    free(h->w.data);
    free(h->code.data);
    free(h->fine.data);
    free(h->meta.data);
}

static uint64_t state;
static float normal(void)
{
    float sum = 0;
    for (int i = 0; i < 4; i++)
        sum += (float)(setun_mix(7, state++) >> 40) * 0x1p-24f - 0.5f;
    return sum * 1.7320508f;
}

enum { NORMAL, EQUAL, TWINS, LARGE, VAST, TINY, DENORMAL, SPREAD, OUTLIER, SPIKE, ZERO, NAN_ROW, INF_ROW, NAN_X, INF_X, ZERO_X, N_KIND };

static head make(int kind, uint32_t dtype, int64_t rows, int64_t cols)
{
    head h = {array(SETUN_F32, 1, cols), array(dtype, rows, cols), array(SETUN_U8, rows, st_head_blocks(cols) * ST_HEAD_CODE_BYTES),
              array(SETUN_U8, rows, st_head_blocks(cols) * ST_HEAD_FINE_BYTES), array(SETUN_F32, rows, 4)};
    float *x = h.x.data;
    float size = kind == LARGE ? 0x1p60f : kind == VAST ? 0x1p100f : kind == TINY ? 0x1p-60f : kind == DENORMAL ? 0x1p-130f : 1.0f;
    for (int64_t i = 0; i < cols; i++)
        x[i] = kind == ZERO_X ? 0.0f : normal() * size * (kind == OUTLIER && i % 97 == 3 ? 500.0f : 1.0f);
    for (int64_t i = 0; i < rows * cols; i++) {
        float v = kind == EQUAL && i >= cols ? setun_get_f32(&h.w, i - cols)
                : kind == TWINS && i / cols % 3 ? setun_get_f32(&h.w, i - cols) : normal() * size;
        if (kind == SPREAD)
            v = setun_bits_f32((setun_f32_bits(v) & 0x807fffffu) | (uint32_t)(100 + (setun_mix(3, state++) & 31)) << 23);
        if (kind == SPIKE && i % cols == i / cols % cols) /* the rest of the row is below a step */
            v = 1000.0f;
        if (kind == ZERO)
            v = i / cols % 2 ? 0.0f : -0.0f;
        if (kind == NAN_ROW && i / cols == rows / 2 && i % cols == 0)
            v = NAN;
        if (kind == INF_ROW && i / cols == rows / 3 && i % cols == cols / 2)
            v = -INFINITY;
        setun_put_f32(&h.w, i, v);
    }
    if (kind == NAN_X)
        x[cols / 2] = NAN;
    if (kind == INF_X)
        x[cols - 1] = INFINITY;
    setun_error err;
    assert_int_equal(st_head_quantise(&h.w, h.code.data, h.fine.data, h.meta.data, 2, &err), SETUN_OK);
    return h;
}

/* What the graph of runtime/head.c makes of a row of activations. */
typedef struct cascade {
    setun_view split[3], bound[3], seed[2], first, list[3], refined, kept[2], value;
} cascade;

static void screen(const head *h, const int32_t noise[4], int32_t k, int64_t most, cascade *c)
{
    setun_view top = {&k, SETUN_I32, 1, {1, 1, 1, 1}}, key = {(void *)(uintptr_t)noise, SETUN_I32, 2, {1, 4, 1, 1}};
    run("head_split", (setun_view[]){h->x}, c->split, 0);
    run("head_bounds", (setun_view[]){c->split[0], c->split[1], c->split[2], key, h->code, h->meta}, c->bound, 0);
    run("head_seed", (setun_view[]){c->bound[0], c->bound[2], top}, c->seed, 256);
    run("head_rescore", (setun_view[]){h->x, h->w, c->seed[0], c->seed[1]}, &c->first, 0);
    run("head_select", (setun_view[]){c->bound[0], c->bound[2], key, c->seed[0], c->seed[1], c->first, top}, c->list, h->w.dim[0]);
    run("head_refine", (setun_view[]){c->split[0], c->split[1], c->split[2], key, c->bound[1], h->fine, h->meta, c->list[0],
                                      c->list[1]}, &c->refined, 0);
    run("head_keep", (setun_view[]){c->list[0], c->list[1], c->refined, c->list[2]}, c->kept, most);
    run("head_rescore", (setun_view[]){h->x, h->w, c->kept[0], c->kept[1]}, &c->value, 0);
}

static void free_cascade(cascade *c)
{
    for (setun_view *v = (setun_view *)c; v < (setun_view *)(c + 1); v++)
        free(v->data);
}

/* Returns the survivors, -1 if all logits have to be computed. */
static int64_t compare(const head *h, int64_t k, int64_t most)
{
    static const int32_t silence[4];
    setun_view full, best[2];
    cascade c;
    run("matmul", (setun_view[]){h->x, h->w}, &full, 0);
    run("topk", (setun_view[]){full}, best, k);
    screen(h, silence, (int32_t)k, most, &c);
    const float *l = full.data, *up = c.bound[0].data, *peak = c.bound[2].data, *closer = c.refined.data;
    for (int64_t r = 0; r < h->w.dim[0]; r++) {
        if (l[r] == l[r] && !(l[r] <= up[r]))
            fail_msg("row %lld: %.9g is above %.9g", (long long)r, (double)l[r], (double)up[r]);
        assert_true(l[r] == l[r] || up[r] == INFINITY);
        assert_true(peak[r / 16] >= up[r]);
    }
    int32_t listed = *(const int32_t *)c.list[1].data, count = *(const int32_t *)c.kept[1].data;
    for (int32_t j = 0; j < listed; j++) {
        int32_t r = ((const int32_t *)c.list[0].data)[j];
        assert_true(l[r] == l[r] ? l[r] <= closer[j] : closer[j] == INFINITY);
    }
    if (count >= 0) {
        float *v = malloc((size_t)k * sizeof *v);
        int32_t *id = malloc((size_t)k * sizeof *id);
        assert_true(count >= k && count <= most);
        (void)st_head_best(c.value.data, c.kept[0].data, count, k, v, id);
        for (int64_t i = 0; i < k; i++) {
            assert_int_equal(id[i], ((const int32_t *)best[1].data)[i]);
            float want = ((const float *)best[0].data)[i];
            assert_true(setun_f32_bits(v[i]) == setun_f32_bits(want) || (v[i] != v[i] && want != want));
        }
        free(v);
        free(id);
    } else {
        assert_int_equal(count, -1);
    }
    free_cascade(&c);
    free(full.data);
    free(best[0].data);
    free(best[1].data);
    return count;
}

static void test_screened_is_full(void **unused)
{
    static const int64_t rows[] = {1, 7, 129, 1000}, cols[] = {1, 7, 33, 129, 200, 256, 300}, ks[] = {1, 7, 64, 256};
    static const uint32_t dtypes[] = {SETUN_BF16, SETUN_F16, SETUN_F32};
    (void)unused;
    for (int kind = 0; kind < N_KIND; kind++)
        for (size_t r = 0; r < 4; r++)
            for (size_t c = 0; c < 7; c++) {
                head h = make(kind, dtypes[(r + c + (size_t)kind) % 3], rows[r], cols[c]);
                for (size_t k = 0; k < 4; k++) {
                    if (ks[k] > rows[r])
                        continue;
                    int64_t all = compare(&h, ks[k], 1000), few = compare(&h, ks[k], 70);
                    assert_true(all > 0); /* room for every row: never the other way out */
                    assert_true(few == all || (few == -1 && all > 70));
                }
                free_head(&h);
            }
}

/* Where nothing is wrong, few rows survive: otherwise the above would pass without screening. */
static void test_it_screens(void **unused)
{
    (void)unused;
    head h = make(NORMAL, SETUN_BF16, 4000, 640);
    int64_t one = compare(&h, 1, 4000), many = compare(&h, 40, 4000);
    free_head(&h);
    assert_in_range(one, 1, 100);
    assert_in_range(many, 40, 400);
    h = make(ZERO, SETUN_BF16, 4000, 64); /* all tie */
    assert_int_equal(compare(&h, 40, 4000), 4000);
    assert_int_equal(compare(&h, 40, 3999), -1);
    free_head(&h);
}

static void test_quantiser(void **unused)
{
    (void)unused;
    enum { COLS = 400, CODE = 2 * ST_HEAD_CODE_BYTES, FINE = 2 * ST_HEAD_FINE_BYTES };
    for (int kind = 0; kind < NAN_ROW; kind++) {
        head h = make(kind, SETUN_F32, 50, COLS);
        for (int64_t r = 0; r < 50; r++) {
            const float *m = (const float *)h.meta.data + 4 * r;
            long double ee[2] = {0, 0}, ww = 0, qq[2] = {0, 0};
            for (int64_t i = 0; i < COLS; i++) {
                const uint8_t *b = (const uint8_t *)h.code.data + r * CODE + i / 256 * 192 + i % 64;
                int64_t f = i % 256 / 64;
                int c6 = f < 3 ? b[64 * f] & 63 : b[0] >> 6 | b[64] >> 6 << 2 | b[128] >> 6 << 4;
                int c2 = ((const uint8_t *)h.fine.data)[r * FINE + i / 256 * 64 + i % 64] >> 2 * f & 3;
                long double w = (long double)((const float *)h.w.data)[r * COLS + i];
                long double near[2] = {(long double)m[0] * (2 * c6 - 63), (long double)m[0] / 4 * (2 * (4 * c6 + c2) - 255)};
                for (int p = 0; p < 2; p++) {
                    ee[p] += (w - near[p]) * (w - near[p]);
                    qq[p] += near[p] * near[p];
                }
                ww += w * w;
            }
            for (int p = 0; p < 2; p++)
                assert_true((long double)m[1 + p] * m[1 + p] >= ee[p] && (long double)m[3] * m[3] >= qq[p]);
            assert_true((long double)m[3] * m[3] >= ww);
            if (kind == NORMAL) /* the bounds are of use: a step is 1/32 of the largest value, or less */
                assert_true(m[1] < 0.04f * m[3] && m[2] < 0.015f * m[3]);
        }
        free_head(&h);
    }
}

/* The answer that the screened head gives, and the one from all logits, are the same. */
static void same_answer(const head *h, const float *l, const setun_screen *want, int32_t *answers)
{
    enum { ROOM = SETUN_MAX_TOP };
    const uint32_t words[4] = {want->key[0], want->key[1], setun_f32_bits(want->temp), setun_f32_bits(want->below)};
    int64_t rows = h->w.dim[0];
    float few[ROOM], all[ROOM];
    int32_t few_id[ROOM], all_id[ROOM], noise[4], *id = malloc((size_t)rows * sizeof *id);
    cascade c;
    memcpy(noise, words, sizeof noise);
    for (int64_t i = 0; i < rows; i++)
        id[i] = (int32_t)i;
    screen(h, noise, want->n, rows, &c);
    int32_t count = *(const int32_t *)c.kept[1].data;
    int32_t m = st_head_answer(want, c.value.data, c.kept[0].data, count, few, few_id);
    int32_t n = st_head_answer(want, l, id, rows, all, all_id);
    assert_int_equal(m, n);
    for (int32_t i = 0; i < n; i++) {
        assert_int_equal(few_id[i], all_id[i]);
        assert_int_equal(setun_f32_bits(few[i]), setun_f32_bits(all[i]));
    }
    *answers += n > 0;
    free_cascade(&c);
    free(id);
}

static void test_noise_and_distance(void **unused)
{
    static const float temps[] = {0.01f, 0.7f, 1, 5, 1000}, distances[] = {-0.5f, -3, -20, -INFINITY};
    int32_t answers = 0;
    (void)unused;
    for (int kind = 0; kind < N_KIND; kind++) {
        head h = make(kind, SETUN_BF16, 300, kind % 2 ? 129 : 300);
        setun_view full;
        run("matmul", (setun_view[]){h.x, h.w}, &full, 0);
        for (uint32_t seed = 0; seed < 10; seed++)
            for (int i = 0; i < 5; i++)
                same_answer(&h, full.data, &(setun_screen){sizeof(setun_screen), 1, temps[i], 0, {seed * 77, ~seed}}, &answers);
        for (int i = 0; i < 4; i++)
            same_answer(&h, full.data, &(setun_screen){sizeof(setun_screen), 1, 0, distances[i], {0, 0}}, &answers);
        free(full.data);
        free_head(&h);
    }
    assert_true(answers > 500);
}

/* The logarithm against libm, and draws against the distribution they are from: chi-square with 19 degrees of
 * freedom is above 43.8 once in a thousand times, and this generator is not random. */
static void test_gumbel(void **unused)
{
    enum { N = 20, DRAWS = 200000 };
    int64_t seen[N] = {0};
    double p[N], sum = 0, chi = 0, mean = 0;
    float logits[N];
    setun_sampling how;
    setun_sampler *s;
    (void)unused;
    for (float x = 0x1p-32f; x < 30.0f; x *= 1.0078125f)
        assert_true(fabs((double)setun_logf(x) - log((double)x)) < 4e-7 * (1 + fabs(log((double)x))));
    for (int64_t i = 0; i < DRAWS; i++) {
        float g = setun_gumbel(1, (uint32_t)i, 7);
        assert_true(g > -3.0f && g < 22.2f);
        mean += (double)g / DRAWS;
    }
    assert_true(fabs(mean - 0.5772156649) < 0.01); /* of the distribution; its deviation is 1.28 */
    setun_sampling_init(&how);
    how.temp = 0.7f;
    how.top_k = 0;
    how.top_p = 1;
    assert_int_equal(setun_sampler_new(&s, &how, N, NULL), SETUN_OK);
    for (int i = 0; i < N; i++) {
        logits[i] = normal();
        sum += p[i] = exp((double)logits[i] / 0.7);
    }
    for (int64_t i = 0; i < DRAWS; i++)
        seen[setun_sampler_pick(s, logits)]++;
    for (int i = 0; i < N; i++) {
        double want = p[i] / sum * DRAWS;
        chi += ((double)seen[i] - want) * ((double)seen[i] - want) / want;
    }
    if (chi > 43.8)
        fail_msg("chi-square is %g", chi);
    setun_sampler_free(s);
}

/* What a session would answer, from all logits. */
static int ask(const setun_sampler *s, const float *logits, int64_t n, setun_top *top)
{
    static float best[SETUN_MAX_TOP];
    static int32_t best_id[SETUN_MAX_TOP];
    setun_screen screen = {.size = sizeof screen};
    int32_t *id = malloc((size_t)n * sizeof *id);
    assert_true(setun_sampler_screen(s, &screen));
    for (int64_t i = 0; i < n; i++)
        id[i] = (int32_t)i;
    *top = (setun_top){sizeof *top, st_head_answer(&screen, logits, id, n, best, best_id), best_id, best, 0};
    free(id);
    return top->n > 0;
}

static void test_sampler(void **unused)
{
    static const struct { float temp; int32_t top_k; float top_p, min_p, penalty; int32_t needs; } set[] = {
        {0, 40, 0.95f, 0, 1, 1}, {0.8f, 40, 0.95f, 0, 1, 40}, {2, 5, 1, 0, 1, 5}, {0.7f, 64, 0.5f, 0, 1, 64},
        {1, 3, 1, 0.3f, 1, 3}, {1, 1, 1, 0, 1, 1}, {0, 0, 1, 0, 1.3f, 65}, {0.8f, 40, 0.95f, 0, 1.1f, 104},
        {3, 100, 1, 0.01f, 2, 164}, {0.9f, 0, 1, 0, 1, 0}, {5, 0, 1, 0, 1, 0}, {0.5f, 0, 1, 0.05f, 1, 0}};
    enum { N = 1000 };
    float logits[N];
    (void)unused;
    for (size_t i = 0; i < sizeof set / sizeof set[0]; i++) {
        setun_sampling p;
        setun_sampler *a, *b;
        setun_top top;
        setun_sampling_init(&p);
        p.temp = set[i].temp;
        p.top_k = set[i].top_k;
        p.top_p = set[i].top_p;
        p.min_p = set[i].min_p;
        p.repeat_penalty = set[i].penalty;
        assert_int_equal(setun_sampler_new(&a, &p, N, NULL), SETUN_OK);
        assert_int_equal(setun_sampler_new(&b, &p, N, NULL), SETUN_OK);
        assert_int_equal(setun_sampler_needs(a), set[i].needs);
        for (int step = 0; step < 300; step++) {
            for (int j = 0; j < N; j++)
                logits[j] = step % 3 ? normal() * 4 : rintf(normal() * 4); /* every third time with ties */
            int few = ask(b, logits, N, &top);
            int32_t full = setun_sampler_pick(a, logits), token = few ? setun_sampler_pick_top(b, &top)
                                                                      : setun_sampler_pick(b, logits);
            assert_int_equal(token, full);
            assert_true(few);
            setun_sampler_accept(a, step % 5 ? full : step);
            setun_sampler_accept(b, step % 5 ? full : step);
        }
        setun_sampler_free(a);
        setun_sampler_free(b);
    }
    static const struct { int32_t top_k; float top_p, min_p, penalty; } never[] = {
        {40, 1, 0, 0.9f}, {0, 0.9f, 0, 1}, {300, 1, 0, 1}, {0, 1, 0, 1.1f}, {0, 1, 0.1f, 1.1f}, {0, 1, 1e-9f, 1}, {200, 1, 0, 1.1f}};
    for (size_t i = 0; i < sizeof never / sizeof never[0]; i++) {
        setun_sampling p;
        setun_sampler *s;
        setun_screen screen = {.size = sizeof screen};
        setun_sampling_init(&p);
        p.top_k = never[i].top_k;
        p.top_p = never[i].top_p;
        p.min_p = never[i].min_p;
        p.repeat_penalty = never[i].penalty;
        assert_int_equal(setun_sampler_new(&s, &p, N, NULL), SETUN_OK);
        assert_false(setun_sampler_screen(s, &screen));
        setun_sampler_free(s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_screened_is_full),
        cmocka_unit_test(test_it_screens),
        cmocka_unit_test(test_quantiser),
        cmocka_unit_test(test_noise_and_distance),
        cmocka_unit_test(test_gumbel),
        cmocka_unit_test(test_sampler),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
