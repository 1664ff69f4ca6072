/* tests/unit/backends.c -- programs made by hand on every backend: same results, clean failures.
 *
 * The operators are defined here, with kernels written in C where a compiler would have made them;
 * the backends are the real shared objects, reached through the plugin host as always. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "plugins/host.h"

/* ---------------------------------------------------------------- operators */

#define COLS 37 /* no multiple of anything */

static setun_status infer_like(setun_args *a, setun_error *err)
{
    (void)err;
    a->out[0] = a->in[0];
    return SETUN_OK;
}

static const setun_port port_x[] = { { "x", "", 0, 0 }, { "w", "", 0, 0 } };
static const setun_port port_y[] = { { "y", "", 0, 0 } };
static const char *const cases[] = { "x:f32[1,37]", NULL };

/* y[r,c] = x[r,c] * w[c] + bias */
static const setun_attr scale_attr[] = { { "bias", "", SETUN_ATTR_FLOAT, 1, { 0 } } };
static setun_status scale_eval(const setun_args *a, setun_error *err)
{
    const float *x = a->in[0].data, *w = a->in[1].data;
    float *y = a->out[0].data;
    (void)err;
    for (int64_t i = 0; i < setun_count(&a->in[0]); i++)
        y[i] = x[i] * w[i % COLS] + (float)a->attr[0].f;
    return SETUN_OK;
}
/* Grid: rows by 1, columns by 8.  self: the bias. */
static void scale_kernel(const setun_launch *l, const setun_tile *t)
{
    const float *x = l->arg[0], *w = l->arg[1];
    float *y = l->arg[2];
    int64_t cols = l->dim[1], n1 = (cols + 7) / 8;
    if (t->end > l->dim[0] * n1)
        return; /* the results will be missed */
    for (int64_t u = t->begin; u < t->end; u++) {
        int64_t r = u / n1, c0 = u % n1 * 8;
        for (int64_t c = c0; c < c0 + 8 && c < cols; c++)
            y[r * cols + c] = x[r * cols + c] * w[c] + *(const float *)l->self;
    }
}
static const setun_op scale_op = {
    .size = sizeof(setun_op),
    .name = "scale",
    .in = port_x,
    .out = port_y,
    .attr = scale_attr,
    .n_in = 2,
    .n_out = 1,
    .n_attr = 1,
    .infer = infer_like,
    .eval = scale_eval,
    .cases = cases,
};

/* y[r,c] = x[R-1-r, C-1-c] / 2 + 1: every worker reads what another one wrote. */
static setun_status flip_eval(const setun_args *a, setun_error *err)
{
    const float *x = a->in[0].data;
    float *y = a->out[0].data;
    int64_t n = setun_count(&a->in[0]);
    (void)err;
    for (int64_t i = 0; i < n; i++)
        y[i] = x[n - 1 - i] * 0.5f + 1.0f;
    return SETUN_OK;
}
/* Grid: columns by 5. */
static void flip_kernel(const setun_launch *l, const setun_tile *t)
{
    const float *x = l->arg[0];
    float *y = l->arg[1];
    int64_t n = l->dim[0] * COLS;
    for (int64_t c = t->begin * 5; c < t->end * 5 && c < COLS; c++)
        for (int64_t i = c; i < n; i += COLS)
            y[i] = x[n - 1 - i] * 0.5f + 1.0f;
}
static const setun_op flip_op = {
    .size = sizeof(setun_op), .name = "flip", .in = port_x, .out = port_y, .n_in = 1, .n_out = 1,
    .infer = infer_like, .eval = flip_eval, .cases = cases,
};

