/* ops/packed_kernels.h -- products of int8 activations with a matrix in any packing that can be declared.
 *
 *     y[t][r] = (float)S * (ws / scale[t]),     S = sum over k of level[r][k] * q[t][k]
 *
 * and with scales of rows or groups as in ops/ternary_kernels.h and ops/ternary_groups.h.  S is an exact integer, so
 * order and decoding show in no bit: the same weights give the same results in every packing.
 *
 * Activations are put into the order of the digits' vectors (ops/packed_decode.h) first, with zeros where a vector
 * has no digit.  Three kernels:
 *   row    one token: vectors of a span are decoded and meet the activations at once
 *   few    some tokens: a row is decoded to bytes in the first-level cache, which meet all tokens
 *   many   several rows are decoded, then dense products with the tokens in the lanes, as in ternary_groups.h
 *
 * Bounds: |level| <= 127 and a number that comes out of a vector is at most 127, so two products fit 16 bits, and
 * 32 bits hold the sums of up to MAX_K columns. */
#ifndef SETUN_OPS_PACKED_KERNELS_H
#define SETUN_OPS_PACKED_KERNELS_H

#include "ops/packed_decode.h"
#include "ops/ternary_groups.h"

#define NO_COLUMN INT32_MAX
#define MOST_UP 4 /* shifts that products may keep: 0 to 3 */

typedef struct packed_kernel {
    setun_kernel *k;
    packed   d, tail;       /* spans, and single units behind the last whole span of a row: n_tail */
    int64_t  n_tail;
    int64_t  columns, n_span, row_bytes, head; /* spans of a row; bytes of it, of which head are a scale */
    int64_t  group, n_group, group_spans;      /* 0; or digits, groups of a row, spans of a group */
    int64_t  lanes;                            /* of a row of ordered activations, or of decoded weights */
    int64_t  ahead;
    int      inside;                           /* scales of groups are read from the units */
    k_val    q, x, ws, bias;                   /* arguments and memory: activations, ordered ones, scales, sums */
} packed_kernel;

/* ---------------------------------------------------------------- activations in the order of digits */

/* Vector v's digit i: the columns of its lanes in the span. */
static uint32_t vector_columns(const packed *d, const packed_vector *v, uint32_t i, int32_t *column)
{
    for (uint32_t l = 0; l < v->n; l++) {
        const setun_packing_part *t = v->of[l]; /* it may have fewer digits than others of the vector */
        column[l] = i < t->digits ? (int32_t)(v->unit[l] * d->p->digits + setun_packing_column(t, v->field[l], i)) : NO_COLUMN;
    }
    return v->n;
}

/* The activations at `from` in the columns of a vector, of which those from `valid` on are none. */
static k_val ordered(const packed_kernel *c, k_val from, const int32_t *column, uint32_t n, int64_t valid)
{
    setun_kernel *k = c->k;
    int32_t low = INT32_MAX, high = -1, mask[MOST_LANES];
    uint32_t wide = 1, lanes = c->d.lanes;
    for (uint32_t l = 0; l < n; l++)
        if (column[l] < valid) {
            low = column[l] < low ? column[l] : low;
            high = column[l] > high ? column[l] : high;
        }
    if (high < 0)
        return k_int(k, K_TYPE(K_I8, lanes), 0);
    while (wide < (uint32_t)(high - low + 1))
        wide *= 2;
    if (wide > K_MAX_LANES) {
        k_val a = ordered(c, from, column, n / 2, valid), b = ordered(c, from, column + n / 2, n - n / 2, valid);
        for (uint32_t l = 0; l < lanes; l++) /* the second half has zeros behind it: n is at most lanes */
            mask[l] = (int32_t)(l < n / 2 ? l : lanes + l - n / 2);
        return k_shuffle(k, a, b, mask, lanes);
    }
    k_val v = k_load_pad(k, c->q, k_addi(k, from, low), high - low + 1, wide, 0);
    int as_is = wide == lanes;
    for (uint32_t l = 0; l < lanes; l++) {
        mask[l] = l < n && column[l] < valid ? column[l] - low : (int32_t)wide; /* a zero of the other operand */
        as_is &= mask[l] == (int32_t)l;
    }
    return as_is ? v : k_shuffle(k, v, k_int(k, K_TYPE(K_I8, wide), 0), mask, lanes);
}

