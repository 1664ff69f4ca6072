/* tests/unit/quantizers.c -- operators that round activations, against definitions written a second time here, and what
 * setun.quantizer refuses.
 *
 * Nothing of ops/ is used for what is expected: stripes are summed by index, integers are rounded by nearbyint in double,
 * and the largest elements are found by sorting. */
#include <math.h>
#include "tests/unit/script_world.h"

static const int64_t lengths[] = { 1, 7, 31, 32, 33, 64, 127, 129, 300 };

static const setun_op *find(const char *name)
{
    for (int i = 0; st_builtin_ops[i]; i++)
        if (strcmp(st_builtin_ops[i]->name, name) == 0)
            return st_builtin_ops[i];
    fail_msg("there is no operator %s", name);
    return NULL;
}

/* Rows that a rounding sees: ordinary ones, small halves with many ties, zeros, a large outlier, what is no number. */
static void fill(float *x, int64_t n, int kind)
{
    for (int64_t i = 0; i < n; i++) {
        float v = (float)((i * 2654435761u + (int64_t)kind * 97) % 2001) / 1000.0f - 1.0f;
        x[i] = kind == 1 ? (float)(i % 9) / 2.0f - 2.0f : kind == 2 ? (i % 2 ? 0.0f : -0.0f) : v;
    }
    if (kind == 3)
        x[n / 2] = -1e30f;
    if (kind == 4)
        x[n - 1] = NAN;
    if (kind == 5)
        x[n / 3] = -INFINITY;
}

#define KINDS 6

/* 32 sums by column, halved: the contract of docs/numerics.md. */
static float mean_of(const float *x, int64_t n)
{
    float p[32];
    for (int64_t s = 0; s < 32; s++) {
        p[s] = 0;
        for (int64_t i = s; i < n; i += 32)
            p[s] += isnan(x[i]) ? 0.0f : fabsf(x[i]);
    }
    for (int64_t half = 16; half; half /= 2)
        for (int64_t s = 0; s < half; s++)
            p[s] += p[s + half];
    return p[0] / (float)n;
}

static float scale_of(const float *x, int64_t n, int bits, const char *by)
{
    float high = bits == 2 ? 1 : bits == 4 ? 7 : 127, most = 0;
    for (int64_t i = 0; i < n; i++)
        most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
    if (strcmp(by, "absmax") == 0)
        return high / (most > 1e-5f ? most : 1e-5f);
    float mean = mean_of(x, n), root = bits == 2 ? 1.0f : bits == 4 ? 2.6457513f : 11.26942767f;
    return root / (mean > 1e-5f ? mean : 1e-5f);
}

/* The products are of two floats and rounded to one before anything else, as the definition has it. */
static int round_to(float x, float scale, int bits)
{
    int low = bits == 2 ? -2 : bits == 4 ? -8 : -128;
    float v = x * scale;
    if (isnan(v))
        return 0;
    double r = nearbyint((double)v);
    return r < low ? low : r > -1 - low ? -1 - low : (int)r;
}

static void same_bits(float is, float want, const char *what, int64_t n, int kind, int64_t i)
{
    if (isnan(is) && isnan(want))
        return;
    if (memcmp(&is, &want, sizeof is))
        fail_msg("%s, %d columns, kind %d, element %d: %.9g, not %.9g", what, (int)n, kind, (int)i, (double)is, (double)want);
}

/* Two rows of n, of which the first is of the kind and the second ordinary, through op. */
static void run(const setun_op *op, const float *x, int64_t n, const setun_value *attr, setun_view *out)
{
    setun_error err = { 0 };
    setun_view in = { (void *)(uintptr_t)x, SETUN_F32, 2, { 2, n, 1, 1 } };
    setun_args a = { sizeof a, op->n_in, op->n_out, op->n_attr, op, &in, out, attr, NULL };
    if (op->infer(&a, &err) != SETUN_OK)
        fail_msg("%s", err.text);
    for (uint32_t o = 0; o < op->n_out; o++)
        assert_non_null(out[o].data = calloc(1, (size_t)setun_view_bytes(&out[o])));
    assert_int_equal(op->eval(&a, &err), SETUN_OK);
}

