/* ops/head_select.c -- which rows of the head can be among the k largest.
 *
 * Let T be the k-th largest lower bound.  k logits are at least T, so a row whose upper bound is below
 * T is smaller than k others and is never among the first k, however ties are broken.  All others
 * are listed, in order of their numbers.  Too many of them: the count is -1 and the caller computes
 * all logits.  (head_bounds.c says where the bounds come from.)
 *
 * There is no kernel: two passes over short rows of floats, whose loops a C compiler makes vectors of. */
#include "setun/op.h"

enum { LO, UP, TOP };

#define BLOCK 64

static setun_status infer(setun_args *a, setun_error *err)
{
    int64_t most = a->attr[0].i;
    setun_status s = setun_want(a, LO, SETUN_OF(SETUN_F32), 2, err);
    if (s == SETUN_OK)
        s = setun_want(a, UP, SETUN_OF(SETUN_F32), 2, err);
    if (s == SETUN_OK)
        s = setun_want(a, TOP, SETUN_OF(SETUN_I32), 1, err);
    for (uint32_t d = 0; d < 2 && s == SETUN_OK; d++)
        s = setun_want_equal(a, UP, d, LO, d, err);
    if (s == SETUN_OK)
        s = setun_want_range(a, TOP, 0, 1, 1, err);
    if (s == SETUN_OK)
        s = setun_want_range(a, LO, 1, 1, INT32_MAX, err);
    if (s != SETUN_OK)
        return s;
    if (most < 1 || most > 1 << 20)
        return setun_fail(err, SETUN_BAD_ARG, "most is %lld, wants a number from 1 to %d", (long long)most, 1 << 20);
    (void)setun_infer_out(a, 0, SETUN_I32, 2, a->in[LO].dim[0], most, 1);
    return setun_infer_out(a, 1, SETUN_I32, 1, a->in[LO].dim[0], 1, 1);
}

/* Put v into a heap of k floats whose smallest comes first, in place of that one. */
static void replace(float *heap, int64_t k, float v)
{
    int64_t i = 0;
    for (int64_t c; (c = 2 * i + 1) < k; i = c) {
        c += c + 1 < k && heap[c + 1] < heap[c];
        if (v <= heap[c])
            break;
        heap[i] = heap[c];
    }
    heap[i] = v;
}

/* The k-th largest; a NaN counts as -inf.  Almost every block fails its one test. */
static float kth(const float *v, int64_t n, float *heap, int64_t k)
{
    for (int64_t i = 0; i < k; i++)
        heap[i] = -INFINITY;
    for (int64_t i = 0; i < n; i += BLOCK) {
        int64_t m = n - i < BLOCK ? n - i : BLOCK;
        int32_t any = 0;
        for (int64_t j = 0; j < m; j++)
            any |= v[i + j] > heap[0];
        for (int64_t j = 0; any && j < m; j++)
            if (v[i + j] > heap[0])
                replace(heap, k, v[i + j]);
    }
    return heap[0];
}

static int32_t list(const float *up, int64_t n, float least, int32_t *id, int64_t most)
{
    int64_t count = 0;
    for (int64_t i = 0; i < n; i += BLOCK) {
        int64_t m = n - i < BLOCK ? n - i : BLOCK;
        int32_t any = 0;
        for (int64_t j = 0; j < m; j++)
            any |= !(up[i + j] < least);
        for (int64_t j = 0; any && j < m; j++)
            if (!(up[i + j] < least)) {
                if (count == most)
                    return -1;
                id[count++] = (int32_t)(i + j);
            }
    }
    return (int32_t)count;
}

static setun_status eval(const setun_args *a, setun_error *err)
{
    const float *lo = a->in[LO].data, *up = a->in[UP].data;
    int64_t n = a->in[LO].dim[0], rows = a->in[LO].dim[1], most = a->attr[0].i;
    int64_t k = ((const int32_t *)a->in[TOP].data)[0];
    int32_t *id = a->out[0].data, *count = a->out[1].data;
    float heap[1024];
    k = k < rows ? k : rows;
    if (k < 1 || k > 1024)
        return setun_fail(err, SETUN_BAD_ARG, "top is %lld, wants a number from 1 to 1024", (long long)k);
    for (int64_t t = 0; t < n; t++) {
        float least = kth(lo + t * rows, rows, heap, k);
        count[t] = list(up + t * rows, rows, least, id + t * most, most);
        int64_t used = count[t] > 0 ? count[t] : 0;
        memset(id + t * most + used, 0, (size_t)(most - used) * sizeof *id);
    }
    return SETUN_OK;
}

static void cost(const setun_args *a, setun_cost *c)
{
    setun_cost_map(a, 2, c);
}

static void fill(const setun_args *a, uint64_t seed)
{
    float *lo = a->in[LO].data, *up = a->in[UP].data;
    for (int64_t i = 0, n = setun_count(&a->in[LO]); i < n; i++) {
        lo[i] = (float)(setun_mix(seed, (uint64_t)i) & 1023);
        up[i] = lo[i] + (float)(setun_mix(seed ^ 1, (uint64_t)i) & 63);
    }
    ((int32_t *)a->in[TOP].data)[0] = (int32_t)(seed % 40 + 1);
}

static const setun_port in[] = {
    {"lo", "f32[n,r]: no logit is below", 0, 0},
    {"up", "f32[n,r]: no logit is above", 0, 0},
    {"top", "i32[1]: how many of the largest are wanted, from 1 to 1024", 0, 0},
};
static const setun_port out[] = {
    {"id", "i32[n,most]: rows that can be among them, ascending; zeros behind", 0, 0},
    {"count", "i32[n]: how many; -1: more than most", 0, 0},
};
static const setun_attr attr[] = {
    {"most", "how many rows can be listed", SETUN_ATTR_INT, 0, {4096}}};
static const char *const cases[] = {
    "lo:f32[1,1000] up:f32[1,1000] top:i32[1]",
    "lo:f32[n3,129] up:f32[n3,129] top:i32[1] most=20",
    "lo:f32[m2,7] up:f32[m2,7] top:i32[1] most=7",
    "lo:f32[1,1] up:f32[1,1] top:i32[1] most=1",
    NULL,
};

SETUN_OP(head_select) = {
    .size = sizeof(setun_op), .version = 1, .name = "head_select",
    .doc = "the rows of the head that can be among the largest, by bounds",
    .in = in, .out = out, .attr = attr,
    .n_in = SETUN_LEN(in), .n_out = SETUN_LEN(out), .n_attr = SETUN_LEN(attr),
    .infer = infer, .eval = eval, .cost = cost, .fill = fill, .cases = cases,
};
