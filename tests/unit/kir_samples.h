/* tests/unit/kir_samples.h -- one tiny kernel per instruction, element type and number of lanes.
 *
 * Shared by the tests of the interpreter (against scalar definitions) and of the compiler
 * (against the interpreter).  Includes nothing but the kernel headers; everything is static.
 *
 * A sample's kernel runs over rows: row r loads operand o from element r * lanes of input o,
 * does the one instruction and stores the result at element r * lanes of the output.  An i1 is a
 * byte in memory: the lowest bit counts on the way in, 0 or 1 comes out.  A gather's table is
 * one input of SAMPLE_TABLE elements.  Words that are not lanewise have a small kernel with the
 * same shape:
 *
 *     local, scratch    the operand goes through that memory, backwards
 *     prefetch, dim     the operand is copied; dim adds the run-time size, prefetch nothing
 *     begin             i64: unit, begin <= unit < end, as (unit, 1)
 *     for               i32: sum over j = 0, 2, 4 of operand * (j + 1), through a var
 *     if                i32: operand < 0 ? -operand : operand + 1, 1 more if even, by branches
 *
 * Use: sample_list, then for each sample_build, sample_bytes, sample_data; run rows units;
 * compare each result with sample_same. */
#ifndef KIR_SAMPLES_H
#define KIR_SAMPLES_H

#include <stdlib.h>
#include <string.h>

#include "codegen/kir.h"

#define SAMPLE_TABLE 64
#define SAMPLE_MAX 1400

typedef struct sample {
    uint32_t op, n_in;
    k_type   in[3]; /* operand types */
    k_type   out;   /* result type */
    int64_t  imm;
} sample;

static const uint32_t sample_lanes[] = { 1, 2, 7, 16, 32 };
#define SAMPLE_N_LANES 5

/* Entry i of the mask of the shuffle samples, for operands of n lanes. */
static inline int32_t sample_mask(uint32_t i, uint32_t n)
{
    return (int32_t)((i * 7 + n + 1) % (2 * n));
}

static inline uint32_t sample_elem_bytes(k_type t)
{
    return K_ELEM(t) == K_I1 ? 1 : st_ktype_bits(K_ELEM(t)) / 8;
}

typedef struct sample_sink {
    sample *at;
    int     n;
} sample_sink;

static inline void sample_add(sample_sink *s, uint32_t op, k_type out, k_type a, k_type b, k_type c,
                              int64_t imm)
{
    sample one = { op, (uint32_t)(a != 0) + (b != 0) + (c != 0), { a, b, c }, out, imm };
    if (s->n < SAMPLE_MAX)
        s->at[s->n++] = one;
}