static void integers(void **state)
{
    static const int bits[] = { 2, 4, 8 };
    const setun_op *op = find("quantize_bits");
    (void)state;
    for (int t = 0; t < 3 * 2 * KINDS * (int)SETUN_LEN(lengths); t++) {
        int b = bits[t % 3], kind = t / 6 % KINDS;
        const char *by = t / 3 % 2 ? "absmax" : "absmean";
        int64_t n = lengths[t / 6 / KINDS];
        float x[600];
        setun_view out[3] = { { 0 } };
        setun_value attr[2] = { { .i = b }, { .s = by } };
        fill(x, n, kind);
        fill(x + n, n, 0);
        run(op, x, n, attr, out);
        assert_int_equal(out[0].dim[1], (n + 127) / 128 * 128);
        for (int r = 0; r < 2; r++) {
            float scale = scale_of(x + r * n, n, b, by);
            int32_t sum = 0;
            same_bits(((float *)out[1].data)[r], scale, by, n, kind, r);
            for (int64_t i = 0; i < out[0].dim[1]; i++) {
                int want = i < n ? round_to(x[r * n + i], scale, b) : 0, is = ((int8_t *)out[0].data)[r * out[0].dim[1] + i];
                if (is != want)
                    fail_msg("%d bits by %s, %d columns, kind %d: q[%d] is %d, not %d", b, by, (int)n, kind, (int)i, is, want);
                sum += want;
            }
            assert_int_equal(((int32_t *)out[2].data)[r], sum);
        }
        for (int o = 0; o < 3; o++)
            free(out[o].data);
    }
}

static void groups(void **state)
{
    static const int64_t sizes[] = { 0, 1, 7, 32, 100, 1000 };
    const setun_op *op = find("round_groups");
    (void)state;
    for (int t = 0; t < (int)SETUN_LEN(sizes) * 2 * KINDS * (int)SETUN_LEN(lengths); t++) {
        int64_t n = lengths[t / (12 * KINDS)], size = sizes[t % 6], g = size && size < n ? size : n;
        int kind = t / 12 % KINDS, b = t / 6 % 2 ? 8 : 4;
        const char *by = b == 8 ? "absmax" : "absmean";
        float x[600];
        setun_view out[1] = { { 0 } };
        setun_value attr[3] = { { .i = size }, { .i = b }, { .s = by } };
        fill(x, n, kind);
        fill(x + n, n, 0);
        run(op, x, n, attr, out);
        for (int64_t i = 0; i < 2 * n; i++) {
            int64_t row = i / n * n, first = row + (i - row) / g * g, end = first + g < row + n ? first + g : row + n;
            float scale = scale_of(x + first, end - first, b, by);
            same_bits(((float *)out[0].data)[i], (float)round_to(x[i], scale, b) / scale, by, n, kind, i);
        }
        free(out[0].data);
    }
}

typedef struct place {
    uint32_t magnitude;
    int64_t  column;
} place;

static int by_size(const void *a, const void *b)
{
    const place *p = a, *q = b;
    if (p->magnitude != q->magnitude)
        return p->magnitude > q->magnitude ? -1 : 1;
    return p->column < q->column ? -1 : 1;
}

static void largest(void **state)
{
    const setun_op *op = find("keep_largest");
    (void)state;
    for (int t = 0; t < 5 * KINDS * (int)SETUN_LEN(lengths); t++) {
        int64_t n = lengths[t / (5 * KINDS)], keep = (n * (t % 5) + 2) / 4 < 1 ? 1 : (n * (t % 5) + 2) / 4;
        int kind = t / 5 % KINDS;
        float x[600], want[600] = { 0 };
        place order[300];
        setun_view out[1] = { { 0 } };
        keep = keep > n ? n : keep;
        setun_value attr[1] = { { .i = keep } };
        fill(x, n, kind);
        fill(x + n, n, 1);
        run(op, x, n, attr, out);
        for (int r = 0; r < 2; r++) {
            for (int64_t i = 0; i < n; i++) {
                uint32_t u;
                memcpy(&u, &x[r * n + i], sizeof u);
                order[i] = (place){ u & 0x7fffffffu, i };
            }
            qsort(order, (size_t)n, sizeof *order, by_size);
            for (int64_t i = 0; i < keep; i++)
                if (order[i].magnitude)
                    want[r * n + order[i].column] = x[r * n + order[i].column];
        }
        for (int64_t i = 0; i < 2 * n; i++)
            same_bits(((float *)out[0].data)[i], want[i], "keep_largest", n, kind, i);
        free(out[0].data);
    }
}

/* ---------------------------------------------------------------- in Lua */

#define START "return setun.quantizer 'q' { doc = 'd', "

