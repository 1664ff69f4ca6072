/* tests/unit/ops.c -- every operator: eval against formulas in double, kernels against eval.
 *
 * The walk runs each operator's own cases: the kernel is lowered for three kinds of machine, run by
 * the checking interpreter over the whole grid at once, unit by unit in shuffled order and in
 * uneven tiles, and must give eval's bits each time.  The formulas are written a second time here,
 * in double and with libm, so that a mistake shared by eval and lower still shows. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/arena.h"
#include "codegen/kir.h"
#include "graph/registry.h"

static const setun_op *find(const char *name)
{
    for (const setun_op *const *op = st_builtin_ops; *op; op++)
        if (!strcmp((*op)->name, name))
            return *op;
    fail_msg("there is no operator %s", name);
    return NULL;
}

/* ---------------------------------------------------------------- walk */

/* Generic, like AVX2, like AVX-512: what k_info answers changes tile sizes, never bits. */
static void target_of(int i, st_target *t)
{
    st_target_generic(t);
    if (i > 0) {
        t->vector_bytes = i == 1 ? 32 : 64;
        t->n_registers = i == 1 ? 16 : 32;
    }
}

/* Equal bits, or both NaN: which NaN comes out of an operation is not part of the contract. */
static int same_bits(const setun_view *v, const void *a, const void *b)
{
    int64_t n = setun_count(v);
    if (v->dtype != SETUN_F32 && v->dtype != SETUN_F16 && v->dtype != SETUN_BF16)
        return !memcmp(a, b, (size_t)setun_view_bytes(v));
    for (int64_t i = 0; i < n; i++) {
        setun_view va = *v, vb = *v;
        va.data = (void *)(uintptr_t)a;
        vb.data = (void *)(uintptr_t)b;
        float x = setun_get_f32(&va, i), y = setun_get_f32(&vb, i);
        if (setun_f32_bits(x) != setun_f32_bits(y) && !(x != x && y != y)) {
            print_error("element %lld: eval %.9g, kernel %.9g\n", (long long)i, (double)x,
                        (double)y);
            return 0;
        }
    }
    return 1;
}

typedef struct walk {
    const st_case *c;
    const st_kir *kir;
    void *arg[ST_MAX_ARGS], *want[ST_MAX_ARGS], *before[ST_MAX_ARGS];
    int64_t bytes[ST_MAX_ARGS], dim[ST_MAX_SLOTS], units;
    setun_launch launch;
} walk;

static const setun_view *arg_view(const st_case *c, uint32_t i)
{
    return i < c->run.n_in ? &c->run.in[i] : &c->run.out[i - c->run.n_in];
}

static void *copy(st_arena *arena, const void *p, int64_t bytes)
{
    void *c = st_arena_alloc(arena, bytes + 1);
    assert_non_null(c);
    memcpy(c, p, (size_t)bytes);
    return c;
}

/* Outputs get garbage, and shared ones their first contents, so that nothing old can pass. */
static void reset(const walk *w)
{
    uint32_t n_in = w->c->run.n_in;
    for (uint32_t j = 0; j < w->c->run.n_out; j++)
        memset(w->arg[n_in + j], 0x5a, (size_t)w->bytes[n_in + j]);
    for (uint32_t j = 0; j < n_in; j++)
        memcpy(w->arg[j], w->before[j], (size_t)w->bytes[j]);
}

static void check(const walk *w, const char *how)
{
    const setun_op *op = w->c->run.op;
    for (uint32_t j = 0; j < w->c->run.n_out; j++) {
        uint32_t i = w->c->run.n_in + j;
        if (!same_bits(&w->c->run.out[j], w->want[i], w->arg[i]))
            fail_msg("%s: output %s differs, %s", op->name, op->out[j].name, how);
    }
}

static void run_tile(const walk *w, int64_t begin, int64_t end)
{
    setun_tile t = {begin, end, NULL};
    setun_error err = {0};
    if (st_kir_eval(w->kir, &w->launch, w->bytes, &t, &err) != SETUN_OK)
        fail_msg("%s: units %lld to %lld: %s", w->c->run.op->name, (long long)begin, (long long)end,
                 err.text);
}

static void run_kernel(walk *w, const st_case *c, st_arena *arena, int target, const char *text)
{
    const setun_view *view[ST_MAX_ARGS];
    st_target t;
    st_kir *kir;
    setun_error err = {0};
    target_of(target, &t);
    setun_status s = st_kir_lower(&kir, &c->shape, &t, arena, &err);
    if (s == SETUN_DECLINED)
        fail_msg("%s declines its own case %s", c->run.op->name, text);
    if (s != SETUN_OK)
        fail_msg("%s, %s: %s", c->run.op->name, text, err.text);
    for (uint32_t i = 0; i < c->run.n_in + c->run.n_out; i++)
        view[i] = arg_view(c, i);
    w->kir = kir;
    for (uint32_t i = 0; i < kir->n_slot; i++)
        w->dim[i] = view[kir->slot[i].arg]->dim[kir->slot[i].dim];
    w->launch.arg = w->arg;
    w->launch.dim = w->dim;
    w->launch.self = kir;
    w->units = st_grid_units(&kir->grid, view);
    assert_true(w->units >= 0 && w->units < 100000);

    reset(w);
    run_tile(w, 0, w->units);
    check(w, "whole grid");
    if (target) /* tiling is the same for all machines */
        return;
    reset(w);
    /* i * step mod units visits all units when step and units have no common factor. */
    int64_t step = 1;
    for (int64_t s2 = 2; s2 < w->units; s2++) {
        int64_t a = s2, b = w->units;
        while (b) {
            int64_t r = a % b;
            a = b;
            b = r;
        }
        if (a == 1) {
            step = s2;
            if (s2 * s2 > w->units)
                break;
        }
    }
    for (int64_t i = 0; i < w->units; i++)
        run_tile(w, i * step % w->units, i * step % w->units + 1);
    check(w, "unit by unit");
    reset(w);
    for (int64_t end = w->units, size = 1; end > 0; end -= size, size += 2) {
        if (size > end)
            size = end;
        run_tile(w, end - size, end);
    }
    check(w, "uneven tiles");
}