static void order_span(const packed_kernel *c, const packed *d, k_val from, int64_t valid, k_val to)
{
    int32_t column[MOST_LANES];
    int64_t at = 0;
    for (uint32_t j = 0; j < d->n_vector; j++)
        for (uint32_t i = 0; i < d->vector[j].part->digits; i++, at += d->lanes) {
            uint32_t n = vector_columns(d, &d->vector[j], i, column);
            k_store(c->k, c->x, k_addi(c->k, to, at), ordered(c, from, column, n, valid));
        }
}

/* `columns` activations from q[from] on, in n spans, to x[to ...]. */
static void order_spans(const packed_kernel *c, const packed *d, k_val from, int64_t columns, int64_t n, k_val to)
{
    setun_kernel *k = c->k;
    int64_t whole = columns / d->span_digits < n ? columns / d->span_digits : n;
    if (whole) {
        k_val s = k_for(k, k_i64(k, 0), k_i64(k, whole), 1);
        order_span(c, d, k_add(k, from, k_muli(k, s, d->span_digits)), d->span_digits, k_add(k, to, k_muli(k, s, d->span_lanes)));
        k_stop(k);
    }
    if (n > whole)
        order_span(c, d, k_addi(k, from, whole * d->span_digits), columns - whole * d->span_digits, k_addi(k, to, whole * d->span_lanes));
}

/* The token whose activations begin at q[from]. */
static void order_token(const packed_kernel *c, k_val from, k_val to)
{
    int64_t done = c->n_span * c->d.span_digits;
    order_spans(c, &c->d, from, c->columns, c->n_span, to);
    if (c->n_tail)
        order_spans(c, &c->tail, k_addi(c->k, from, done), c->columns - done, c->n_tail,
                    k_addi(c->k, to, c->n_span * c->d.span_lanes));
}

/* ---------------------------------------------------------------- one token */

/* Sums in lanes, for each shift that products have. */
typedef struct packed_sums {
    k_val   wide[MOST_UP];   /* variables of 32 bits; 0: none yet */
    k_val   narrow[MOST_UP]; /* without dot4: sums in 16 bits, 0: none */
    int64_t bound[MOST_UP];  /* how large a lane of those can be */
} packed_sums;

static uint32_t sum_count(const packed_kernel *c)
{
    return c->d.lanes / (k_info(c->k, K_HAS_DOT4) ? 4 : 2);
}

static void widen_sums(const packed_kernel *c, packed_sums *s, int32_t up)
{
    setun_kernel *k = c->k;
    if (s->narrow[up])
        k_set(k, s->wide[up], k_add(k, k_get(k, s->wide[up]), k_sext(k, s->narrow[up], K_I32)));
    s->narrow[up] = 0;
    s->bound[up] = 0;
}

/* The span at byte `base` times the activations at x[at]. */
static void span_dots(packed_kernel *c, packed *d, k_val base, k_val at, packed_sums *s)
{
    setun_kernel *k = c->k;
    k_val digit[SETUN_PACKING_DIGITS];
    span_begin(d, base);
    for (uint32_t j = 0; j < d->n_vector; j++) {
        const packed_vector *v = &d->vector[j];
        int32_t up;
        vector_digits(d, v, digit, &up);
        for (uint32_t i = 0; i < v->part->digits; i++, at = k_addi(k, at, d->lanes)) {
            k_val x = k_load(k, c->x, at, d->lanes);
            if (k_info(k, K_HAS_DOT4)) {
                k_set(k, s->wide[up], k_dot4(k, k_get(k, s->wide[up]), digit[i], x));
                continue;
            }
            int64_t most = 2 * 127 * ((int64_t)d->most << up);
            if (s->bound[up] + most > INT16_MAX)
                widen_sums(c, s, up);
            k_val dot = k_dot2(k, digit[i], x);
            s->narrow[up] = s->narrow[up] ? k_add(k, s->narrow[up], dot) : dot;
            s->bound[up] += most;
        }
    }
}

