/* ops/ternary_matmul.c -- the heart: int8 activations times ternary weights.
 *
 *     y[t][r] = (float)S * (ws / scale[t]),     S = sum over k of (code[r][k] - 1) * q[t][k]
 *
 * With a scale for each row, or for every `group` weights of a row, the formulas and the kernels, and why
 * they all give the same bits, are in ops/ternary_kernels.h and ops/ternary_groups.h. */
#include "ops/ternary_groups.h"
#include "ops/ternary_matrix_few.h"

static setun_status infer(setun_args *a, setun_error *err)
{
    setun_status s = want_scales(a, W, WS, a->attr[0].i, err);
    return s == SETUN_OK ? infer_sums(a, err) : s;
}

static int has_groups(const setun_args *a)
{
    return a->attr[0].i > 0;
}

static setun_status eval(const setun_args *a, setun_error *err)
{
    (void)err;
    if (has_groups(a))
        eval_groups(a, a->out[0].data);
    else
        eval_product(a, a->out[0].data);
    return SETUN_OK;
}

static setun_status lower(setun_kernel *k, const setun_args *a, setun_error *err)
{
    (void)err;
    if (has_groups(a)) {
        lower_groups(k, a);
    } else if (a->in[Q].dim[0] == 1) {
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
    c->float_ops = n * rows + (has_groups(a) ? n * setun_cost_count(&a->in[WS]) : 0);
    c->bytes = rows * kp / 4 + setun_cost_view(&a->in[WS]) - 4 + n * kp + 4 * n * rows;
}

static const setun_port in[] = {
    {"q", "i8[n,K]: quantised activations in -127..127, rows padded with 0 to K, a multiple of 128", 0, 0},
    {"scale", "f32[n]: what the activations were multiplied with", 0, 0},
    {"sum", "i32[n]: sum of each row of q", 0, 0},
    {"w", "t2[r,k]: ternary weights", 0, 0},
    {"ws", "f32[1], f32[r] or f32[r,k/group rounded up]: scales of the weights, multiplied", 0, 0},
};
static const setun_port out[] = {{"y", "f32[n,r]", 0, 0}};

static const setun_attr attr[] = {GROUP_ATTR};

static const char *const cases[] = {
    "q:i8[1,128] scale:f32[1] sum:i32[1] w:t2[1,1] ws:f32[1]",
    "q:i8[1,256] scale:f32[1] sum:i32[1] w:t2[7,129] ws:f32[1]",
    "q:i8[1,128] scale:f32[1] sum:i32[1] w:t2[16,128] ws:f32[1]",
    "q:i8[1,384] scale:f32[1] sum:i32[1] w:t2[33,300] ws:f32[1]",
    "q:i8[1,1024] scale:f32[1] sum:i32[1] w:t2[5,1024] ws:f32[1]",
    "q:i8[1,2560] scale:f32[1] sum:i32[1] w:t2[3,2560] ws:f32[1]",
    "q:i8[1,6912] scale:f32[1] sum:i32[1] w:t2[2,6912] ws:f32[1]",
    /* Around the 4096 columns, or 8192 in wide registers, that are summed up in 16 bits. */
    "q:i8[1,4096] scale:f32[1] sum:i32[1] w:t2[3,4096] ws:f32[1]",
    "q:i8[1,4224] scale:f32[1] sum:i32[1] w:t2[3,4097] ws:f32[1]",
    "q:i8[1,8192] scale:f32[1] sum:i32[1] w:t2[2,8190] ws:f32[1]",
    "q:i8[1,12544] scale:f32[1] sum:i32[1] w:t2[2,12544] ws:f32[1]",
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
    /* A scale for each row. */
    "q:i8[1,256] scale:f32[1] sum:i32[1] w:t2[7,129] ws:f32[7]",
    "q:i8[1,512] scale:f32[1] sum:i32[1] w:t2[33,512] ws:f32[33]",
    "q:i8[n5,1152] scale:f32[n5] sum:i32[n5] w:t2[9,1152] ws:f32[9]",
    "q:i8[n33,384] scale:f32[n33] sum:i32[n33] w:t2[34,300] ws:f32[34]",
    "q:i8[n17,256] scale:f32[n17] sum:i32[n17] w:t2[97,129] ws:f32[97]",
    "q:i8[n65,768] scale:f32[n65] sum:i32[n65] w:t2[38,700] ws:f32[38]",
    /* A scale for every few weights of a row. */
    "q:i8[1,128] scale:f32[1] sum:i32[1] w:t2[1,1] ws:f32[1,1] group=128",
    "q:i8[1,128] scale:f32[1] sum:i32[1] w:t2[7,7] ws:f32[7,1] group=32",
    "q:i8[1,256] scale:f32[1] sum:i32[1] w:t2[7,129] ws:f32[7,2] group=128",
    "q:i8[1,256] scale:f32[1] sum:i32[1] w:t2[7,129] ws:f32[7,5] group=32",
    "q:i8[1,1152] scale:f32[1] sum:i32[1] w:t2[18,1152] ws:f32[18,9] group=128",
    "q:i8[1,2560] scale:f32[1] sum:i32[1] w:t2[3,2500] ws:f32[3,40] group=64",
    "q:i8[1,2304] scale:f32[1] sum:i32[1] w:t2[5,2300] ws:f32[5,9] group=256",
    "q:i8[1,5120] scale:f32[1] sum:i32[1] w:t2[2,5001] ws:f32[2,10] group=512",
    "q:i8[n5,1152] scale:f32[n5] sum:i32[n5] w:t2[19,1100] ws:f32[19,9] group=128",
    "q:i8[n7,384] scale:f32[n7] sum:i32[n7] w:t2[1,300] ws:f32[1,5] group=64",
    "q:i8[n8,384] scale:f32[n8] sum:i32[n8] w:t2[9,300] ws:f32[9,10] group=32",
    "q:i8[n33,1280] scale:f32[n33] sum:i32[n33] w:t2[34,1153] ws:f32[34,10] group=128",
    "q:i8[n70,512] scale:f32[n70] sum:i32[n70] w:t2[17,512] ws:f32[17,2] group=256",
    "q:i8[n40,1408] scale:f32[n40] sum:i32[n40] w:t2[7,1290] ws:f32[7,3] group=512",
    "q:i8[3,256] scale:f32[3] sum:i32[3] w:t2[10,200] ws:f32[10,4] group=64",
    NULL,
};

static const setun_knob knobs[] = {TERNARY_KNOBS};

SETUN_OP(ternary_matmul) = {
    .size = sizeof(setun_op), .version = 1,
    .name = "ternary_matmul",
    .doc = "y = q . w^T * (ws / scale): exact integer sums of ternary weights and int8 activations.",
    .in = in, .out = out, .attr = attr, .n_in = SETUN_LEN(in), .n_out = SETUN_LEN(out), .n_attr = SETUN_LEN(attr),
    .infer = infer, .eval = eval, .lower = lower, .cost = cost, .fill = fill_product, .cases = cases,
    .knob = knobs, .n_knob = SETUN_LEN(knobs),
};