/* Now and then a value that is no number, or the largest, or a zero, in every float input. */
static void make_odd(const st_case *c, uint64_t seed)
{
    static const uint32_t odd[] = {0x7fc00000, 0xffc00000, 0x7f800000, 0xff800000,
                                   0x7f7fffff, 0xff7fffff, 0,          0x80000000};
    for (uint32_t i = 0; i < c->run.n_in; i++) {
        const setun_view *v = &c->run.in[i];
        if (!(SETUN_OF(v->dtype) & SETUN_FLOATS))
            continue;
        for (int64_t j = 0, n = setun_count(v); j < n; j++) {
            uint64_t r = setun_mix(seed + i, (uint64_t)j);
            if (r % 37 == 0)
                setun_put_f32(v, j, setun_bits_f32(odd[r >> 32 & 7]));
        }
    }
}

static void walk_case(const setun_op *op, const char *text, uint64_t seed, int is_odd)
{
    st_arena *arena = st_arena_new();
    st_case c;
    walk w;
    setun_error err = {0};
    memset(&w, 0, sizeof w);
    assert_non_null(arena);
    if (st_case_make(op, text, seed, arena, &c, &err) != SETUN_OK)
        fail_msg("%s", err.text);
    if (is_odd)
        make_odd(&c, seed);
    w.c = &c;
    for (uint32_t i = 0; i < c.run.n_in + c.run.n_out; i++) {
        w.arg[i] = arg_view(&c, i)->data;
        w.bytes[i] = setun_view_bytes(arg_view(&c, i));
        w.before[i] = copy(arena, w.arg[i], w.bytes[i]);
    }
    reset(&w);
    if (op->eval(&c.run, &err) != SETUN_OK)
        fail_msg("%s, %s: eval: %s", op->name, text, err.text);
    for (uint32_t i = 0; i < c.run.n_in + c.run.n_out; i++)
        w.want[i] = copy(arena, w.arg[i], w.bytes[i]);
    for (uint32_t i = 0; i < c.run.n_in; i++) {
        int shared = 0; /* eval writes its inputs only where an output shares them */
        for (uint32_t j = 0; j < op->n_out; j++)
            shared |= op->out[j].shares == i + 1;
        if (!shared)
            assert_memory_equal(w.arg[i], w.before[i], (size_t)w.bytes[i]);
    }
    for (int target = 0; op->lower && target < 3; target++)
        run_kernel(&w, &c, arena, target, text);
    st_arena_free(arena);
}

static void every_case(void **state)
{
    (void)state;
    for (const setun_op *const *op = st_builtin_ops; *op; op++) {
        assert_non_null((*op)->cases);
        assert_non_null((*op)->cases[0]);
        for (const char *const *text = (*op)->cases; *text; text++)
            for (uint64_t seed = 1; seed <= 2; seed++)
                walk_case(*op, *text, seed, 0);
    }
}

static void every_case_with_odd_values(void **state)
{
    (void)state;
    for (const setun_op *const *op = st_builtin_ops; *op; op++)
        for (const char *const *text = (*op)->cases; *text; text++)
            for (uint64_t seed = 1; seed <= 2; seed++)
                walk_case(*op, *text, seed, 1);
}

/* ---------------------------------------------------------------- formulas */

typedef struct run {
    st_arena *arena;
    st_case   c;
    const setun_view *in, *out;
} run;

static run evaluated(const char *name, const char *text)
{
    run r;
    setun_error err = {0};
    r.arena = st_arena_new();
    assert_non_null(r.arena);
    if (st_case_make(find(name), text, 7, r.arena, &r.c, &err) != SETUN_OK)
        fail_msg("%s", err.text);
    if (r.c.run.op->eval(&r.c.run, &err) != SETUN_OK)
        fail_msg("%s", err.text);
    r.in = r.c.run.in;
    r.out = r.c.run.out;
    return r;
}

static double in(const run *r, int i, int64_t at) { return (double)setun_get_f32(&r->in[i], at); }
static double out(const run *r, int i, int64_t at) { return (double)setun_get_f32(&r->out[i], at); }

static void near(double want, double got, double relative, double absolute, const char *what,
                 int64_t at)
{
    if (!(fabs(want - got) <= relative * fabs(want) + absolute))
        fail_msg("%s[%lld]: %.9g, wants %.9g", what, (long long)at, got, want);
}

static void rmsnorm_formula(void **state)
{
    static const char *const text[] = {"x:f32[3,129] w:f32[129] eps=0.5",
                                       "x:f32[2,1] w:f32[1] eps=1e-5",
                                       "x:f32[2,7] w:f32[7] eps=0.001",
                                       "x:f32[2,3,33] w:f32[33] eps=1e-6", NULL};
    (void)state;
    for (int c = 0; text[c]; c++) {
        run r = evaluated("rmsnorm", text[c]);
        int64_t d = r.in[1].dim[0];
        double eps = r.c.run.attr[0].f;
        for (int64_t t = 0; t < setun_count(&r.in[0]) / d; t++) {
            double sum = 0;
            for (int64_t i = 0; i < d; i++)
                sum += in(&r, 0, t * d + i) * in(&r, 0, t * d + i);
            for (int64_t i = 0; i < d; i++)
                near(in(&r, 0, t * d + i) / sqrt(sum / (double)d + eps) * in(&r, 1, i),
                     out(&r, 0, t * d + i), 1e-6, 1e-37, "rmsnorm", i);
        }
        st_arena_free(r.arena);
    }
}

