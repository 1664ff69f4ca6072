/* ops/packed_matmul.c -- int8 activations times weights in a packing that somebody declared.
 *
 *     y[t][r] = (float)S * (ws / scale[t]),     S = sum over k of level[r][k] * q[t][k]
 *
 * The declaration is an attribute, in the text form of setun/packing.h; what is computed with it, and how the kernels
 * come from it, is in ops/packed_kernels.h.  The formulas with scales of rows and of groups are those of ternary_matmul,
 * bit for bit.  With `inside` each group's scale is read from its first unit, and ws f32[1] is one more factor. */
#include "ops/packed_kernels.h"

enum { PACKING, COLUMNS, GROUP, INSIDE };

#define EVAL_TOKENS 64

static setun_status want_packed_scales(const setun_args *a, const setun_packing *p, setun_error *err)
{
    const setun_view *w = &a->in[W], *ws = &a->in[WS];
    int64_t group = a->attr[GROUP].i, columns = a->attr[COLUMNS].i;
    setun_text t;
    if (group < 0 || group > INT32_MAX || group % p->digits || (a->attr[INSIDE].i && (!group || !p->scale)))
        return setun_fail(err, SETUN_BAD_ARG,
                          "group is %lld and inside %lld; a group is 0 or whole units of %u, and inside it has a scale",
                          (long long)group, (long long)a->attr[INSIDE].i, p->digits);
    if (ws->dtype == SETUN_F32 && ws->rank == 1 && (ws->dim[0] == 1 || (!group && ws->dim[0] == w->dim[0])) &&
        (!group || a->attr[INSIDE].i))
        return SETUN_OK;
    if (ws->dtype == SETUN_F32 && ws->rank == 2 && group && !a->attr[INSIDE].i && ws->dim[0] == w->dim[0] &&
        ws->dim[1] == (columns + group - 1) / group)
        return SETUN_OK;
    return setun_fail(err, SETUN_BAD_SHAPE, "ws is %s with group %lld: wants f32[1] or f32[r] with group 0 or inside, or "
                      "f32[r,columns/group rounded up]", setun_view_text(ws, &t), (long long)group);
}

static setun_status infer(setun_args *a, setun_error *err)
{
    static const uint32_t want[5] = {SETUN_I8, SETUN_F32, SETUN_I32, SETUN_U8, SETUN_F32}, rank[4] = {2, 1, 1, 2};
    const setun_view *q = &a->in[Q], *w = &a->in[W];
    int64_t columns = a->attr[COLUMNS].i;
    setun_packing p;
    setun_status s = setun_packing_read(&p, a->attr[PACKING].s, err);
    if (s != SETUN_OK)
        return s;
    for (uint32_t i = 0; i < 5; i++)
        if (a->in[i].dtype != want[i] || (i < 4 && a->in[i].rank != rank[i]))
            return setun_fail(err, SETUN_BAD_SHAPE, "input %u has the wrong type or rank (wants q i8[n,K], scale f32[n], sum i32[n], "
                              "w u8[r,bytes], ws f32)", i);
    if (columns < 1 || columns > MAX_K || q->dim[1] != setun_t2_padded(columns))
        return setun_fail(err, SETUN_BAD_SHAPE, "%lld columns want q of %lld (rounded up to 128) and not %lld; 1 to %d are possible",
                          (long long)columns, (long long)setun_t2_padded(columns > 0 ? columns : 1), (long long)q->dim[1], MAX_K);
    if (w->dim[1] != setun_packing_row_bytes(&p, columns))
        return setun_fail(err, SETUN_BAD_SHAPE, "w has rows of %lld bytes; %lld columns take %lld in this packing", (long long)w->dim[1],
                          (long long)columns, (long long)setun_packing_row_bytes(&p, columns));
    if (a->in[SCALE].dim[0] != q->dim[0] || a->in[SUM].dim[0] != q->dim[0])
        return setun_fail(err, SETUN_BAD_SHAPE, "scale and sum must have one element per row of q");
    s = want_packed_scales(a, &p, err);
    return s == SETUN_OK ? setun_infer_out(a, 0, SETUN_F32, 2, q->dim[0], w->dim[0], 1) : s;
}

