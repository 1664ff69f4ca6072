/* ops/keep_largest.c -- of every row the elements of largest magnitude, and 0 in the places of all others: the mask of
 * Q-Sparse (arXiv 2407.10969) and BitNet a4.8 (arXiv 2411.04965).
 *
 *     t = the keep-th largest |x| of the row
 *     y = x where |x| > t, and where |x| = t > 0 from the first such column on until `keep` are kept; +0 elsewhere
 *
 * So of equal magnitudes the first columns win, and a zero of either sign becomes +0.  A NaN counts as larger than
 * every number, by its bits; it is kept, for others to see.
 *
 * Without their signs the bits of floats are in the order of the floats, so t is found bit by bit, from the highest: the
 * largest number that at least `keep` magnitudes reach.  In the same way the column up to which those equal to t are
 * kept is the largest that no more than the missing ones lie before. */
#include "setun/op.h"

enum { X, Y };

#define MAGNITUDE 0x7fffffff

static setun_status infer(setun_args *a, setun_error *err)
{
    setun_status s = setun_want(a, X, SETUN_OF(SETUN_F32), 2, err);
    if (s == SETUN_OK)
        s = setun_want_range(a, X, 1, 1, 1 << 24, err);
    if (s != SETUN_OK)
        return s;
    if (a->attr[0].i < 1 || a->attr[0].i > a->in[X].dim[1])
        return setun_fail(err, SETUN_BAD_ARG, "keep is %lld, wants 1 to the %lld columns of a row", (long long)a->attr[0].i,
                          (long long)a->in[X].dim[1]);
    return setun_infer_out(a, 0, SETUN_F32, 2, a->in[X].dim[0], a->in[X].dim[1], 1);
}

static int32_t magnitude(float x)
{
    return (int32_t)(setun_f32_bits(x) & MAGNITUDE);
}

/* How many magnitudes reach t. */
static int64_t reach(const float *x, int64_t d, int32_t t)
{
    int64_t n = 0;
    for (int64_t i = 0; i < d; i++)
        n += magnitude(x[i]) >= t;
    return n;
}

static setun_status eval(const setun_args *a, setun_error *err)
{
    const float *x = a->in[X].data;
    float *y = a->out[0].data;
    int64_t n = a->in[X].dim[0], d = a->in[X].dim[1], keep = a->attr[0].i;
    (void)err;
    for (int64_t r = 0; r < n; r++, x += d, y += d) {
        int32_t t = 0;
        for (int32_t bit = 1 << 30; bit; bit >>= 1)
            t += reach(x, d, t + bit) >= keep ? bit : 0;
        int64_t equal = t ? keep : 0; /* how many that are equal to t may be kept */
        for (int64_t i = 0; t && i < d; i++)
            equal -= magnitude(x[i]) > t;
        for (int64_t i = 0; i < d; i++) {
            int32_t m = magnitude(x[i]);
            int kept = m > t || (m == t && equal > 0);
            equal -= m == t;
            y[i] = kept ? x[i] : 0.0f;
        }
    }
    return SETUN_OK;
}

typedef struct row {
    setun_kernel *k;
    k_val   x, at; /* the array and the row's first element */
    int64_t d;
} row;

static const k_type word = K_TYPE(K_I32, 32);

/* 32 elements from column i on; past the last one zeros, which no search counts: it looks for magnitudes from 1 on. */
static k_val load32(const row *r, k_val i, int64_t n)
{
    return k_cast(r->k, k_load_pad(r->k, r->x, k_add(r->k, r->at, i), n, 32, 0), word);
}

static k_val magnitude32(const row *r, k_val v)
{
    return k_and(r->k, v, k_int(r->k, word, MAGNITUDE));
}

static k_val columns32(const row *r, k_val i)
{
    return k_add(r->k, k_splat(r->k, k_trunc(r->k, i, K_I32), 32), k_iota(r->k, word, 0));
}

enum { REACH, ABOVE, EQUAL }; /* magnitudes >= t, > t, and = t before a column */

static k_val is_counted(const row *r, int what, k_val t, k_val m, k_val i, k_val before)
{
    setun_kernel *k = r->k;
    if (what == EQUAL)
        return k_and(k, k_eq(k, m, t), k_lt(k, columns32(r, i), k_splat(k, before, 32)));
    return what == REACH ? k_le(k, t, m) : k_lt(k, t, m);
}

static k_val count(const row *r, int what, k_val t, k_val before)
{
    setun_kernel *k = r->k;
    int64_t whole = r->d / 32 * 32;
    k_val t32 = k_splat(k, t, 32), one = k_int(k, word, 1), none = k_int(k, word, 0), acc = k_var(k, none);
    for (int tail = 0; tail < 2; tail++) {
        if (tail ? r->d == whole : whole == 0)
            continue;
        k_val i = tail ? k_i64(k, whole) : k_for(k, k_i64(k, 0), k_i64(k, whole), 32);
        k_val m = magnitude32(r, load32(r, i, tail ? r->d - whole : 32));
        k_set(k, acc, k_add(k, k_get(k, acc), k_select(k, is_counted(r, what, t32, m, i, before), one, none)));
        if (!tail)
            k_stop(k);
    }
    return k_rsum(k, k_get(k, acc));
}