static void check_quantized(const run *r, int first, const double *x, int64_t d, int64_t t)
{
    int64_t wide = r->out[first].dim[1], sum = 0;
    const int8_t *q = (const int8_t *)r->out[first].data + t * wide;
    double most = 1e-5;
    for (int64_t i = 0; i < d; i++)
        most = fabs(x[i]) > most ? fabs(x[i]) : most;
    near(127.0 / most, out(r, first + 1, t), 2e-6, 0, "scale", t);
    assert_int_equal(wide, (d + 127) / 128 * 128);
    for (int64_t i = 0; i < wide; i++) {
        if (i < d && fabs(x[i] * 127.0 / most - q[i]) > 0.5001)
            fail_msg("q[%lld] is %d for %.9g", (long long)i, q[i], x[i] * 127.0 / most);
        if (i >= d)
            assert_int_equal(q[i], 0);
        sum += q[i];
    }
    assert_int_equal(sum, ((const int32_t *)r->out[first + 2].data)[t]);
}

static void quantize_formula(void **state)
{
    static const char *const text[] = {"x:f32[3,129]", "x:f32[2,1]", "x:f32[2,7]", "x:f32[1,256]",
                                       NULL};
    (void)state;
    for (int c = 0; text[c]; c++) {
        run r = evaluated("quantize_i8", text[c]);
        int64_t d = r.in[0].dim[1];
        double x[256];
        for (int64_t t = 0; t < r.in[0].dim[0]; t++) {
            for (int64_t i = 0; i < d; i++)
                x[i] = in(&r, 0, t * d + i);
            check_quantized(&r, 0, x, d, t);
        }
        st_arena_free(r.arena);
    }
}

/* Rows worked out by hand: ties to even, the floor of the maximum, zeros, NaN, infinities. */
static void quantize_by_hand(void **state)
{
    static const struct {
        float x[8], scale;
        int8_t q[8];
    } row[] = {
        {{127, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, 63.5f, -127}, 1.0f, {127, 0, 2, 2, 0, -2, 64, -127}},
        {{254, 1, 3, 5, -1, -3, 0, 0}, 0.5f, {127, 0, 2, 2, 0, -2, 0, 0}},
        {{1e-6f, -2e-6f, 0, 0, 0, 0, 0, 0}, 127.0f / 1e-5f, {13, -25, 0, 0, 0, 0, 0, 0}},
        {{0, -0.0f, 0, 0, 0, 0, 0, 0}, 127.0f / 1e-5f, {0}},
        {{NAN, 127, -NAN, -64, 0, 0, 0, 0}, 1.0f, {0, 127, 0, -64, 0, 0, 0, 0}},
        {{INFINITY, 127, -INFINITY, 1, 0, 0, 0, 0}, 0.0f, {0}},
        {{3.4028235e38f, -3.4028235e38f, 1, 0, 0, 0, 0, 0},
         127.0f / 3.4028235e38f,
         {127, -127, 0, 0, 0, 0, 0, 0}},
    };
    int64_t n = (int64_t)(sizeof row / sizeof row[0]);
    run r = evaluated("quantize_i8", "x:f32[7,8]");
    walk w;
    (void)state;
    assert_int_equal(n, 7);
    for (int64_t t = 0; t < n; t++)
        memcpy((float *)r.in[0].data + 8 * t, row[t].x, sizeof row[t].x);
    assert_int_equal(r.c.run.op->eval(&r.c.run, NULL), SETUN_OK);
    memset(&w, 0, sizeof w);
    w.c = &r.c;
    for (uint32_t i = 0; i < 4; i++) {
        w.arg[i] = arg_view(&r.c, i)->data;
        w.bytes[i] = setun_view_bytes(arg_view(&r.c, i));
        w.before[i] = w.want[i] = copy(r.arena, w.arg[i], w.bytes[i]);
    }
    for (int64_t t = 0; t < n; t++) {
        assert_int_equal(setun_f32_bits(((float *)r.out[1].data)[t]), setun_f32_bits(row[t].scale));
        assert_memory_equal((int8_t *)r.out[0].data + 128 * t, row[t].q, 8);
    }
    run_kernel(&w, &r.c, r.arena, 0, "by hand"); /* kernels agree on these rows too */
    st_arena_free(r.arena);
}

/* The fused operator is the two in a row, bit for bit. */
static void rmsnorm_i8_is_both(void **state)
{
    static const int64_t size[] = {1, 7, 129, 256};
    (void)state;
    for (int c = 0; c < 4; c++) {
        char text[96];
        setun_error err = {0};
        (void)snprintf(text, sizeof text, "x:f32[3,%lld] w:f32[%lld] eps=1e-5", (long long)size[c],
                       (long long)size[c]);
        run a = evaluated("rmsnorm", text), b = evaluated("rmsnorm_i8", text);
        st_case q;
        (void)snprintf(text, sizeof text, "x:f32[3,%lld]", (long long)size[c]);
        assert_int_equal(st_case_make(find("quantize_i8"), text, 1, a.arena, &q, &err), SETUN_OK);
        memcpy(q.run.in[0].data, a.out[0].data, (size_t)setun_view_bytes(&a.out[0]));
        assert_int_equal(q.run.op->eval(&q.run, &err), SETUN_OK);
        for (int j = 0; j < 3; j++)
            assert_memory_equal(q.run.out[j].data, b.out[j].data,
                                (size_t)setun_view_bytes(&b.out[j]));
        st_arena_free(a.arena);
        st_arena_free(b.arena);
    }
}

static double relu2_of(double x) { return x > 0 ? x * x : 0; }