/* Row r times the tokens from t0 on: each weight is unpacked once. */
static void eval_row(const setun_args *a, const setun_packing *p, int64_t r, int64_t t0, int64_t n)
{
    const int8_t *q = a->in[Q].data;
    const float *scale = a->in[SCALE].data, *ws = a->in[WS].data;
    const uint8_t *row = (const uint8_t *)a->in[W].data + r * a->in[W].dim[1];
    float *y = a->out[0].data, part[EVAL_TOKENS][STRIPES] = {{0}};
    int64_t kp = a->in[Q].dim[1], columns = a->attr[COLUMNS].i, rows = a->in[W].dim[0];
    int64_t group = a->attr[GROUP].i ? a->attr[GROUP].i : columns, n_group = (columns + group - 1) / group;
    int32_t s[EVAL_TOKENS] = {0};
    for (int64_t g = 0; g < n_group; g++) {
        for (int64_t t = 0; t < n; t++)
            s[t] = 0;
        for (int64_t i = g * group; i < columns && i < (g + 1) * group; i++) {
            int32_t v = setun_packing_get(p, row, i);
            for (int64_t t = 0; t < n; t++)
                s[t] += v * q[(t0 + t) * kp + i];
        }
        const uint8_t *unit = row + setun_packing_unit_at(p, g * group / p->digits);
        float m = a->attr[INSIDE].i ? setun_packing_get_scale(unit + p->scale_at, p->scale)
                : a->attr[GROUP].i ? ws[r * n_group + g] : 0.0f;
        for (int64_t t = 0; t < n; t++)
            part[t][g % STRIPES] += (float)s[t] * m;
    }
    for (int64_t t = 0; t < n; t++) {
        float *to = &y[(t0 + t) * rows + r];
        if (a->attr[GROUP].i)
            *to = halve_stripes(part[t]) * ((a->attr[INSIDE].i ? ws[0] : 1.0f) / scale[t0 + t]);
        else if (has_row_scales(a))
            *to = (float)s[t] * (1.0f / scale[t0 + t]) * ws[r];
        else
            *to = (float)s[t] * (ws[0] / scale[t0 + t]);
    }
}

static setun_status eval(const setun_args *a, setun_error *err)
{
    setun_packing p;
    setun_status s = setun_packing_read(&p, a->attr[PACKING].s, err);
    int64_t n = a->in[Q].dim[0];
    for (int64_t r = 0; s == SETUN_OK && r < a->in[W].dim[0]; r++)
        for (int64_t t = 0; t < n; t += EVAL_TOKENS)
            eval_row(a, &p, r, t, n - t < EVAL_TOKENS ? n - t : EVAL_TOKENS);
    return s;
}

/* What all kernels share. */
static void open_packed(setun_kernel *k, const setun_args *a, const setun_packing *p, packed_kernel *c)
{
    memset(c, 0, sizeof *c);
    c->k = k;
    c->columns = a->attr[COLUMNS].i;
    c->group = a->attr[GROUP].i;
    int64_t n_unit = (c->columns + p->digits - 1) / p->digits;
    /* With groups every group is whole spans, and so is what is left of the last one. */
    int64_t per_group = c->group / p->digits, last = c->group ? n_unit % per_group : 0;
    packed_open(&c->d, k, p, n_unit, per_group, 0);
    if (last % c->d.units)
        packed_open(&c->d, k, p, 1, per_group, 0);
    c->n_span = n_unit / c->d.units;
    c->n_tail = n_unit % c->d.units;
    packed_open(&c->tail, k, p, 1, 0, c->d.lanes);
    c->row_bytes = a->in[W].dim[1];
    c->head = setun_packing_unit_at(p, 0);
    c->lanes = c->n_span * c->d.span_lanes + c->n_tail * c->tail.span_lanes;
    c->inside = a->attr[INSIDE].i != 0;
    c->ahead = setun_knob_value(a, PREFETCH);
    c->q = k_arg(k, Q, K_I8);
    c->d.w = c->tail.w = k_arg(k, W, K_I8);
    c->ws = k_arg(k, WS, K_F32);
    c->x = k_scratch(k, K_I8, (a->in[Q].dim[0] == 1 ? 1 : TOKENS) * c->lanes);
    if (c->group) {
        c->n_group = (c->columns + c->group - 1) / c->group;
        c->group_spans = c->group / c->d.span_digits;
        c->bias = k_scratch(k, K_I32, (PACKED_FEW + 1) * (c->n_group + STRIPES) * 4);
    }
}