/* Spans [0, n) from byte `base` on times the activations from x[at] on, added to the sums. */
static void spans_dots(packed_kernel *c, packed *d, k_val base, k_val at, int64_t n, packed_sums *s)
{
    setun_kernel *k = c->k;
    int64_t chunk = 1, digits = d->span_lanes / d->lanes;
    for (int64_t i = 2; i <= 8 && i * digits <= 40; i++)
        chunk = n % i == 0 ? i : chunk;
    k_val b = k_for(k, k_i64(k, 0), k_i64(k, n), chunk);
    for (int64_t i = 0; i < chunk; i++) {
        k_val span = k_addi(k, b, i), from = k_add(k, base, k_muli(k, span, d->span_bytes));
        int64_t here = i * d->span_bytes; /* a hint for every line of the chunk, at the span where it begins */
        for (int64_t line = (here + K_LINE - 1) / K_LINE * K_LINE; c->ahead && line < here + d->span_bytes; line += K_LINE)
            k_fetch_ahead(k, d->w, k_addi(k, from, line - here), c->ahead);
        span_dots(c, d, from, k_add(k, at, k_muli(k, span, d->span_lanes)), s);
    }
    for (int32_t up = 0; up < MOST_UP; up++)
        widen_sums(c, s, up);
    k_stop(k);
}

/* n spans and `tail` single units from byte `base` on times the activations from x[at] on: lanes to be added up. */
static k_val spans_sum(packed_kernel *c, k_val base, k_val at, int64_t n, int64_t tail)
{
    setun_kernel *k = c->k;
    packed_sums s;
    k_val sum = 0;
    memset(&s, 0, sizeof s);
    for (int32_t up = 0; up < MOST_UP; up++)
        s.wide[up] = k_var(k, k_int(k, K_TYPE(K_I32, sum_count(c)), 0));
    spans_dots(c, &c->d, base, at, n, &s);
    if (tail)
        spans_dots(c, &c->tail, k_addi(k, base, n * c->d.span_bytes), k_addi(k, at, n * c->d.span_lanes), tail, &s);
    for (int32_t up = 0; up < MOST_UP; up++) { /* every lane is a multiple of 2^up: the shift is exact */
        k_val v = up ? k_shrs(k, k_get(k, s.wide[up]), up) : k_get(k, s.wide[up]);
        sum = sum ? k_add(k, sum, v) : v;
    }
    return c->d.step > 1 ? k_muli(k, sum, c->d.step) : sum;
}

static k_val row_at(const packed_kernel *c, k_val r)
{
    return k_addi(c->k, k_muli(c->k, r, c->row_bytes), c->head);
}

/* One scale of a unit, or of the table of scales, as f32. */
static k_val group_scale(const packed_kernel *c, k_val r, k_val g)
{
    setun_kernel *k = c->k;
    const setun_packing *p = c->d.p;
    if (!c->inside)
        return k_load(k, c->ws, k_add(k, k_muli(k, r, c->n_group), g), 1);
    k_val at = k_addi(k, k_add(k, row_at(c, r), k_muli(k, g, c->group_spans * c->d.span_bytes)), p->scale_at);
    uint32_t bytes = (uint32_t)setun_row_bytes(p->scale, 1);
    k_val v = k_load(k, c->d.w, at, bytes); /* of any alignment */
    return p->scale == SETUN_F32 ? k_cast(k, v, K_TYPE(K_F32, 1)) : k_widen(k, k_cast(k, v, K_TYPE(K_I16, 1)), p->scale);
}

/* The groups g .. g + n - 1, n <= 8, of row r go to the stripes. */
static void add_packed_groups(packed_kernel *c, k_val r, k_val g, int64_t n, int last, k_val stripes)
{
    setun_kernel *k = c->k;
    k_val v[STRIPES], scale[STRIPES], none = k_f32(k, 0.0f);
    for (int64_t i = 0; i < STRIPES; i++) {
        k_val gi = k_addi(k, g, i), base = k_add(k, row_at(c, r), k_muli(k, gi, c->group_spans * c->d.span_bytes));
        int64_t spans = last && i == n - 1 ? c->n_span - (c->n_group - 1) * c->group_spans : c->group_spans;
        v[i] = i < n ? spans_sum(c, base, k_muli(k, gi, c->group_spans * c->d.span_lanes), spans, 0)
                     : k_int(k, K_TYPE(K_I32, sum_count(c)), 0);
        scale[i] = i < n ? group_scale(c, r, gi) : none;
    }
    for (int64_t m = STRIPES; m > 1; m /= 2)
        for (int64_t i = 0; i < m / 2; i++)
            scale[i] = k_concat(k, scale[2 * i], scale[2 * i + 1]);
    k_val s = k_add(k, sum_lanes(k, v, STRIPES), k_muli(k, k_load(k, c->bias, g, STRIPES), c->d.offset));
    k_set(k, stripes, k_add(k, k_get(k, stripes), k_mul(k, k_i2f(k, s), scale[0])));
}