static void add_row_formula(void **state)
{
    run r = evaluated("add_row", "x:f32[3,129] b:f32[129]");
    (void)state;
    for (int64_t i = 0; i < 3 * 129; i++)
        near(in(&r, 0, i) + in(&r, 1, i % 129), out(&r, 0, i), 1e-6, 1e-38, "add_row", i);
    st_arena_free(r.arena);
}

static void scale_formula(void **state)
{
    run r = evaluated("scale", "x:f32[3,129] by=-1.7");
    (void)state;
    for (int64_t i = 0; i < 3 * 129; i++)
        near(in(&r, 0, i) * -1.7, out(&r, 0, i), 1e-6, 1e-38, "scale", i);
    st_arena_free(r.arena);
}

static void map_formulas(void **state)
{
    static const char *const name[] = {"relu2", "relu2_cap", "silu", "gelu_tanh", "add", "mul", "relu2_mul"};
    (void)state;
    for (int c = 0; c < 7; c++) {
        run r = evaluated(name[c], c < 4 ? "x:f32[3,129]" : "a:f32[3,129] b:f32[3,129]");
        for (int64_t i = 0; i < 3 * 129; i++) {
            double x = in(&r, 0, i), z = c < 4 ? 0 : in(&r, 1, i), want;
            switch (c) {
            case 0: want = relu2_of(x); break;
            case 1: want = relu2_of(x) < 6.0 ? relu2_of(x) : 6.0; break;
            case 2: want = x / (1 + exp(-x)); break;
            case 3: want = x / 2 * (1 + tanh(sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x))); break;
            case 4: want = x + z; break;
            case 5: want = x * z; break;
            default: want = relu2_of(x) * z; break;
            }
            near(want, out(&r, 0, i), 1e-6, 1e-38 * (1 + fabs(x)), name[c], i);
        }
        st_arena_free(r.arena);
    }
}

static void embed_formula(void **state)
{
    static const char *const text[] = {"table:bf16[9,7] index:i32[3]",
                                       "table:f16[9,129] index:i32[3]",
                                       "table:f32[9,1] index:i32[3]", NULL};
    (void)state;
    for (int c = 0; text[c]; c++) {
        run r = evaluated("embed", text[c]);
        int64_t d = r.in[0].dim[1];
        for (int64_t i = 0; i < 3 * d; i++)
            assert_true(in(&r, 0, ((int32_t *)r.in[1].data)[i / d] * d + i % d) == out(&r, 0, i));
        st_arena_free(r.arena);
    }
}

static void matmul_formula(void **state)
{
    static const char *const text[] = {"x:f32[3,129] w:bf16[7,129]", "x:f32[2,7] w:f16[5,7]",
                                       "x:f32[1,1] w:f32[1,1]", "x:f32[9,256] w:f32[17,256]", NULL};
    (void)state;
    for (int c = 0; text[c]; c++) {
        run r = evaluated("matmul", text[c]);
        int64_t d = r.in[0].dim[1], rows = r.in[1].dim[0];
        for (int64_t i = 0; i < r.in[0].dim[0] * rows; i++) {
            double want = 0, size = 0;
            for (int64_t j = 0; j < d; j++) {
                double p = in(&r, 0, i / rows * d + j) * in(&r, 1, i % rows * d + j);
                want += p;
                size += fabs(p);
            }
            near(want, out(&r, 0, i), 0, 1e-6 * size + 1e-40, "matmul", i);
        }
        st_arena_free(r.arena);
    }
}

static void softmax_formula(void **state)
{
    static const char *const text[] = {"x:f32[3,129]", "x:f32[2,7]", "x:f32[2,1]", NULL};
    (void)state;
    for (int c = 0; text[c]; c++) {
        run r = evaluated("softmax", text[c]);
        int64_t d = r.in[0].dim[1];
        for (int64_t t = 0; t < r.in[0].dim[0]; t++) {
            double sum = 0, most = -INFINITY;
            for (int64_t i = 0; i < d; i++)
                most = in(&r, 0, t * d + i) > most ? in(&r, 0, t * d + i) : most;
            for (int64_t i = 0; i < d; i++)
                sum += exp(in(&r, 0, t * d + i) - most);
            for (int64_t i = 0; i < d; i++)
                near(exp(in(&r, 0, t * d + i) - most) / sum, out(&r, 0, t * d + i), 2e-5, 1e-37,
                     "softmax", i);
        }
        st_arena_free(r.arena);
    }
}

/* The error is at most half a scale, which is at most 1/127 of the largest and its rounding up; what
 * is no number is not hidden; nothing is written past a block. */
static void q8_blocks(void **state)
{
    static const int64_t size[] = {1, 7, 31, 32};
    static const float most[] = {0, 1e-44f, 1e-38f, 1e-3f, 1, 3000, 1e30f};
    uint8_t b[SETUN_Q8_BLOCK_BYTES + 1];
    float x[SETUN_Q8_BLOCK];
    (void)state;
    for (size_t s = 0; s < SETUN_LEN(size); s++)
        for (size_t m = 0; m < SETUN_LEN(most); m++) {
            for (int64_t i = 0; i < size[s]; i++)
                x[i] = most[m] * ((float)(setun_mix(m, (uint64_t)i) % 2001) / 1000.0f - 1.0f);
            x[size[s] / 2] = -most[m];
            b[SETUN_Q8_BLOCK_BYTES] = 77;
            setun_put_q8(b, x, size[s]);
            for (int64_t i = 0; i < SETUN_Q8_BLOCK; i++) {
                double error = fabs((double)setun_get_q8(b, i) - (i < size[s] ? (double)x[i] : 0));
                assert_true(error <= (double)most[m] / 127 / 2 * 1.01 + ldexp(1, -133));
            }
            assert_int_equal(b[SETUN_Q8_BLOCK_BYTES], 77);
            x[0] = s % 2 ? INFINITY : -NAN;
            setun_put_q8(b, x, size[s]);
            assert_true(isnan(setun_get_q8(b, 0)) && isnan(setun_get_q8(b, SETUN_Q8_BLOCK - 1)));
        }
}