static setun_status lower(setun_kernel *k, const setun_args *a, setun_error *err)
{
    setun_packing p;
    packed_kernel c;
    setun_status s = setun_packing_read(&p, a->attr[PACKING].s, err);
    if (s != SETUN_OK)
        return s;
    k_grid(k, W, 0, ROW_GRANULE);
    open_packed(k, a, &p, &c);
    k_val rows = k_dim_run(k, W, 0), n = k_dim(k, Q, 0), begin = k_muli(k, k_begin(k), ROW_GRANULE);
    k_val end = k_min(k, k_muli(k, k_end(k), ROW_GRANULE), rows);
    if (a->in[Q].dim[0] == 1) {
        packed_one(&c, a, begin, end);
        return SETUN_OK;
    }
    c.d.whole = c.tail.whole = 1;
    k_if(k, k_lt(k, n, k_i64(k, PACKED_FEW)));
    packed_few(&c, a, begin, end, rows, n);
    k_else(k);
    packed_many(&c, a, begin, end, rows, n);
    k_stop(k);
    return SETUN_OK;
}

static void cost(const setun_args *a, setun_cost *c)
{
    double n = setun_cost_count(&a->in[SCALE]), kp = (double)a->in[Q].dim[1], rows = (double)a->in[W].dim[0];
    double groups = a->attr[GROUP].i ? (double)a->attr[COLUMNS].i / (double)a->attr[GROUP].i : 0;
    c->int_ops = n * rows * (double)a->attr[COLUMNS].i;
    c->float_ops = n * rows * (1 + groups);
    c->bytes = rows * (double)a->in[W].dim[1] + setun_cost_view(&a->in[WS]) + n * kp + 4 * n * rows;
}

/* Rows of all levels, packed; the first is the largest level wherever its table allows that. */
static void fill(const setun_args *a, uint64_t seed)
{
    setun_packing p;
    int8_t w[SETUN_PACKING_UNIT], *q = a->in[Q].data;
    int64_t columns = a->attr[COLUMNS].i, kp = a->in[Q].dim[1], bytes = a->in[W].dim[1];
    int32_t *sum = a->in[SUM].data;
    float *scale = a->in[SCALE].data, *ws = a->in[WS].data;
    if (setun_packing_read(&p, a->attr[PACKING].s, NULL) != SETUN_OK)
        return;
    setun_packing_plan plan;
    setun_packing_make_plan(&p, &plan);
    int32_t top = 0;
    for (int32_t i = 0; i < p.n_level; i++)
        top = p.level[i] > p.level[top] ? i : top;
    for (int64_t i = 0, n = setun_count(&a->in[WS]); i < n; i++)
        ws[i] = 0.75f + (float)((seed + (uint64_t)i) % 7) * 0.125f;
    for (int64_t t = 0; t < a->in[Q].dim[0]; t++) {
        sum[t] = 0;
        for (int64_t i = 0; i < kp; i++) {
            if ((t + (int64_t)seed) % 3 == 0) /* the worst case for narrow sums */
                q[t * kp + i] = t % 2 ? -127 : 127;
            q[t * kp + i] = i < columns ? q[t * kp + i] : 0;
            sum[t] += q[t * kp + i];
        }
        scale[t] = 3.0f + (float)t * 0.37f;
    }
    for (int64_t r = 0; r < a->in[W].dim[0]; r++) {
        uint8_t *row = (uint8_t *)a->in[W].data + r * bytes;
        memset(row, 0, (size_t)bytes);
        if (p.row_scale)
            setun_packing_put_scale(row, p.row_scale, 0.5f + (float)(r % 5) * 0.25f);
        for (int64_t u = 0; u * p.digits < columns; u++) {
            uint8_t *unit = row + setun_packing_unit_at(&p, u);
            for (int64_t i = 0; i < p.digits; i++)
                w[i] = (int8_t)p.level[r ? (int32_t)(setun_mix(seed, (uint64_t)(r * kp + u * p.digits + i)) % (uint64_t)p.n_level) : top];
            (void)setun_packing_pack_unit(&p, &plan, w, columns - u * p.digits, unit);
            if (p.scale)
                setun_packing_put_scale(unit + p.scale_at, p.scale, 0.25f + (float)((r + u) % 9) * 0.125f);
        }
    }
}

static const setun_port in[] = {
    {"q", "i8[n,K]: quantised activations in -127..127, rows padded with 0 to K, a multiple of 128", 0, 0},
    {"scale", "f32[n]: what the activations were multiplied with", 0, 0},
    {"sum", "i32[n]: sum of each row of q", 0, 0},
    {"w", "u8[r,bytes]: packed weights", 0, 0},
    {"ws", "f32[1], f32[r] or f32[r,columns/group rounded up]: scales of the weights, multiplied", 0, 0},
};
static const setun_port out[] = {{"y", "f32[n,r]", 0, 0}};

