/* tests/unit/registry.c -- descriptors that lie are refused; cases become data that can be relied on. */
#include "graph_ops.h"

typedef struct fixture {
    st_arena    *arena;
    st_registry *r;
} fixture;

static int setup(void **state)
{
    setun_error err = {0};
    fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->arena = st_arena_new();
    ASSERT_OK(st_registry_new(&f->r, &err));
    *state = f;
    return f->arena ? 0 : -1;
}

static int teardown(void **state)
{
    fixture *f = *state;
    st_registry_free(f->r);
    st_arena_free(f->arena);
    free(f);
    return 0;
}

static void test_add_and_find(void **state)
{
    fixture *f = *state;
    setun_error err = {0};
    setun_op future[2];
    for (uint32_t i = 0; i < SETUN_LEN(test_ops); i++)
        ASSERT_OK(st_registry_add(f->r, &test_ops[i], i ? "plugin.so" : "built-in", &err));
    assert_int_equal(st_registry_count(f->r), SETUN_LEN(test_ops));
    for (uint32_t i = 0; i < SETUN_LEN(test_ops); i++) {
        assert_ptr_equal(st_registry_find(f->r, test_ops[i].name), &test_ops[i]);
        assert_ptr_equal(st_registry_at(f->r, i), &test_ops[i]);
    }
    assert_null(st_registry_find(f->r, "relu3"));
    assert_null(st_registry_at(f->r, -1));
    assert_null(st_registry_at(f->r, SETUN_LEN(test_ops)));
    assert_null(st_registry_origin(f->r, SETUN_LEN(test_ops)));
    assert_string_equal(st_registry_origin(f->r, 0), "built-in");
    assert_string_equal(st_registry_origin(f->r, 1), "plugin.so");
    ASSERT_FAILS(st_registry_add(f->r, &test_ops[0], "b.so", &err),
                 "b.so: there is an operator relu2 already, from built-in");
    /* A longer descriptor is from the future and welcome. */
    future[0] = test_ops[0];
    future[0].name = "relu2_new";
    future[0].size = sizeof future;
    ASSERT_OK(st_registry_add(f->r, future, "f.so", &err));
    st_registry_free(NULL);
}

#define REFUSED(change, part)                                              \
    do {                                                                   \
        op = test_ops[10]; /* bump: two inputs, a shared output */         \
        memcpy(in, op.in, sizeof in);                                      \
        memcpy(out, op.out, sizeof *op.out);                               \
        out[1] = out[0];                                                   \
        memcpy(attr, good, sizeof attr);                                   \
        op.in = in, op.out = out, op.attr = attr, op.n_attr = 2;           \
        op.cases = cases;                                                  \
        cases[0] = "x:f32[3] cache:f32[2] a=1";                            \
        cases[1] = NULL;                                                   \
        change;                                                            \
        ASSERT_FAILS(st_registry_add(f->r, &op, "bad.so", &err), part);    \
        assert_int_equal(st_registry_count(f->r), 0);                      \
    } while (0)