/* y[r] = sum of x[r,:], through scratch memory. */
static setun_status sum_eval(const setun_args *a, setun_error *err)
{
    const float *x = a->in[0].data;
    float *y = a->out[0].data;
    (void)err;
    for (int64_t r = 0; r < a->in[0].dim[0]; r++) {
        y[r] = 0;
        for (int64_t c = 0; c < COLS; c++)
            y[r] += x[r * COLS + c];
    }
    return SETUN_OK;
}
static void sum_kernel(const setun_launch *l, const setun_tile *t)
{
    const float *x = l->arg[0];
    float *y = l->arg[1], *tmp = t->scratch;
    if ((uintptr_t)tmp % 64)
        return; /* the results will be missed */
    for (int64_t r = t->begin; r < t->end; r++) {
        memcpy(tmp, x + r * COLS, COLS * sizeof *x);
        float s = 0;
        for (int c = 0; c < COLS; c++)
            s += tmp[c];
        y[r] = s;
    }
}
static const setun_op sum_op = {
    .size = sizeof(setun_op), .name = "sum", .in = port_x, .out = port_y, .n_in = 1, .n_out = 1,
    .infer = infer_like, .eval = sum_eval, .cases = cases,
};

/* y = x; refuses values above 1000.  It has no kernel. */
static setun_status guard_eval(const setun_args *a, setun_error *err)
{
    const float *x = a->in[0].data;
    int64_t n = setun_count(&a->in[0]);
    for (int64_t i = 0; i < n; i++)
        if (x[i] > 1000.0f)
            return setun_fail(err, SETUN_BAD_ARG, "element %lld is %g", (long long)i, (double)x[i]);
    memcpy(a->out[0].data, x, (size_t)n * sizeof *x);
    return SETUN_OK;
}
static const setun_op guard_op = {
    .size = sizeof(setun_op), .name = "guard", .in = port_x, .out = port_y, .n_in = 1, .n_out = 1,
    .infer = infer_like, .eval = guard_eval, .cases = cases,
};

/* ---------------------------------------------------------------- building programs */

static const float bias = 0.25f;
static const setun_slot rows_cols[] = { { 0, 0 }, { 0, 1 } };
static const setun_code scale_code = {
    .size = sizeof(setun_code),
    .launch_abi = SETUN_LAUNCH_ABI,
    .fn = scale_kernel,
    .self = &bias,
    .slot = rows_cols,
    .n_slot = 2,
    .grid = { { { 2, 0 }, { 2, 1 } }, { 1, 8 } },
};
static const setun_code flip_code = {
    .size = sizeof(setun_code),
    .launch_abi = SETUN_LAUNCH_ABI,
    .fn = flip_kernel,
    .slot = rows_cols,
    .n_slot = 1,
    .grid = { { { 1, 1 }, { -1, 0 } }, { 5, 1 } },
};
static const setun_code sum_code = {
    .size = sizeof(setun_code), .launch_abi = SETUN_LAUNCH_ABI, .fn = sum_kernel,
    .grid = { { { 0, 0 }, { -1, 0 } }, { 1, 1 } }, .scratch_bytes = COLS * 4,
};
static const setun_value scale_value[] = { { .f = 0.25 } };

typedef struct rig {
    const setun_backend_v1 *b;
    setun_context          *c;
    setun_buffer           *memory, *weights;
    float                  *data; /* memory's */
} rig;

#define FLOATS 24000
#define MOST_ROWS 129
#define PLACE(i) ((int64_t)(i) * 4 * 16) /* offsets are multiples of 64 bytes */

static float weights[COLS];

static void rig_open(rig *r, const st_plugin_info *info, int32_t threads)
{
    setun_error e = { 0, "" };
    r->b = info->backend;
    for (int i = 0; i < COLS; i++)
        weights[i] = 0.5f + 0.01f * (float)i;
    assert_int_equal(r->b->context_new(info->self, threads, &r->c, &e), SETUN_OK);
    assert_int_equal(r->b->buffer_new(r->c, FLOATS * 4, &r->memory, &e), SETUN_OK);
    assert_int_equal(r->b->buffer_wrap(r->c, weights, sizeof weights, &r->weights, &e), SETUN_OK);
    r->data = r->b->buffer_map(r->memory);
    assert_non_null(r->data);
    assert_int_equal((uintptr_t)r->data % 64, 0);
    for (int i = 0; i < FLOATS; i++)
        assert_true(r->data[i] == 0.0f);
    for (int i = 0; i < FLOATS; i++)
        r->data[i] = (float)((i * 37 + 11) % 101) * 0.125f - 6.0f;
}

