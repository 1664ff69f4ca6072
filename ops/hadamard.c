/* ops/hadamard.c -- signs, and a Walsh-Hadamard transform of every block of every row.
 *
 *     y = H (sign * x) / sqrt(block)           inverse: y = sign * (H x / sqrt(block))
 *
 * H is Sylvester's matrix, H[i][j] = -1 to the number of ones in i & j.  It is its own transpose, and
 * H H / block is the identity, so with signs of +1 and -1 the two forms undo each other.  The definition
 * is the order of the butterflies: distances h = 1, 2, 4, ..., block / 2, each of them
 *
 *     a' = a + b,  b' = a - b     for a = element i, b = element i + h, where i & h is 0
 *
 * and after the last one a multiplication by 1 / sqrt(block), rounded to f32: exact where the root is a
 * power of two.  Every element is the same tree of sums whoever computes it. */
#include "setun/op.h"

enum { X, SIGN, Y };

#define MOST (1 << 20)

/* 1 / sqrt(block), where 1 / sqrt(2) is a constant and all else powers of two. */
static float scale_of(int64_t block)
{
    float scale = 1.0f;
    for (; block >= 4; block /= 4)
        scale *= 0.5f;
    return block == 2 ? scale * 0.707106781f : scale;
}

static setun_status infer(setun_args *a, setun_error *err)
{
    int64_t block = a->attr[0].i;
    setun_status s = setun_want(a, X, SETUN_OF(SETUN_F32), 2, err);
    if (s == SETUN_OK)
        s = setun_want(a, SIGN, SETUN_OF(SETUN_F32), 1, err);
    if (s == SETUN_OK)
        s = setun_want_equal(a, SIGN, 0, X, 1, err);
    if (s != SETUN_OK)
        return s;
    if (block < 1 || block > MOST || (block & (block - 1)))
        return setun_fail(err, SETUN_BAD_ARG, "block is %lld, wants a power of two up to %d", (long long)block, MOST);
    if (a->in[X].dim[1] % block)
        return setun_fail(err, SETUN_BAD_SHAPE, "rows of %lld elements are not whole blocks of %lld", (long long)a->in[X].dim[1],
                          (long long)block);
    if (a->attr[1].i != 0 && a->attr[1].i != 1)
        return setun_fail(err, SETUN_BAD_ARG, "inverse is %lld, wants 0 or 1", (long long)a->attr[1].i);
    return setun_infer_out(a, 0, SETUN_F32, 2, a->in[X].dim[0], a->in[X].dim[1], 1);
}

static setun_status eval(const setun_args *a, setun_error *err)
{
    const float *x = a->in[X].data, *sign = a->in[SIGN].data;
    float *y = a->out[0].data, scale = scale_of(a->attr[0].i);
    int64_t n = a->in[X].dim[0], d = a->in[X].dim[1], block = a->attr[0].i, inverse = a->attr[1].i;
    (void)err;
    for (int64_t t = 0; t < n; t++, x += d, y += d) {
        for (int64_t i = 0; i < d; i++)
            y[i] = inverse ? x[i] : x[i] * sign[i];
        for (int64_t h = 1; h < block; h *= 2)
            for (int64_t i = 0; i < d; i++) {
                if (i & h)
                    continue;
                float p = y[i], q = y[i + h];
                y[i] = p + q;
                y[i + h] = p - q;
            }
        for (int64_t i = 0; i < d; i++) {
            y[i] *= scale;
            y[i] = inverse ? y[i] * sign[i] : y[i];
        }
    }
    return SETUN_OK;
}

/* The butterflies inside a vector: lane i gets its partner i ^ h plus itself, with its sign turned where
 * i & h is not 0, which is a - b there: adding -b is subtracting b, and the order of two summands is free. */
static k_val inside(setun_kernel *k, k_val v, int64_t most)
{
    uint32_t lanes = K_LANES(k_type_of(k, v));
    k_type word = K_TYPE(K_I32, lanes);
    int64_t shift = 31;
    for (int64_t h = 1; h < most; h *= 2, shift--) {
        int32_t partner[32];
        for (uint32_t i = 0; i < lanes; i++)
            partner[i] = (int32_t)(i ^ (uint32_t)h);
        k_val turn = k_shl(k, k_and(k, k_iota(k, word, 0), k_int(k, word, h)), shift);
        k_val own = k_cast(k, k_xor(k, k_cast(k, v, word), turn), K_TYPE(K_F32, lanes));
        v = k_add(k, k_shuffle(k, v, v, partner, lanes), own);
    }
    return v;
}

