/* ops/rope.c -- rotary positions: turns pairs of a head's elements by angles from a table.
 *
 *     "neox":  element i with i + rd/2      "norm":  element 2i with 2i + 1      i < rd/2
 *     y1 = x1 cos - x2 sin                  y2 = x2 cos + x1 sin
 *
 * rd is the width of the table (rope_table makes it: cosines, then sines); elements of a head past
 * rd are copied.  eval refuses a position outside the table; a kernel's caller has checked. */
#include "setun/op.h"

enum { X, TABLE, POS, Y };

#define MAX_HEAD 1024 /* the kernel is unrolled over a head */

static setun_status infer(setun_args *a, setun_error *err)
{
    const setun_view *x = &a->in[X];
    const char *pairing = a->attr[0].s ? a->attr[0].s : "";
    setun_text t, u;
    setun_status s = setun_want(a, X, SETUN_OF(SETUN_F32), 3, err);
    if (s == SETUN_OK)
        s = setun_want(a, TABLE, SETUN_OF(SETUN_F32), 2, err);
    if (s == SETUN_OK)
        s = setun_want(a, POS, SETUN_OF(SETUN_I32), 1, err);
    if (s == SETUN_OK)
        s = setun_want_equal(a, POS, 0, X, 0, err);
    if (s != SETUN_OK)
        return s;
    if (a->in[TABLE].dim[1] % 2 || a->in[TABLE].dim[1] > x->dim[2])
        return setun_fail(err, SETUN_BAD_SHAPE,
                          "table is %s; its width must be even and at most the last "
                          "dimension of x %s",
                          setun_view_text(&a->in[TABLE], &t), setun_view_text(x, &u));
    if (strcmp(pairing, "neox") && strcmp(pairing, "norm"))
        return setun_fail(err, SETUN_UNKNOWN, "pairing is \"%.40s\"; known are neox and norm",
                          pairing);
    return setun_infer_out(a, 0, SETUN_F32, 3, x->dim[0], x->dim[1], x->dim[2]);
}

static setun_status eval(const setun_args *a, setun_error *err)
{
    const float *x = a->in[X].data, *table = a->in[TABLE].data;
    const int32_t *pos = a->in[POS].data;
    float *y = a->out[0].data;
    int64_t n = a->in[X].dim[0], heads = a->in[X].dim[1], hd = a->in[X].dim[2],
            rd = a->in[TABLE].dim[1];
    int neox = !strcmp(a->attr[0].s, "neox");
    setun_status s = setun_check_index(a, POS, a->in[TABLE].dim[0], err);
    if (s != SETUN_OK)
        return s;
    for (int64_t t = 0; t < n; t++) {
        const float *row = table + pos[t] * rd;
        for (int64_t h = 0; h < heads; h++, x += hd, y += hd) {
            for (int64_t i = 0; i < rd / 2; i++) {
                int64_t i1 = neox ? i : 2 * i, i2 = neox ? i + rd / 2 : 2 * i + 1;
                float c = row[i], sn = row[i + rd / 2], x1 = x[i1], x2 = x[i2];
                y[i1] = x1 * c - x2 * sn;
                y[i2] = x2 * c + x1 * sn;
            }
            for (int64_t i = rd; i < hd; i++)
                y[i] = x[i];
        }
    }
    return SETUN_OK;
}

/* Turn lanes pairs from pair i on. */
static void turn(setun_kernel *k, int neox, k_val x, k_val y, k_val at, k_val table, k_val row,
                 int64_t half, int64_t i, uint32_t lanes)
{
    k_val c = k_load(k, table, k_addi(k, row, i), lanes),
          s = k_load(k, table, k_addi(k, row, i + half), lanes);
    k_val at1 = k_addi(k, at, neox ? i : 2 * i), at2 = k_addi(k, at, i + half), x1, x2;
    int32_t even[32], odd[32], both[64];
    for (int32_t j = 0; j < (int32_t)lanes; j++) {
        even[j] = 2 * j;
        odd[j] = 2 * j + 1;
        both[2 * j] = j;
        both[2 * j + 1] = j + (int32_t)lanes;
    }
    if (neox) {
        x1 = k_load(k, x, at1, lanes);
        x2 = k_load(k, x, at2, lanes);
    } else {
        k_val v = k_load(k, x, at1, 2 * lanes);
        x1 = k_shuffle(k, v, v, even, lanes);
        x2 = k_shuffle(k, v, v, odd, lanes);
    }
    k_val y1 = k_sub(k, k_mul(k, x1, c), k_mul(k, x2, s)),
          y2 = k_add(k, k_mul(k, x2, c), k_mul(k, x1, s));
    if (neox) {
        k_store(k, y, at1, y1);
        k_store(k, y, at2, y2);
    } else {
        k_store(k, y, at1, k_shuffle(k, y1, y2, both, 2 * lanes));
    }
}

