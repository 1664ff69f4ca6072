/* setun/op_help.h -- what many operators share: checks, element access, sums, kernel idioms.
 *
 * Included at the end of setun/op.h, not by operator files.  Static inline only, so a plugin that
 * uses it still resolves no symbol from its host.  Nothing here is part of the ABI: an operator
 * compiled against an older copy keeps its own.
 *
 * setun_... runs on the host's values, k_... builds kernels.  Each k_ twin does the same float
 * operations in the same order as its setun_ counterpart, so the two agree bit for bit. */
#ifndef SETUN_OP_HELP_H
#define SETUN_OP_HELP_H

#include <math.h>
#include <string.h>

#include "setun/op.h" /* does nothing when op.h is what brought us here */

#ifdef __cplusplus
extern "C" {
#endif

/* ---------------------------------------------------------------- checks */

/* Sets of element types for setun_want. */
#define SETUN_OF(dtype) (1u << (dtype))
#define SETUN_FLOATS (SETUN_OF(SETUN_F32) | SETUN_OF(SETUN_F16) | SETUN_OF(SETUN_BF16))

/* Weights of a row of n as whole SETUN_T2 blocks hold them: what int8 activations are padded to. */
static inline int64_t setun_t2_padded(int64_t n)
{
    return (n + SETUN_T2_BLOCK - 1) / SETUN_T2_BLOCK * SETUN_T2_BLOCK;
}

typedef struct setun_text {
    char s[112];
} setun_text;

static inline const char *setun_dtype_text(uint32_t dtype)
{
    static const char *const name[] = {"none", "f32", "f16", "bf16", "i8",
                                       "i16",  "i32", "i64", "u8",   "t2",  "q8",
                                       "q4_0", "q8_0", "q4_k", "q6_k"};
    return dtype < SETUN_LEN(name) ? name[dtype] : "unknown";
}

/* "f32[n,2560]", for messages. */
static inline const char *setun_view_text(const setun_view *v, setun_text *t)
{
    int at = snprintf(t->s, sizeof t->s, "%s[", setun_dtype_text(v->dtype));
    for (uint32_t i = 0; i < v->rank && i < SETUN_MAX_RANK; i++) {
        const char *comma = i ? "," : "";
        if (v->dim[i] == SETUN_DIM_TOKENS || v->dim[i] == SETUN_DIM_OUTPUTS)
            at += snprintf(t->s + at, sizeof t->s - (size_t)at, "%s%s", comma,
                           v->dim[i] == SETUN_DIM_TOKENS ? "n" : "m");
        else
            at += snprintf(t->s + at, sizeof t->s - (size_t)at, "%s%lld", comma,
                           (long long)v->dim[i]);
    }
    (void)snprintf(t->s + at, sizeof t->s - (size_t)at, "]");
    return t->s;
}

/* Input i has one of these types and this rank, and no dimension but the first is empty. */
static inline setun_status setun_want(const setun_args *a, uint32_t i, uint32_t dtypes,
                                      uint32_t rank, setun_error *err)
{
    const setun_view *v = &a->in[i];
    setun_text t, w;
    w.s[0] = 0;
    if (v->dtype > 31 || !(dtypes & SETUN_OF(v->dtype)) || v->rank != rank) {
        for (uint32_t d = 0; d <= SETUN_Q6_K; d++)
            if (dtypes & SETUN_OF(d))
                (void)snprintf(w.s + strlen(w.s), sizeof w.s - strlen(w.s), "%s%s",
                               w.s[0] ? " or " : "", setun_dtype_text(d));
        return setun_fail(err, SETUN_BAD_SHAPE, "%s is %s, wants %s of rank %u", a->op->in[i].name,
                          setun_view_text(v, &t), w.s, (unsigned)rank);
    }
    for (uint32_t d = 1; d < rank; d++)
        if (v->dim[d] < 1)
            return setun_fail(err, SETUN_BAD_SHAPE, "%s is %s; dimension %u must be at least 1",
                              a->op->in[i].name, setun_view_text(v, &t), (unsigned)d);
    return SETUN_OK;
}

/* Dimension d of input i equals dimension e of input j. */
static inline setun_status setun_want_equal(const setun_args *a, uint32_t i, uint32_t d, uint32_t j,
                                            uint32_t e, setun_error *err)
{
    setun_text t, u;
    if (a->in[i].dim[d] == a->in[j].dim[e])
        return SETUN_OK;
    return setun_fail(err, SETUN_BAD_SHAPE,
                      "%s is %s and %s is %s; dimension %u of one must be dimension %u of "
                      "the other",
                      a->op->in[i].name, setun_view_text(&a->in[i], &t), a->op->in[j].name,
                      setun_view_text(&a->in[j], &u), (unsigned)d, (unsigned)e);
}

/* Dimension d of input i lies in [low, high]. */
static inline setun_status setun_want_range(const setun_args *a, uint32_t i, uint32_t d,
                                            int64_t low, int64_t high, setun_error *err)
{
    setun_text t;
    if (a->in[i].dim[d] >= low && a->in[i].dim[d] <= high)
        return SETUN_OK;
    return setun_fail(err, SETUN_BAD_SHAPE, "%s is %s; dimension %u must be from %lld to %lld",
                      a->op->in[i].name, setun_view_text(&a->in[i], &t), (unsigned)d,
                      (long long)low, (long long)high);
}

static inline setun_status setun_infer_out(setun_args *a, uint32_t j, uint32_t dtype, uint32_t rank,
                                           int64_t d0, int64_t d1, int64_t d2)
{
    setun_view *v = &a->out[j];
    v->dtype = dtype;
    v->rank = rank;
    v->dim[0] = rank > 0 ? d0 : 1;
    v->dim[1] = rank > 1 ? d1 : 1;
    v->dim[2] = rank > 2 ? d2 : 1;
    v->dim[3] = 1;
    return SETUN_OK;
}

/* All inputs are f32 of one shape, rank 1 to 4, and so is the output. */
static inline setun_status setun_infer_same(setun_args *a, setun_error *err)
{
    uint32_t rank = a->in[0].rank ? a->in[0].rank : 1;
    rank = rank > SETUN_MAX_RANK ? SETUN_MAX_RANK : rank;
    for (uint32_t i = 0; i < a->n_in; i++) {
        setun_status s = setun_want(a, i, SETUN_OF(SETUN_F32), rank, err);
        for (uint32_t d = 0; s == SETUN_OK && i && d < rank; d++)
            s = setun_want_equal(a, i, d, 0, d, err);
        if (s != SETUN_OK)
            return s;
    }
    a->out[0].dtype = SETUN_F32;
    a->out[0].rank = rank;
    for (uint32_t d = 0; d < SETUN_MAX_RANK; d++)
        a->out[0].dim[d] = a->in[0].dim[d];
    return SETUN_OK;
}

/* ---------------------------------------------------------------- cost */

/* Elements and bytes with a symbolic dimension counted as one row. */
static inline double setun_cost_count(const setun_view *v)
{
    double n = 1;
    for (uint32_t i = 0; i < v->rank; i++)
        n *= v->dim[i] > 0 ? (double)v->dim[i] : 1;
    return n;
}
static inline double setun_cost_view(const setun_view *v)
{
    return setun_cost_count(v) * (double)setun_row_bytes(v->dtype, 256) / 256; /* of any block */
}
/* Every input and output once; ops float operations per element of the first input. */
static inline void setun_cost_map(const setun_args *a, double ops, setun_cost *c)
{
    c->int_ops = 0;
    c->float_ops = ops * setun_cost_count(&a->in[0]);
    c->bytes = 0;
    for (uint32_t i = 0; i < a->n_in; i++)
        c->bytes += setun_cost_view(&a->in[i]);
    for (uint32_t i = 0; i < a->n_out; i++)
        c->bytes += setun_cost_view(&a->out[i]);
}

/* ---------------------------------------------------------------- elements */

static inline float setun_get_block(uint32_t dtype, const uint8_t *block, int64_t i); /* op_blocks.h */

/* f2i of kir.def: toward zero, saturating, NaN gives 0. */
static inline int32_t setun_f2i(float f)
{
    if (!(f > -2147483648.0f))
        return f <= -2147483648.0f ? INT32_MIN : 0;
    return f < 2147483648.0f ? (int32_t)f : INT32_MAX;
}

/* Numbers inside blocks are little-endian on every host, as kernels see them (kir.def). */
static inline uint16_t setun_get_u16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}
static inline void setun_put_u16(uint8_t *p, uint16_t x)
{
    p[0] = (uint8_t)x;
    p[1] = (uint8_t)(x >> 8);
}