static inline void sample_add_lanes(sample_sink *s, uint32_t n, uint32_t nth)
{
    static const uint32_t binary[] = { K_add, K_sub, K_mul, K_min, K_max };
    static const uint32_t unary[] = { K_sqrt, K_rint, K_abs, K_neg };
    static const uint32_t bitwise[] = { K_and, K_or, K_xor };
    static const uint32_t compare[] = { K_eq, K_lt, K_le };
    k_type f = K_TYPE(K_F32, n), i8 = K_TYPE(K_I8, n), i16 = K_TYPE(K_I16, n),
           i32 = K_TYPE(K_I32, n);
    k_type i1 = K_TYPE(K_I1, n);
    for (uint32_t e = K_I1; e <= K_F32; e++) {
        k_type t = K_TYPE(e, n), one = K_TYPE(e, 1);
        uint32_t bits = st_ktype_bits(t);
        int64_t shift[SAMPLE_N_LANES] = { 0, (int64_t)bits - 1, 1, (int64_t)bits / 2, 3 };
        sample_add(s, K_const, t, 0, 0, 0,
                   e == K_I1    ? (int64_t)(nth & 1)
                   : e == K_F32 ? 0x7fc12345
                                : -77 - (int64_t)nth);
        sample_add(s, K_select, t, i1, t, t, 0);
        sample_add(s, K_splat, t, one, 0, 0, 0);
        sample_add(s, K_extract, one, t, 0, 0, (int64_t)n - 1);
        sample_add(s, K_slice, K_TYPE(e, n - n / 2), t, 0, 0, (int64_t)n / 2);
        sample_add(s, K_concat, K_TYPE(e, n + (n + 1) / 2), t, K_TYPE(e, (n + 1) / 2), 0, 0);
        sample_add(s, K_shuffle, t, t, t, 0, 0);
        sample_add(s, K_shuffle, K_TYPE(e, n + 1), t, t, 0, 0);
        sample_add(s, K_var, t, t, 0, 0, 0);
        if (e != K_F32)
            for (uint32_t i = 0; i < 3; i++)
                sample_add(s, bitwise[i], t, t, t, 0, 0);
        if (e == K_I1)
            continue;
        for (uint32_t i = 0; i < 5; i++)
            sample_add(s, binary[i], t, t, t, 0, 0);
        for (uint32_t i = 0; i < 3; i++)
            sample_add(s, compare[i], i1, t, t, 0, 0);
        sample_add(s, K_opaque, t, t, 0, 0, 0);
        sample_add(s, K_gather, t, t, i32, 0, 0);
        sample_add(s, K_local, t, t, 0, 0, 0);
        sample_add(s, K_scratch, t, t, 0, 0, 0);
        if ((n & (n - 1)) == 0) {
            sample_add(s, K_rsum, one, t, 0, 0, 0);
            sample_add(s, K_rmax, one, t, 0, 0, 0);
        }
        for (uint32_t to = K_I8; to <= K_F32; to++)
            if (to != e && bits * n % st_ktype_bits(to) == 0 &&
                bits * n / st_ktype_bits(to) <= K_MAX_LANES)
                sample_add(s, K_cast, K_TYPE(to, bits * n / st_ktype_bits(to)), t, 0, 0, 0);
        if (e == K_F32)
            continue;
        sample_add(s, K_iota, t, 0, 0, 0, 100 + (int64_t)nth * 7);
        sample_add(s, K_shl, t, t, 0, 0, shift[nth]);
        sample_add(s, K_shru, t, t, 0, 0, shift[nth]);
        sample_add(s, K_shrs, t, t, 0, 0, shift[nth]);
        if (n == 1) {
            sample_add(s, K_udiv, t, t, t, 0, 0);
            sample_add(s, K_urem, t, t, t, 0, 0);
        }
    }
    for (uint32_t from = K_I1; from <= K_I32; from++)
        for (uint32_t to = from + 1; to <= K_I64; to++) {
            sample_add(s, K_sext, K_TYPE(to, n), K_TYPE(from, n), 0, 0, 0);
            sample_add(s, K_zext, K_TYPE(to, n), K_TYPE(from, n), 0, 0, 0);
            sample_add(s, K_trunc, K_TYPE(from, n), K_TYPE(to, n), 0, 0, 0);
        }
    sample_add(s, K_div, f, f, f, 0, 0);
    for (uint32_t i = 0; i < 4; i++)
        sample_add(s, unary[i], f, f, 0, 0, 0);
    sample_add(s, K_i2f, f, i32, 0, 0, 0);
    sample_add(s, K_f2i, i32, f, 0, 0, 0);
    sample_add(s, K_h2f, f, i16, 0, 0, 0);
    sample_add(s, K_f2h, i16, f, 0, 0, 0);
    sample_add(s, K_dot2, i16, K_TYPE(K_I8, 2 * n), K_TYPE(K_I8, 2 * n), 0, 0);
    sample_add(s, K_dot4, i32, i32, K_TYPE(K_I8, 4 * n), K_TYPE(K_I8, 4 * n), 0);
    sample_add(s, K_lut16, i8, K_TYPE(K_I8, 16), i8, 0, 0);
    for (uint32_t entries = 4; entries <= 16; entries *= 4) {
        sample_add(s, K_lut16, f, K_TYPE(K_F32, entries), i32, 0, 0);
        sample_add(s, K_lut16, i32, K_TYPE(K_I32, entries), i32, 0, 0);
    }
    sample_add(s, K_sign, i8, i8, i8, 0, 0);
    sample_add(s, K_prefetch, i32, i32, 0, 0, (int64_t)nth & 3);
    sample_add(s, K_dim, i32, i32, 0, 0, 0);
    sample_add(s, K_for, i32, i32, 0, 0, 0);
    if (n == 1) {
        sample_add(s, K_if, i32, i32, 0, 0, 0);
        sample_add(s, K_begin, K_TYPE(K_I64, 2), K_TYPE(K_I8, 1), 0, 0, 0);
    }
}