static void attention_formula(void **state)
{
    static const char *const text[] = {
        "q:f32[3,4,7] k:f16[2,20,7] v:f16[2,20,7] pos:i32[3] scale=0.3",
        "q:f32[2,2,129] k:bf16[1,300,129] v:bf16[1,300,129] pos:i32[2] scale=0.05",
        "q:f32[2,1,1] k:f32[1,1,1] v:f32[1,1,1] pos:i32[2] scale=1",
        "q:f32[2,6,40] k:q8[2,150,40] v:q8[2,150,40] pos:i32[2] scale=0.1", NULL};
    (void)state;
    for (int c = 0; text[c]; c++) {
        run r = evaluated("attention", text[c]);
        int64_t heads = r.in[0].dim[1], hd = r.in[0].dim[2], kvh = r.in[1].dim[0],
                places = r.in[1].dim[1];
        double scale = r.c.run.attr[0].f, s[300];
        for (int64_t i = 0; i < r.in[0].dim[0] * heads; i++) {
            int64_t keys = ((int32_t *)r.in[3].data)[i / heads] + 1, g = i % heads / (heads / kvh);
            double most = -INFINITY, sum = 0;
            for (int64_t j = 0; j < keys; j++) {
                s[j] = 0;
                for (int64_t e = 0; e < hd; e++)
                    s[j] += in(&r, 0, i * hd + e) * in(&r, 1, (g * places + j) * hd + e);
                s[j] *= scale;
                most = s[j] > most ? s[j] : most;
            }
            for (int64_t j = 0; j < keys; j++)
                sum += s[j] = exp(s[j] - most);
            for (int64_t e = 0; e < hd; e++) {
                double want = 0, size = 0;
                for (int64_t j = 0; j < keys; j++) {
                    want += s[j] / sum * in(&r, 2, (g * places + j) * hd + e);
                    size += s[j] / sum * fabs(in(&r, 2, (g * places + j) * hd + e));
                }
                /* Scores of a few hundred carry an error of some 1e-4 into the exponent. */
                near(want, out(&r, 0, i * hd + e), 0, 2e-3 * size + 1e-37, "attention", e);
            }
        }
        st_arena_free(r.arena);
    }
}

static void rope_formula(void **state)
{
    static const char *const text[] = {"x:f32[3,2,10] table:f32[9,8] pos:i32[3] pairing=\"neox\"",
                                       "x:f32[3,2,7] table:f32[9,6] pos:i32[3] pairing=\"norm\"",
                                       NULL};
    (void)state;
    for (int c = 0; text[c]; c++) {
        run r = evaluated("rope", text[c]);
        int64_t hd = r.in[0].dim[2], rd = r.in[1].dim[1], half = rd / 2;
        for (int64_t i = 0; i < setun_count(&r.in[0]); i++) {
            int64_t e = i % hd, row = ((int32_t *)r.in[2].data)[i / (2 * hd)] * rd;
            int64_t pair = c ? e / 2 : e % half, second = c ? e % 2 : e / half;
            int64_t other = c ? (second ? i - 1 : i + 1) : (second ? i - half : i + half);
            double want = in(&r, 0, i);
            if (e < rd) {
                double a = in(&r, 0, i) * in(&r, 1, row + pair),
                       b = in(&r, 0, other) * in(&r, 1, row + half + pair);
                want = second ? a + b : a - b;
                near(want, out(&r, 0, i), 0, 1e-6 * (fabs(a) + fabs(b)) + 1e-37, "rope", i);
            } else {
                assert_true(want == out(&r, 0, i));
            }
        }
        st_arena_free(r.arena);
    }
}

/* Distance in units in the last place of f32. */
static int64_t ulps(float a, float b)
{
    int64_t x = (int32_t)setun_f32_bits(a), y = (int32_t)setun_f32_bits(b);
    x = x < 0 ? INT32_MIN - x : x;
    y = y < 0 ? INT32_MIN - y : y;
    return x < y ? y - x : x - y;
}

/* The llama3 rule as the reference implementation states it, in double. */
static double llama3(double f, double factor, double low, double high, double original)
{
    double length = 2 * acos(-1.0) / f, smooth = (original / length - low) / (high - low);
    if (length < original / high)
        return f;
    return length > original / low ? f / factor : (1 - smooth) * f / factor + smooth * f;
}

static void rope_table_formula(void **state)
{
    static const char *const text[] = {
        "theta=500000 dim=128 positions=4096",
        "theta=10000 dim=6 positions=129 scaling=\"linear\" factor=4",
        "theta=500000 dim=64 positions=300 scaling=\"llama3\" factor=8 low_freq_factor=1 "
        "high_freq_factor=4 "
        "original_positions=128",
        "theta=10000 dim=2 positions=1048576", NULL};
    (void)state;
    for (int c = 0; text[c]; c++) {
        run r = evaluated("rope_table", text[c]);
        const float *y = r.out[0].data;
        int64_t dim = r.out[0].dim[1], positions = r.out[0].dim[0];
        for (int64_t i = 0; i < dim / 2; i++) {
            double f = pow(r.c.run.attr[0].f, -2.0 * (double)i / (double)dim);
            f = c == 1 ? f / 4 : c == 2 ? llama3(f, 8, 1, 4, 128) : f;
            for (int64_t p = 0; p < positions; p += positions > 5000 ? 37 : 1) {
                double a = (double)((float)p * (float)f);
                float cs = y[p * dim + i], sn = y[p * dim + dim / 2 + i];
                if (ulps(cs, (float)cos(a)) > 1 || ulps(sn, (float)sin(a)) > 1)
                    fail_msg("case %d: position %lld, pair %lld: %.9g %.9g, libm has %.9g %.9g", c,
                             (long long)p, (long long)i, (double)cs, (double)sn, cos(a), sin(a));
            }
        }
        st_arena_free(r.arena);
    }
}