/* Element i of one block of q8. */
static inline float setun_get_q8(const uint8_t *block, int64_t i)
{
    return (float)(int8_t)block[2 + i] * setun_bf16_f32(setun_get_u16(block));
}

/* One block of q8 from n <= 32 floats:
 *
 *     scale = m / 127 rounded up to bf16, m the largest magnitude     q = rint(x / scale)
 *
 * The scale is rounded up, so |x / scale| <= 127 (1 + 2^-23) rounds to at most 127.  All zeros: scale
 * and, as 0 / 0 is no number, q are 0.  With an infinity or a NaN the scale is NaN, and so is every
 * element: it is not hidden. */
static inline void setun_put_q8(uint8_t *block, const float *x, int64_t n)
{
    uint32_t most = 0; /* bits without the sign are ordered as the magnitudes, infinity, NaN */
    for (int64_t i = 0; i < n; i++) {
        uint32_t u = setun_f32_bits(x[i]) & 0x7fffffffu;
        most = u > most ? u : most;
    }
    uint32_t up = (setun_f32_bits(setun_bits_f32(most) / 127.0f) + 0xffffu) >> 16;
    uint16_t scale = (uint16_t)(most < 0x7f800000u ? up : 0x7fc0u);
    setun_put_u16(block, scale);
    for (int64_t i = 0; i < SETUN_Q8_BLOCK; i++)
        block[2 + i] =
            i < n ? (uint8_t)setun_f2i(rintf(x[i] / setun_bf16_f32(scale))) : (uint8_t)0;
}

