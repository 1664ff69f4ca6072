/* ops/matmul.c -- rows times a matrix of floats, stored as such or in blocks: y = x w^T.
 *
 * Every element is one sum of products over k in 32 stripes (docs/numerics.md), so tiling over rows
 * of x or w changes no bit.
 *
 * One row of x: bound by memory.  Rows of w are read one after the other, a single stream with a
 * software prefetch; one accumulator of 32 lanes is enough, because the next row's sums start
 * while the last ones of this row are in flight.
 * Many rows of x: a tile of x rows by w rows shares every load, and a unit of 16 rows of w stays in
 * the second level cache while x passes by, so w is read from memory once.  Of blocks it stays there as
 * floats: taking a block apart costs more than a row of x does. */
#include "setun/op.h"

enum { X, W, Y };

#define UNIT 16             /* rows of w in a unit of work */
#define AHEAD (4 * K_PAGE) /* bytes of w from what is read to what is brought in */
#define MAX_TILE 4

static setun_status infer(setun_args *a, setun_error *err)
{
    setun_status s = setun_want(a, X, SETUN_OF(SETUN_F32), 2, err);
    if (s == SETUN_OK)
        s = setun_want_weights(a, W, err);
    if (s == SETUN_OK)
        s = setun_want_equal(a, X, 1, W, 1, err);
    if (s == SETUN_OK)
        s = setun_want_range(a, W, 0, 1, INT64_MAX, err);
    return s != SETUN_OK ? s
                         : setun_infer_out(a, 0, SETUN_F32, 2, a->in[X].dim[0], a->in[W].dim[0], 1);
}

static setun_status eval(const setun_args *a, setun_error *err)
{
    const float *x = a->in[X].data;
    float *y = a->out[0].data;
    int64_t n = a->in[X].dim[0], d = a->in[X].dim[1], rows = a->in[W].dim[0];
    (void)err;
    for (int64_t t = 0; t < n; t++)
        for (int64_t r = 0; r < rows; r++) {
            float p[32] = {0};
            for (int64_t i = 0; i < d; i++)
                p[i % 32] += x[t * d + i] * setun_get_f32(&a->in[W], r * d + i);
            y[t * rows + r] = setun_tree32(p);
        }
    return SETUN_OK;
}

typedef struct tiles {
    setun_kernel *k;
    k_val    x, y, rows; /* rows of w are read at run time: one kernel serves every head of a model */
    k_matrix w;
    k_val    first;      /* the row that w begins with; 0: all rows are there */
    int64_t  d, ahead;   /* columns; bytes to prefetch ahead, 0: none */
} tiles;

/* The 32 columns from i + s on of a tile of nx rows of x and nw rows of w. */
static void step(const tiles *c, const k_val *x_row, int nx, const k_val *w_row, int nw, k_val i,
                 int64_t s, int64_t left, k_val acc[MAX_TILE][MAX_TILE])
{
    setun_kernel *k = c->k;
    for (int j = 0; j < nw; j++) {
        k_val w = k_matrix_load(&c->w, w_row[j], i, s, left);
        if (left >= 32 && c->ahead)
            k_matrix_prefetch(&c->w, w_row[j], i, s, c->ahead);
        for (int t = 0; t < nx; t++) {
            k_val x = k_load_pad(k, c->x, k_addi(k, k_add(k, x_row[t], i), s), left, 32, 0);
            k_set(k, acc[t][j], k_add(k, k_get(k, acc[t][j]), k_mul(k, x, w)));
        }
    }
}

static void tile(const tiles *c, k_val t0, int nx, k_val r0, int nw)
{
    setun_kernel *k = c->k;
    int64_t whole = c->d / 32 * 32, wide = nx == 1 && c->w.span < 128 ? 128 : c->w.span;
    int64_t unrolled = wide > 32 ? c->d / wide * wide : 0;
    k_val x_row[MAX_TILE], w_row[MAX_TILE], acc[MAX_TILE][MAX_TILE];
    for (int t = 0; t < nx; t++)
        x_row[t] = k_muli(k, k_addi(k, t0, t), c->d);
    for (int j = 0; j < nw; j++)
        w_row[j] = k_matrix_row(&c->w, k_addi(k, c->first ? k_sub(k, r0, c->first) : r0, j));
    for (int t = 0; t < nx; t++)
        for (int j = 0; j < nw; j++)
            acc[t][j] = k_var(k, k_f32v(k, 0.0f, 32));
    if (unrolled) {
        k_val i = k_for(k, k_i64(k, 0), k_i64(k, unrolled), wide);
        for (int64_t s = 0; s < wide; s += 32)
            step(c, x_row, nx, w_row, nw, i, s, 32, acc);
        k_stop(k);
    }
    if (whole > unrolled) {
        k_val i = k_for(k, k_i64(k, unrolled), k_i64(k, whole), 32);
        step(c, x_row, nx, w_row, nw, i, 0, 32, acc);
        k_stop(k);
    }
    if (c->d > whole) /* zeros behind the last columns change no partial sum */
        step(c, x_row, nx, w_row, nw, k_i64(k, whole), 0, c->d - whole, acc);
    for (int t = 0; t < nx; t++)
        for (int j = 0; j < nw; j++) {
            k_val at = k_add(k, k_mul(k, k_addi(k, t0, t), c->rows), k_addi(k, r0, j));
            k_store(k, c->y, at, k_rsum(k, k_get(k, acc[t][j])));
        }
}