/* All samples; at has room for SAMPLE_MAX.  Returns how many there are. */
static inline int sample_list(sample *at)
{
    sample_sink s = { at, 0 };
    for (uint32_t l = 0; l < SAMPLE_N_LANES; l++)
        sample_add_lanes(&s, sample_lanes[l], l);
    return s.n;
}

/* Elements of input o (or with o == n_in of the output) for that many rows. */
static inline int64_t sample_elements(const sample *s, uint32_t o, int64_t rows)
{
    if (s->op == K_gather && o == 0)
        return SAMPLE_TABLE;
    return rows * (int64_t)K_LANES(o < s->n_in ? s->in[o] : s->out);
}
static inline int64_t sample_bytes(const sample *s, uint32_t o, int64_t rows)
{
    return sample_elements(s, o, rows) *
           (int64_t)sample_elem_bytes(o < s->n_in ? s->in[o] : s->out);
}

static inline uint32_t sample_dtype(k_type t)
{
    static const uint32_t dtype[8] = { 0,         SETUN_I8,  SETUN_I8,  SETUN_I16,
                                       SETUN_I32, SETUN_I64, SETUN_F32, 0 };
    return dtype[K_ELEM(t)];
}

/* The element a value has in memory. */
static inline uint32_t sample_mem(k_type t) { return K_ELEM(t) == K_I1 ? K_I8 : K_ELEM(t); }

static inline k_val sample_load(setun_kernel *k, const sample *s, uint32_t o, k_val unit)
{
    k_type t = s->in[o];
    k_val p = k_arg(k, (int32_t)o, sample_mem(t));
    k_val v = k_load(k, p, k_muli(k, unit, (int64_t)K_LANES(t)), K_LANES(t));
    return K_ELEM(t) == K_I1 ? k_trunc(k, v, K_I1) : v;
}

static inline k_val sample_special(setun_kernel *k, const sample *s, k_val a, k_val unit)
{
    uint32_t n = K_LANES(s->out), elem = K_ELEM(s->out);
    k_val p, var, j;
    switch (s->op) {
    case K_local: case K_scratch:
        /* Element by element, last first, then back as one vector. */
        p = s->op == K_local ? k_local(k, elem, (int64_t)n + 3)
                             : k_scratch(k, elem, (int64_t)((n + 3) * sample_elem_bytes(s->out)));
        for (uint32_t i = 0; i < n; i++)
            k_store(k, p, k_i64(k, (int64_t)(3 + n - 1 - i)), k_extract(k, a, (int64_t)i));
        return k_load(k, p, k_i64(k, 3), n);
    case K_prefetch:
        p = k_arg(k, 0, elem);
        k_prefetch(k, p, k_addi(k, k_muli(k, unit, 4), 1 << 20), s->imm);
        return a;
    case K_dim:
        return k_add(k, a, k_splat(k, k_trunc(k, k_dim_run(k, 0, 0), K_I32), n));
    case K_for:
        var = k_var(k, k_int(k, s->out, 0));
        j = k_for(k, k_i64(k, 0), k_i64(k, 5), 2);
        k_set(k, var, k_add(k, k_get(k, var), k_mul(k, a, k_splat(k, k_add(k, k_trunc(k, j, K_I32),
              k_int(k, K_TYPE(K_I32, 1), 1)), n))));
        k_stop(k);
        return k_get(k, var);
    case K_if:
        var = k_var(k, k_int(k, s->out, 0));
        k_if(k, k_lt(k, a, k_int(k, s->out, 0)));
        k_set(k, var, k_sub(k, k_int(k, s->out, 0), a));
        k_else(k);
        k_set(k, var, k_addi(k, a, 1));
        k_if(k, k_eq(k, k_and(k, a, k_int(k, s->out, 1)), k_int(k, s->out, 0)));
        k_set(k, var, k_addi(k, k_get(k, var), 1));
        k_stop(k);
        k_stop(k);
        return k_get(k, var);
    case K_begin:
        j = k_and(k, k_le(k, k_begin(k), unit), k_lt(k, unit, k_end(k)));
        return k_concat(k, unit, k_zext(k, j, K_I64));
    default: /* var: what was set is read back; its first value is not */
        var = k_var(k, a);
        k_set(k, var, k_get(k, var));
        return k_get(k, var);
    }
}