static setun_status lower(setun_kernel *k, const setun_args *a, setun_error *err)
{
    int64_t heads = a->in[X].dim[1], hd = a->in[X].dim[2], rd = a->in[TABLE].dim[1], half = rd / 2;
    int neox = !strcmp(a->attr[0].s, "neox");
    (void)err;
    if (hd > MAX_HEAD)
        return SETUN_DECLINED;
    k_grid(k, X, 0, 1);
    k_val x = k_arg(k, X, K_F32), table = k_arg(k, TABLE, K_F32), pos = k_arg(k, POS, K_I32),
          y = k_arg(k, Y, K_F32);
    k_val t = k_for(k, k_begin(k), k_end(k), 1);
    k_val row = k_muli(k, k_sext(k, k_load(k, pos, t, 1), K_I64), rd);
    k_val h = k_for(k, k_i64(k, 0), k_i64(k, heads), 1);
    k_val at = k_muli(k, k_add(k, k_muli(k, t, heads), h), hd);
    uint32_t lanes = 32;
    for (int64_t i = 0; i < half; i += lanes) {
        while (lanes > half - i)
            lanes /= 2;
        turn(k, neox, x, y, at, table, row, half, i, lanes);
    }
    for (int64_t i = rd; i < hd; i += 32) {
        k_val from = k_addi(k, at, i);
        k_store_part(k, y, from, k_load_pad(k, x, from, hd - i, 32, 0), hd - i);
    }
    k_stop(k);
    k_stop(k);
    return SETUN_OK;
}

static void cost(const setun_args *a, setun_cost *c)
{
    setun_cost_map(a, 3, c);
    c->bytes -= setun_cost_view(&a->in[TABLE]); /* it stays in cache */
}

static void fill(const setun_args *a, uint64_t seed)
{
    setun_fill_index(&a->in[POS], a->in[TABLE].dim[0], seed);
}

static const setun_port in[] = {
    {"x", "f32[n,h,hd]: rows of heads", 0, 0},
    {"table", "f32[positions,rd]: from rope_table; rd even, at most hd", 0, 0},
    {"pos", "i32[n]: position of each row; from 0 to positions - 1", 0, 0},
};
static const setun_port out[] = {{"y", "f32[n,h,hd]", 0, 0}};
static const setun_attr attr[] = {
    {"pairing", "\"neox\": i with i + rd/2; \"norm\": 2i with 2i + 1", SETUN_ATTR_STRING, 1, {0}},
};
static const char *const cases[] = {
    "x:f32[n3,5,128] table:f32[40,128] pos:i32[n3] pairing=neox",
    "x:f32[n3,2,128] table:f32[40,128] pos:i32[n3] pairing=norm",
    "x:f32[1,3,100] table:f32[9,78] pos:i32[1] pairing=neox",
    "x:f32[n7,3,129] table:f32[9,46] pos:i32[n7] pairing=norm",
    "x:f32[2,1,2] table:f32[1,2] pos:i32[2] pairing=norm",
    NULL,
};

SETUN_OP(rope) = {
    .size = sizeof(setun_op), .version = 1, .name = "rope",
    .doc = "turn pairs of elements of every head by the angles of its row's position",
    .in = in, .out = out, .attr = attr,
    .n_in = SETUN_LEN(in), .n_out = SETUN_LEN(out), .n_attr = SETUN_LEN(attr),
    .infer = infer, .eval = eval, .lower = lower, .cost = cost, .fill = fill, .cases = cases,
};