/* The loop over bits from `first` down to 1, each added to `found` where it may be.  Magnitudes: it may where `keep` are
 * still reached; columns (t != 0): where no more than `keep` equal ones lie before. */
static void search(const row *r, int64_t first, k_val found, k_val t, k_val keep)
{
    setun_kernel *k = r->k;
    int64_t bits = 0;
    while (first >> bits)
        bits++;
    k_val bit = k_var(k, k_int(k, K_TYPE(K_I32, 1), first));
    (void)k_for(k, k_i64(k, 0), k_i64(k, bits), 1);
    k_val next = k_add(k, k_get(k, found), k_get(k, bit));
    k_val n = t ? count(r, EQUAL, t, next) : count(r, REACH, next, 0);
    k_set(k, found, k_select(k, t ? k_le(k, n, keep) : k_le(k, keep, n), next, k_get(k, found)));
    k_set(k, bit, k_shru(k, k_get(k, bit), 1));
    k_stop(k);
}

static void store_kept(const row *r, k_val y, k_val t, k_val last)
{
    setun_kernel *k = r->k;
    int64_t whole = r->d / 32 * 32;
    k_val t32 = k_splat(k, t, 32), last32 = k_splat(k, last, 32);
    for (int tail = 0; tail < 2; tail++) {
        if (tail ? r->d == whole : whole == 0)
            continue;
        k_val i = tail ? k_i64(k, whole) : k_for(k, k_i64(k, 0), k_i64(k, whole), 32);
        int64_t n = tail ? r->d - whole : 32;
        k_val v = load32(r, i, n), m = magnitude32(r, v);
        k_val equal = k_and(k, k_eq(k, m, t32), k_lt(k, columns32(r, i), last32));
        v = k_select(k, k_or(k, k_lt(k, t32, m), equal), v, k_int(k, word, 0));
        k_store_part(k, y, k_add(k, r->at, i), k_cast(k, v, K_TYPE(K_F32, 32)), n);
        if (!tail)
            k_stop(k);
    }
}

static setun_status lower(setun_kernel *k, const setun_args *a, setun_error *err)
{
    int64_t d = a->in[X].dim[1], top = 1;
    k_type one = K_TYPE(K_I32, 1);
    (void)err;
    while (2 * top <= d)
        top *= 2;
    k_grid(k, X, 0, 1);
    k_val y = k_arg(k, Y, K_F32), keep = k_int(k, one, a->attr[0].i), zero = k_int(k, one, 0);
    row r = {k, k_arg(k, X, K_F32), 0, d};
    r.at = k_muli(k, k_for(k, k_begin(k), k_end(k), 1), d);
    k_val t = k_var(k, zero), last = k_var(k, k_int(k, one, d));
    search(&r, 1 << 30, t, 0, keep);
    k_val found = k_get(k, t);
    k_if(k, k_lt(k, keep, count(&r, REACH, found, 0)));
    k_val missing = k_sub(k, keep, count(&r, ABOVE, found, 0));
    k_set(k, last, zero);
    search(&r, top, last, found, missing);
    k_stop(k);
    store_kept(&r, y, found, k_select(k, k_eq(k, found, zero), zero, k_get(k, last)));
    k_stop(k);
    return SETUN_OK;
}

/* Small whole numbers every other time: many magnitudes are equal then, and some rows have more zeros than they keep. */
static void fill(const setun_args *a, uint64_t seed)
{
    float *x = a->in[X].data;
    int64_t n = setun_count(&a->in[X]);
    for (int64_t i = 0; seed % 2 == 0 && i < n; i++)
        x[i] = (float)(int64_t)(setun_mix(seed, (uint64_t)i) % 9) / 2.0f - 2.0f;
    if (seed % 4 == 0 && n > 2) {
        x[0] = INFINITY;
        x[n / 2] = NAN;
        x[n - 1] = -0.0f;
    }
}

static void cost(const setun_args *a, setun_cost *c)
{
    setun_cost_map(a, 1, c);
    c->int_ops = 3.0 * 32 * setun_cost_count(&a->in[X]);
}

static const setun_port in[] = {{"x", "f32[n,d]: rows", 0, 0}};
static const setun_port out[] = {{"y", "f32[n,d]: the largest elements of each row, and zeros", 0, 0}};
static const setun_attr attr[] = {{"keep", "how many of a row are kept", SETUN_ATTR_INT, 1, {0}}};
static const char *const cases[] = {
    "x:f32[n3,256] keep=128",
    "x:f32[n2,1] keep=1",
    "x:f32[1,7] keep=3",
    "x:f32[n5,129] keep=100",
    "x:f32[n3,129] keep=129",
    "x:f32[n1,2560] keep=1408",
    "x:f32[2,33] keep=1",
    "x:f32[n2,64] keep=63",
    NULL,
};

SETUN_OP(keep_largest) = {
    .size = sizeof(setun_op), .version = 1, .name = "keep_largest",
    .doc = "y = the keep elements of largest magnitude of each row, of equal ones the first, and +0 in the other places",
    .in = in, .out = out, .attr = attr,
    .n_in = SETUN_LEN(in), .n_out = SETUN_LEN(out), .n_attr = SETUN_LEN(attr),
    .infer = infer, .eval = eval, .lower = lower, .cost = cost, .fill = fill, .cases = cases,
};