/* The sum of a row's groups, without what all of them are multiplied with. */
static k_val packed_group_row(packed_kernel *c, k_val r)
{
    setun_kernel *k = c->k;
    int64_t whole = (c->n_group - 1) / STRIPES * STRIPES; /* the last group may be shorter */
    k_val stripes = k_var(k, k_f32v(k, 0.0f, STRIPES));
    if (whole) {
        k_val g = k_for(k, k_i64(k, 0), k_i64(k, whole), STRIPES);
        add_packed_groups(c, r, g, STRIPES, 0, stripes);
        k_stop(k);
    }
    add_packed_groups(c, r, k_i64(k, whole), c->n_group - whole, 1, stripes);
    return k_rsum(k, k_get(k, stripes));
}

/* bias[g]: sums of the ordered activations from x[from] on in every group, and zeros behind the last. */
static void packed_bias(const packed_kernel *c, k_val from)
{
    setun_kernel *k = c->k;
    uint32_t lanes = c->d.lanes;
    k_val zero = k_i64(k, 0), step = k_i64(k, c->group_spans * c->d.span_lanes);
    k_store(k, c->bias, k_i64(k, c->n_group / STRIPES * STRIPES), k_int(k, K_TYPE(K_I32, STRIPES), 0));
    k_val g = k_for(k, zero, k_i64(k, c->n_group), 1), first = k_mul(k, g, step);
    k_val acc = k_var(k, k_int(k, K_TYPE(K_I32, lanes), 0));
    k_val i = k_for(k, first, k_min(k, k_add(k, first, step), k_i64(k, c->lanes)), lanes);
    k_set(k, acc, k_add(k, k_get(k, acc), k_sext(k, k_load(k, c->x, k_add(k, from, i), lanes), K_I32)));
    k_stop(k);
    k_store(k, c->bias, g, k_rsum(k, k_get(k, acc)));
    k_stop(k);
}

static void packed_one(packed_kernel *c, const setun_args *a, k_val begin, k_val end)
{
    setun_kernel *k = c->k;
    k_val zero = k_i64(k, 0), scale = k_load(k, k_arg(k, SCALE, K_F32), zero, 1);
    sink to = open_sink(k, a);
    order_token(c, zero, zero);
    if (c->group) {
        k_val m = k_div(k, c->inside ? k_load(k, c->ws, zero, 1) : k_f32(k, 1.0f), scale);
        packed_bias(c, zero);
        k_val r = k_for(k, begin, end, 1);
        k_store(k, to.y, r, k_mul(k, packed_group_row(c, r), m));
        k_stop(k);
        return;
    }
    k_val m = token_factor(k, a, scale), bias = k_muli(k, k_load(k, k_arg(k, SUM, K_I32), zero, 1), c->d.offset);
    k_val r = k_for(k, begin, end, 1), s = k_rsum(k, spans_sum(c, row_at(c, r), zero, c->n_span, c->n_tail));
    put(k, &to, 0, r, k_mul(k, k_i2f(k, k_add(k, s, bias)), m));
    k_stop(k);
}

/* ---------------------------------------------------------------- rows as bytes */