static void rig_close(rig *r)
{
    r->b->buffer_free(r->memory);
    r->b->buffer_free(r->weights);
    r->b->context_free(r->c);
}

/* A matrix with symbolic rows at a place in memory. */
static setun_operand matrix(const rig *r, int64_t offset)
{
    setun_operand o = { r->memory,
                        offset,
                        { NULL, SETUN_F32, 2, { SETUN_DIM_TOKENS, COLS, 1, 1 } } };
    return o;
}

typedef struct steps {
    setun_operand o[64][3];
    setun_step    s[64];
    uint32_t      n;
} steps;

static void add(steps *p, const rig *r, const setun_op *op, const setun_code *code, int64_t from,
                int64_t to)
{
    setun_operand *o = p->o[p->n];
    o[0] = matrix(r, from);
    o[op->n_in] = matrix(r, to);
    if (op == &scale_op) {
        o[1].buffer = r->weights;
        o[1].offset = 0;
        o[1].shape = (setun_view){ NULL, SETUN_F32, 1, { COLS, 1, 1, 1 } };
    }
    if (op == &sum_op) {
        o[1].shape.rank = 1;
        o[1].shape.dim[1] = 1;
    }
    p->s[p->n++] = (setun_step){ sizeof(setun_step), op->n_in,    1,    op->n_attr, op, o,
                                 o + op->n_in,       scale_value, code, op->name };
}

static setun_program *make(const rig *r, const steps *p)
{
    setun_program *program = NULL;
    setun_error e = { 0, "" };
    if (r->b->program_new(r->c, p->s, p->n, &program, &e) != SETUN_OK)
        fail_msg("%s", e.text);
    return program;
}

/* ---------------------------------------------------------------- tests */

typedef struct fixture {
    st_plugins *p;
    st_str      log;
    st_log      sink;
} fixture;

static void collect(void *user, int level, const char *text)
{
    (void)level;
    st_str_addf(user, "%s\n", text);
}

static int setup(void **state)
{
    static fixture f;
    setun_error e = { 0, "" };
    memset(&f, 0, sizeof f);
    f.sink = (st_log){ collect, &f.log, ST_LOG_INFO };
    *state = &f;
    return st_plugins_new(&f.p, &f.sink, &e) ||
           st_plugins_load(f.p, SETUN_BINARY_DIR "/lib/setun/backend_reference.so", &e) ||
           st_plugins_load(f.p, SETUN_BINARY_DIR "/lib/setun/backend_cpu.so", &e) ||
           st_plugins_load(f.p, SETUN_BINARY_DIR "/plugins/sample_backend.so", &e);
}

static int teardown(void **state)
{
    fixture *f = *state;
    st_plugins_free(f->p);
    st_str_free(&f->log);
    return 0;
}

/* Each test runs for the reference first, then for these. */
static const struct { const char *name; int32_t threads; } others[] = {
    { "cpu", 1 }, { "cpu", 2 }, { "cpu", 3 }, { "trace", 1 },
};
#define N_OTHERS (sizeof others / sizeof *others)

static const int64_t row_counts[] = { 1, 1, 0, 3, 129, 2, 1, 16 };

/* Runs the program for each count of rows and leaves memory as it is after the last. */
static void run_all(rig *r, const steps *p)
{
    setun_program *program = make(r, p);
    setun_error e = { 0, "" };
    for (size_t i = 0; i < sizeof row_counts / sizeof *row_counts; i++)
        if (r->b->program_run(program, (int64_t[]){ row_counts[i], 1 }, 2, &e) != SETUN_OK)
            fail_msg("%s", e.text);
    r->b->program_free(program);
}

static void fixed_program(steps *p, const rig *r)
{
    int64_t a = PLACE(0), b = PLACE(320), c = PLACE(640), d = PLACE(960);
    p->n = 0;
    add(p, r, &scale_op, &scale_code, a, b);
    add(p, r, &flip_op, &flip_code, a, c);   /* independent of the first */
    add(p, r, &guard_op, NULL, b, d);        /* eval */
    add(p, r, &flip_op, &flip_code, d, b);
    add(p, r, &flip_op, NULL, b, a);         /* eval, and overwrites what was read */
    add(p, r, &sum_op, &sum_code, c, d);
    add(p, r, &scale_op, NULL, a, c);
}

