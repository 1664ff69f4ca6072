/* ops/head_seed.c -- the k rows of the head with the largest bounds, to be computed first.
 *
 * Any k rows would do: the least of their exact logits is a number that k logits reach, so a row whose
 * bound is below it is out (head_select).  Those with the largest bounds are likely to be the k
 * largest, and then the number is as good as can be: with exact logits on one side, a row has to
 * overcome the error of one bound, not of two.  Unsure rows (bound +inf) are no seeds.
 *
 * There is no kernel: only the groups of rows are looked into whose largest bound is large enough. */
#include "ops/head_kernels.h"

enum { UP, PEAK, TOP };

static setun_status infer(setun_args *a, setun_error *err)
{
    int64_t most = a->attr[0].i;
    setun_status s = setun_want(a, UP, SETUN_OF(SETUN_F32), 2, err);
    if (s == SETUN_OK)
        s = setun_want(a, PEAK, SETUN_OF(SETUN_F32), 2, err);
    if (s == SETUN_OK)
        s = setun_want_equal(a, PEAK, 0, UP, 0, err);
    if (s == SETUN_OK && a->in[PEAK].dim[1] != (a->in[UP].dim[1] + HEAD_PEAK - 1) / HEAD_PEAK)
        return setun_fail(err, SETUN_BAD_SHAPE, "peak has %lld columns, wants one for %d of up", (long long)a->in[PEAK].dim[1],
                          HEAD_PEAK);
    if (s == SETUN_OK)
        s = setun_want(a, TOP, SETUN_OF(SETUN_I32), 1, err);
    if (s == SETUN_OK)
        s = setun_want_range(a, TOP, 0, 1, 1, err);
    if (s == SETUN_OK)
        s = setun_want_range(a, UP, 1, 1, INT32_MAX, err);
    if (s != SETUN_OK)
        return s;
    if (most < 1 || most > 1 << 20)
        return setun_fail(err, SETUN_BAD_ARG, "most is %lld, wants a number from 1 to %d", (long long)most, 1 << 20);
    (void)setun_infer_out(a, 0, SETUN_I32, 2, a->in[UP].dim[0], most, 1);
    return setun_infer_out(a, 1, SETUN_I32, 1, a->in[UP].dim[0], 1, 1);
}

/* A heap of row numbers; the first has the smallest bound, of equals the largest number. */
static int below(const float *v, int32_t a, int32_t b)
{
    return v[a] < v[b] || (v[a] == v[b] && a > b);
}

static void sink(int32_t *heap, int64_t k, int64_t i, const float *v)
{
    int32_t id = heap[i];
    for (int64_t c; (c = 2 * i + 1) < k; i = c) {
        c += c + 1 < k && below(v, heap[c + 1], heap[c]);
        if (!below(v, heap[c], id))
            break;
        heap[i] = heap[c];
    }
    heap[i] = id;
}

static int64_t seeds(const float *v, const float *peak, int64_t n, int32_t *heap, int64_t k)
{
    int64_t have = 0;
    for (int64_t i = 0; i < n; i++) {
        if (have == k && i % HEAD_PEAK == 0)
            while (i < n && !(peak[i / HEAD_PEAK] > v[heap[0]]))
                i += HEAD_PEAK;
        if (i >= n || !(v[i] < INFINITY))
            continue;
        if (have < k) {
            heap[have++] = (int32_t)i;
            for (int64_t j = have == k ? k / 2 : 0; j-- > 0;)
                sink(heap, k, j, v);
        } else if (v[i] > v[heap[0]]) {
            heap[0] = (int32_t)i;
            sink(heap, k, 0, v);
        }
    }
    return have;
}

static setun_status eval(const setun_args *a, setun_error *err)
{
    int64_t n = a->in[UP].dim[0], rows = a->in[UP].dim[1], most = a->attr[0].i;
    int64_t k = ((const int32_t *)a->in[TOP].data)[0];
    int32_t *id = a->out[0].data, *count = a->out[1].data;
    if (k < 1 || k > most)
        return setun_fail(err, SETUN_BAD_ARG, "top is %lld, wants a number from 1 to %lld", (long long)k, (long long)most);
    k = k < rows ? k : rows;
    memset(id, 0, (size_t)(n * most) * sizeof *id);
    for (int64_t t = 0; t < n; t++)
        count[t] = (int32_t)seeds((const float *)a->in[UP].data + t * rows, (const float *)a->in[PEAK].data + t * a->in[PEAK].dim[1],
                                  rows, id + t * most, k);
    return SETUN_OK;
}

static void cost(const setun_args *a, setun_cost *c)
{
    setun_cost_map(a, 1, c);
}

static void fill(const setun_args *a, uint64_t seed)
{
    float *up = a->in[UP].data;
    for (int64_t i = 0, n = setun_count(&a->in[UP]); i < n; i++)
        up[i] = i % 50 == 3 ? INFINITY : (float)(setun_mix(seed, (uint64_t)i) & 1023);
    head_fill_peaks(&a->in[UP], &a->in[PEAK]);
    ((int32_t *)a->in[TOP].data)[0] = (int32_t)(seed % (uint64_t)a->attr[0].i + 1);
}

static const setun_port in[] = {
    {"up", "f32[n,r]: of head_bounds", 0, 0},
    {"peak", "f32[n,R]: of head_bounds", 0, 0},
    {"top", "i32[1]: how many of the largest are wanted, from 1 to most", 0, 0},
};
static const setun_port out[] = {
    {"id", "i32[n,most]: rows with the largest bounds that are finite, in no order; zeros behind", 0, 0},
    {"count", "i32[n]: how many", 0, 0},
};
static const setun_attr attr[] = {{"most", "how many rows can be listed", SETUN_ATTR_INT, 0, {256}}};
static const char *const cases[] = {
    "up:f32[1,1000] peak:f32[1,63] top:i32[1]",
    "up:f32[n3,129] peak:f32[n3,9] top:i32[1] most=20",
    "up:f32[m2,7] peak:f32[m2,1] top:i32[1] most=7",
    "up:f32[1,1] peak:f32[1,1] top:i32[1] most=1",
    NULL,
};

SETUN_OP(head_seed) = {
    .size = sizeof(setun_op), .version = 1, .name = "head_seed",
    .doc = "the rows of the head with the largest bounds",
    .in = in, .out = out, .attr = attr,
    .n_in = SETUN_LEN(in), .n_out = SETUN_LEN(out), .n_attr = SETUN_LEN(attr),
    .infer = infer, .eval = eval, .cost = cost, .fill = fill, .cases = cases,
};