static const setun_attr attr[] = {
    {"packing", "how the weights lie in their bytes, as setun/packing.h says it", SETUN_ATTR_STRING, 1, {.s = NULL}},
    {"columns", "weights of a row", SETUN_ATTR_INT, 1, {.i = 0}},
    {"group", "weights of a row that share a scale: 0 (all) or whole units", SETUN_ATTR_INT, 0, {.i = 0}},
    {"inside", "1: the scale of a group is that of its first unit, and ws f32[1] multiplies all", SETUN_ATTR_INT, 0, {.i = 0}},
};

#define T2 "packing=\"levels -1 0 1; bits 128x1 2 strided\""
#define BASE3 "packing=\"levels -1 0 1; fraction 32x5 8 apart\""
#define PTQ "packing=\"levels -1 0 1; fraction 24x5 8 apart; fraction 2x4 8 apart; scale f16\""
#define Q2 "packing=\"levels -1 0 1; scale f16; bits 64x1 2\""
#define TRIPLES "packing=\"levels -1 0 1; integer 64x3 4+1\""
#define INT3 "packing=\"levels -4:3; bits 32x1 3\""
static const char *const cases[] = {
    "q:i8[1,128] scale:f32[1] sum:i32[1] w:u8[7,32] ws:f32[1] columns=128 " T2,
    "q:i8[1,384] scale:f32[1] sum:i32[1] w:u8[33,96] ws:f32[33] columns=300 " T2,
    "q:i8[n5,384] scale:f32[n5] sum:i32[n5] w:u8[19,96] ws:f32[19] columns=300 " T2,
    "q:i8[n37,384] scale:f32[n37] sum:i32[n37] w:u8[19,96] ws:f32[1] columns=384 " T2,
    "q:i8[1,512] scale:f32[1] sum:i32[1] w:u8[18,128] ws:f32[18,2] columns=512 group=256 " T2,
    "q:i8[1,640] scale:f32[1] sum:i32[1] w:u8[9,128] ws:f32[1] columns=640 " BASE3,
    "q:i8[n3,256] scale:f32[n3] sum:i32[n3] w:u8[7,64] ws:f32[1] columns=161 " BASE3,
    "q:i8[n40,384] scale:f32[n40] sum:i32[n40] w:u8[17,64] ws:f32[17] columns=300 " BASE3,
    "q:i8[1,1152] scale:f32[1] sum:i32[1] w:u8[5,252] ws:f32[1] columns=1100 group=128 inside=1 " PTQ,
    "q:i8[n7,384] scale:f32[n7] sum:i32[n7] w:u8[9,84] ws:f32[1] columns=300 group=256 inside=1 " PTQ,
    "q:i8[n33,1280] scale:f32[n33] sum:i32[n33] w:u8[18,280] ws:f32[1] columns=1280 group=128 inside=1 " PTQ,
    "q:i8[1,256] scale:f32[1] sum:i32[1] w:u8[5,72] ws:f32[5] columns=256 " Q2,
    "q:i8[1,256] scale:f32[1] sum:i32[1] w:u8[5,72] ws:f32[1] columns=250 group=64 inside=1 " Q2,
    "q:i8[1,384] scale:f32[1] sum:i32[1] w:u8[6,80] ws:f32[1] columns=380 " TRIPLES,
    "q:i8[n17,256] scale:f32[n17] sum:i32[n17] w:u8[6,80] ws:f32[6] columns=193 " TRIPLES,
    "q:i8[1,512] scale:f32[1] sum:i32[1] w:u8[3,192] ws:f32[1] columns=512 " INT3,
    "q:i8[n4,128] scale:f32[n4] sum:i32[n4] w:u8[3,48] ws:f32[3,1] columns=100 group=128 " INT3,
    "q:i8[n20,128] scale:f32[n20] sum:i32[n20] w:u8[3,24] ws:f32[3,1] columns=40 group=64 " INT3,
    NULL,
};

static const setun_knob knobs[] = {
    {"prefetch", "bytes of weights brought in ahead: 4 KB, or pages side by side", prefetch_values, SETUN_LEN(prefetch_values), 0}};

SETUN_OP(packed_matmul) = {
    .size = sizeof(setun_op), .version = 1,
    .name = "packed_matmul",
    .doc = "y = q . w^T * (ws / scale): exact integer sums of int8 activations and weights in any declared packing.",
    .in = in, .out = out, .attr = attr, .n_in = SETUN_LEN(in), .n_out = SETUN_LEN(out), .n_attr = SETUN_LEN(attr),
    .infer = infer, .eval = eval, .lower = lower, .cost = cost, .fill = fill, .cases = cases,
    .knob = knobs, .n_knob = SETUN_LEN(knobs),
};