static void kv_append_formula(void **state)
{
    run r = evaluated("kv_append", "x:f32[3,2,7] cache:f16[2,5,7] pos:i32[3]");
    run old = evaluated("kv_append", "x:f32[3,2,7] cache:f16[2,5,7] pos:i32[3]");
    uint16_t *cache = r.in[1].data, before[5 * 14];
    int32_t *pos = r.in[2].data;
    (void)state;
    for (int i = 0; i < 5 * 14; i++)
        cache[i] = before[i] = (uint16_t)i;
    assert_int_equal(r.c.run.op->eval(&r.c.run, NULL), SETUN_OK);
    for (int64_t p = 0; p < 5; p++) {
        int64_t from = -1;
        for (int64_t t = 0; t < 3; t++)
            from = pos[t] == p ? t : from;
        for (int64_t i = 0; i < 14; i++) {
            int64_t to = (i / 7 * 5 + p) * 7 + i % 7;
            if (from < 0)
                assert_int_equal(cache[to], before[to]);
            else /* half a unit of 11 bits, or of the smallest denormal */
                near(in(&r, 0, from * 14 + i), in(&r, 1, to), 1.0 / 2048, ldexp(1, -25), "cache", i);
        }
    }
    st_arena_free(r.arena);
    st_arena_free(old.arena);
}

/* argmax and topk by hand: the first of equals, NaN last. */
static void order(void **state)
{
    static const float row[6][5] = {
        {1, 3, 2, 3, 0},
        {NAN, -1, NAN, -1, -2},
        {NAN, NAN, NAN, NAN, NAN},
        {-0.0f, 0, 0, -1, 0},
        {-INFINITY, NAN, -INFINITY, -INFINITY, NAN},
        {1, 2, INFINITY, 2, NAN},
    };
    static const int32_t best[6] = {1, 1, 0, 0, 0, 2};
    static const int32_t top[6][4] = {{1, 3, 2, 0}, {1, 3, 4, 0}, {0, 1, 2, 3},
                                      {0, 1, 2, 4}, {0, 2, 3, 1}, {2, 1, 3, 0}};
    run r = evaluated("argmax", "x:f32[6,5]"), k = evaluated("topk", "x:f32[6,5] k=4");
    (void)state;
    memcpy(r.in[0].data, row, sizeof row);
    memcpy(k.in[0].data, row, sizeof row);
    assert_int_equal(r.c.run.op->eval(&r.c.run, NULL), SETUN_OK);
    assert_int_equal(k.c.run.op->eval(&k.c.run, NULL), SETUN_OK);
    for (int t = 0; t < 6; t++) {
        assert_int_equal(((int32_t *)r.out[0].data)[t], best[t]);
        for (int i = 0; i < 4; i++) {
            float v = ((float *)k.out[0].data)[4 * t + i], w = row[t][top[t][i]];
            assert_int_equal(((int32_t *)k.out[1].data)[4 * t + i], top[t][i]);
            assert_true(setun_f32_bits(v) == setun_f32_bits(w) || (v != v && w != w));
        }
    }
    walk w;
    memset(&w, 0, sizeof w);
    w.c = &r.c;
    for (uint32_t i = 0; i < 2; i++) {
        w.arg[i] = arg_view(&r.c, i)->data;
        w.bytes[i] = setun_view_bytes(arg_view(&r.c, i));
        w.before[i] = w.want[i] = copy(r.arena, w.arg[i], w.bytes[i]);
    }
    run_kernel(&w, &r.c, r.arena, 0, "by hand");
    st_arena_free(r.arena);
    st_arena_free(k.arena);
}

/* ---------------------------------------------------------------- gated matrix */

/* Instructions that the kernel runs over its whole grid: the smallest limit it stays within. */
static int64_t steps_of(walk *w, st_kir *kir)
{
    int64_t low = 0, high = 1 << 24;
    setun_tile t = {0, w->units, NULL};
    while (high - low > high / 64 + 1) {
        kir->max_steps = low + (high - low) / 2;
        if (st_kir_eval(kir, &w->launch, w->bytes, &t, NULL) == SETUN_OK)
            high = kir->max_steps;
        else
            low = kir->max_steps;
    }
    kir->max_steps = 0;
    return high;
}

/* At stated numbers of open gates, among them a NaN and zeros that are closed: the bits of the plain
 * operators, whose zeros may have another sign, and a run time that tells which way was taken. */
