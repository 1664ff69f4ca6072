/* ops/head_select.c -- which rows of the head can be among the k largest.
 *
 * Let T be the least of the exact values of the k seeds.  k rows reach T, so a row whose bound is below
 * T is smaller than k others and is never among the first k, however ties are broken.  All others are
 * listed, in order of their numbers.  A seed that is NaN, or fewer seeds than wanted, prove nothing:
 * T is -inf.  More rows than `most`: the count is -1 and the caller computes all logits.  Where everything that is not far below the best is wanted (`noise` has by how much), T is
 * lowered by that, and a little more for the rounding.
 *
 * There is no kernel: only the groups of rows are looked into whose largest bound reaches T. */
#include "ops/head_kernels.h"

enum { UP, PEAK, NOISE, ID, COUNT, VALUE, TOP };

static setun_status infer(setun_args *a, setun_error *err)
{
    static const uint32_t type[7] = {SETUN_F32, SETUN_F32, SETUN_I32, SETUN_I32, SETUN_I32, SETUN_F32, SETUN_I32};
    static const uint32_t rank[7] = {2, 2, 2, 2, 1, 2, 1};
    int64_t most = a->attr[0].i;
    setun_status s = SETUN_OK;
    for (uint32_t i = 0; i < 7 && s == SETUN_OK; i++)
        s = setun_want(a, i, SETUN_OF(type[i]), rank[i], err);
    for (uint32_t i = PEAK; i <= VALUE && s == SETUN_OK; i++)
        s = setun_want_equal(a, i, 0, UP, 0, err);
    if (s == SETUN_OK)
        s = setun_want_equal(a, VALUE, 1, ID, 1, err);
    if (s == SETUN_OK)
        s = setun_want_range(a, NOISE, 1, 4, 4, err);
    if (s == SETUN_OK)
        s = setun_want_range(a, TOP, 0, 1, 1, err);
    if (s == SETUN_OK)
        s = setun_want_range(a, UP, 1, 1, INT32_MAX, err);
    if (s != SETUN_OK)
        return s;
    if (a->in[PEAK].dim[1] != (a->in[UP].dim[1] + HEAD_PEAK - 1) / HEAD_PEAK)
        return setun_fail(err, SETUN_BAD_SHAPE, "peak has %lld columns, wants one for %d of up", (long long)a->in[PEAK].dim[1],
                          HEAD_PEAK);
    if (most < 1 || most > 1 << 20)
        return setun_fail(err, SETUN_BAD_ARG, "most is %lld, wants a number from 1 to %d", (long long)most, 1 << 20);
    (void)setun_infer_out(a, 0, SETUN_I32, 2, a->in[UP].dim[0], most, 1);
    (void)setun_infer_out(a, 1, SETUN_I32, 1, a->in[UP].dim[0], 1, 1);
    return setun_infer_out(a, 2, SETUN_F32, 1, a->in[UP].dim[0], 1, 1);
}

static float least(const float *value, const int32_t *id, int64_t n, int64_t wanted, const int32_t *noise)
{
    float t = INFINITY, below = setun_bits_f32((uint32_t)noise[3]);
    if (n < wanted || n < 1)
        return -INFINITY;
    for (int64_t j = 0; j < n; j++) {
        float v = head_noisy(value[j], noise, id[j]);
        if (!(v >= t))
            t = v == v ? v : -INFINITY;
    }
    if (below < 0.0f) /* rounded down: by far more than the rounding of the sum and of what it is compared with */
        t = (t + below) - (fabsf(t) + fabsf(below)) * 0x1p-20f;
    return t;
}

/* In a group about one bound in twelve is listed, and which cannot be foreseen: each number is written, and stays if its
 * bound reaches t, so that there is no branch to guess. */
static int32_t list(const float *up, const float *peak, int64_t n, float t, int32_t *id, int64_t most)
{
    int64_t count = 0;
    for (int64_t g = 0; g < n; g += HEAD_PEAK) {
        int64_t end = g + HEAD_PEAK < n ? g + HEAD_PEAK : n;
        if (peak[g / HEAD_PEAK] < t)
            continue;
        if (count + HEAD_PEAK <= most) {
            for (int64_t i = g; i < end; i++) {
                id[count] = (int32_t)i;
                count += !(up[i] < t);
            }
            continue;
        }
        for (int64_t i = g; i < end; i++) {
            if (up[i] < t)
                continue;
            if (count == most)
                return -1;
            id[count++] = (int32_t)i;
        }
    }
    return (int32_t)count;
}

