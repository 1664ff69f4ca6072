/* setun/op_blocks.h -- weights in the blocks of GGUF files, and matrices of any float type in kernels.
 *
 * Included at the end of setun/op_help.h, and what that says of itself holds here.
 * The element types are listed in setun/types.h.  setun_get_block is what their bits mean, k_block the
 * same 32 elements at a time: both do the float operations in the order that is written there, so a
 * product with such a matrix has the bits of one with the f32 matrix that it stands for.
 *
 * Bits of the two large types.  Group j of Q4_K is elements 32 j to 32 j + 31, j < 8:
 *
 *     s[j], j < 4     | high 2 bits of scale j + 4 | scale j               |
 *     s[j + 4]        | high 2 bits of least j + 4 | least j               |
 *     s[j + 8]        | low 4 bits of least j + 4  | low 4 of scale j + 4  |
 *     q[32 k + l]     | element 64 k + 32 + l      | element 64 k + l      |     l < 32
 *
 * Q6_K has two halves h of four groups g; element 128 h + 32 g + l has
 *
 *     its low 4 bits in    low[64 h + 32 (g % 2) + l], the upper nibble for g > 1
 *     its high 2 bits in   high[32 h + l], bits 2 g and 2 g + 1
 *     the scale            s[8 h + 2 g + l / 16], 8 bits with a sign */
#ifndef SETUN_OP_BLOCKS_H
#define SETUN_OP_BLOCKS_H

#include "setun/op_help.h" /* does nothing when it is what brought us here */