static void test_refusals(void **state)
{
    static const setun_attr good[2] = {{"a", "", SETUN_ATTR_INT, 1, {0}}, {"s", "", SETUN_ATTR_STRING, 0, {.s = "t"}}};
    static const int64_t value[1] = {1};
    static const setun_knob knob[4] = {
        {"fast", "", value, 1, 0}, {"fast", "", value, 1, 0}, {"empty", "", value, 0, 0}, {"a b", "", value, 1, 0}};
    fixture *f = *state;
    setun_error err = {0};
    setun_op op;
    setun_port in[2], out[2];
    setun_attr attr[2];
    const char *cases[2];
    ASSERT_FAILS(st_registry_add(f->r, NULL, "bad.so", &err), "bad.so: an operator is missing");
    REFUSED(op.size = 0, "bad.so: an operator's descriptor says it has 0 bytes");
    REFUSED(op.size = offsetof(setun_op, tolerance), "or more");
    REFUSED(op.size = UINT32_MAX, "4294967295 bytes");
    REFUSED(op.name = NULL, "no usable name");
    REFUSED(op.name = "", "no usable name");
    REFUSED(op.name = "Bump", "no usable name");
    REFUSED(op.name = "a b", "no usable name");
    REFUSED(op.name = "../x", "no usable name");
    REFUSED(op.name = "a234567890123456789012345678901234567890123456789012345678901234", "no usable name");
    REFUSED(op.doc = NULL, "operator bump: there is no documentation");
    REFUSED(op.infer = NULL, "required and missing: infer");
    REFUSED(op.eval = NULL, "required and missing: eval");
    REFUSED(op.cases = NULL, "required and missing: cases");
    REFUSED(cases[0] = NULL, "there is no case");
    REFUSED(op.n_in = 17, "17 inputs, 1 outputs and 2 attributes are not possible");
    REFUSED(op.n_out = 0, "0 outputs");
    REFUSED(op.n_attr = UINT32_MAX, "are not possible");
    REFUSED(op.in = NULL, "a table of ports or attributes is missing");
    REFUSED(op.out = NULL, "a table of ports or attributes is missing");
    REFUSED(op.attr = NULL, "a table of ports or attributes is missing");
    REFUSED(op.reserved = 1, "a reserved field is not zero");
    REFUSED((op.knob = knob, op.n_knob = 9), "it has 9 knobs");
    REFUSED((op.knob = knob, op.n_knob = 2), "two knobs are called fast");
    REFUSED((op.knob = knob + 2, op.n_knob = 1), "1 to 16 values are possible, or reserved is not zero, for knob empty");
    REFUSED((op.knob = knob + 3, op.n_knob = 1), "knob 0 has no usable name");
    REFUSED((op.knob = knob, op.n_knob = 1, op.reserved2 = 1), "a reserved field is not zero");
    REFUSED(op.tolerance = -1, "the tolerance");
    REFUSED(op.tolerance = __builtin_nan(""), "the tolerance");
    REFUSED(in[1].name = "x", "two ports are called x");
    REFUSED(in[1].name = NULL, "input 1 has no usable name");
    REFUSED(out[0].name = "a-b", "output 0 has no usable name");
    REFUSED(in[0].shares = 1, "shares or reserved is out of range for x");
    REFUSED(out[0].shares = 3, "shares or reserved is out of range for cache");
    REFUSED(out[0].reserved = 3, "shares or reserved is out of range for cache");
    REFUSED((out[1].name = "b", op.n_out = 2), "two outputs share one input, the second is b");
    REFUSED(attr[0].name = "", "attribute 0 has no usable name");
    REFUSED(attr[0].kind = 4, "kind or required is out of range for attribute a");
    REFUSED(attr[0].required = 2, "kind or required is out of range for attribute a");
    REFUSED(attr[1].fallback.s = NULL, "there is no default text for attribute s");
    REFUSED(attr[1].name = "a", "two attributes are called a");
    REFUSED(cases[0] = "x:f32[3]", "operator bump: case \"x:f32[3]\": input cache is not given");
    REFUSED(cases[0] = "x:f32[3] cache:f32[2]", "attribute a is not given");
    ASSERT_OK(st_registry_add(f->r, &test_ops[10], "good", &err));
}

static const setun_op *named(const char *name)
{
    for (uint32_t i = 0; i < SETUN_LEN(test_ops); i++)
        if (strcmp(test_ops[i].name, name) == 0)
            return &test_ops[i];
    fail_msg("no %s", name);
    return NULL;
}