/* n spans from byte `from` on as level - offset, in the order of the digits, to codes[to ...]. */
static void decode_spans(const packed_kernel *c, packed *d, k_val from, int64_t n, k_val codes, k_val to)
{
    setun_kernel *k = c->k;
    k_val s = k_for(k, k_i64(k, 0), k_i64(k, n), 1), at = k_add(k, to, k_muli(k, s, d->span_lanes));
    k_val digit[SETUN_PACKING_DIGITS];
    from = k_add(k, from, k_muli(k, s, d->span_bytes));
    for (int64_t line = 0; c->ahead && line < d->span_bytes; line += K_LINE)
        k_fetch_ahead(k, d->w, k_addi(k, from, line), c->ahead);
    span_begin(d, from);
    for (uint32_t j = 0; j < d->n_vector; j++) {
        int32_t up;
        vector_digits(d, &d->vector[j], digit, &up);
        for (uint32_t i = 0; i < d->vector[j].part->digits; i++, at = k_addi(k, at, d->lanes))
            k_store(k, codes, at, digit[i]);
    }
    k_stop(k);
}

/* All of row r. */
static void decode_packed(packed_kernel *c, k_val r, k_val codes, k_val to)
{
    k_val from = row_at(c, r);
    decode_spans(c, &c->d, from, c->n_span, codes, to);
    if (c->n_tail)
        decode_spans(c, &c->tail, k_addi(c->k, from, c->n_span * c->d.span_bytes), c->n_tail, codes,
                     k_addi(c->k, to, c->n_span * c->d.span_lanes));
}

/* codes[from + i] times x[at + i] for i in [0, n): lanes to be added up. */
static k_val bytes_dot(const packed_kernel *c, k_val codes, k_val from, k_val at, int64_t n)
{
    setun_kernel *k = c->k;
    uint32_t lanes = c->d.lanes;
    int64_t steps = n / lanes, unroll = steps % 4 == 0 ? 4 : steps % 2 == 0 ? 2 : steps % 3 == 0 ? 3 : 1;
    k_val acc[4], sum = 0;
    for (int64_t u = 0; u < unroll; u++)
        acc[u] = k_var(k, k_int(k, K_TYPE(K_I32, lanes / 4), 0));
    k_val i = k_for(k, k_i64(k, 0), k_i64(k, n), unroll * lanes);
    for (int64_t u = 0; u < unroll; u++) {
        k_val j = k_addi(k, i, u * lanes), w = small_codes(k, k_load(k, codes, k_add(k, from, j), lanes));
        k_set(k, acc[u], k_dot4(k, k_get(k, acc[u]), w, k_load(k, c->x, k_add(k, at, j), lanes)));
    }
    k_stop(k);
    for (int64_t u = 0; u < unroll; u++)
        sum = sum ? k_add(k, sum, k_get(k, acc[u])) : k_get(k, acc[u]);
    return k_rsum(k, sum);
}

#define PACKED_FEW 16 /* fewer tokens than this are few */

/* Rows [begin, end) with n < PACKED_FEW tokens. */
static void packed_few(packed_kernel *c, const setun_args *a, k_val begin, k_val end, k_val rows, k_val n)
{
    setun_kernel *k = c->k;
    int64_t bias_step = c->n_group + STRIPES, bytes = c->group_spans * c->d.span_lanes;
    sink to = open_sink(k, a);
    k_val zero = k_i64(k, 0), codes = k_scratch(k, K_I8, c->lanes);
    k_val bias = c->bias, t = k_for(k, zero, n, 1);
    order_token(c, k_muli(k, t, a->in[Q].dim[1]), k_muli(k, t, c->lanes));
    k_stop(k);
    if (c->group) {
        t = k_for(k, zero, n, 1);
        packed_bias(c, k_muli(k, t, c->lanes)); /* to the front of its memory, and then to the token's place */
        k_val g = k_for(k, zero, k_i64(k, c->n_group), 1);
        k_store(k, bias, k_add(k, k_muli(k, k_addi(k, t, 1), bias_step), g), k_load(k, bias, g, 1));
        k_stop(k);
        k_stop(k);
    }
    k_val r = k_for(k, begin, end, 1);
    decode_packed(c, r, codes, zero);
    t = k_for(k, zero, n, 1);
    k_val scale = k_load(k, k_arg(k, SCALE, K_F32), t, 1), x = k_muli(k, t, c->lanes);
    if (c->group) {
        k_val m = k_div(k, c->inside ? k_load(k, c->ws, zero, 1) : k_f32(k, 1.0f), scale);
        k_val stripe = k_local(k, K_F32, STRIPES);
        k_store(k, stripe, zero, k_f32v(k, 0.0f, STRIPES));
        for (int part = 0; part < 2; part++) { /* the last group may be shorter */
            int64_t first = part ? c->n_group - 1 : 0, last = part ? c->n_group : c->n_group - 1;
            if (first == last)
                continue;
            k_val g = k_for(k, k_i64(k, first), k_i64(k, last), 1), from = k_muli(k, g, bytes);
            k_val s = bytes_dot(c, codes, from, k_add(k, x, from), part ? c->lanes - (c->n_group - 1) * bytes : bytes);
            k_val b = k_load(k, bias, k_add(k, k_muli(k, k_addi(k, t, 1), bias_step), g), 1);
            k_val v = k_mul(k, k_i2f(k, k_add(k, s, k_muli(k, b, c->d.offset))), group_scale(c, r, g));
            k_val at = k_and(k, g, k_i64(k, STRIPES - 1));
            k_store(k, stripe, at, k_add(k, k_load(k, stripe, at, 1), v));
            k_stop(k);
        }
        k_store(k, to.y, k_add(k, k_mul(k, t, rows), r), k_mul(k, k_rsum(k, k_load(k, stripe, zero, STRIPES)), m));
    } else {
        k_val b = k_muli(k, k_load(k, k_arg(k, SUM, K_I32), t, 1), c->d.offset);
        k_val s = k_add(k, bytes_dot(c, codes, zero, x, c->lanes), b);
        put(k, &to, k_mul(k, t, rows), r, k_mul(k, k_i2f(k, s), token_factor(k, a, scale)));
    }
    k_stop(k);
    k_stop(k);
}