/* Rows [first, last) of w in steps of nw, then one by one, against nx rows of x from t0 on. */
static void strip(const tiles *c, k_val t0, int nx, k_val first, k_val last, int nw)
{
    setun_kernel *k = c->k;
    if (nw > 1) {
        k_val whole = k_add(k, first, k_and(k, k_sub(k, last, first), k_i64(k, -nw)));
        k_val r = k_for(k, first, whole, nw);
        tile(c, t0, nx, r, nw);
        k_stop(k);
        first = whole;
    }
    k_val r = k_for(k, first, last, 1);
    tile(c, t0, nx, r, 1);
    k_stop(k);
}

/* Rows [first, last) of w become floats in the worker's own memory, and c reads them there. */
static void unpack(tiles *c, k_val first, k_val last, int64_t unit)
{
    setun_kernel *k = c->k;
    k_val to = k_scratch(k, K_F32, unit * c->d * 4), r = k_for(k, first, last, 1);
    k_val row = k_matrix_row(&c->w, r), at = k_muli(k, k_sub(k, r, first), c->d);
    k_val i = k_for(k, k_i64(k, 0), k_i64(k, c->d), c->w.span);
    for (int64_t s = 0; s < c->w.span; s += 32) {
        k_matrix_prefetch(&c->w, row, i, s, AHEAD);
        k_store(k, to, k_addi(k, k_add(k, at, i), s), k_matrix_load(&c->w, row, i, s, 32));
    }
    k_stop(k);
    k_stop(k);
    c->w = (k_matrix){k, to, 0, SETUN_F32, c->d, 32};
    c->first = first;
    c->ahead = 0;
}

static setun_status lower(setun_kernel *k, const setun_args *a, setun_error *err)
{
    tiles c = {.k = k, .rows = k_dim_run(k, W, 0), .d = a->in[X].dim[1], .ahead = AHEAD};
    /* Half of the vector registers hold sums; the rest is for w, x and products. */
    int64_t sums = k_info(k, K_N_REGISTERS) * k_info(k, K_VECTOR_BYTES) / 4 / 32 / 2;
    int nx = sums >= 4 ? 4 : sums >= 2 ? 2 : 1, nw = sums >= 8 ? 2 : 1;
    int64_t many = a->in[X].dim[0] != 1, blocks = setun_block(a->in[W].dtype) > 1, unit = UNIT;
    (void)err;
    while (many && blocks && unit > 1 && unit * c.d * 4 > k_info(k, K_L2_BYTES) / 2)
        unit /= 2;
    k_grid(k, W, 0, unit);
    c.x = k_arg(k, X, K_F32);
    c.w = k_matrix_arg(k, W, &a->in[W]);
    c.y = k_arg(k, Y, K_F32);
    k_val n = k_dim(k, X, 0), u = k_for(k, k_begin(k), k_end(k), 1);
    k_val first = k_muli(k, u, unit), last = k_min(k, k_addi(k, first, unit), c.rows),
          done = k_i64(k, 0);
    if (many && blocks)
        unpack(&c, first, last, unit);
    if (many && nx > 1) {
        k_val whole = k_and(k, n, k_i64(k, -nx));
        k_val t = k_for(k, done, whole, nx);
        strip(&c, t, nx, first, last, nw);
        k_stop(k);
        done = whole;
    }
    k_val t = k_for(k, done, n, 1);
    strip(&c, t, 1, first, last, 1);
    k_stop(k);
    k_stop(k);
    return SETUN_OK;
}

static void cost(const setun_args *a, setun_cost *c)
{
    setun_cost_map(a, (double)a->in[W].dim[0], c);
}

static const setun_port in[] = {
    {"x", "f32[n,k]: rows", 0, 0},
    {"w", "f32, f16, bf16 or blocks (q4_0, q8_0, q4_k, q6_k) [r,k]: one row for each column of y", 0, 0},
};
static const setun_port out[] = {{"y", "f32[n,r]", 0, 0}};
static const char *const cases[] = {
    "x:f32[1,256] w:bf16[70,256]",
    "x:f32[n7,129] w:f32[33,129]",
    "x:f32[n3,7] w:f16[5,7]",
    "x:f32[m1,160] w:bf16[16,160]",
    "x:f32[6,1] w:f32[1,1]",
    "x:f32[n9,96] w:bf16[19,96]",
    "x:f32[1,256] w:q8_0[35,256]",
    "x:f32[n9,96] w:q8_0[19,96]",
    "x:f32[n3,160] w:q4_0[17,160]",
    "x:f32[1,32] w:q4_0[5,32]",
    "x:f32[1,512] w:q4_k[18,512]",
    "x:f32[n6,256] w:q4_k[7,256]",
    "x:f32[1,768] w:q6_k[18,768]",
    "x:f32[n7,256] w:q6_k[33,256]",
    NULL,
};

SETUN_OP(matmul) = {
    .size = sizeof(setun_op), .version = 1, .name = "matmul",
    .doc = "y[t][r] = sum over i of x[t][i] * w[r][i], in 32 striped sums",
    .in = in, .out = out, .n_in = SETUN_LEN(in), .n_out = SETUN_LEN(out),
    .infer = infer, .eval = eval, .lower = lower, .cost = cost, .cases = cases,
};