static void gates_skip_rows(void **state)
{
    static const struct {
        int64_t rows, open;
    } row[] = {{1, 0}, {1, 1}, {7, 0}, {7, 1}, {7, 2}, {7, 3}, {7, 7},
               {129, 0}, {129, 1}, {129, 50}, {129, 53}, {129, 129}, {129, 51}, {129, 52}};
    (void)state;
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++)
        for (int target = 0; target < 3; target++) {
            char text[200], plain[200];
            int64_t rows = row[i].rows, open = row[i].open, steps[2];
            st_kir *kir;
            st_target machine;
            walk w;
            setun_error err = {0};
            (void)snprintf(text, sizeof text, "q:i8[1,384] scale:f32[1] sum:i32[1] w:t2[%d,300] ws:f32[1] gate:f32[1,%d]",
                           (int)rows, (int)rows);
            (void)snprintf(plain, sizeof plain, "%.*s", (int)(strstr(text, " gate") - text), text);
            run g = evaluated("ternary_matmul_gated", text), m = evaluated("ternary_matmul", plain);
            float *gate = g.in[5].data, *want;
            for (int j = 0; j < 5; j++)
                memcpy(m.in[j].data, g.in[j].data, (size_t)setun_view_bytes(&g.in[j]));
            target_of(target, &machine);
            memset(&w, 0, sizeof w);
            w.c = &g.c;
            for (int all = 0; all < 2; all++) { /* last with every gate open: what all rows cost */
                static const float closed[4] = {NAN, -0.0f, -1.5f, 0.0f};
                for (int64_t r = 0; r < rows; r++)
                    gate[r] = all || (r + 1) * open / rows > r * open / rows ? 0.25f + (float)r : closed[r % 4];
                assert_int_equal(g.c.run.op->eval(&g.c.run, &err), SETUN_OK);
                assert_int_equal(m.c.run.op->eval(&m.c.run, &err), SETUN_OK);
                want = g.out[0].data;
                for (int64_t r = 0; r < rows; r++) {
                    float p = (gate[r] > 0 ? gate[r] * gate[r] : 0.0f) * ((float *)m.out[0].data)[r];
                    assert_true(p == want[r] && (p != 0 || setun_f32_bits(want[r]) == 0));
                }
                for (uint32_t j = 0; j < 7; j++) {
                    w.arg[j] = arg_view(&g.c, j)->data;
                    w.bytes[j] = setun_view_bytes(arg_view(&g.c, j));
                    w.before[j] = w.want[j] = copy(g.arena, w.arg[j], w.bytes[j]);
                }
                run_kernel(&w, &g.c, g.arena, target, "stated gates");
                assert_int_equal(st_kir_lower(&kir, &g.c.shape, &machine, g.arena, &err), SETUN_OK);
                w.launch.self = kir;
                steps[all] = steps_of(&w, kir);
            }
            if (rows == 129 && open * 100 <= rows * 40)
                assert_true((double)steps[0] < (0.2 + 1.3 * (double)open / (double)rows) * (double)steps[1]);
            else if (rows == 129)
                assert_true((double)steps[0] > 0.95 * (double)steps[1]);
            st_arena_free(g.arena);
            st_arena_free(m.arena);
        }
}

/* ---------------------------------------------------------------- contract */

/* The error that docs/numerics.md states for exp, and the ends of its range. */
static void exp_error(void **state)
{
    double worst = 0;
    (void)state;
    for (int64_t i = 0; i < 2000000; i++) {
        float x = (float)(-87.0 + 175.0 * (double)i / 2000000.0);
        double want = exp((double)x), e = fabs((double)setun_expf(x) - want) / want;
        worst = e > worst ? e : worst;
    }
    assert_true(worst < 8.5e-8);
    assert_true(setun_expf(0.0f) == 1.0f && setun_expf(-0.0f) == 1.0f);
    assert_true(setun_expf(-87.1f) == 0.0f && setun_expf(NAN) == 0.0f &&
                setun_expf(-INFINITY) == 0.0f);
    assert_true(setun_expf(1000.0f) == setun_expf(88.0f) && setun_expf(88.0f) < INFINITY);
}

/* A row computed with others has the bits it has alone: same keys, other batch. */
static void batch_does_not_show(void **state)
{
    static const char *const text =
        "q:f32[3,4,40] k:f16[2,200,40] v:f16[2,200,40] pos:i32[3] scale=0.2";
    run all = evaluated("attention", text);
    (void)state;
    for (int64_t t = 0; t < 3; t++) {
        run one = evaluated("attention",
                            "q:f32[1,4,40] k:f16[2,200,40] v:f16[2,200,40] pos:i32[1] scale=0.2");
        memcpy(one.in[0].data, (float *)all.in[0].data + t * 160, 160 * sizeof(float));
        memcpy(one.in[1].data, all.in[1].data, (size_t)setun_view_bytes(&all.in[1]));
        memcpy(one.in[2].data, all.in[2].data, (size_t)setun_view_bytes(&all.in[2]));
        memcpy(one.in[3].data, (int32_t *)all.in[3].data + t, sizeof(int32_t));
        assert_int_equal(one.c.run.op->eval(&one.c.run, NULL), SETUN_OK);
        assert_memory_equal(one.out[0].data, (float *)all.out[0].data + t * 160,
                            160 * sizeof(float));
        st_arena_free(one.arena);
    }
    st_arena_free(all.arena);
}

static void indices_are_checked(void **state)
{
    static const struct {
        const char *name, *text, *what;
        int in;
        int32_t bad;
    } row[] = {
        {"embed", "table:f32[5,3] index:i32[2]", "index[1] is 5, outside 0 to 4", 1, 5},
        {"embed", "table:f32[5,3] index:i32[2]", "index[1] is -1, outside 0 to 4", 1, -1},
        {"rope", "x:f32[2,1,4] table:f32[3,4] pos:i32[2] pairing=\"norm\"", "pos[1] is 3", 2, 3},
        {"kv_append", "x:f32[2,1,4] cache:f32[1,3,4] pos:i32[2]", "pos[1] is 7", 2, 7},
        {"attention", "q:f32[2,1,4] k:f32[1,3,4] v:f32[1,3,4] pos:i32[2] scale=1", "pos[1] is -5",
         3, -5},
    };
    (void)state;
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        setun_error err = {0};
        run r = evaluated(row[i].name, row[i].text);
        ((int32_t *)r.in[row[i].in].data)[1] = row[i].bad;
        assert_int_equal(r.c.run.op->eval(&r.c.run, &err), SETUN_BAD_ARG);
        if (!strstr(err.text, row[i].what))
            fail_msg("%s says: %s", row[i].name, err.text);
        st_arena_free(r.arena);
    }
}