/* ---------------------------------------------------------------- many tokens */

/* xp[base ...]: one tile of tokens in c->x as [lanes / 4][token][4]. */
static void pack_ordered(const packed_kernel *c, k_val xp, k_val base)
{
    setun_kernel *k = c->k;
    k_val v[4];
    k_val t = k_for(k, k_i64(k, 0), k_i64(k, TOKENS), 4), i = k_for(k, k_i64(k, 0), k_i64(k, c->lanes / 4), 4);
    for (int j = 0; j < 4; j++)
        v[j] = k_cast(k, k_load(k, c->x, k_add(k, k_muli(k, k_addi(k, t, j), c->lanes), k_shl(k, i, 2)), 16), K_TYPE(K_I32, 4));
    transpose(k, v, 4);
    for (int j = 0; j < 4; j++)
        k_store(k, xp, k_add(k, base, k_add(k, k_muli(k, k_addi(k, i, j), TOKENS), t)), v[j]);
    k_stop(k);
    k_stop(k);
}

/* offset times what is at v[from .. from + n * 32): sums of q become what they add to S. */
static void times_offset(const packed_kernel *c, k_val v, k_val from, k_val n, int32_t offset)
{
    setun_kernel *k = c->k;
    k_val i = k_for(k, k_i64(k, 0), n, 1), at = k_add(k, from, k_muli(k, i, TOKENS));
    k_store(k, v, at, k_muli(k, k_load(k, v, at, TOKENS), offset));
    k_stop(k);
}

/* The scales of n_row rows from r0 on, from their units to ws[row][group]. */
static void unit_scales(const packed_kernel *c, k_val ws, k_val r0, int n_row)
{
    setun_kernel *k = c->k;
    k_val r = k_for(k, k_i64(k, 0), k_i64(k, n_row), 1), g = k_for(k, k_i64(k, 0), k_i64(k, c->n_group), 1);
    k_store(k, ws, k_add(k, k_muli(k, r, c->n_group), g), group_scale(c, k_add(k, r0, r), g));
    k_stop(k);
    k_stop(k);
}

