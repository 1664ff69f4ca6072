/* codegen/kir_lanes.c -- the lanewise meaning of the kernel words, in scalar C.
 *
 * Not here: memory, variables and control flow (kir_eval.c).  Each function handles one
 * instruction for one element type, in loops of a fixed length (16 bytes of the widest type
 * involved) that a compiler can turn into vector code.  Integers are computed unsigned, because
 * they wrap and C's signed ones do not.  This file must be compiled with -ffp-contract=off and
 * without fast-math. */
#include "codegen/kir_lanes.h"

#include <math.h>
#include <string.h>

#include "setun/numerics.h"

#define AT(T, offset) ((T *)(void *)(f + (offset)))

/* d[i] = expr of x (and y, z), W at a time.  Operands may be the same slot; d never is one of
 * them. */
#define UNARY(name, D, A, W, expr)                                   \
    static void name(uint8_t *f, const st_step *s)                   \
    {                                                                \
        D *restrict d = AT(D, s->d);                                 \
        const A *restrict a = AT(A, s->a);                           \
        for (uint32_t i = 0; i < s->n; i += (W), d += (W), a += (W)) \
            for (uint32_t j = 0; j < (W); j++) {                     \
                A x = a[j];                                          \
                d[j] = (D)(expr);                                    \
            }                                                        \
    }
#define BINARY(name, D, A, W, expr)                                             \
    static void name(uint8_t *f, const st_step *s)                              \
    {                                                                           \
        D *restrict d = AT(D, s->d);                                            \
        const A *restrict a = AT(A, s->a), *restrict b = AT(A, s->b);           \
        for (uint32_t i = 0; i < s->n; i += (W), d += (W), a += (W), b += (W)) \
            for (uint32_t j = 0; j < (W); j++) {                                \
                A x = a[j], y = b[j];                                           \
                d[j] = (D)(expr);                                               \
            }                                                                   \
    }