static setun_status eval(const setun_args *a, setun_error *err)
{
    int64_t n = a->in[UP].dim[0], rows = a->in[UP].dim[1], m = a->in[ID].dim[1];
    int64_t top = ((const int32_t *)a->in[TOP].data)[0], most = a->attr[0].i, peaks = a->in[PEAK].dim[1];
    const int32_t *count = a->in[COUNT].data;
    int32_t *id = a->out[0].data;
    top = top < rows ? top : rows;
    for (int64_t t = 0; t < n; t++) {
        if (count[t] > m)
            return setun_fail(err, SETUN_BAD_ARG, "count[%lld] is %d, of at most %lld", (long long)t, (int)count[t], (long long)m);
        float at = least((const float *)a->in[VALUE].data + t * m, (const int32_t *)a->in[ID].data + t * m, count[t], top,
                         (const int32_t *)a->in[NOISE].data + 4 * t);
        int32_t used = list((const float *)a->in[UP].data + t * rows, (const float *)a->in[PEAK].data + t * peaks, rows, at,
                            id + t * most, most);
        ((int32_t *)a->out[1].data)[t] = used;
        ((float *)a->out[2].data)[t] = at;
        used = used > 0 ? used : 0;
        memset(id + t * most + used, 0, (size_t)(most - used) * sizeof *id);
    }
    return SETUN_OK;
}

static void cost(const setun_args *a, setun_cost *c)
{
    setun_cost_map(a, 1, c);
}

static void fill(const setun_args *a, uint64_t seed)
{
    float *up = a->in[UP].data, *value = a->in[VALUE].data;
    int64_t m = a->in[ID].dim[1];
    for (int64_t i = 0, n = setun_count(&a->in[UP]); i < n; i++)
        up[i] = i % 50 == 3 ? INFINITY : (float)(setun_mix(seed, (uint64_t)i) & 1023);
    head_fill_peaks(&a->in[UP], &a->in[PEAK]);
    for (int64_t i = 0, n = setun_count(&a->in[VALUE]); i < n; i++)
        value[i] = (float)(900 + (setun_mix(seed ^ 5, (uint64_t)i) & 127));
    setun_fill_index(&a->in[ID], a->in[UP].dim[1], seed);
    for (int64_t t = 0; t < a->in[UP].dim[0]; t++) {
        const int32_t noise[4] = {(int32_t)(seed & 0xffff), 9, t % 2 ? 0x3f800000 : 0, t % 3 ? 0 : (int32_t)0xc1200000};
        memcpy((int32_t *)a->in[NOISE].data + 4 * t, noise, sizeof noise);
        ((int32_t *)a->in[COUNT].data)[t] = (int32_t)(m - t % 2);
    }
    ((int32_t *)a->in[TOP].data)[0] = (int32_t)m;
}

static const setun_port in[] = {
    {"up", "f32[n,r]: of head_bounds", 0, 0},
    {"peak", "f32[n,R]: of head_bounds", 0, 0},
    {"noise", "i32[n,4]: as for head_bounds", 0, 0},
    {"id", "i32[n,m]: seeds", 0, 0},
    {"count", "i32[n]: how many seeds", 0, 0},
    {"value", "f32[n,m]: exact logits of the seeds", 0, 0},
    {"top", "i32[1]: how many seeds are wanted", 0, 0},
};
static const setun_port out[] = {
    {"id", "i32[n,most]: rows that can be among the largest, ascending; zeros behind", 0, 0},
    {"count", "i32[n]: how many; -1: more than most", 0, 0},
    {"least", "f32[n]: what a row must be able to reach", 0, 0},
};
static const setun_attr attr[] = {{"most", "how many rows can be listed", SETUN_ATTR_INT, 0, {32768}}};
#define CASE(n, r, R, m) "up:f32[" n "," r "] peak:f32[" n "," R "] noise:i32[" n ",4] id:i32[" n "," m "] count:i32[" n "] value:f32[" n "," m "] top:i32[1]"
static const char *const cases[] = {
    CASE("1", "1000", "63", "9"), CASE("n3", "129", "9", "20") " most=20", CASE("m2", "7", "1", "7") " most=7",
    CASE("1", "1", "1", "1") " most=1", NULL,
};

SETUN_OP(head_select) = {
    .size = sizeof(setun_op), .version = 2, .name = "head_select",
    .doc = "the rows of the head that can be among the largest, by bounds",
    .in = in, .out = out, .attr = attr,
    .n_in = SETUN_LEN(in), .n_out = SETUN_LEN(out), .n_attr = SETUN_LEN(attr),
    .infer = infer, .eval = eval, .cost = cost, .fill = fill, .cases = cases,
};