/* What comes after the last butterfly; at: of the sign. */
static k_val finish(setun_kernel *k, const setun_args *a, k_val v, k_val sign, k_val at)
{
    uint32_t lanes = K_LANES(k_type_of(k, v));
    v = k_mul(k, v, k_f32v(k, scale_of(a->attr[0].i), lanes));
    return a->attr[1].i ? k_mul(k, v, k_load(k, sign, at, lanes)) : v;
}

/* Distances below the width of a vector are done while loading, all others in place, a pass over the block
 * for each.  Rows of small blocks are cut into vectors of several blocks where they divide into such. */
static setun_status lower(setun_kernel *k, const setun_args *a, setun_error *err)
{
    int64_t d = a->in[X].dim[1], block = a->attr[0].i, wide = d % 32 ? block : 32;
    int64_t step = block > wide ? block : wide;
    uint32_t lanes = (uint32_t)wide;
    k_val zero = k_i64(k, 0);
    (void)err;
    k_grid(k, X, 0, 1);
    k_val x = k_arg(k, X, K_F32), sign = k_arg(k, SIGN, K_F32), y = k_arg(k, Y, K_F32);
    k_val t = k_for(k, k_begin(k), k_end(k), 1), row = k_muli(k, t, d);
    k_val first = k_for(k, zero, k_i64(k, d), step);

    k_val i = k_for(k, first, k_addi(k, first, step), wide), at = k_add(k, row, i);
    k_val v = k_load(k, x, at, lanes);
    if (!a->attr[1].i)
        v = k_mul(k, v, k_load(k, sign, i, lanes));
    v = inside(k, v, block < wide ? block : wide);
    k_store(k, y, at, block > wide ? v : finish(k, a, v, sign, i));
    k_stop(k);

    for (int64_t h = wide; h < block; h *= 2) {
        k_val pair = k_for(k, first, k_addi(k, first, block), 2 * h);
        i = k_for(k, pair, k_addi(k, pair, h), wide);
        k_val j = k_addi(k, i, h), at_i = k_add(k, row, i), at_j = k_add(k, row, j);
        k_val p = k_load(k, y, at_i, lanes), q = k_load(k, y, at_j, lanes);
        k_val sum = k_add(k, p, q), difference = k_sub(k, p, q);
        int last = 2 * h == block;
        k_store(k, y, at_i, last ? finish(k, a, sum, sign, i) : sum);
        k_store(k, y, at_j, last ? finish(k, a, difference, sign, j) : difference);
        k_stop(k);
        k_stop(k);
    }
    k_stop(k);
    k_stop(k);
    return SETUN_OK;
}

static void cost(const setun_args *a, setun_cost *c)
{
    double ops = 2; /* the sign and the scale, then an addition per distance */
    for (int64_t h = 1; h < a->attr[0].i; h *= 2)
        ops++;
    setun_cost_map(a, ops, c);
}

static const setun_port in[] = {
    {"x", "f32[n,d]: rows of whole blocks", 0, 0},
    {"sign", "f32[d]: multiplied with each column; +1 and -1 make a rotation", 0, 0},
};
static const setun_port out[] = {{"y", "f32[n,d]", 0, 0}};
static const setun_attr attr[] = {
    {"block", "elements of a block, a power of two that divides d", SETUN_ATTR_INT, 1, {0}},
    {"inverse", "1: signs come last, which undoes 0", SETUN_ATTR_INT, 0, {0}},
};
static const char *const cases[] = {
    "x:f32[n3,1] sign:f32[1] block=1",
    "x:f32[n3,7] sign:f32[7] block=1 inverse=1",
    "x:f32[n5,6] sign:f32[6] block=2",
    "x:f32[n1,64] sign:f32[64] block=2 inverse=1",
    "x:f32[n3,24] sign:f32[24] block=8",
    "x:f32[2,48] sign:f32[48] block=16",
    "x:f32[n3,96] sign:f32[96] block=32 inverse=1",
    "x:f32[n7,192] sign:f32[192] block=64",
    "x:f32[n3,128] sign:f32[128] block=128 inverse=1",
    "x:f32[n129,384] sign:f32[384] block=128",
    "x:f32[n3,1536] sign:f32[1536] block=512",
    "x:f32[n1,4096] sign:f32[4096] block=4096",
    "x:f32[n3,8192] sign:f32[8192] block=4096 inverse=1",
    NULL,
};

SETUN_OP(hadamard) = {
    .size = sizeof(setun_op), .version = 1, .name = "hadamard",
    .doc = "y = H (sign * x) / sqrt(block) in every block, H Sylvester's matrix; inverse: y = sign * (H x / sqrt(block))",
    .in = in, .out = out, .attr = attr,
    .n_in = SETUN_LEN(in), .n_out = SETUN_LEN(out), .n_attr = SETUN_LEN(attr),
    .infer = infer, .eval = eval, .lower = lower, .cost = cost, .cases = cases,
};