static inline k_val sample_compute(setun_kernel *k, const sample *s, k_val unit)
{
    k_val v[3] = { 0, 0, 0 };
    int32_t mask[K_MAX_LANES];
    if (s->op == K_gather)
        return k_gather(k, k_arg(k, 0, K_ELEM(s->in[0])), sample_load(k, s, 1, unit));
    for (uint32_t o = 0; o < s->n_in; o++)
        v[o] = sample_load(k, s, o, unit);
    switch (s->op) {
    case K_local: case K_scratch: case K_prefetch: case K_dim: case K_for: case K_if:
    case K_begin: case K_var:
        return sample_special(k, s, v[0], unit);
    case K_shuffle:
        for (uint32_t i = 0; i < K_LANES(s->out); i++)
            mask[i] = sample_mask(i, K_LANES(s->in[0]));
        return k_shuffle(k, v[0], v[1], mask, K_LANES(s->out));
    default:
        return k_emit(k, s->op, s->out, v[0], v[1], v[2], s->imm);
    }
}

/* A verified kernel whose grid has one unit per row. */
static inline setun_status sample_build(const sample *s, int64_t rows, const st_target *target,
                                        st_arena *arena, st_kir **out, setun_error *err)
{
    setun_view in[3], to;
    setun_args shape;
    memset(&shape, 0, sizeof shape);
    memset(in, 0, sizeof in);
    memset(&to, 0, sizeof to);
    for (uint32_t o = 0; o <= s->n_in; o++) {
        setun_view *v = o < s->n_in ? &in[o] : &to;
        v->dtype = sample_dtype(o < s->n_in ? s->in[o] : s->out);
        v->rank = 1;
        v->dim[0] = sample_elements(s, o, rows);
    }
    shape.size = sizeof shape;
    shape.n_in = s->n_in;
    shape.n_out = 1;
    shape.in = in;
    shape.out = &to;
    st_kir *kir;
    setun_status status = st_kir_new(&kir, st_kir_op_name(s->op), &shape, target, arena, err);
    if (status != SETUN_OK)
        return status;
    setun_kernel *k = &kir->head;
    int32_t out_arg = (int32_t)s->n_in;
    uint32_t n = K_LANES(s->out);
    k_grid(k, out_arg, 0, (int64_t)n);
    k_val unit = k_for(k, k_begin(k), k_end(k), 1);
    k_val v = sample_compute(k, s, unit);
    if (K_ELEM(s->out) == K_I1)
        v = k_zext(k, v, K_I8);
    k_store(k, k_arg(k, out_arg, sample_mem(s->out)), k_muli(k, unit, (int64_t)n), v);
    k_stop(k);
    *out = kir;
    return st_kir_verify(kir, err);
}