static void mistakes(void **state)
{
    static const char *const is[][2] = {
        { "return setun.quantizer(7)", "must be a string" },
        { "return setun.quantizer 'Big' {}", "lower case letters, digits, - . and _, and 'Big' is not" },
        { "return setun.quantizer 'q' (7)", "wants a table" },
        { START "aply = 1 }", "has no field 'aply'" },
        { START "}", "apply must be a function of g, x, value and name" },
        { START "value = 7, apply = print }", "value is a table such as" },
        { START "value = { default = 1, from = 1 }, apply = print }", "value.to must be a number" },
        { START "value = { default = 1, from = 2, to = 3, means = 'm' }, apply = print }", "value.default must be what" },
        { START "value = { default = 1.5, from = 1, to = 3, whole = true, means = 'm' }, apply = print }", "value.default must be what" },
        { START "value = { default = 1, from = 0, to = 3, means = 'm', step = 1 }, apply = print }", "has no field 'step'" },
        { START "value = { default = 1, from = 0, to = 3 }, apply = print }", "value.means" },
        { "return setun.quantizer 'q' { apply = print }", "doc" },
    };
    world *w = world_new(&small);
    (void)state;
    for (size_t i = 0; i < SETUN_LEN(is); i++)
        refuse(w, is[i][0], "t.lua:1: ", is[i][1]);
    world_free(w);
}

/* What comes from outside, and how it is called afterwards. */
static void chosen(void **state)
{
    static const struct { const char *spec, *name, *wrong; } is[] = {
        { "topk", "topk=0.5", NULL }, { "topk=0.25", "topk=0.25", NULL }, { "int8-group=0x10", "int8-group=16", NULL }, { "a4.8", "a4.8", NULL },
        { "none", "none", NULL },
        { "topk=2", NULL, "the share of a row's elements that is kept must be a number from 0.0001 to 1" },
        { "topk=half", NULL, "must be a number from 0.0001 to 1" }, { "topk=", NULL, "must be a number from" },
        { "topk=nan", NULL, "must be a number from" },
        { "int8-group=1.5", NULL, "must be a whole number from 1 to 1048576" },
        { "int4=4", NULL, "the quantizer int4 takes no value, so '=4' must go" },
        { "int5", NULL, "there is no quantizer 'int5'; there are a4.8, int4-hadamard, int4, int8-group, int8, none, topk, and FILE.lua" },
        { "../ops/row_range", NULL, "there is no quantizer '../ops/row_range'" },
        { LIB "/ops/row_range.lua", NULL, "ends with return setun.quantizer" },
        { "nowhere/x.lua", NULL, "nowhere/x.lua" },
    };
    (void)state;
    for (size_t i = 0; i < SETUN_LEN(is); i++) {
        world *w = world_new(&small);
        setun_error err = { 0 };
        setun_status s = st_script_quantizer_choose(w->s, is[i].spec, &err);
        if (is[i].wrong && (s == SETUN_OK || !strstr(err.text, is[i].wrong)))
            fail_msg("%s gives: %s", is[i].spec, s == SETUN_OK ? "no error" : err.text);
        if (is[i].name && s != SETUN_OK)
            fail_msg("%s gives: %s", is[i].spec, err.text);
        if (is[i].name)
            assert_string_equal(st_script_quantizer_chosen(w->s)->name, is[i].name);
        world_free(w);
    }
}

/* What an apply may not do, on a graph without a model. */
static void misapplied(void **state)
{
    static const char *const is[][2] = {
        { "return g:relu2(x)", "apply gives floats, and so the declaration must say floats = true" },
        { "return x, x, x", "result 1 of apply is f32[n,200], not i8[n,256]" },
        { "return x, x", "apply gave 2 results" },
        { "return g:quantize(x, 'w')", "cannot ask for itself" },
        { "return 7, 7, 7", "a result of apply is number" },
        { "error('own words')", "own words" },
    };
    (void)state;
    for (size_t i = 0; i < SETUN_LEN(is); i++) {
        world *w = world_new(&small);
        setun_error err = { 0 };
        char text[400];
        (void)snprintf(text, sizeof text, "return setun.quantizer 'q' { doc = 'd',\n apply = function(g, x) %s end }", is[i][0]);
        if (st_script_quantizer_choose(w->s, file_of(w, text, strlen(text)), &err) != SETUN_OK)
            fail_msg("%s", err.text);
        refuse(w, "local g = setun.graph()\ng:quantize(g:input('x', 'f32[n,200]'), 'w')", "t.lua:2: ", is[i][1]);
        refuse(w, "local g = setun.graph()\ng:quantize_i8(g:input('x', 'f32[n,200]'))", "t.lua:2: ", "cannot take the place of quantize_i8");
        refuse(w, "local g = setun.graph()\ng:quantize(g:input('x', 'f32[n]'), 'w')", "t.lua:2: ", "x must be f32 of rank 2");
        world_free(w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integers), cmocka_unit_test(groups), cmocka_unit_test(largest),
        cmocka_unit_test(mistakes), cmocka_unit_test(chosen), cmocka_unit_test(misapplied),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