static void test_case_errors(void **state)
{
    fixture *f = *state;
    static const struct { const char *op, *text, *part; } bad[] = {
        {"add", "", "add, case \"\": input a is not given"},
        {"add", "a:f32[2]", "input b is not given"},
        {"add", "a:f32[2] b:f32[3]", "a and b differ"},
        {"add", "a:f32[2] a:f32[2] b:f32[2]", "input a is given twice"},
        {"add", "a:f32[2] b:f32[2] c:f32[2]", "there is no input c"},
        {"add", "a:f32[n] b:f32[n]", "input a wants a type such as f32[n3,256]"},
        {"add", "a:f32[n3] b:f32[n4]", "input b wants a type such as f32[n3,256], with one size for each symbol"},
        {"add", "a:f32[2]b:f32[2]", "wants a space before b:f32[2]"},
        {"add", "a:f32[2] b", "wants name:type or name=value, found b"},
        {"add", "a:f32[2] b:f32[2] eps=1", "there is no attribute eps"},
        {"rmsnorm", "x:f32[2,3] w:f32[3] eps=", "attribute eps wants a number"},
        {"rmsnorm", "x:f32[2,3] w:f32[3] eps=1 eps=2", "attribute eps is given twice"},
        {"rmsnorm", "x:f32[2,3] w:f32[4]", "x has 3 columns, weight wants 4"},
        {"rope", "x:f32[2] table:f32[8,2] pos:i32[2] pairing=\"odd", "attribute pairing wants a word"},
        {"relu2", "x:f32[100000000000]", "x would take 400000000000 bytes"},
        {"relu2", "x:f32[n1,9223372036854775807]", "input x wants a type"},
        {"rope_table", "theta=1 dim=100000000000", "table would take"},
        {"rope_table", "dim=1", "attribute theta is not given"},
    };
    for (size_t i = 0; i < SETUN_LEN(bad); i++) {
        setun_error err = {0};
        st_case c;
        ASSERT_FAILS(st_case_make(named(bad[i].op), bad[i].text, 1, f->arena, &c, &err), bad[i].part);
    }
}

static int is_slack_intact(const setun_view *v)
{
    const unsigned char *end = (const unsigned char *)v->data + setun_view_bytes(v);
    for (int i = 0; i < ST_CASE_SLACK; i++)
        if (end[i] != 0xa5)
            return 0;
    return 1;
}

static void test_case_of_every_operator(void **state)
{
    fixture *f = *state;
    for (uint32_t i = 0; i < SETUN_LEN(test_ops); i++) {
        setun_error err = {0};
        st_case c, again, other;
        const setun_op *op = &test_ops[i];
        ASSERT_OK(st_case_make(op, op->cases[0], 1, f->arena, &c, &err));
        ASSERT_OK(st_case_make(op, op->cases[0], 1, f->arena, &again, &err));
        ASSERT_OK(st_case_make(op, op->cases[0], 2, f->arena, &other, &err));
        assert_int_equal(c.run.size, sizeof c.run);
        for (uint32_t k = 0; k < op->n_in + op->n_out; k++) {
            const setun_view *v = k < op->n_in ? &c.run.in[k] : &c.run.out[k - op->n_in];
            const setun_view *s = k < op->n_in ? &c.shape.in[k] : &c.shape.out[k - op->n_in];
            size_t bytes = (size_t)setun_view_bytes(v);
            assert_true(v->dim[0] >= 0);
            assert_true(v->dim[0] == s->dim[0] || s->dim[0] < 0);
            assert_null(s->data);
            assert_int_equal((uintptr_t)v->data % 64, 0);
            assert_true(is_slack_intact(v));
            if (k < op->n_in) {
                assert_memory_equal(v->data, again.run.in[k].data, bytes);
                if (bytes > 4)
                    assert_memory_not_equal(v->data, other.run.in[k].data, bytes);
            } else if (op->out[k - op->n_in].shares) {
                assert_ptr_equal(v->data, c.run.in[op->out[k - op->n_in].shares - 1].data);
            } else {
                for (size_t j = 0; j < bytes; j++)
                    assert_int_equal(((const char *)v->data)[j], 0);
            }
        }
        ASSERT_OK(op->eval(&c.run, &err));
        ASSERT_OK(op->eval(&again.run, &err));
        for (uint32_t k = 0; k < op->n_out; k++) {
            assert_memory_equal(c.run.out[k].data, again.run.out[k].data, (size_t)setun_view_bytes(&c.run.out[k]));
            assert_true(is_slack_intact(&c.run.out[k]));
        }
    }
}