static void test_same_results(void **state)
{
    fixture *f = *state;
    rig ref, r;
    steps p;
    rig_open(&ref, st_plugins_backend(f->p, "reference"), 1);
    fixed_program(&p, &ref);
    run_all(&ref, &p);
    for (size_t k = 0; k < N_OTHERS; k++) {
        rig_open(&r, st_plugins_backend(f->p, others[k].name), others[k].threads);
        fixed_program(&p, &r);
        run_all(&r, &p);
        assert_memory_equal(r.data, ref.data, FLOATS * sizeof(float));
        rig_close(&r);
    }
    rig_close(&ref);
    /* The slow operators were named, each once per context; the trace has its lines. */
    assert_non_null(strstr(f->log.text, "cpu: guard has no kernel"));
    assert_non_null(strstr(f->log.text, "cpu: flip has no kernel"));
    assert_null(strstr(f->log.text, "cpu: sum has no kernel"));
    assert_non_null(strstr(f->log.text, "trace: step 2 guard: x 129x37 y 129x37, "));
}

/* Random chains over places that overlap in part: any missing barrier shows as a wrong number, or
 * as a race under a thread sanitizer. */
static void random_program(steps *p, const rig *r, uint64_t seed)
{
    p->n = 0;
    while (p->n < 60) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        int64_t span = (int64_t)MOST_ROWS * COLS * 4;
        int64_t from = (int64_t)(seed >> 33) % 24 * 40, to = (int64_t)(seed >> 43) % 24 * 40;
        if (PLACE(from) < PLACE(to) + span && PLACE(to) < PLACE(from) + span)
            continue; /* within a step, input and output are apart */
        const setun_op *op = seed >> 60 & 1 ? &scale_op : &flip_op;
        const setun_code *code = op == &scale_op ? &scale_code : &flip_code;
        add(p, r, op, (seed >> 53) % 8 ? code : NULL, PLACE(from), PLACE(to));
    }
}

static void test_random_programs(void **state)
{
    fixture *f = *state;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        rig ref, r;
        steps p;
        rig_open(&ref, st_plugins_backend(f->p, "reference"), 1);
        random_program(&p, &ref, seed);
        run_all(&ref, &p);
        for (int32_t threads = 1; threads <= 3; threads++) {
            rig_open(&r, st_plugins_backend(f->p, "cpu"), threads);
            random_program(&p, &r, seed);
            run_all(&r, &p);
            assert_memory_equal(r.data, ref.data, FLOATS * sizeof(float));
            rig_close(&r);
        }
        rig_close(&ref);
    }
}

static void test_failure(void **state)
{
    fixture *f = *state;
    for (size_t k = 0; k < 2 * N_OTHERS + 1; k++) {
        int is_timed = k % 2;
        int64_t ns[6] = { 0 };
        const char *name = k < 2 * N_OTHERS ? others[k / 2].name : "reference";
        setun_error e = { 0, "" };
        rig r;
        steps p = { .n = 0 };
        rig_open(&r, st_plugins_backend(f->p, name), k < 2 * N_OTHERS ? others[k / 2].threads : 1);
        add(&p, &r, &scale_op, &scale_code, PLACE(0), PLACE(320));
        add(&p, &r, &guard_op, NULL, PLACE(320), PLACE(640)); /* passes */
        add(&p, &r, &guard_op, NULL, PLACE(0), PLACE(640));   /* fails for large x */
        p.s[2].label = "blk.7.ffn guard";
        add(&p, &r, &flip_op, &flip_code, PLACE(320),
            PLACE(960)); /* independent, yet must not run */
        add(&p, &r, &guard_op, NULL, PLACE(320), PLACE(640));
        setun_program *program = make(&r, &p);
        if (is_timed)
            r.b->program_times(program, ns);
        float good = r.data[5], probe = r.data[960 * 16 + 3];
        for (int round = 0; round < 30; round++) {
            r.data[5] = round % 2 ? good : 1e6f;
            r.data[320 * 16 + 5] = 0;
            setun_status s = r.b->program_run(program, (int64_t[]){ 1, 1 }, 2, &e);
            if (round % 2) {
                assert_int_equal(s, SETUN_OK);
                assert_true(r.data[960 * 16 + 3] == r.data[320 * 16 + COLS - 4] * 0.5f + 1.0f);
                r.data[960 * 16 + 3] = probe;
            } else {
                /* 1e6 * 0.55 is above 1000 after scaling, too: the first guard is the one to fail.
                 */
                assert_int_equal(s, SETUN_BAD_ARG);
                assert_string_equal(e.text, "guard: element 5 is 550000");
                assert_true(r.data[960 * 16 + 3] == probe);
            }
        }
        r.data[5] = 1500; /* 1500 * 0.55 + 0.25 passes the first guard, not the second */
        assert_int_equal(r.b->program_run(program, (int64_t[]){ 1, 1 }, 2, &e), SETUN_BAD_ARG);
        assert_string_equal(e.text, "blk.7.ffn guard: element 5 is 1500");
        assert_int_equal(e.code, SETUN_BAD_ARG);
        assert_true(r.data[960 * 16 + 3] == probe);
        if (is_timed) {
            for (int i = 0; i < 5; i++)
                assert_true(ns[i] > 0);
            assert_int_equal(ns[5], 0);
        }
        r.b->program_free(program);
        rig_close(&r);
    }
}