static inline uint64_t sample_random(uint64_t *state)
{
    uint64_t x = *state += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

/* The low bytes of x as element i. */
static inline void sample_put(void *data, uint32_t bytes, int64_t i, uint64_t x)
{
    switch (bytes) {
    case 1: ((uint8_t *)data)[i] = (uint8_t)x; break;
    case 2: ((uint16_t *)data)[i] = (uint16_t)x; break;
    case 4: ((uint32_t *)data)[i] = (uint32_t)x; break;
    default: ((uint64_t *)data)[i] = x; break;
    }
}

/* Contents of input o: half edge values in all combinations that come up, half random bits. */
static inline void sample_data(const sample *s, uint32_t o, int64_t rows, uint64_t seed, void *data)
{
    static const uint32_t floats[] = {
        0x00000000u, 0x80000000u, 0x3f800000u, 0xbf800000u, 0x3f000000u,
        0x3fc00000u, 0x40200000u, 0xc0200000u, 0x7f800000u, 0xff800000u,
        0x7fc00000u, 0xffc00000u, 0x7fc12345u, 0x7f800001u, 0xffa00000u, /* NaNs */
        0x00000001u, 0x80000001u, 0x007fffffu, 0x00800000u, 0x80800000u,
        0x7f7fffffu, 0xff7fffffu, 0x4f000000u, 0xcf000000u, 0x4effffffu,
        0xceffffffu, 0xcf000001u, 0x4f800000u, /* around 2^31 */
        0x4b000000u, 0x4affffffu, 0xcaffffffu, 0x4b7fffffu, 0x4a800001u,
        0x3effffffu, /* around 2^23 */
        0x477fe000u, 0x477fefffu, 0x477ff000u, 0x38800000u, 0x387fffffu,
        0x387fe000u, 0x33800000u, 0x33000000u, 0x33000001u, 0x32ffffffu,
        0x33c00000u, 0x3f801000u, 0x3f803000u, 0xbf801001u, /* halves of binary16 */
    };
    static const int64_t ints[] = { 0,         1,          -1,        2,         127,   -128,
                                    128,       255,        32767,     -32768,    65535, INT32_MAX,
                                    INT32_MIN, 4294967295, INT64_MAX, INT64_MIN, 15,    16,
                                    -127,      85,         16777217,  -33554435 };
    uint64_t state = seed * 1000003 + s->op * 101 + o;
    int64_t n = sample_elements(s, o, rows);
    uint32_t bytes = sample_elem_bytes(s->in[o]);
    for (int64_t i = 0; i < n; i++) {
        uint64_t r = sample_random(&state), x = sample_random(&state);
        if (r & 1) {
            if (K_ELEM(s->in[o]) == K_F32)
                x = floats[(r >> 8) % (sizeof floats / sizeof floats[0])];
            else
                x = (uint64_t)ints[(r >> 8) % (sizeof ints / sizeof ints[0])];
        } else if (K_ELEM(s->in[o]) == K_F32 && (r & 2)) {
            x = (x & 0x81ffffffu) | 0x3e000000u; /* around 1, where rounding shows */
        }
        if (s->op == K_gather && o == 1)
            x &= SAMPLE_TABLE - 1;
        uint64_t all = bytes == 8 ? UINT64_MAX : ((uint64_t)1 << 8 * bytes) - 1;
        if ((s->op == K_udiv || s->op == K_urem) && o == 1 && (x & all) == 0)
            x = 3;
        sample_put(data, bytes, i, x);
    }
}

/* Are two results the same?  Bit for bit, but where kir.def leaves open which NaN it is. */
static inline int sample_same(const sample *s, int64_t rows, const void *a, const void *b)
{
    int64_t n = sample_elements(s, s->n_in, rows);
    if (memcmp(a, b, (size_t)sample_bytes(s, s->n_in, rows)) == 0)
        return 1;
    int open = s->op == K_h2f || s->op == K_add || s->op == K_sub || s->op == K_mul || s->op == K_div ||
               s->op == K_sqrt || s->op == K_rint || s->op == K_rsum;
    if (!open || K_ELEM(s->out) != K_F32)
        return 0;
    for (int64_t i = 0; i < n; i++) {
        uint32_t x, y;
        memcpy(&x, (const char *)a + 4 * i, 4);
        memcpy(&y, (const char *)b + 4 * i, 4);
        if (x != y && ((x & 0x7fffffffu) <= 0x7f800000u || (y & 0x7fffffffu) <= 0x7f800000u))
            return 0;
    }
    return 1;
}

#endif