static void shapes_are_refused(void **state)
{
    static const struct {
        const char *name, *text, *what;
    } row[] = {
        {"rmsnorm", "x:f32[3,256] w:f32[255] eps=1e-5", "w is f32[255] and x is f32[3,256]"},
        {"rmsnorm", "x:i8[3,256] w:f32[256] eps=1e-5", "x is i8[3,256], wants f32 of rank 2"},
        {"rmsnorm", "x:f32[3,8] w:f32[8] eps=-1", "eps is -1"},
        {"rmsnorm", "x:f32[3,2,8] w:f32[2] eps=1", "dimension 0 of one must be dimension 2 of"},
        {"scale", "x:f32[3] by=inf", "by is inf"},
        {"attention", "q:f32[2,2,4] k:f32[2,3,4] v:f32[2,3,4] pos:i32[2] scale=1 window=-1", "window is -1"},
        {"add_row", "x:f32[3,8] b:f32[3]", "b is f32[3] and x is f32[3,8]"},
        {"quantize_i8", "x:f32[3,4,5]", "rank 2"},
        {"add", "a:f32[n3,7] b:f32[n3,8]", "b is f32[n,8] and a is f32[n,7]"},
        {"add", "a:f32[n3,7] b:f32[7]", "rank 2"},
        {"relu2_cap", "x:f32[3] cap=-1", "cap is -1"},
        {"embed", "table:i8[5,3] index:i32[2]", "wants f32 or f16 or bf16 or q4_0 or q8_0 or q4_k or q6_k of rank 2"},
        {"matmul", "x:f32[2,5] w:bf16[3,6]", "x is f32[2,5] and w is bf16[3,6]"},
        {"rope", "x:f32[2,1,4] table:f32[3,6] pos:i32[2] pairing=\"norm\"",
         "its width must be even"},
        {"rope", "x:f32[2,1,4] table:f32[3,4] pos:i32[2] pairing=\"other\"",
         "known are neox and norm"},
        {"kv_append", "x:f32[2,1,4] cache:f32[2,3,4] pos:i32[2]", "dimension 1"},
        {"attention", "q:f32[2,3,4] k:f32[2,3,4] v:f32[2,3,4] pos:i32[2] scale=1", "multiple"},
        {"attention", "q:f32[2,2,4] k:f32[2,3,4] v:f16[2,3,4] pos:i32[2] scale=1",
         "v is f16[2,3,4], wants f32"},
        {"rope_table", "theta=10000 dim=7 positions=5", "dim is 7"},
        {"rope_table", "theta=10000 dim=8 positions=5 scaling=\"yarn\"", "scaling is \"yarn\""},
        {"rope_table",
         "theta=10000 dim=8 positions=5 scaling=\"llama3\" factor=8 low_freq_factor=4",
         "0 < low < high"},
        {"topk", "x:f32[2,5] k=6", "k is 6"},
        {"ternary_matmul_gated", "q:i8[n2,128] scale:f32[n2] sum:i32[n2] w:t2[5,7] ws:f32[1] gate:f32[n2,4]",
         "gate is f32[n,4] and w is t2[5,7]"},
        {"ternary_matmul_gated", "q:i8[n2,128] scale:f32[n2] sum:i32[n2] w:t2[5,7] ws:f32[1] gate:f32[1,5]",
         "gate is f32[1,5] and q is i8[n,128]"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        st_arena *arena = st_arena_new();
        st_case c;
        setun_error err = {0};
        assert_true(st_case_make(find(row[i].name), row[i].text, 1, arena, &c, &err) < 0);
        if (!strstr(err.text, row[i].what))
            fail_msg("%s says: %s", row[i].name, err.text);
        st_arena_free(arena);
    }
}

/* No cost is negative, with symbols too. */
static void costs_are_sane(void **state)
{
    (void)state;
    for (const setun_op *const *op = st_builtin_ops; *op; op++) {
        if (!(*op)->cost)
            continue;
        for (const char *const *text = (*op)->cases; *text; text++) {
            st_arena *arena = st_arena_new();
            setun_cost cost = {0, 0, 0};
            setun_error err = {0};
            st_case c;
            assert_int_equal(st_case_make(*op, *text, 1, arena, &c, &err), SETUN_OK);
            (*op)->cost(&c.shape, &cost);
            if (!(cost.int_ops >= 0 && cost.float_ops >= 0 && cost.bytes >= 0))
                fail_msg("%s, %s: cost %g %g %g", (*op)->name, *text, cost.int_ops, cost.float_ops,
                         cost.bytes);
            st_arena_free(arena);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_case),
        cmocka_unit_test(every_case_with_odd_values),
        cmocka_unit_test(gates_skip_rows),
        cmocka_unit_test(rmsnorm_formula),
        cmocka_unit_test(add_row_formula),
        cmocka_unit_test(scale_formula),
        cmocka_unit_test(quantize_formula),
        cmocka_unit_test(quantize_by_hand),
        cmocka_unit_test(rmsnorm_i8_is_both),
        cmocka_unit_test(map_formulas),
        cmocka_unit_test(embed_formula),
        cmocka_unit_test(matmul_formula),
        cmocka_unit_test(softmax_formula),
        cmocka_unit_test(q8_blocks),
        cmocka_unit_test(attention_formula),
        cmocka_unit_test(rope_formula),
        cmocka_unit_test(rope_table_formula),
        cmocka_unit_test(kv_append_formula),
        cmocka_unit_test(order),
        cmocka_unit_test(exp_error),
        cmocka_unit_test(batch_does_not_show),
        cmocka_unit_test(indices_are_checked),
        cmocka_unit_test(shapes_are_refused),
        cmocka_unit_test(costs_are_sane),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