/* Unsigned arithmetic for 8 and 16 bits is done in 32, where no product overflows an int. */
#define U(x) ((uint32_t)(x))
#define L(x) ((uint64_t)(x))
#define INTS(name, expr32, expr64)               \
    BINARY(name##_8, uint8_t, uint8_t, 16, expr32)   \
    BINARY(name##_16, uint16_t, uint16_t, 8, expr32) \
    BINARY(name##_32, uint32_t, uint32_t, 4, expr32) \
    BINARY(name##_64, uint64_t, uint64_t, 2, expr64)
#define SIGNED(name, expr)                      \
    BINARY(name##_8, int8_t, int8_t, 16, expr)   \
    BINARY(name##_16, int16_t, int16_t, 8, expr) \
    BINARY(name##_32, int32_t, int32_t, 4, expr) \
    BINARY(name##_64, int64_t, int64_t, 2, expr) \
    BINARY(name##_f, float, float, 4, expr)
#define COMPARE(name, expr)                      \
    BINARY(name##_8, uint8_t, int8_t, 16, expr)   \
    BINARY(name##_16, uint8_t, int16_t, 8, expr)  \
    BINARY(name##_32, uint8_t, int32_t, 4, expr)  \
    BINARY(name##_64, uint8_t, int64_t, 2, expr)  \
    BINARY(name##_f, uint8_t, float, 4, expr)

INTS(add, U(x) + U(y), x + y)
INTS(sub, U(x) - U(y), x - y)
INTS(mul, U(x) * U(y), x * y)
INTS(and, x & y, x & y)
INTS(or, x | y, x | y)
INTS(xor, x ^ y, x ^ y)
SIGNED(min, x < y ? x : y)
SIGNED(max, x > y ? x : y)
COMPARE(eq, x == y)
COMPARE(lt, x < y)
COMPARE(le, x <= y)
BINARY(add_f, float, float, 4, x + y)
BINARY(sub_f, float, float, 4, x - y)
BINARY(mul_f, float, float, 4, x * y)
BINARY(div_f, float, float, 4, x / y)
UNARY(sqrt_f, float, float, 4, sqrtf(x))
UNARY(abs_f, uint32_t, uint32_t, 4, x & 0x7fffffffu)
UNARY(neg_f, uint32_t, uint32_t, 4, x ^ 0x80000000u)

/* Below 2^23 adding 2^23 leaves no bits for a fraction, and the hardware rounds the sum to even;
 * from there on every float is whole.  The sign is put back for -0 and for what rounds to it. */
static inline float rint_one(float x)
{
    float m = setun_absf(x);
    float r = (m + 8388608.0f) - 8388608.0f;
    r = m < 8388608.0f ? r : m; /* NaN: m */
    return setun_bits_f32((setun_f32_bits(r) & 0x7fffffffu) | (setun_f32_bits(x) & 0x80000000u));
}
UNARY(rint_f, float, float, 4, rint_one(x))

/* The shift counts are below the width: the verifier has seen them.  The sign is copied by
 * arithmetic on an unsigned number, (x ^ m) - m with m the moved sign bit, since C leaves >> of
 * negatives open. */
UNARY(shl_8, uint8_t, uint8_t, 16, U(x) << s->imm)
UNARY(shl_16, uint16_t, uint16_t, 8, U(x) << s->imm)
UNARY(shl_32, uint32_t, uint32_t, 4, x << s->imm)
UNARY(shl_64, uint64_t, uint64_t, 2, x << s->imm)
UNARY(shru_8, uint8_t, uint8_t, 16, U(x) >> s->imm)
UNARY(shru_16, uint16_t, uint16_t, 8, U(x) >> s->imm)
UNARY(shru_32, uint32_t, uint32_t, 4, x >> s->imm)
UNARY(shru_64, uint64_t, uint64_t, 2, x >> s->imm)
UNARY(shrs_8, uint8_t, uint8_t, 16, ((U(x) >> s->imm) ^ (0x80u >> s->imm)) - (0x80u >> s->imm))
UNARY(shrs_16, uint16_t, uint16_t, 8,
      ((U(x) >> s->imm) ^ (0x8000u >> s->imm)) - (0x8000u >> s->imm))
UNARY(shrs_32, uint32_t, uint32_t, 4,
      ((x >> s->imm) ^ (U(1) << 31 >> s->imm)) - (U(1) << 31 >> s->imm))
UNARY(shrs_64, uint64_t, uint64_t, 2,
      ((x >> s->imm) ^ (L(1) << 63 >> s->imm)) - (L(1) << 63 >> s->imm))

/* Conversions.  The group is 16 bytes of the wider side; an i1 is a byte. */
#define WIDEN(from, A, UA)                                     \
    UNARY(sext_##from##_16, uint16_t, A, 8, (int16_t)x)        \
    UNARY(sext_##from##_32, uint32_t, A, 4, (int32_t)x)        \
    UNARY(sext_##from##_64, uint64_t, A, 2, (int64_t)x)        \
    UNARY(zext_##from##_16, uint16_t, UA, 8, x)                \
    UNARY(zext_##from##_32, uint32_t, UA, 4, x)                \
    UNARY(zext_##from##_64, uint64_t, UA, 2, x)
WIDEN(8, int8_t, uint8_t)
UNARY(sext_16_32, uint32_t, int16_t, 4, (int32_t)x)
UNARY(sext_16_64, uint64_t, int16_t, 2, (int64_t)x)
UNARY(sext_32_64, uint64_t, int32_t, 2, (int64_t)x)
UNARY(zext_16_32, uint32_t, uint16_t, 4, x)
UNARY(zext_16_64, uint64_t, uint16_t, 2, x)
UNARY(zext_32_64, uint64_t, uint32_t, 2, x)
UNARY(sext_1_8, uint8_t, uint8_t, 16, 0u - U(x))
UNARY(sext_1_16, uint16_t, uint8_t, 8, 0u - U(x))
UNARY(sext_1_32, uint32_t, uint8_t, 4, 0u - U(x))
UNARY(sext_1_64, uint64_t, uint8_t, 2, L(0) - L(x))
UNARY(copy_8, uint8_t, uint8_t, 16, x)
UNARY(trunc_8_1, uint8_t, uint8_t, 16, x & 1u)
UNARY(trunc_16_1, uint8_t, uint16_t, 8, x & 1u)
UNARY(trunc_32_1, uint8_t, uint32_t, 4, x & 1u)
UNARY(trunc_64_1, uint8_t, uint64_t, 2, x & 1u)
UNARY(trunc_16_8, uint8_t, uint16_t, 8, x)
UNARY(trunc_32_8, uint8_t, uint32_t, 4, x)
UNARY(trunc_64_8, uint8_t, uint64_t, 2, x)
UNARY(trunc_32_16, uint16_t, uint32_t, 4, x)
UNARY(trunc_64_16, uint16_t, uint64_t, 2, x)
UNARY(trunc_64_32, uint32_t, uint64_t, 2, x)
UNARY(i2f_one, float, int32_t, 4, x)
UNARY(h2f_one, float, uint16_t, 4, setun_f16_f32(x))
UNARY(f2h_one, uint16_t, float, 4, setun_f32_f16(x))

/* 2^31 and -2^31 are floats; everything strictly between fits an int32 after truncation. */
static inline int32_t f2i_lane(float x)
{
    if (x >= 2147483648.0f)
        return INT32_MAX;
    if (x <= -2147483648.0f)
        return INT32_MIN;
    return x == x ? (int32_t)x : 0;
}
UNARY(f2i_one, int32_t, float, 4, f2i_lane(x))

/* b < 0 ? -a : b == 0 ? 0 : a, and -(-128) wraps to -128. */
BINARY(sign_8, uint8_t, int8_t, 16, y < 0 ? 0u - U(x) : y == 0 ? 0u : U(x))

/* By element size. */
#define BY_SIZE(T, W, bits)                                                        \
    static void select_##bits(uint8_t *f, const st_step *s)                        \
    {                                                                              \
        T *restrict d = AT(T, s->d);                                               \
        const uint8_t *restrict a = AT(uint8_t, s->a);                             \
        const T *restrict b = AT(T, s->b), *restrict c = AT(T, s->c);              \
        for (uint32_t i = 0; i < s->n; i += (W))                                   \
            for (uint32_t j = 0; j < (W); j++) {                                   \
                T mask = (T)(0 - (T)a[i + j]);                                     \
                d[i + j] = (T)((b[i + j] & mask) | (c[i + j] & (T)~mask));         \
            }                                                                      \
    }                                                                              \
    static void splat_##bits(uint8_t *f, const st_step *s)                         \
    {                                                                              \
        T *restrict d = AT(T, s->d);                                               \
        T x = *AT(T, s->a);                                                        \
        for (uint32_t i = 0; i < s->n; i += (W))                                   \
            for (uint32_t j = 0; j < (W); j++)                                     \
                d[i + j] = x;                                                      \
    }                                                                              \
    static void shuffle_##bits(uint8_t *f, const st_step *s)                       \
    {                                                                              \
        T *restrict d = AT(T, s->d);                                               \
        const T *restrict a = AT(T, s->a), *restrict b = AT(T, s->b);              \
        for (uint32_t i = 0; i < s->n; i++) {                                      \
            uint32_t m = (uint32_t)s->mask[i];                                     \
            d[i] = m < s->na ? a[m] : b[m - s->na];                                \
        }                                                                          \
    }
BY_SIZE(uint8_t, 16, 8)
BY_SIZE(uint16_t, 8, 16)
BY_SIZE(uint32_t, 4, 32)
BY_SIZE(uint64_t, 2, 64)

/* const is iota that does not count. */
static void fill(uint8_t *f, const st_step *s, uint64_t by)
{
    uint64_t x = (uint64_t)s->imm;
    for (uint32_t i = 0; i < s->n; i++, x += by)
        switch (s->bytes) {
        case 1: AT(uint8_t, s->d)[i] = (uint8_t)x; break;
        case 2: AT(uint16_t, s->d)[i] = (uint16_t)x; break;
        case 4: AT(uint32_t, s->d)[i] = (uint32_t)x; break;
        default: AT(uint64_t, s->d)[i] = x; break;
        }
}
static void iota(uint8_t *f, const st_step *s) { fill(f, s, 1); }
static void constant(uint8_t *f, const st_step *s) { fill(f, s, 0); }

#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
/* Each of the elements of size bytes gets its bytes in the other order. */
static void turn(uint8_t *p, size_t n, size_t size)
{
    for (size_t i = 0; i < n; i += size)
        for (size_t j = 0; j < size / 2; j++) {
            uint8_t x = p[i + j];
            p[i + j] = p[i + size - 1 - j];
            p[i + size - 1 - j] = x;
        }
}
#endif

/* The lane order of cast is little-endian, and elements in the frame are in the host's order.  Where that is
 * the same, the same bytes are the same bits; else through the other order.  Also the move of a value. */
static void cast(uint8_t *f, const st_step *s)
{
    size_t n = (size_t)s->n * s->bytes;
    memcpy(f + s->d, f + s->a, n);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    if (s->na != s->n) {
        turn(f + s->d, n, n / s->na);
        turn(f + s->d, n, s->bytes);
    }
#endif
}
static void extract(uint8_t *f, const st_step *s)
{
    memcpy(f + s->d, f + s->a + (size_t)s->imm * s->bytes, (size_t)s->n * s->bytes);
}
static void concat(uint8_t *f, const st_step *s)
{
    size_t first = (size_t)s->na * s->bytes;
    memcpy(f + s->d, f + s->a, first);
    memcpy(f + s->d + first, f + s->b, (size_t)s->n * s->bytes - first);
}

/* n lanes become n/2 combinations of lane i and lane i + n/2, in place in a copy. */
#define TREE(name, T, expr)                                     \
    static void name(uint8_t *f, const st_step *s)              \
    {                                                           \
        T p[K_MAX_LANES];                                       \
        memcpy(p, f + s->a, (size_t)s->n * sizeof(T));          \
        for (uint32_t half = s->n / 2; half; half /= 2)         \
            for (uint32_t i = 0; i < half; i++) {               \
                T x = p[i], y = p[i + half];                    \
                p[i] = (T)(expr);                               \
            }                                                   \
        *AT(T, s->d) = p[0];                                    \
    }
TREE(rsum_8, uint8_t, U(x) + U(y))
TREE(rsum_16, uint16_t, U(x) + U(y))
TREE(rsum_32, uint32_t, x + y)
TREE(rsum_64, uint64_t, x + y)
TREE(rsum_f, float, x + y)
TREE(rmax_8, int8_t, x > y ? x : y)
TREE(rmax_16, int16_t, x > y ? x : y)
TREE(rmax_32, int32_t, x > y ? x : y)
TREE(rmax_64, int64_t, x > y ? x : y)
TREE(rmax_f, float, x > y ? x : y)

static void dot2(uint8_t *f, const st_step *s)
{
    int16_t *restrict d = AT(int16_t, s->d);
    const uint8_t *restrict a = AT(uint8_t, s->a);
    const int8_t *restrict b = AT(int8_t, s->b);
    for (uint32_t i = 0; i < s->n; i += 8)
        for (uint32_t j = 0; j < 8; j++) {
            uint32_t e = 2 * (i + j);
            int32_t sum = a[e] * b[e] + a[e + 1] * b[e + 1];
            sum = sum < 32767 ? sum : 32767;
            d[i + j] = (int16_t)(sum > -32768 ? sum : -32768);
        }
}

static void dot4(uint8_t *f, const st_step *s)
{
    uint32_t *restrict d = AT(uint32_t, s->d);
    const uint32_t *restrict a = AT(uint32_t, s->a);
    const uint8_t *restrict b = AT(uint8_t, s->b);
    const int8_t *restrict c = AT(int8_t, s->c);
    for (uint32_t i = 0; i < s->n; i += 4)
        for (uint32_t j = 0; j < 4; j++) {
            uint32_t e = 4 * (i + j);
            int32_t sum =
                b[e] * c[e] + b[e + 1] * c[e + 1] + b[e + 2] * c[e + 2] + b[e + 3] * c[e + 3];
            d[i + j] = a[i + j] + (uint32_t)sum;
        }
}

static void lut16(uint8_t *f, const st_step *s)
{
    uint8_t *restrict d = AT(uint8_t, s->d);
    const uint8_t *restrict a = AT(uint8_t, s->a), *restrict b = AT(uint8_t, s->b);
    for (uint32_t i = 0; i < s->n; i += 16)
        for (uint32_t j = 0; j < 16; j++)
            d[i + j] = a[b[i + j] & 15u];
}
static void lut32(uint8_t *f, const st_step *s)
{
    uint32_t *restrict d = AT(uint32_t, s->d), last = s->na - 1;
    const uint32_t *restrict a = AT(uint32_t, s->a);
    const uint32_t *restrict b = AT(uint32_t, s->b);
    for (uint32_t i = 0; i < s->n; i += 4)
        for (uint32_t j = 0; j < 4; j++)
            d[i + j] = a[b[i + j] & last];
}

/* ---------------------------------------------------------------- which function */

/* Columns: i1, i8, i16, i32, i64, f32, by the element of operand a. */
#define ROW(i1, i8, i16, i32, i64, f32) { NULL, i1, i8, i16, i32, i64, f32, NULL }
#define ROW_INT(n) ROW(NULL, n##_8, n##_16, n##_32, n##_64, NULL)
#define ROW_BIT(n) ROW(n##_8, n##_8, n##_16, n##_32, n##_64, NULL)
#define ROW_ALL(n) ROW(NULL, n##_8, n##_16, n##_32, n##_64, n##_f)
#define ROW_F32(n) ROW(NULL, NULL, NULL, NULL, NULL, n)
#define ROW_ANY(n) ROW(n, n, n, n, n, n)
static st_lanes_fn *const by_elem[K_COUNT][8] = {
    [K_add] = ROW_ALL(add), [K_sub] = ROW_ALL(sub), [K_mul] = ROW_ALL(mul),
    [K_min] = ROW_ALL(min), [K_max] = ROW_ALL(max),
    [K_div] = ROW_F32(div_f), [K_sqrt] = ROW_F32(sqrt_f), [K_rint] = ROW_F32(rint_f),
    [K_abs] = ROW_F32(abs_f), [K_neg] = ROW_F32(neg_f),
    [K_and] = ROW_BIT(and), [K_or] = ROW_BIT(or), [K_xor] = ROW_BIT(xor),
    [K_shl] = ROW_INT(shl), [K_shru] = ROW_INT(shru), [K_shrs] = ROW_INT(shrs),
    [K_eq] = ROW_ALL(eq), [K_lt] = ROW_ALL(lt), [K_le] = ROW_ALL(le),
    [K_i2f] = ROW(NULL, NULL, NULL, i2f_one, NULL, NULL), [K_f2i] = ROW_F32(f2i_one),
    [K_h2f] = ROW(NULL, NULL, h2f_one, NULL, NULL, NULL), [K_f2h] = ROW_F32(f2h_one),
    [K_cast] = ROW_ANY(cast), [K_opaque] = ROW_ANY(cast),
    [K_var] = ROW_ANY(cast), [K_get] = ROW_ANY(cast),
    [K_splat] = ROW(splat_8, splat_8, splat_16, splat_32, splat_64, splat_32),
    [K_extract] = ROW_ANY(extract), [K_slice] = ROW_ANY(extract), [K_concat] = ROW_ANY(concat),
    [K_shuffle] = ROW(shuffle_8, shuffle_8, shuffle_16, shuffle_32, shuffle_64, shuffle_32),
    [K_rsum] = ROW_ALL(rsum), [K_rmax] = ROW_ALL(rmax),
    [K_dot2] = ROW(NULL, dot2, NULL, NULL, NULL, NULL),
    [K_dot4] = ROW(NULL, NULL, NULL, dot4, NULL, NULL),
    [K_lut16] = ROW(NULL, lut16, NULL, lut32, NULL, lut32),
    [K_sign] = ROW(NULL, sign_8, NULL, NULL, NULL, NULL),
};

/* By element of operand a, then of the result. */
static st_lanes_fn *const sext[8][8] = {
    [K_I1] = ROW(NULL, sext_1_8, sext_1_16, sext_1_32, sext_1_64, NULL),
    [K_I8] = ROW(NULL, NULL, sext_8_16, sext_8_32, sext_8_64, NULL),
    [K_I16] = ROW(NULL, NULL, NULL, sext_16_32, sext_16_64, NULL),
    [K_I32] = ROW(NULL, NULL, NULL, NULL, sext_32_64, NULL),
};
static st_lanes_fn *const zext[8][8] = {
    [K_I1] = ROW(NULL, copy_8, zext_8_16, zext_8_32, zext_8_64, NULL),
    [K_I8] = ROW(NULL, NULL, zext_8_16, zext_8_32, zext_8_64, NULL),
    [K_I16] = ROW(NULL, NULL, NULL, zext_16_32, zext_16_64, NULL),
    [K_I32] = ROW(NULL, NULL, NULL, NULL, zext_32_64, NULL),
};
static st_lanes_fn *const trunc_to[8][8] = {
    [K_I8] = ROW(trunc_8_1, NULL, NULL, NULL, NULL, NULL),
    [K_I16] = ROW(trunc_16_1, trunc_16_8, NULL, NULL, NULL, NULL),
    [K_I32] = ROW(trunc_32_1, trunc_32_8, trunc_32_16, NULL, NULL, NULL),
    [K_I64] = ROW(trunc_64_1, trunc_64_8, trunc_64_16, trunc_64_32, NULL, NULL),
};
static st_lanes_fn *const select_of[8] =
    ROW(select_8, select_8, select_16, select_32, select_64, select_32);

st_lanes_fn *st_lanes_find(uint32_t op, k_type t, k_type ta)
{
    switch (op) {
    case K_const: return constant;
    case K_iota: return iota;
    case K_sext: return sext[K_ELEM(ta)][K_ELEM(t)];
    case K_zext: return zext[K_ELEM(ta)][K_ELEM(t)];
    case K_trunc: return trunc_to[K_ELEM(ta)][K_ELEM(t)];
    case K_select: return select_of[K_ELEM(t)];
    default: return op < K_COUNT ? by_elem[op][K_ELEM(ta)] : NULL;
    }
}