/* Element i of a view of f32, f16, bf16 or of floats in blocks. */
static inline float setun_get_f32(const setun_view *v, int64_t i)
{
    int64_t block = setun_block(v->dtype);
    if (block > 1) {
        int64_t n = v->dim[v->rank - 1], at = i % n;
        const uint8_t *row = (const uint8_t *)v->data + i / n * setun_row_bytes(v->dtype, n);
        row += setun_row_bytes(v->dtype, at / block * block);
        return v->dtype == SETUN_Q8 ? setun_get_q8(row, at % block)
                                    : setun_get_block(v->dtype, row, at % block);
    }
    if (v->dtype == SETUN_F16)
        return setun_f16_f32(((const uint16_t *)v->data)[i]);
    if (v->dtype == SETUN_BF16)
        return setun_bf16_f32(((const uint16_t *)v->data)[i]);
    return ((const float *)v->data)[i];
}
/* Weight i of a row of t2: -1, 0 or 1. */
static inline int32_t setun_get_t2(const uint8_t *row, int64_t i)
{
    int64_t at = i % SETUN_T2_BLOCK;
    return (row[i / SETUN_T2_BLOCK * SETUN_T2_BLOCK_BYTES + at % 32] >> (2 * (at / 32)) & 3) - 1;
}
static inline void setun_put_f32(const setun_view *v, int64_t i, float f)
{
    if (v->dtype == SETUN_F16)
        ((uint16_t *)v->data)[i] = setun_f32_f16(f);
    else if (v->dtype == SETUN_BF16)
        ((uint16_t *)v->data)[i] = setun_f32_bf16(f);
    else
        ((float *)v->data)[i] = f;
}

