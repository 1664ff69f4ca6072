/* setun/types.h -- status, error, element types, views: the frozen layouts.
 *
 * Everything here crosses the plugin ABI.  Fields are fixed-width integers, doubles and pointers;
 * no bool, enum, long, size_t or bit-field.  No layout in this file may ever change
 * (tests/abi holds them).  C11; also compiles as C++17. */
#ifndef SETUN_TYPES_H
#define SETUN_TYPES_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define SETUN_EXPORT __attribute__((visibility("default")))
#define SETUN_PRINTF(f, a) __attribute__((format(printf, f, a)))
#else
#define SETUN_EXPORT
#define SETUN_PRINTF(f, a)
#endif

#ifdef __cplusplus
#define SETUN_STATIC_ASSERT(c, m) static_assert(c, m)
#else
#define SETUN_STATIC_ASSERT(c, m) _Static_assert(c, m)
#endif

/* Not an enum, so that its size is fixed.  0 done, negative failed, positive declined. */
typedef int32_t setun_status;

#define SETUN_OK           0
#define SETUN_DECLINED     1  /* "not me, ask someone else"; nothing was changed */
#define SETUN_FAILED      (-1) /* none of the below */
#define SETUN_NO_MEMORY   (-2)
#define SETUN_BAD_ARG     (-3) /* the caller's mistake */
#define SETUN_BAD_FILE    (-4) /* a file is malformed, truncated or lies */
#define SETUN_BAD_SHAPE   (-5) /* dimensions or types do not fit together */
#define SETUN_UNKNOWN     (-6) /* a name, version or value that this Setun does not know */
#define SETUN_FULL        (-7) /* no room left (context, limit); nothing was changed */
#define SETUN_BAD_SCRIPT  (-8) /* a Lua script failed or broke a limit */
#define SETUN_IO          (-9) /* the operating system refused */
#define SETUN_CANCELLED   (-10)

/* Filled by the callee when it fails; owned by the caller; needs no free; may be NULL everywhere.
 * text is one sentence without a final newline, UTF-8, NUL-terminated, truncated if too long. */
typedef struct setun_error {
    int32_t code;
    char    text[508];
} setun_error;
SETUN_STATIC_ASSERT(sizeof(setun_error) == 512, "setun_error is part of the ABI");

/* Element types.  0 is "none".  Values are part of the ABI and of cached files. */
#define SETUN_F32  1u /* IEEE binary32 */
#define SETUN_F16  2u /* IEEE binary16 */
#define SETUN_BF16 3u /* upper half of a binary32 */
#define SETUN_I8   4u
#define SETUN_I16  5u
#define SETUN_I32  6u
#define SETUN_I64  7u
#define SETUN_U8   8u
#define SETUN_T2   9u /* ternary, 2 bits a weight, as drawn below */
#define SETUN_Q8   10u /* blocks of 32 8-bit integers with a scale, as drawn below */
#define SETUN_Q4_0 11u /* GGUF's blocks of that name, as drawn below */
#define SETUN_Q8_0 12u
#define SETUN_Q4_K 13u
#define SETUN_Q6_K 14u

/* SETUN_T2: a row of K weights is ceil(K / 128) blocks of 32 bytes; a block holds 128 weights.
 *
 *     bit    7 6    5 4    3 2    1 0
 *          +------+------+------+------+
 *   byte j |j + 96|j + 64|j + 32|  j   |     j = 0..31;  code 0 1 2 = weight -1 0 +1
 *          +------+------+------+------+     code 3 never occurs; weights past K have code 1
 *
 * Strided by 32 so that (block >> 2s) & 3 is 32 neighbours in natural order, and so that one byte
 * indexes a table of the sums of its four columns.  Source: docs/numerics.md. */
#define SETUN_T2_BLOCK 128
#define SETUN_T2_BLOCK_BYTES 32

/* SETUN_Q8: a row of n elements is ceil(n / 32) blocks of 34 bytes; element i of a block is
 * q(i) * scale, which is exact in binary32 (8 bits times 7 bits).
 *
 *     byte   0        1        2      3          33
 *          +--------+--------+------+------+---+-------+
 *          | scale, bf16     | q(0) | q(1) |...| q(31) |    q: -127..127; 0 past the row's end
 *          +--------+--------+------+------+---+-------+
 *
 * The scale stands beside its numbers, so that a row of a cache is one piece of memory. */
#define SETUN_Q8_BLOCK 32
#define SETUN_Q8_BLOCK_BYTES 34

