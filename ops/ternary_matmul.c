/* ops/ternary_matmul.c -- the heart: int8 activations times ternary weights.
 *
 *     y[t][r] = (float)S * (ws / scale[t]),     S = sum over k of (code[r][k] - 1) * q[t][k]
 *
 * The kernels, and why they all give the same bits, are in ops/ternary_kernels.h. */
#include "ops/ternary_matrix_few.h"

static setun_status eval(const setun_args *a, setun_error *err)
{
    (void)err;
    eval_product(a, a->out[0].data);
    return SETUN_OK;
}

static setun_status lower(setun_kernel *k, const setun_args *a, setun_error *err)
{
    (void)err;
    if (a->in[Q].dim[0] == 1) {
        row_kernel c;
        row_start(k, a, &c);
        sink to = open_sink(k, a);
        row_all(&c, &to);
    } else {
        lower_many(k, a);
    }
    return SETUN_OK;
}

static void cost(const setun_args *a, setun_cost *c)
{
    double n = setun_cost_count(&a->in[SCALE]), kp = (double)a->in[Q].dim[1], rows = (double)a->in[W].dim[0];
    c->int_ops = n * rows * (double)a->in[W].dim[1];
    c->float_ops = n * rows;
    c->bytes = rows * kp / 4 + n * kp + 4 * n * rows;
}

static const setun_port in[] = {
    {"q", "i8[n,K]: quantised activations in -127..127, rows padded with 0 to K, a multiple of 128", 0, 0},
    {"scale", "f32[n]: what the activations were multiplied with", 0, 0},
    {"sum", "i32[n]: sum of each row of q", 0, 0},
    {"w", "t2[r,k]: ternary weights", 0, 0},
    {"ws", "f32[1]: weight scale, multiplied", 0, 0},
};
static const setun_port out[] = {{"y", "f32[n,r]", 0, 0}};

static const char *const cases[] = {
    "q:i8[1,128] scale:f32[1] sum:i32[1] w:t2[1,1] ws:f32[1]",
    "q:i8[1,256] scale:f32[1] sum:i32[1] w:t2[7,129] ws:f32[1]",
    "q:i8[1,128] scale:f32[1] sum:i32[1] w:t2[16,128] ws:f32[1]",
    "q:i8[1,384] scale:f32[1] sum:i32[1] w:t2[33,300] ws:f32[1]",
    "q:i8[1,1024] scale:f32[1] sum:i32[1] w:t2[5,1024] ws:f32[1]",
    "q:i8[1,2560] scale:f32[1] sum:i32[1] w:t2[3,2560] ws:f32[1]",
    "q:i8[1,6912] scale:f32[1] sum:i32[1] w:t2[2,6912] ws:f32[1]",
    "q:i8[n1,128] scale:f32[n1] sum:i32[n1] w:t2[5,128] ws:f32[1]",
    "q:i8[n2,256] scale:f32[n2] sum:i32[n2] w:t2[7,129] ws:f32[1]",
    "q:i8[n7,384] scale:f32[n7] sum:i32[n7] w:t2[1,300] ws:f32[1]",
    "q:i8[n15,512] scale:f32[n15] sum:i32[n15] w:t2[5,512] ws:f32[1]",
    "q:i8[n16,1152] scale:f32[n16] sum:i32[n16] w:t2[6,1100] ws:f32[1]",
    "q:i8[n5,1152] scale:f32[n5] sum:i32[n5] w:t2[9,1152] ws:f32[1]",
    "q:i8[n31,384] scale:f32[n31] sum:i32[n31] w:t2[9,384] ws:f32[1]",
    "q:i8[n33,1152] scale:f32[n33] sum:i32[n33] w:t2[34,1152] ws:f32[1]",
    "q:i8[n40,256] scale:f32[n40] sum:i32[n40] w:t2[70,256] ws:f32[1]",
    "q:i8[n80,384] scale:f32[n80] sum:i32[n80] w:t2[97,300] ws:f32[1]",
    "q:i8[n64,256] scale:f32[n64] sum:i32[n64] w:t2[64,256] ws:f32[1]",
    "q:i8[n5,256] scale:f32[n5] sum:i32[n5] w:t2[70,256] ws:f32[1]",
    "q:i8[n9,384] scale:f32[n9] sum:i32[n9] w:t2[33,300] ws:f32[1]",
    "q:i8[n17,256] scale:f32[n17] sum:i32[n17] w:t2[97,129] ws:f32[1]",
    "q:i8[n28,384] scale:f32[n28] sum:i32[n28] w:t2[35,384] ws:f32[1]",
    "q:i8[n32,512] scale:f32[n32] sum:i32[n32] w:t2[64,500] ws:f32[1]",
    "q:i8[n65,768] scale:f32[n65] sum:i32[n65] w:t2[6,700] ws:f32[1]",
    "q:i8[3,256] scale:f32[3] sum:i32[3] w:t2[10,200] ws:f32[1]",
    NULL,
};

static const setun_knob knobs[] = {TERNARY_KNOBS};

SETUN_OP(ternary_matmul) = {
    .size = sizeof(setun_op), .version = 1,
    .name = "ternary_matmul",
    .doc = "y = q . w^T * (ws / scale): exact integer sums of ternary weights and int8 activations.",
    .in = in, .out = out, .n_in = SETUN_LEN(in), .n_out = SETUN_LEN(out),
    .infer = infer_product, .eval = eval, .lower = lower, .cost = cost, .fill = fill_product, .cases = cases,
    .knob = knobs, .n_knob = SETUN_LEN(knobs),
};