/* Row `row` of a view of f32, f16, bf16 or q8; rows have as many elements as the last dimension. */
static inline void setun_put_row(const setun_view *v, int64_t row, const float *x)
{
    int64_t n = v->dim[v->rank - 1];
    uint8_t *block = (uint8_t *)v->data + row * setun_row_bytes(v->dtype, n);
    for (int64_t i = 0; i < n && v->dtype != SETUN_Q8; i++)
        setun_put_f32(v, row * n + i, x[i]);
    for (int64_t i = 0; i < n && v->dtype == SETUN_Q8; i += SETUN_Q8_BLOCK) {
        setun_put_q8(block, x + i, n - i < SETUN_Q8_BLOCK ? n - i : SETUN_Q8_BLOCK);
        block += SETUN_Q8_BLOCK_BYTES;
    }
}

/* x rounded to the nearest integer, ties to even; NaN gives 0.  Only for |x| <= 2^22 or NaN. */
static inline int32_t setun_rint_i32(float x)
{
    return setun_f2i(rintf(x));
}

/* Well mixed numbers for fill(): splitmix64. */
static inline uint64_t setun_mix(uint64_t seed, uint64_t i)
{
    uint64_t z = seed + (i + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* Fill an i32 view with indices in [0, limit). */
static inline void setun_fill_index(const setun_view *v, int64_t limit, uint64_t seed)
{
    int32_t *p = (int32_t *)v->data;
    for (int64_t i = 0, n = setun_count(v); i < n; i++)
        p[i] = limit > 0 ? (int32_t)(setun_mix(seed, (uint64_t)i) % (uint64_t)limit) : 0;
}

/* Every index of input i lies in [0, limit). */
static inline setun_status setun_check_index(const setun_args *a, uint32_t i, int64_t limit,
                                             setun_error *err)
{
    const int32_t *p = (const int32_t *)a->in[i].data;
    for (int64_t j = 0, n = setun_count(&a->in[i]); j < n; j++)
        if (p[j] < 0 || p[j] >= limit)
            return setun_fail(err, SETUN_BAD_ARG, "%s[%lld] is %ld, outside 0 to %lld",
                              a->op->in[i].name, (long long)j, (long)p[j], (long long)limit - 1);
    return SETUN_OK;
}

/* ---------------------------------------------------------------- kernels: types and parts */

/* The kir element an array of this dtype is loaded as. */
static inline uint32_t k_elem_of(uint32_t dtype)
{
    switch (dtype) {
    case SETUN_F32: return K_F32;
    case SETUN_F16: case SETUN_BF16: case SETUN_I16: return K_I16;
    case SETUN_I32: return K_I32;
    case SETUN_I64: return K_I64;
    default: return K_I8;
    }
}

/* Loaded elements of f32, f16 or bf16 as f32; exact. */
static inline k_val k_widen(setun_kernel *k, k_val v, uint32_t dtype)
{
    uint32_t lanes = K_LANES(k_type_of(k, v));
    if (dtype == SETUN_F16)
        return k_h2f(k, v);
    if (dtype == SETUN_BF16)
        return k_cast(k, k_shl(k, k_zext(k, v, K_I32), 16), K_TYPE(K_F32, lanes));
    return v;
}

/* f32 as elements to be stored; the twin of setun_put_f32. */
static inline k_val k_narrow(setun_kernel *k, k_val v, uint32_t dtype)
{
    uint32_t lanes = K_LANES(k_type_of(k, v));
    k_type t = K_TYPE(K_I32, lanes);
    if (dtype == SETUN_F16)
        return k_f2h(k, v);
    if (dtype == SETUN_BF16) {
        k_val u = k_cast(k, v, t);
        k_val odd = k_and(k, k_shru(k, u, 16), k_int(k, t, 1));
        k_val r = k_shru(k, k_add(k, k_add(k, u, k_int(k, t, 0x7fff)), odd), 16);
        k_val quiet = k_or(k, k_and(k, k_shru(k, u, 16), k_int(k, t, 0x8000)), k_int(k, t, 0x7fc0));
        /* Without the sign both are positive: the signed comparison is the unsigned one. */
        k_val nan = k_emit(k, K_lt, K_TYPE(K_I1, lanes), k_int(k, t, 0x7f800000),
                           k_and(k, u, k_int(k, t, 0x7fffffff)), 0, 0);
        return k_trunc(k, k_select(k, nan, quiet, r), K_I16);
    }
    return v;
}

/* The twin of setun_rint_i32.  x + 1.5 * 2^23 has a last bit worth 1, so the addition rounds x to
 * an integer, ties to even, and its bits are those of 1.5 * 2^23 plus that integer. */
static inline k_val k_rint_i32(setun_kernel *k, k_val x)
{
    uint32_t lanes = K_LANES(k_type_of(k, x));
    k_type t = K_TYPE(K_I32, lanes);
    k_val y = k_select(k, k_eq(k, x, x), x, k_f32v(k, 0.0f, lanes));
    y = k_add(k, y, k_f32v(k, 12582912.0f, lanes));
    return k_sub(k, k_cast(k, y, t), k_int(k, t, 0x4b400000));
}

/* Numbers of q8 of one block (i8), with its scale (i16), as f32; the twin of setun_get_q8. */
static inline k_val k_q8(setun_kernel *k, k_val q, k_val scale)
{
    k_val s = k_splat(k, k_widen(k, scale, SETUN_BF16), K_LANES(k_type_of(k, q)));
    return k_mul(k, k_i2f(k, k_sext(k, q, K_I32)), s);
}

/* The twin of setun_put_q8 for x of 32 lanes, zeros past the row's end: *scale is i16, the result
 * 32 lanes of i8.  Bits without the sign are never negative, so the signed maximum is the right one. */
static inline k_val k_to_q8(setun_kernel *k, k_val x, k_val *scale)
{
    k_type one = K_TYPE(K_I32, 1);
    k_val most = k_rmax(k, k_cast(k, k_abs(k, x), K_TYPE(K_I32, SETUN_Q8_BLOCK)));
    k_val s = k_div(k, k_cast(k, most, K_TYPE(K_F32, 1)), k_f32(k, 127.0f));
    k_val up = k_shru(k, k_addi(k, k_cast(k, s, one), 0xffff), 16);
    up = k_select(k, k_lt(k, most, k_int(k, one, 0x7f800000)), up, k_int(k, one, 0x7fc0));
    *scale = k_trunc(k, up, K_I16);
    s = k_splat(k, k_cast(k, k_shl(k, up, 16), K_TYPE(K_F32, 1)), SETUN_Q8_BLOCK);
    return k_trunc(k, k_rint_i32(k, k_div(k, x, s)), K_I8);
}

/* n <= lanes elements from p[index], then copies of pad (raw bits) up to lanes (a power of two).
 * Reads nothing past the n elements: it is put together from loads of powers of two. */
static inline k_val k_load_pad(setun_kernel *k, k_val p, k_val index, int64_t n, uint32_t lanes,
                               int64_t pad)
{
    uint32_t half = lanes / 2;
    if (n <= 0)
        return k_int(k, K_TYPE(K_ELEM(k_type_of(k, p)), lanes), pad);
    if (n >= (int64_t)lanes)
        return k_load(k, p, index, lanes);
    return k_concat(k, k_load_pad(k, p, index, n, half, pad),
                    k_load_pad(k, p, k_addi(k, index, half), n - half, half, pad));
}

/* The first n lanes of v to p[index]; writes nothing past them. */
static inline void k_store_part(setun_kernel *k, k_val p, k_val index, k_val v, int64_t n)
{
    uint32_t lanes = K_LANES(k_type_of(k, v)), half = lanes / 2;
    if (n <= 0)
        return;
    if (n >= (int64_t)lanes) {
        k_store(k, p, index, v);
        return;
    }
    k_store_part(k, p, index, k_slice(k, v, 0, half), n);
    k_store_part(k, p, k_addi(k, index, half), k_slice(k, v, half, half), n - half);
}

/* ---------------------------------------------------------------- kernels: reading ahead */

#define K_LINE 64   /* bytes that one hint brings in */
#define K_PAGE 4096 /* bytes within which hardware runs ahead of what is read */

/* The byte of line n when `pages` pages (a power of two up to 64) are read side by side, a line of each in turn.  With eight:
 *
 *     n  =  group of pages | line of its page : 6 | page of its group : 3
 *
 * A core has room for a dozen lines that it asked for itself, too few for the latency of memory.  But in a page that is
 * being read the hardware runs ahead on its own, up to the page's end and in several pages at a time, with room of its
 * own: so several pages asked for side by side arrive in less time than one after the other. */
static inline k_val k_side_by_side(setun_kernel *k, k_val n, int64_t pages)
{
    k_val group = k_muli(k, k_and(k, n, k_i64(k, -(pages * (K_PAGE / K_LINE)))), K_LINE);
    k_val page = k_muli(k, k_and(k, n, k_i64(k, pages - 1)), K_PAGE);
    k_val place = k_and(k, k_muli(k, n, K_LINE / pages), k_i64(k, K_PAGE - K_LINE));
    return k_add(k, k_add(k, group, page), place);
}

/* Byte `at` of p is being read, in the order of memory and 64 bytes or less at a time: a hint for what comes `ahead`
 * bytes later, in that order up to a page, and from two pages on (a power of two) all those pages side by side. */
static inline void k_fetch_ahead(setun_kernel *k, k_val p, k_val at, int64_t ahead)
{
    k_val later = k_addi(k, at, ahead);
    if (ahead > K_PAGE)
        later = k_side_by_side(k, k_udiv(k, later, k_i64(k, K_LINE)), ahead / K_PAGE);
    k_prefetch(k, p, later, 3);
}

/* Unit u of a grid whose second factor counts n1: *i = u / n1, *j = u % n1. */
static inline void k_unit(setun_kernel *k, k_val u, k_val n1, k_val *i, k_val *j)
{
    *i = k_udiv(k, u, n1);
    *j = k_urem(k, u, n1);
}

/* ---------------------------------------------------------------- sums of 32 stripes */

/* Sum of a[i] * b[i] in 32 stripes; b NULL: sum of a[i]. */
static inline float setun_sum32(const float *a, const float *b, int64_t n)
{
    float p[32] = {0};
    for (int64_t i = 0; i < n; i++)
        p[i % 32] += b ? a[i] * b[i] : a[i];
    return setun_tree32(p);
}

/* The same for n constant elements of f32 at pa[ia] and pb[ib].  The last elements come in with
 * zeros behind them: a partial sum that started at +0 is never -0, so adding +0 changes no bit. */
static inline k_val k_dot32(setun_kernel *k, k_val pa, k_val ia, k_val pb, k_val ib, int64_t n)
{
    int64_t whole = n / 32 * 32;
    k_val acc = k_var(k, k_f32v(k, 0.0f, 32));
    if (whole) {
        k_val i = k_for(k, k_i64(k, 0), k_i64(k, whole), 32);
        k_val x = k_load(k, pa, k_add(k, ia, i), 32);
        k_set(k, acc, k_add(k, k_get(k, acc), k_mul(k, x, k_load(k, pb, k_add(k, ib, i), 32))));
        k_stop(k);
    }
    if (n > whole) {
        k_val x = k_load_pad(k, pa, k_addi(k, ia, whole), n - whole, 32, 0);
        k_val y = k_load_pad(k, pb, k_addi(k, ib, whole), n - whole, 32, 0);
        k_set(k, acc, k_add(k, k_get(k, acc), k_mul(k, x, y)));
    }
    return k_rsum(k, k_get(k, acc));
}

/* ---------------------------------------------------------------- exp */

/* The twin of setun_expf.  t holds n in its low bits: t = n + 0x1.8p23 has the bits 0x4b400000 + n,
 * and the shift by 23 drops 0x4b400000 (its low nine bits are 0), leaving n in the exponent. */
static inline k_val k_expf(setun_kernel *k, k_val x)
{
    static const float c[6] = {1.9875691500e-4f, 1.3981999507e-3f, 8.3334519073e-3f,
                               4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f};
    uint32_t lanes = K_LANES(k_type_of(k, x));
    k_type ti = K_TYPE(K_I32, lanes), tf = K_TYPE(K_F32, lanes);
    k_val live = k_le(k, k_f32v(k, -87.0f, lanes), x), magic = k_f32v(k, 12582912.0f, lanes);
    k_val y = k_min(k, x, k_f32v(k, 88.0f, lanes));
    k_val t = k_add(k, k_mul(k, y, k_f32v(k, 1.44269504f, lanes)), magic);
    k_val n = k_sub(k, t, magic);
    k_val r = k_sub(k, y, k_mul(k, n, k_f32v(k, 0.693359375f, lanes)));
    r = k_sub(k, r, k_mul(k, n, k_f32v(k, -2.12194440e-4f, lanes)));
    k_val p = k_f32v(k, c[0], lanes);
    for (int i = 1; i < 6; i++)
        p = k_add(k, k_mul(k, p, r), k_f32v(k, c[i], lanes));
    p = k_add(k, k_mul(k, p, k_mul(k, r, r)), r);
    p = k_add(k, p, k_f32v(k, 1.0f, lanes));
    p = k_cast(k, k_add(k, k_cast(k, p, ti), k_shl(k, k_cast(k, t, ti), 23)), tf);
    return k_select(k, live, p, k_f32v(k, 0.0f, lanes));
}

/* ---------------------------------------------------------------- logarithm, noise */

/* The twins of setun_logf and setun_gumbel. */
static inline k_val k_logf(setun_kernel *k, k_val x)
{
    static const float c[9] = {7.0376836292e-2f, -1.1514610310e-1f, 1.1676998740e-1f, -1.2420140846e-1f, 1.4249322787e-1f,
                               -1.6668057665e-1f, 2.0000714765e-1f, -2.4999993993e-1f, 3.3333331174e-1f};
    uint32_t lanes = K_LANES(k_type_of(k, x));
    k_type ti = K_TYPE(K_I32, lanes), tf = K_TYPE(K_F32, lanes);
    k_val u = k_add(k, k_cast(k, x, ti), k_int(k, ti, 0x3f800000 - 0x3f3504f3));
    k_val e = k_i2f(k, k_sub(k, k_shru(k, u, 23), k_int(k, ti, 127)));
    k_val m = k_add(k, k_and(k, u, k_int(k, ti, 0x7fffff)), k_int(k, ti, 0x3f3504f3));
    k_val f = k_sub(k, k_cast(k, m, tf), k_f32v(k, 1.0f, lanes));
    k_val z = k_mul(k, f, f), p = k_f32v(k, c[0], lanes);
    for (int i = 1; i < 9; i++)
        p = k_add(k, k_mul(k, p, f), k_f32v(k, c[i], lanes));
    p = k_mul(k, k_mul(k, p, f), z);
    p = k_add(k, p, k_mul(k, e, k_f32v(k, -2.12194440e-4f, lanes)));
    p = k_add(k, p, k_mul(k, z, k_f32v(k, -0.5f, lanes)));
    return k_add(k, k_add(k, f, p), k_mul(k, e, k_f32v(k, 0.693359375f, lanes)));
}

static inline k_val k_gumbel(setun_kernel *k, k_val key0, k_val key1, k_val i)
{
    uint32_t lanes = K_LANES(k_type_of(k, i));
    k_type ti = K_TYPE(K_I32, lanes);
    k_val one = k_f32v(k, 1.0f, lanes);
    k_val h = k_xor(k, k_mul(k, i, k_int(k, ti, (int32_t)0x9e3779b1u)), key0);
    for (int round = 0; round < 2; round++) {
        h = k_mul(k, k_xor(k, h, k_shru(k, h, 16)), k_int(k, ti, 0x7feb352d));
        h = k_mul(k, k_xor(k, h, k_shru(k, h, 15)), k_int(k, ti, (int32_t)0x846ca68bu));
        h = k_xor(k, h, k_shru(k, h, 16));
        h = round ? h : k_xor(k, h, key1);
    }
    k_val t = k_add(k, k_i2f(k, k_shru(k, h, 1)), k_f32v(k, 0.5f, lanes));
    t = k_min(k, k_mul(k, t, k_f32v(k, 0x1p-31f, lanes)), k_f32v(k, 1.0f - 0x1p-24f, lanes));
    k_val u = k_sub(k, one, t), d = k_sub(k, one, u);
    k_val e = k_mul(k, k_neg(k, k_logf(k, u)), k_div(k, t, d));
    e = k_select(k, k_lt(k, k_f32v(k, 0.0f, lanes), d), e, t);
    return k_neg(k, k_logf(k, e));
}

/* ---------------------------------------------------------------- elementwise operators */

/* One result from one element (or a vector of them) of each input. */
typedef k_val k_map_fn(setun_kernel *k, const setun_args *a, const k_val *x);

/* Elements a unit aims at: enough work for a worker, few enough that workers share a row. */
#define K_MAP_SPAN 1024

/* A kernel for inputs and an output of f32 and one shape.  A unit is a piece of a row, so that many
 * workers share even a single row. */
static inline setun_status k_lower_map(setun_kernel *k, const setun_args *a, k_map_fn *fn)
{
    const setun_view *v = &a->in[0];
    int64_t inner = v->dim[2] * v->dim[3], granule = inner < K_MAP_SPAN ? K_MAP_SPAN / inner : 1;
    int32_t cut = v->rank > 1 ? 1 : 0; /* the dimension that is cut into pieces */
    k_val p[4], x[4], first, last;
    if (a->n_in > 4)
        return SETUN_DECLINED;
    if (cut)
        k_grid2(k, 0, 0, 1, 0, 1, granule);
    else
        k_grid(k, 0, 0, granule);
    for (uint32_t i = 0; i < a->n_in; i++)
        p[i] = k_arg(k, (int32_t)i, K_F32);
    k_val y = k_arg(k, (int32_t)a->n_in, K_F32), size = k_dim(k, 0, cut);
    k_val u = k_for(k, k_begin(k), k_end(k), 1);
    if (cut) {
        k_val row, piece;
        k_unit(k, u, k_i64(k, (v->dim[1] + granule - 1) / granule), &row, &piece);
        first = k_muli(k, piece, granule);
        last = k_min(k, k_addi(k, first, granule), size);
        row = k_muli(k, row, v->dim[1]);
        first = k_muli(k, k_add(k, row, first), inner);
        last = k_muli(k, k_add(k, row, last), inner);
    } else {
        first = k_muli(k, u, granule);
        last = k_min(k, k_addi(k, first, granule), size);
    }
    k_val count = k_sub(k, last, first);
    k_val middle = k_add(k, first, k_and(k, count, k_i64(k, -32)));
    for (uint32_t lanes = 32; lanes; lanes = lanes == 32 ? 1 : 0) { /* 1: what 32 leave over */
        k_val i = lanes == 32 ? k_for(k, first, middle, 32) : k_for(k, middle, last, 1);
        for (uint32_t j = 0; j < a->n_in; j++)
            x[j] = k_load(k, p[j], i, lanes);
        k_store(k, y, i, fn(k, a, x));
        k_stop(k);
    }
    k_stop(k);
    return SETUN_OK;
}

#ifdef __cplusplus
}
#endif

#include "setun/op_blocks.h" /* weights in blocks, built on the above */

#endif