/* Weights as GGUF files have them: rows of whole blocks, used where they lie.  d and m are binary16 in
 * the host's order.  All are exact in binary32 but for the difference in Q4_K, which rounds once.
 *
 *   Q4_0   32 in 18 bytes    d, q[16]                        (q(i) - 8) d: nibbles of 4 bits, low ones first
 *   Q8_0   32 in 34 bytes    d, q[32]                        q(i) d: from -128 to 127
 *   Q4_K  256 in 144 bytes   d, m, s[12], q[128]             (d scale) q(i) - (m least)
 *   Q6_K  256 in 210 bytes   low[128], high[64], s[16], d    (d scale) (q(i) - 32)
 *
 * The nibbles of Q4_0 are of i < 16 (low) and i + 16 (high); setun/op_blocks.h says by its code where
 * bits of Q4_K and Q6_K are, whose eight groups of 32, or sixteen of 16, have a scale each. */

#define SETUN_MAX_RANK 4

/* A dense row-major array.  Borrowed: a view owns nothing.
 * A dimension below 0 is symbolic: a number of rows that is known only when a program runs.
 * Equal negative numbers are equal; only dim[0] may be symbolic. */
typedef struct setun_view {
    void    *data;
    uint32_t dtype;
    uint32_t rank;                /* 0 is a scalar */
    int64_t  dim[SETUN_MAX_RANK]; /* outermost first; unused ones are 1 */
} setun_view;
SETUN_STATIC_ASSERT(sizeof(setun_view) == 16 + 8 * SETUN_MAX_RANK, "setun_view is part of the ABI");

#define SETUN_DIM_TOKENS  (-1) /* tokens fed in one call */
#define SETUN_DIM_OUTPUTS (-2) /* of these, how many rows of logits are wanted */
#define SETUN_N_SYMBOLS 2

/* Value of an operator's parameter; which member holds is said by the operator's schema. */
typedef union setun_value {
    int64_t     i;
    double      f;
    const char *s;
} setun_value;

/* Is this table long enough to hold the field, and is the field filled in? */
#define SETUN_HAS(T, p, field) \
    ((p)->size >= offsetof(T, field) + sizeof(((T *)0)->field) && (p)->field != 0)

/* Number of elements of a view with no symbolic dimension. */
static inline int64_t setun_count(const setun_view *v)
{
    int64_t n = 1;
    for (uint32_t i = 0; i < v->rank; i++)
        n *= v->dim[i];
    return n;
}

/* Elements that share a block, in which alone they have a meaning; 1 for types without blocks. */
static inline int64_t setun_block(uint32_t dtype)
{
    switch (dtype) {
    case SETUN_T2: return SETUN_T2_BLOCK;
    case SETUN_Q8: case SETUN_Q4_0: case SETUN_Q8_0: return 32;
    case SETUN_Q4_K: case SETUN_Q6_K: return 256;
    default: return 1;
    }
}

/* Bytes of one row of n elements (whole blocks); 0 for an unknown type. */
static inline int64_t setun_row_bytes(uint32_t dtype, int64_t n)
{
    int64_t blocks = (n + setun_block(dtype) - 1) / setun_block(dtype);
    switch (dtype) {
    case SETUN_F32: case SETUN_I32: return 4 * n;
    case SETUN_F16: case SETUN_BF16: case SETUN_I16: return 2 * n;
    case SETUN_I8: case SETUN_U8: return n;
    case SETUN_I64: return 8 * n;
    case SETUN_T2: return blocks * SETUN_T2_BLOCK_BYTES;
    case SETUN_Q8: case SETUN_Q8_0: return blocks * SETUN_Q8_BLOCK_BYTES;
    case SETUN_Q4_0: return blocks * 18;
    case SETUN_Q4_K: return blocks * 144;
    case SETUN_Q6_K: return blocks * 210;
    default: return 0;
    }
}

/* The alignment of an array of this type; 0 for an unknown type. */
static inline int64_t setun_align(uint32_t dtype)
{
    return dtype == SETUN_T2 ? 1 : setun_block(dtype) > 1 ? 2 : setun_row_bytes(dtype, 1);
}

/* Bytes of a view with no symbolic dimension. */
static inline int64_t setun_view_bytes(const setun_view *v)
{
    int64_t last = v->rank ? v->dim[v->rank - 1] : 1, rows = 1;
    for (uint32_t i = 0; i + 1 < v->rank; i++)
        rows *= v->dim[i];
    return rows * setun_row_bytes(v->dtype, last);
}

#ifdef __cplusplus
}
#endif
#endif
