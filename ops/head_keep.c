/* ops/head_keep.c -- of listed rows those whose bound still reaches what is needed.
 *
 * The last sieve of the screened head: head_select made the list and `least`, head_refine the better
 * bounds.  Too many are left, or were before: the count is -1 and the caller computes all logits.  There is no
 * kernel: it is a short list. */
#include "setun/op.h"

enum { ID, COUNT, UP, LEAST };

static setun_status infer(setun_args *a, setun_error *err)
{
    static const uint32_t type[4] = {SETUN_I32, SETUN_I32, SETUN_F32, SETUN_F32}, rank[4] = {2, 1, 2, 1};
    int64_t most = a->attr[0].i;
    setun_status s = SETUN_OK;
    for (uint32_t i = 0; i < 4 && s == SETUN_OK; i++)
        s = setun_want(a, i, SETUN_OF(type[i]), rank[i], err);
    for (uint32_t i = COUNT; i <= LEAST && s == SETUN_OK; i++)
        s = setun_want_equal(a, i, 0, ID, 0, err);
    if (s == SETUN_OK)
        s = setun_want_equal(a, UP, 1, ID, 1, err);
    if (s != SETUN_OK)
        return s;
    if (most < 1 || most > 1 << 20)
        return setun_fail(err, SETUN_BAD_ARG, "most is %lld, wants a number from 1 to %d", (long long)most, 1 << 20);
    (void)setun_infer_out(a, 0, SETUN_I32, 2, a->in[ID].dim[0], most, 1);
    return setun_infer_out(a, 1, SETUN_I32, 1, a->in[ID].dim[0], 1, 1);
}

static setun_status eval(const setun_args *a, setun_error *err)
{
    int64_t n = a->in[ID].dim[0], rows = a->in[ID].dim[1], most = a->attr[0].i;
    int32_t *to = a->out[0].data, *kept = a->out[1].data;
    (void)err;
    memset(to, 0, (size_t)(n * most) * sizeof *to);
    for (int64_t t = 0; t < n; t++) {
        const int32_t *id = (const int32_t *)a->in[ID].data + t * rows;
        const float *up = (const float *)a->in[UP].data + t * rows;
        float least = ((const float *)a->in[LEAST].data)[t];
        int64_t count = ((const int32_t *)a->in[COUNT].data)[t], m = 0;
        for (int64_t j = 0; j < count && j < rows && m <= most; j++)
            if (!(up[j] < least)) {
                if (m < most)
                    to[t * most + m] = id[j];
                m++;
            }
        kept[t] = m > most || count < 0 ? -1 : (int32_t)m;
    }
    return SETUN_OK;
}

static void cost(const setun_args *a, setun_cost *c)
{
    (void)a;
    c->int_ops = c->float_ops = c->bytes = 0; /* a few rows */
}

static void fill(const setun_args *a, uint64_t seed)
{
    float *up = a->in[UP].data;
    setun_fill_index(&a->in[ID], 1000, seed);
    for (int64_t i = 0, n = setun_count(&a->in[UP]); i < n; i++)
        up[i] = (float)(setun_mix(seed, (uint64_t)i) & 1023);
    for (int64_t t = 0; t < a->in[ID].dim[0]; t++) {
        ((float *)a->in[LEAST].data)[t] = 600.0f;
        ((int32_t *)a->in[COUNT].data)[t] = (int32_t)(setun_mix(seed ^ 1, (uint64_t)t) % (uint64_t)(a->in[ID].dim[1] + 2)) - 1;
    }
}

static const setun_port in[] = {
    {"id", "i32[n,r]: rows", 0, 0},
    {"count", "i32[n]: how many; -1 stays", 0, 0},
    {"up", "f32[n,r]: their bounds", 0, 0},
    {"least", "f32[n]: what a row must be able to reach", 0, 0},
};
static const setun_port out[] = {
    {"id", "i32[n,most]: the rows that can, in the same order; zeros behind", 0, 0},
    {"count", "i32[n]: how many; -1: more than most", 0, 0},
};
static const setun_attr attr[] = {{"most", "how many rows can be listed", SETUN_ATTR_INT, 0, {4096}}};
static const char *const cases[] = {
    "id:i32[1,1000] count:i32[1] up:f32[1,1000] least:f32[1]",
    "id:i32[n3,129] count:i32[n3] up:f32[n3,129] least:f32[n3] most=20",
    "id:i32[m2,7] count:i32[m2] up:f32[m2,7] least:f32[m2] most=7",
    "id:i32[1,1] count:i32[1] up:f32[1,1] least:f32[1] most=1",
    NULL,
};

SETUN_OP(head_keep) = {
    .size = sizeof(setun_op), .version = 1, .name = "head_keep",
    .doc = "of listed rows of the head those that can be among the largest, by better bounds",
    .in = in, .out = out, .attr = attr,
    .n_in = SETUN_LEN(in), .n_out = SETUN_LEN(out), .n_attr = SETUN_LEN(attr),
    .infer = infer, .eval = eval, .cost = cost, .fill = fill, .cases = cases,
};