/* Steps of a later host: longer, with the known part first. */
static void test_longer_steps(void **state)
{
    fixture *f = *state;
    static const char *const names[] = { "reference", "cpu", "trace" };
    for (size_t k = 0; k < 3; k++) {
        struct longer { setun_step now; int64_t later[2]; } s[2];
        setun_program *program = NULL;
        setun_error e = { 0, "" };
        rig r;
        steps p = { .n = 0 };
        rig_open(&r, st_plugins_backend(f->p, names[k]), 2);
        add(&p, &r, &flip_op, &flip_code, PLACE(0), PLACE(320));
        add(&p, &r, &flip_op, &flip_code, PLACE(320), PLACE(640));
        memset(s, 0xee, sizeof s);
        for (int i = 0; i < 2; i++) {
            s[i].now = p.s[i];
            s[i].now.size = sizeof s[i];
        }
        assert_int_equal(r.b->program_new(r.c, &s[0].now, 2, &program, &e), SETUN_OK);
        assert_int_equal(r.b->program_run(program, (int64_t[]){ 2, 1 }, 2, &e), SETUN_OK);
        assert_true(r.data[640 * 16 + 9] == (r.data[9] * 0.5f + 1.0f) * 0.5f + 1.0f);
        r.b->program_free(program);
        rig_close(&r);
    }
}

static void refused(const rig *r, const setun_step *s, const char *part)
{
    setun_program *program = NULL;
    setun_error e = { 0, "" };
    setun_status status = r->b->program_new(r->c, s, 1, &program, &e);
    if (status >= 0 || program || !strstr(e.text, part))
        fail_msg("%d \"%s\", wanted \"%s\"", (int)status, e.text, part);
}