/* Rows [begin, end): tokens in blocks that stay in cache, rows a few at a time. */
static void packed_many(packed_kernel *c, const setun_args *a, k_val begin, k_val end, k_val rows, k_val n)
{
    setun_kernel *k = c->k;
    int64_t n_tile = TILE_CACHE / (c->lanes * TOKENS), n_bias = c->group ? c->n_group : 1, kp = a->in[Q].dim[1];
    n_tile = n_tile < 1 ? 1 : n_tile > 16 ? 16 : n_tile;
    int at_once = tile_rows(k);
    group_tile g = {.k = k, .kp = c->lanes, .group = c->group_spans * c->d.span_lanes, .n_group = c->n_group, .ws = c->ws};
    k_val codes = g.codes = k_scratch(k, K_I8, TILE_ROWS * c->lanes), zero = k_i64(k, 0);
    g.x = k_scratch(k, K_I32, n_tile * c->lanes * TOKENS);
    g.bias = k_scratch(k, K_I32, n_tile * n_bias * TOKENS * 4);
    g.part = k_local(k, K_F32, STRIPES * TILE_ROWS * TOKENS);
    g.sum = k_local(k, K_F32, TILE_ROWS * TOKENS);
    g.m = k_local(k, K_F32, n_tile * TOKENS);
    k_val acc = k_local(k, K_I32, TILE_ROWS * TOKENS), y = k_arg(k, (int32_t)a->n_in, K_F32);
    if (c->inside)
        g.ws = k_scratch(k, K_F32, TILE_ROWS * c->n_group * 4);
    k_val whole = k_add(k, begin, k_and(k, k_sub(k, end, begin), k_i64(k, -at_once)));

    k_val block = k_for(k, zero, n, n_tile * TOKENS), block_end = k_min(k, k_addi(k, block, n_tile * TOKENS), n);
    k_val t0 = k_for(k, block, block_end, TOKENS), in_block = k_sub(k, t0, block), xp = k_muli(k, in_block, c->lanes / 4);
    k_val t = k_for(k, zero, k_i64(k, TOKENS), 1); /* tokens past the last repeat it */
    order_token(c, k_muli(k, k_min(k, k_add(k, t0, t), k_addi(k, n, -1)), kp), k_muli(k, t, c->lanes));
    k_stop(k);
    pack_ordered(c, g.x, xp);
    k_val at = k_muli(k, in_block, n_bias);
    if (c->group) { /* the group tile subtracts its bias */
        tile_bias(&g, xp, at);
        times_offset(c, g.bias, at, k_i64(k, n_bias), -c->d.offset);
        k_store(k, g.m, in_block, k_f32v(k, 0.0f, TOKENS));
        k_val factor = c->inside ? k_load(k, c->ws, zero, 1) : k_f32(k, 1.0f);
        t = k_for(k, zero, k_min(k, k_i64(k, TOKENS), k_sub(k, n, t0)), 1);
        k_val scale = k_load(k, k_arg(k, SCALE, K_F32), k_add(k, t0, t), 1);
        k_store(k, g.m, k_add(k, in_block, t), k_div(k, factor, scale));
        k_stop(k);
    } else { /* token_bias is -sum of q */
        token_scales(k, a, t0, n, g.m, in_block);
        token_bias(k, t0, n, g.bias, at);
        times_offset(c, g.bias, at, k_i64(k, 1), -c->d.offset);
    }
    k_stop(k);
    for (int n_row = at_once; n_row > 0; n_row = n_row > 1 ? 1 : 0) { /* whole groups of rows, then what is left */
        k_val r0 = n_row > 1 ? k_for(k, begin, whole, n_row) : k_for(k, at_once > 1 ? whole : begin, end, 1);
        for (int r = 0; r < n_row; r++)
            decode_packed(c, k_addi(k, r0, r), codes, k_i64(k, r * c->lanes));
        if (c->inside) {
            unit_scales(c, g.ws, r0, n_row);
            g.first = r0; /* of the table of scales */
        }
        t0 = k_for(k, block, block_end, TOKENS);
        in_block = k_sub(k, t0, block);
        xp = k_muli(k, in_block, c->lanes / 4);
        if (c->group) {
            k_val valid = k_min(k, k_i64(k, TOKENS), k_sub(k, n, t0));
            tile_block(&g, y, rows, r0, n_row, t0, valid, xp, k_muli(k, in_block, n_bias), in_block);
        } else {
            dot_rows(k, g.codes, g.x, xp, k_load(k, g.bias, in_block, TOKENS), acc, c->lanes, n_row);
            store_tile(k, a, acc, k_load(k, g.m, in_block, TOKENS), r0, k_addi(k, r0, n_row), rows, t0, n);
        }
        k_stop(k);
        k_stop(k);
    }
    k_stop(k); /* block */
}

#endif