static void test_symbols_and_attributes(void **state)
{
    fixture *f = *state;
    setun_error err = {0};
    st_case c, d;
    static const int64_t size[SETUN_N_SYMBOLS] = {0, 5}, open[SETUN_N_SYMBOLS] = {-1, -1};
    ASSERT_OK(st_case_make(named("pick"), "index:i32[m2]  x:f32[n3,7]", 1, f->arena, &c, &err));
    assert_int_equal(c.size[0], 3);
    assert_int_equal(c.size[1], 2);
    assert_int_equal(c.shape.in[0].dim[0], SETUN_DIM_TOKENS);
    assert_int_equal(c.shape.out[0].dim[0], SETUN_DIM_OUTPUTS);
    assert_int_equal(c.run.in[0].dim[0], 3);
    assert_int_equal(c.run.out[0].dim[0], 2);
    ASSERT_OK(st_case_make(named("rmsnorm"), "eps=0.25 w:f32[7] x:f32[0,7]", 1, f->arena, &c, &err));
    assert_true(c.run.attr[0].f == 0.25);
    assert_int_equal(c.size[0], 0);
    ASSERT_OK(st_case_make(named("rope"), "x:f32[2] table:f32[8,2] pos:i32[2] pairing=\"neox\"", 1,
                           f->arena, &c, &err));
    assert_string_equal(c.run.attr[0].s, "neox");
    ASSERT_OK(st_case_make(named("rope"), "x:f32[2] table:f32[8,2] pos:i32[2]", 1, f->arena, &c, &err));
    assert_string_equal(c.run.attr[0].s, "norm");
    /* From shapes that a graph has. */
    ASSERT_OK(st_case_make(named("pick"), "index:i32[m2] x:f32[n3,7]", 1, f->arena, &c, &err));
    ASSERT_OK(st_case_from_shape(&c.shape, size, 9, f->arena, &d, &err));
    assert_int_equal(d.run.in[0].dim[0], 0);
    assert_int_equal(d.run.out[0].dim[0], 5);
    assert_int_equal(d.size[1], 5);
    assert_int_equal(d.shape.in[0].dim[0], SETUN_DIM_TOKENS);
    ASSERT_FAILS(st_case_from_shape(&c.shape, open, 9, f->arena, &d, &err), "pick: dimension 0 is symbolic");
}

static void fill_sevens(const setun_args *a, uint64_t seed)
{
    for (int64_t i = 0; i < setun_count(&a->in[0]); i++)
        ((float *)a->in[0].data)[i] = (float)seed;
}

static void test_fill_callback(void **state)
{
    fixture *f = *state;
    setun_op op = test_ops[0];
    setun_error err = {0};
    st_case c;
    op.fill = fill_sevens;
    ASSERT_OK(st_case_make(&op, "x:f32[3]", 7, f->arena, &c, &err));
    assert_true(((float *)c.run.in[0].data)[2] == 7.0f);
}

static setun_view new_view(st_arena *arena, uint32_t dtype, int64_t rows, int64_t cols)
{
    setun_view v = {NULL, dtype, 2, {rows, cols, 1, 1}};
    v.data = st_arena_alloc(arena, setun_view_bytes(&v));
    assert_non_null(v.data);
    st_case_fill(&v, 3);
    return v;
}