static void test_refusals(void **state)
{
    fixture *f = *state;
    static const char *const names[] = { "reference", "cpu" };
    for (size_t k = 0; k < 2; k++) {
        rig r;
        steps p;
        setun_error e = { 0, "" };
        setun_code code;
        rig_open(&r, st_plugins_backend(f->p, names[k]), 2);
#define FRESH() (memset(&p, 0, sizeof p), add(&p, &r, &scale_op, &scale_code, PLACE(0), PLACE(320)))
        FRESH();
        p.s[0].n_in = 1;
        refused(&r, p.s, "scale: 1 inputs, 1 outputs and 1 attributes do not match the operator");
        FRESH();
        p.s[0].size = 24;
        refused(&r, p.s, "step 0 says it has 24 bytes");
        FRESH();
        p.o[0][0].offset = FLOATS * 4 + 64;
        refused(&r, p.s, "input 0 has no buffer, or an offset outside it");
        FRESH();
        p.o[0][0].buffer = NULL;
        refused(&r, p.s, "input 0 has no buffer");
        FRESH();
        p.o[0][0].offset = 2;
        refused(&r, p.s, "input 0 is not aligned");
        FRESH();
        p.o[0][0].shape.dtype = 99;
        refused(&r, p.s, "element type 99");
        FRESH();
        p.o[0][0].shape.rank = 9;
        refused(&r, p.s, "rank 9");
        FRESH();
        p.o[0][0].shape.dim[0] = -17;
        refused(&r, p.s, "symbolic size -17");
        FRESH();
        p.o[0][0].shape.dim[1] = -1;
        refused(&r, p.s, "only the first may be symbolic");
        if (k == 1) {
            FRESH();
            code = scale_code;
            p.s[0].code = &code;
            code.launch_abi = 2;
            refused(&r, p.s, "launch ABI 2");
            code = scale_code;
            code.fn = NULL;
            refused(&r, p.s, "incomplete");
            code = scale_code;
            code.grid.granule[1] = 0;
            refused(&r, p.s, "grid has dimension 1 of argument 2 by 0");
            code = scale_code;
            code.grid.at[0].arg = 3;
            refused(&r, p.s, "grid has dimension 0 of argument 3");
            code = scale_code;
            code.n_slot = 1;
            code.slot = &(const setun_slot){ 1, 1 };
            refused(&r, p.s, "asks for dimension 1 of argument 1");
            code = scale_code;
            code.scratch_bytes = -1;
            refused(&r, p.s, "wants -1 bytes of scratch");
        }
        /* What can only be seen when sizes are known. */
        FRESH();
        setun_program *program = make(&r, &p);
        assert_int_equal(r.b->program_run(program, (int64_t[]){ 1 }, 0, &e), SETUN_BAD_ARG);
        assert_non_null(strstr(e.text, "1 symbolic sizes, 0 were given"));
        assert_int_equal(r.b->program_run(program, (int64_t[]){ -4 }, 1, &e), SETUN_BAD_ARG);
        assert_int_equal(r.b->program_run(program, (int64_t[]){ 600 }, 1, &e), SETUN_BAD_ARG);
        assert_non_null(strstr(e.text, "scale: output 0 with 600 rows does not fit"));
        assert_int_equal(r.b->program_run(program, (int64_t[]){ INT64_MAX }, 1, &e), SETUN_BAD_ARG);
        assert_int_equal(r.b->program_run(program, (int64_t[]){ 4 }, 1, &e),
                         SETUN_OK); /* still usable */
        r.b->program_free(program);
        /* A program of nothing. */
        program = NULL;
        assert_int_equal(r.b->program_new(r.c, NULL, 0, &program, &e), SETUN_OK);
        assert_int_equal(r.b->program_run(program, NULL, 0, &e), SETUN_OK);
        r.b->program_free(program);
        r.b->program_free(NULL);
        rig_close(&r);
    }
}

static void test_buffers(void **state)
{
    fixture *f = *state;
    static const char *const names[] = { "reference", "cpu", "trace" };
    for (size_t k = 0; k < 3; k++) {
        static const int64_t sizes[] = { 0, 1, 129, 4095, 5 << 20 };
        rig r;
        setun_error e = { 0, "" };
        rig_open(&r, st_plugins_backend(f->p, names[k]), 1);
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            setun_buffer *b = NULL;
            char in[3] = { 1, 2, 3 }, out[3] = { 9, 9, 9 };
            assert_int_equal(r.b->buffer_new(r.c, sizes[i], &b, &e), SETUN_OK);
            const char *data = r.b->buffer_map(b);
            assert_int_equal((uintptr_t)data % 64, 0);
            for (int64_t j = 0; j < sizes[i]; j++)
                if (data[j])
                    fail_msg("byte %lld is not zero", (long long)j);
            assert_int_equal(r.b->buffer_write(b, sizes[i] - 3, in, 3, &e),
                             sizes[i] >= 3 ? SETUN_OK : SETUN_BAD_ARG);
            assert_int_equal(r.b->buffer_read(b, sizes[i] - 3, out, 3, &e),
                             sizes[i] >= 3 ? SETUN_OK : SETUN_BAD_ARG);
            if (sizes[i] >= 3)
                assert_memory_equal(in, out, 3);
            assert_int_equal(r.b->buffer_write(b, sizes[i] - 2, in, 3, &e), SETUN_BAD_ARG);
            assert_int_equal(r.b->buffer_read(b, sizes[i], out, 1, &e), SETUN_BAD_ARG);
            assert_int_equal(r.b->buffer_read(b, 0, out, -1, &e), SETUN_BAD_ARG);
            assert_int_equal(r.b->buffer_read(b, INT64_MAX, out, INT64_MAX, &e), SETUN_BAD_ARG);
            r.b->buffer_free(b);
        }
        setun_buffer *none = NULL;
        assert_int_equal(r.b->buffer_new(r.c, -1, &none, &e), SETUN_BAD_ARG);
        assert_null(none);
        float w = 0;
        assert_int_equal(r.b->buffer_write(r.weights, 0, &w, 4, &e), SETUN_BAD_ARG);
        assert_int_equal(r.b->buffer_read(r.weights, 4, &w, 4, &e), SETUN_OK);
        assert_true(w == weights[1]);
        r.b->buffer_free(NULL);
        rig_close(&r);
    }
}