#ifdef __cplusplus
extern "C" {
#endif

/* Types of weights for setun_want: what a matrix may be stored as. */
#define SETUN_BLOCKS \
    (SETUN_OF(SETUN_Q4_0) | SETUN_OF(SETUN_Q8_0) | SETUN_OF(SETUN_Q4_K) | SETUN_OF(SETUN_Q6_K))
#define SETUN_WEIGHTS (SETUN_FLOATS | SETUN_BLOCKS)

/* Input i is a matrix of weights; its rows are whole blocks, so that nothing lies behind their end. */
static inline setun_status setun_want_weights(const setun_args *a, uint32_t i, setun_error *err)
{
    setun_status s = setun_want(a, i, SETUN_WEIGHTS, 2, err);
    setun_text t;
    if (s == SETUN_OK && a->in[i].dim[1] % setun_block(a->in[i].dtype))
        return setun_fail(err, SETUN_BAD_SHAPE, "%s is %s; dimension 1 must be a multiple of %d",
                          a->op->in[i].name, setun_view_text(&a->in[i], &t),
                          (int)setun_block(a->in[i].dtype));
    return s;
}

/* ---------------------------------------------------------------- one element */

static inline float setun_get_half(const uint8_t *p)
{
    return setun_f16_f32(setun_get_u16(p));
}

static inline float setun_get_q4_k(const uint8_t *block, int64_t i)
{
    const uint8_t *s = block + 4;
    int64_t j = i / 32;
    int32_t scale = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | s[j - 4] >> 6 << 4;
    int32_t least = j < 4 ? s[j + 4] & 63 : s[j + 4] >> 4 | s[j] >> 6 << 4;
    int32_t q = block[16 + j / 2 * 32 + i % 32] >> j % 2 * 4 & 15;
    float step = setun_get_half(block) * (float)scale;
    return step * (float)q - setun_get_half(block + 2) * (float)least;
}

static inline float setun_get_q6_k(const uint8_t *block, int64_t i)
{
    int64_t h = i / 128, g = i / 32 % 4, l = i % 32;
    int32_t low = block[64 * h + 32 * (g % 2) + l] >> g / 2 * 4 & 15;
    int32_t high = block[128 + 32 * h + l] >> 2 * g & 3;
    float step = setun_get_half(block + 208) * (float)(int8_t)block[192 + 8 * h + 2 * g + l / 16];
    return step * (float)((low | high << 4) - 32);
}

/* Element i of one block; 0 for a type without blocks. */
static inline float setun_get_block(uint32_t dtype, const uint8_t *block, int64_t i)
{
    switch (dtype) {
    case SETUN_Q4_0:
        return (float)((block[2 + i % 16] >> i / 16 * 4 & 15) - 8) * setun_get_half(block);
    case SETUN_Q8_0: return (float)(int8_t)block[2 + i] * setun_get_half(block);
    case SETUN_Q4_K: return setun_get_q4_k(block, i);
    case SETUN_Q6_K: return setun_get_q6_k(block, i);
    default: return 0.0f;
    }
}

/* Blocks with any bits but d and m, which are numbers: of either sign, some 0, some denormal. */
static inline void setun_fill_blocks(const setun_view *v, uint64_t seed)
{
    uint8_t *p = (uint8_t *)v->data;
    int64_t bytes = setun_view_bytes(v), size = setun_row_bytes(v->dtype, setun_block(v->dtype));
    for (int64_t i = 0; i < bytes; i++)
        p[i] = (uint8_t)(setun_mix(seed, (uint64_t)i) >> 24);
    for (int64_t at = 0; at < bytes; at += size)
        for (int64_t i = 0; i < (v->dtype == SETUN_Q4_K ? 2 : 1); i++) {
            uint64_t r = setun_mix(seed ^ 77, (uint64_t)(at + i));
            uint16_t h = (uint16_t)(r % 16 == 0 ? 0 : r % 16 == 1 ? r >> 8 & 0x83ff : (r >> 8 & 0x8fff) | 0x2000);
            setun_put_u16(p + at + (v->dtype == SETUN_Q6_K ? 208 : 2 * i), h);
        }
}

/* ---------------------------------------------------------------- 32 elements in a kernel */

/* Where a block begins (bytes, even), as bytes and as words of 16 bits. */
typedef struct k_place {
    setun_kernel *k;
    k_val         bytes, words, at;
} k_place;

static inline k_val k_block_bytes(const k_place *b, int64_t from, uint32_t n)
{
    return k_load(b->k, b->bytes, k_addi(b->k, b->at, from), n);
}

static inline k_val k_block_half(const k_place *b, int64_t from)
{
    return k_h2f(b->k, k_load(b->k, b->words, k_shru(b->k, k_addi(b->k, b->at, from), 1), 1));
}

static inline k_val k_and_i8(setun_kernel *k, k_val v, int64_t mask)
{
    return k_and(k, v, k_int(k, k_type_of(k, v), mask));
}

/* n copies of lane i of v. */
static inline k_val k_lane(setun_kernel *k, k_val v, int32_t i, uint32_t n)
{
    int32_t mask[32];
    for (uint32_t j = 0; j < n; j++)
        mask[j] = i;
    return k_shuffle(k, v, v, mask, n);
}

/* What the eight groups of Q4_K multiply by, d scale, or take off, m least.  Of each kind the first four
 * lie as numbers in four bytes, whose upper bits, with the nibbles of the last bytes, are the others. */
static inline k_val k_q4_k_steps(const k_place *b, int leasts)
{
    setun_kernel *k = b->k;
    k_val first = k_block_bytes(b, leasts ? 8 : 4, 4), last = k_block_bytes(b, 12, 4);
    k_val low = leasts ? k_and_i8(k, k_shru(k, last, 4), 15) : k_and_i8(k, last, 15);
    k_val high = k_and_i8(k, k_shru(k, first, 2), 48);
    k_val all = k_concat(k, k_and_i8(k, first, 63), k_or(k, low, high));
    k_val d = k_splat(k, k_block_half(b, leasts ? 2 : 0), 8);
    return k_mul(k, d, k_i2f(k, k_zext(k, all, K_I32)));
}

/* Elements s to s + 31 of the block, s a multiple of 32. */
static inline k_val k_block(const k_place *b, uint32_t dtype, int64_t s)
{
    setun_kernel *k = b->k;
    int32_t j = (int32_t)(s / 32), g = j % 4;
    if (dtype == SETUN_Q4_0) {
        k_val q = k_block_bytes(b, 2, 16);
        q = k_concat(k, k_and_i8(k, q, 15), k_and_i8(k, k_shru(k, q, 4), 15));
        q = k_sub(k, q, k_int(k, K_TYPE(K_I8, 32), 8));
        return k_mul(k, k_i2f(k, k_sext(k, q, K_I32)), k_splat(k, k_block_half(b, 0), 32));
    }
    if (dtype == SETUN_Q8_0)
        return k_mul(k, k_i2f(k, k_sext(k, k_block_bytes(b, 2, 32), K_I32)),
                     k_splat(k, k_block_half(b, 0), 32));
    if (dtype == SETUN_Q4_K) {
        k_val q = k_block_bytes(b, 16 + j / 2 * 32, 32);
        q = k_i2f(k, k_zext(k, k_and_i8(k, j % 2 ? k_shru(k, q, 4) : q, 15), K_I32));
        return k_sub(k, k_mul(k, k_lane(k, k_q4_k_steps(b, 0), j, 32), q),
                     k_lane(k, k_q4_k_steps(b, 1), j, 32));
    }
    k_val low = k_block_bytes(b, j / 4 * 64 + g % 2 * 32, 32), high = k_block_bytes(b, 128 + j / 4 * 32, 32);
    low = k_and_i8(k, g > 1 ? k_shru(k, low, 4) : low, 15);
    high = k_and_i8(k, g < 2 ? k_shl(k, high, 4 - 2 * g) : k_shru(k, high, 2 * g - 4), 48);
    k_val q = k_sub(k, k_or(k, low, high), k_int(k, K_TYPE(K_I8, 32), 32));
    k_val scale = k_i2f(k, k_sext(k, k_block_bytes(b, 192, 16), K_I32));
    k_val step = k_mul(k, k_splat(k, k_block_half(b, 208), 16), scale);
    return k_mul(k, k_concat(k, k_lane(k, step, 2 * j, 16), k_lane(k, step, 2 * j + 1, 16)),
                 k_i2f(k, k_sext(k, q, K_I32)));
}

/* ---------------------------------------------------------------- matrices in a kernel */

/* Rows of any type of SETUN_WEIGHTS.  They begin at a number of elements, or of bytes where there are
 * blocks; a multiple of it has to be kept by whoever walks along one: `span` columns at a time. */
typedef struct k_matrix {
    setun_kernel *k;
    k_val         p, words;
    uint32_t      dtype;
    int64_t       pitch, span;
} k_matrix;

static inline k_matrix k_matrix_arg(setun_kernel *k, int32_t arg, const setun_view *v)
{
    int64_t block = setun_block(v->dtype), bytes = setun_row_bytes(v->dtype, v->dim[1]);
    k_matrix m = {k, k_arg(k, arg, k_elem_of(v->dtype)), 0, v->dtype, block > 1 ? bytes : v->dim[1],
                  block > 32 ? block : 32};
    m.words = block > 1 ? k_arg(k, arg, K_I16) : 0;
    return m;
}

static inline k_val k_matrix_row(const k_matrix *m, k_val r)
{
    return k_muli(m->k, r, m->pitch);
}

/* Where column i of a row lies, i a multiple of span. */
static inline k_val k_matrix_at(const k_matrix *m, k_val row, k_val i)
{
    int64_t block = setun_block(m->dtype), log = block == 256 ? 8 : 5;
    if (block > 1)
        i = k_muli(m->k, k_shru(m->k, i, log), setun_row_bytes(m->dtype, block));
    return k_add(m->k, row, i);
}

/* Columns i + s to i + s + 31, of which `left` exist, with zeros behind; s a multiple of 32. */
static inline k_val k_matrix_load(const k_matrix *m, k_val row, k_val i, int64_t s, int64_t left)
{
    setun_kernel *k = m->k;
    int64_t block = setun_block(m->dtype);
    k_val at = k_matrix_at(m, row, i);
    if (block == 1)
        return k_widen(k, k_load_pad(k, m->p, k_addi(k, at, s), left, 32, 0), m->dtype);
    k_place b = {k, m->p, m->words,
                 k_addi(k, at, s / block * setun_row_bytes(m->dtype, block))};
    return k_block(&b, m->dtype, s % block);
}

/* Bring in what comes `ahead` bytes (see k_fetch_ahead) behind columns i + s to i + s + 31. */
static inline void k_matrix_prefetch(const k_matrix *m, k_val row, k_val i, int64_t s, int64_t ahead)
{
    setun_kernel *k = m->k;
    int64_t wide = setun_row_bytes(m->dtype, 256), element = setun_block(m->dtype) > 1 ? 1 : wide / 256;
    k_val at = k_muli(k, k_matrix_at(m, row, i), element);
    for (int64_t line = (s * wide / 256 + 63) / 64 * 64; line < (s + 32) * wide / 256; line += 64)
        k_fetch_ahead(k, m->p, k_addi(k, at, line), ahead);
}

#ifdef __cplusplus
}
#endif

#endif