/* The generator promises what kernels fear: zeros of both signs, denormals, large values, no NaN. */
static void test_contents(void **state)
{
    fixture *f = *state;
    int64_t n = 100 * 129;
    setun_view v = new_view(f->arena, SETUN_F32, 100, 129);
    int plus = 0, minus = 0, tiny = 0, large = 0, inside = 0;
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        uint32_t u = setun_f32_bits(((float *)v.data)[i]), a = u & 0x7fffffffu;
        assert_true(a < 0x7f800000u);
        plus += u == 0;
        minus += u == 0x80000000u;
        tiny += a != 0 && a < 0x00800000u;
        large += setun_absf(((float *)v.data)[i]) > 4.0f;
        inside += setun_absf(((float *)v.data)[i]) <= 1.0f;
        assert_true(setun_absf(((float *)v.data)[i]) <= 4096.0f);
        sum += setun_absf(((float *)v.data)[i]) <= 4.0f ? (double)((float *)v.data)[i] : 0;
    }
    assert_in_range(plus, n / 64, n / 20);
    assert_in_range(minus, n / 64, n / 20);
    assert_in_range(tiny, n / 128, n / 32);
    assert_in_range(large, n / 128, n / 32);
    assert_in_range(inside, n / 2, n * 3 / 4);
    assert_true(sum / (double)n < 0.05 && sum / (double)n > -0.05);
    for (uint32_t dtype = SETUN_F16; dtype <= SETUN_BF16; dtype++) {
        uint32_t infinity = dtype == SETUN_F16 ? 0x7c00 : 0x7f80, normal = dtype == SETUN_F16 ? 0x400 : 0x80;
        plus = minus = tiny = 0;
        v = new_view(f->arena, dtype, 100, 129);
        for (int64_t i = 0; i < n; i++) {
            uint32_t h = ((uint16_t *)v.data)[i];
            assert_true((h & 0x7fff) < infinity);
            plus += h == 0;
            minus += h == 0x8000;
            tiny += (h & 0x7fff) && (h & 0x7fff) < normal;
        }
        assert_true(plus > 10 && minus > 10 && tiny > 10);
    }
    v = new_view(f->arena, SETUN_I8, 100, 129);
    for (int64_t i = plus = minus = 0; i < n; i++) {
        int8_t x = ((int8_t *)v.data)[i];
        assert_true(x != -128);
        plus += x == 127;
        minus += x == -127;
    }
    assert_true(plus && minus);
    v = new_view(f->arena, SETUN_I32, 10, 129);
    for (int64_t i = 0; i < 1290; i++)
        assert_in_range(((int32_t *)v.data)[i], 0, 7);
    v = new_view(f->arena, SETUN_I64, 10, 129);
    for (int64_t i = 0; i < 1290; i++)
        assert_in_range(((int64_t *)v.data)[i], 0, 7);
    v = new_view(f->arena, SETUN_U8, 10, 129);
    for (int64_t i = 0; i < 1290; i++)
        assert_in_range(((uint8_t *)v.data)[i], 0, 15);
    v = new_view(f->arena, SETUN_I16, 10, 129);
    for (int64_t i = 0; i < 1290; i++)
        assert_in_range(((int16_t *)v.data)[i] + 15, 0, 30);
}

static void test_ternary_contents(void **state)
{
    fixture *f = *state;
    static const int64_t cols[] = {0, 1, 7, 32, 33, 127, 128, 129, 300};
    for (size_t c = 0; c < SETUN_LEN(cols); c++) {
        setun_view v = new_view(f->arena, SETUN_T2, 20, cols[c]);
        int64_t row_bytes = setun_row_bytes(SETUN_T2, cols[c]), count[4] = {0};
        for (int64_t r = 0; r < 20; r++)
            for (int64_t k = 0; k < row_bytes * 4; k++) {
                uint32_t byte = ((uint8_t *)v.data)[r * row_bytes + k / 128 * 32 + k % 32];
                uint32_t code = byte >> (k % 128 / 32 * 2) & 3;
                assert_true(code < 3);
                if (k >= cols[c])
                    assert_int_equal(code, 1);
                else
                    count[code]++;
            }
        if (cols[c] > 100)
            for (int i = 0; i < 3; i++)
                assert_in_range(count[i], 20 * cols[c] / 4, 20 * cols[c] * 5 / 12);
    }
}

static void test_no_memory(void **state)
{
    int64_t n;
    (void)state;
    for (n = 0;; n++) {
        setun_error err = {0};
        st_arena *arena = st_arena_new();
        st_case c;
        setun_status s;
        st_arena_fail_after(arena, n);
        s = st_case_make(named("rope"), "x:f32[n2] table:f32[8,2] pos:i32[n2] pairing=neox", 1, arena, &c, &err);
        st_arena_free(arena);
        if (s == SETUN_OK)
            break;
        if (s != SETUN_NO_MEMORY || !strstr(err.text, "out of memory"))
            fail_msg("allocation %d: %d %s", (int)n, (int)s, err.text);
    }
    assert_true(n > 7);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_add_and_find), TEST(test_refusals), TEST(test_case_errors), TEST(test_case_of_every_operator),
        TEST(test_symbols_and_attributes), TEST(test_fill_callback), TEST(test_contents), TEST(test_ternary_contents),
        TEST(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