/* Memory that two backends share: wrapped by one, an output of its steps. */
static void test_shared_memory(void **state)
{
    fixture *f = *state;
    static const char *const names[] = { "reference", "cpu", "trace" };
    for (size_t k = 0; k < 3; k++) {
        rig r, owner;
        steps p = { .n = 0 };
        setun_error e = { 0, "" };
        setun_buffer *shared = NULL;
        rig_open(&r, st_plugins_backend(f->p, names[k]), 2);
        rig_open(&owner, st_plugins_backend(f->p, "cpu"), 1);
        assert_int_equal(r.b->buffer_wrap(r.c, owner.data, FLOATS * 4, &shared, &e), SETUN_OK);
        add(&p, &r, &flip_op, &flip_code, PLACE(0), PLACE(320));
        p.o[0][1].buffer = shared;
        setun_program *program = make(&r, &p);
        assert_int_equal(r.b->program_run(program, (int64_t[]){ 3, 1 }, 2, &e), SETUN_OK);
        for (int i = 0; i < 3 * COLS; i++)
            assert_true(owner.data[320 * 16 + i] == r.data[3 * COLS - 1 - i] * 0.5f + 1.0f);
        r.b->program_free(program);
        r.b->buffer_free(shared);
        rig_close(&owner);
        rig_close(&r);
    }
}

static void test_supports(void **state)
{
    fixture *f = *state;
    const st_plugin_info *cpu = st_plugins_backend(f->p, "cpu"),
                         *ref = st_plugins_backend(f->p, "reference");
    double fast = 0, slow = 0, judge = 0;
    rig r;
    steps p = { .n = 0 };
    rig_open(&r, cpu, 1);
    add(&p, &r, &scale_op, &scale_code, PLACE(0), PLACE(320));
    for (int i = 0; i < 3; i++)
        p.o[0][i].buffer = NULL; /* not known yet when costs are asked for */
    assert_int_equal(cpu->backend->supports(cpu->self, p.s, &fast), SETUN_OK);
    p.s[0].code = NULL;
    assert_int_equal(cpu->backend->supports(cpu->self, p.s, &slow), SETUN_OK);
    assert_int_equal(ref->backend->supports(ref->self, p.s, &judge), SETUN_OK);
    assert_true(fast > 0 && fast * 10 < slow && fast * 10 < judge);
    p.o[0][0].shape.dtype = 99;
    assert_int_equal(cpu->backend->supports(cpu->self, p.s, &slow), SETUN_DECLINED);
    setun_op mute = scale_op;
    mute.eval = NULL;
    p.s[0].op = &mute;
    assert_int_equal(ref->backend->supports(ref->self, p.s, &slow), SETUN_DECLINED);
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_results),  cmocka_unit_test(test_random_programs),
        cmocka_unit_test(test_failure),       cmocka_unit_test(test_longer_steps),
        cmocka_unit_test(test_refusals),      cmocka_unit_test(test_buffers),
        cmocka_unit_test(test_shared_memory), cmocka_unit_test(test_supports),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
