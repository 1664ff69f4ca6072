/* tests/unit/graph.c -- building, text form, inference, binding, verifying; no memory.
 *
 * Hostile text: tests/fuzz/graph.c. */
#include "graph_ops.h"

typedef struct fixture {
    st_arena    *arena;
    st_registry *r;
} fixture;

static int setup(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->arena = st_arena_new();
    f->r = test_registry(NULL);
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

static const char all[] =
    "graph setun/1\n"
    "input tokens i32[n]\n"
    "input x f32[n,33]\n"
    "const blk.0.attn_norm f32[33]\n"
    "const \"a \\\"name\\\" \\\\ \\x0a\" f32[]\n"
    "state blk.0.k f32[4,2,33]\n"
    "%5 = rmsnorm x blk.0.attn_norm {eps=0.001} @\"bitnet_b158.lua:12\" in \"blk.0\"\n"
    "%6 = rmsnorm %5 blk.0.attn_norm\n"
    "%7 %8 %9 = quantize_i8 %6 in \"blk.0\"\n"
    "const w t2[129,33]\n"
    "const \"in\" f32[1]\n"
    "%12 = ternary_matmul %7 %8 %9 w \"in\" @\"bitnet_b158.lua:13\"\n"
    "%13 = rope_table {theta=500000.5 dim=33 positions=4}\n"
    "%14 = rope %5 %13 tokens {pairing=\"neox\"}\n"
    "%15 = bump %14 blk.0.k\n"
    "output logits %12\n"
    "output blk.0/k %15\n";

static void test_round_trip(void **state)
{
    fixture *f = *state;
    st_graph *g = parse_text(all, f->r, f->arena);
    assert_string_equal(print_text(g, f->arena), all);
    assert_int_equal(st_graph_find(g, "x"), 1);
    assert_int_equal(st_graph_find(g, "a \"name\" \\ \n"), 3);
    assert_int_equal(st_graph_find(g, "nothing"), ST_NO_ID);
    assert_int_equal(st_graph_find(g, ""), ST_NO_ID);
    assert_string_equal(g->node[0].where, "bitnet_b158.lua:12");
    assert_string_equal(g->node[0].scope, "blk.0");
    assert_string_equal(g->node[1].scope, "");
    assert_int_equal(g->value[15].root, 4);
    assert_int_equal(g->value[4].latest, 15);
    assert_true(g->node[1].attr[0].f == 1e-5);
}

/* People may number as they like, comment, and leave blanks; the printer has one way. */
static void test_free_form(void **state)
{
    fixture *f = *state;
    st_graph *g = parse_text("# a comment\n\n  graph   setun/1   # version\r\n"
                             "input x f32[n,33]\n"
                             "\t%q %scale %sum=quantize_i8 x # three\n"
                             "%again = relu2 x {}\n"
                             "%t = rope_table {dim=2 theta=1}\n"
                             "output y %again", f->r, f->arena);
    assert_string_equal(print_text(g, f->arena),
                        "graph setun/1\ninput x f32[n,33]\n%1 %2 %3 = quantize_i8 x\n%4 = relu2 x\n"
                        "%5 = rope_table {theta=1 dim=2}\noutput y %4\n");
}

static void test_parse_errors(void **state)
{
    fixture *f = *state;
    static const struct { const char *text, *at, *part; } bad[] = {
        {"", "t:1:", "expected the first line \"graph setun/1\""},
        {"\n\n# x\n", "t:4:", "graph setun/1"},
        {"graph setun/2\n", "t:1:", "graph setun/1"},
        {"grape setun/1\n", "t:1:", "found grape"},
        {"graph setun/1 more\n", "t:1:", "expected the end of the line, found more"},
        {"graph setun/1\nfoo x f32[1]\n", "t:2:", "expected input, const, state, output, or %name"},
        {"graph setun/1\ninput\n", "t:2:", "expected a name, found the end of the line"},
        {"graph setun/1\ninput x\n", "t:2:", "expected a type such as"},
        {"graph setun/1\ninput x f33[1]\n", "t:2:", "expected a type such as f32[n,2560], found f33[1]"},
        {"graph setun/1\ninput x f32[1,n]\n", "t:2:", "expected a type"},
        {"graph setun/1\ninput x f32[1] y\n", "t:2:", "expected the end of the line, found y"},
        {"graph setun/1\ninput x f32[1]\nconst x f32[1]\n", "t:3:", "the name \"x\" is used twice"},
        {"graph setun/1\nconst x f32[n]\n", "t:2:", "a constant \"x\": dimension 0 is symbolic"},
        {"graph setun/1\nstate x f32[m,2]\n", "t:2:", "a state \"x\": dimension 0 is symbolic"},
        {"graph setun/1\ninput \"x\n", "t:2:", "expected a name"},
        {"graph setun/1\ninput \"x\\y\" f32[1]\n", "t:2:", "expected a name"},
        {"graph setun/1\ninput \"x\\x00\" f32[1]\n", "t:2:", "expected a name"},
        {"graph setun/1\ninput \"\" f32[1]\n", "t:2:", "an input needs a name"},
        {"graph setun/1\ninput \"\\xff\" f32[1]\n", "t:2:", "not valid UTF-8"},
        {"graph setun/1\ninput x f32[1]\n%1 = relu3 x\n", "t:3:", "there is no operator relu3"},
        {"graph setun/1\ninput x f32[1]\n%1 = relu2 y\n", "t:3:", "no value y was made before"},
        {"graph setun/1\ninput x f32[1]\n%1 = relu2 %7\n", "t:3:", "no value %7 was made before"},
        {"graph setun/1\ninput x f32[1]\n%1 = relu2 %1\n", "t:3:", "no value %1 was made before"},
        {"graph setun/1\ninput x f32[1]\n%1 = relu2\n", "t:3:", "relu2 has 1 inputs and 1 outputs, but 0 and 1"},
        {"graph setun/1\ninput x f32[1]\n%1 %2 = relu2 x\n", "t:3:", "but 1 and 2 are written"},
        {"graph setun/1\ninput x f32[1]\n%1 = relu2 x\n%1 = relu2 x\n", "t:4:", "%1 is made twice"},
        {"graph setun/1\ninput x f32[1,2]\n%1 %1 %2 = quantize_i8 x\n", "t:3:", "%1 is made twice"},
        {"graph setun/1\ninput x f32[1]\n%1 relu2 x\n", "t:3:", "or %name ... = operator, found relu2"},
        {"graph setun/1\ninput x f32[1]\n%1 = \n", "t:3:", "expected an operator"},
        {"graph setun/1\ninput x f32[1]\n% = relu2 x\n", "t:3:", "found %"},
        {"graph setun/1\n%1 = rope_table {theta=1}\n", "t:2:", "rope_table needs attribute dim"},
        {"graph setun/1\n%1 = rope_table {theta=1 dim=x}\n", "t:2:", "attribute dim wants an integer, found x}"},
        {"graph setun/1\n%1 = rope_table {theta=1 dim=1.5}\n", "t:2:", "attribute dim wants an integer"},
        {"graph setun/1\n%1 = rope_table {theta=one dim=1}\n", "t:2:", "attribute theta wants a number, found one"},
        {"graph setun/1\n%1 = rope_table {theta= dim=1}\n", "t:2:", "attribute theta wants a number"},
        {"graph setun/1\n%1 = rope_table {theta=1 theta=2}\n", "t:2:", "attribute theta is given twice"},
        {"graph setun/1\n%1 = rope_table {them=1}\n", "t:2:", "rope_table has no attribute them"},
        {"graph setun/1\n%1 = rope_table {theta=1 dim=2 positions=0}\n", "t:2:", "rope_table: 0 positions"},
        {"graph setun/1\n%1 = rope_table {theta=1 dim=2\n", "t:2:", "expected name=value or '}'"},
        {"graph setun/1\n%1 = rope_table {theta}\n", "t:2:", "expected name=value"},
        {"graph setun/1\n%1 = rope_table {theta=1 dim=-2}\n", "t:2:",
         "rope_table: infer gave a bad output table: dimension 1 is symbolic; only"},
        {"graph setun/1\ninput x f32[1]\n%1 = relu2 x @where\n", "t:3:", "a quoted place after @"},
        {"graph setun/1\ninput x f32[1]\n%1 = relu2 x in scope\n", "t:3:", "a quoted scope"},
        {"graph setun/1\ninput x f32[1]\n%1 = relu2 x in \"a\" x\n", "t:3:", "expected the end of the line"},
        {"graph setun/1\ninput x f32[1]\noutput y z\n", "t:3:", "no value z"},
        {"graph setun/1\ninput x f32[1]\noutput y x\noutput y x\n", "t:4:", "the output name \"y\" is used twice"},
        {"graph setun/1\ninput x f32[n,2560]\nconst w f32[6912]\n%1 = rmsnorm x w @\"bitnet_b158.lua:13\" in "
         "\"blk.0\"\n", "t:4:", "bitnet_b158.lua:13: rmsnorm in blk.0: x has 2560 columns, weight wants 6912"},
        {"graph setun/1\ninput x f32[2]\ninput p i32[2]\nconst t f32[8,1]\n%1 = rope x t p {pairing=odd}\n", "t:5:",
         "rope: pairing \"odd\" is unknown"},
        {"graph setun/1\ninput x f32[2]\ninput p i32[2]\nconst t f32[8,1]\n%1 = rope x t p {pairing=}\n", "t:5:",
         "attribute pairing wants a word"},
    };
    for (size_t i = 0; i < SETUN_LEN(bad); i++) {
        setun_error err = {0};
        st_graph *g = NULL;
        ASSERT_FAILS(st_graph_parse(bad[i].text, "t", f->r, f->arena, &g, &err), bad[i].part);
        if (strncmp(err.text, bad[i].at, strlen(bad[i].at)) != 0)
            fail_msg("\"%s\" does not begin with %s", err.text, bad[i].at);
        assert_null(g);
        assert_true(st_graph_parse(bad[i].text, "t", f->r, f->arena, &g, NULL) < 0);
    }
}

static void test_types_in_text(void **state)
{
    static const char *const good[] = {"f32[]", "f16[0]", "bf16[n]", "i8[m,2]", "i16[1,2,3]", "i32[n,2,3,4]",
                                       "i64[4611686018427387904]", "u8[7]", "t2[3,300]"};
    static const char *const bad[] = {"", "f32", "f32[", "f32[1", "f32[1,]", "f32[,1]", "f32[1,2,3,4,5]", "f31[1]",
                                      "f32[-1]", "f32[1,n]", "f32[k]", "f32[n1]", "f32[1 ]", "f32[9223372036854775808]",
                                      "t2[]", "f32[99999999999999999999999999]", "f32[9223372036854775807]",
                                      "f32[4294967296,4294967296]", "F32[1]", "[1]", "f32[nn]"};
    (void)state;
    for (size_t i = 0; i < SETUN_LEN(good); i++) {
        setun_view v;
        st_str s = {0};
        const char *end = st_view_parse(good[i], &v);
        if (i == 6) { /* 2^62 elements of 8 bytes are too many */
            assert_null(end);
            continue;
        }
        if (!end || *end)
            fail_msg("%s", good[i]);
        st_view_print(&v, &s);
        assert_string_equal(s.text, good[i]);
        st_str_free(&s);
    }
    for (size_t i = 0; i < SETUN_LEN(bad); i++) {
        setun_view v;
        if (st_view_parse(bad[i], &v))
            fail_msg("\"%s\" was read", bad[i]);
    }
    assert_int_equal(st_dtype_find("bf16", 4), SETUN_BF16);
    assert_int_equal(st_dtype_find("bf16", 3), 0);
    assert_null(st_dtype_name(0));
    assert_int_equal(st_dtype_find("q8", 2), SETUN_Q8);
    assert_int_equal(st_dtype_find("q6_k", 4), SETUN_Q6_K);
    assert_null(st_dtype_name(15));
}

static void test_floats_in_text(void **state)
{
    fixture *f = *state;
    static const struct { double f; const char *text; } fixed[] = {
        {1e-5, "eps=1e-05"}, {0.1, "eps=0.1"}, {500000, "eps=5e+05"}, {-0.0, "eps=-0"}, {0, "eps=0"},
        {5e-324, "eps=5e-324"}, {1.0 / 3, "eps=0.3333333333333333"}, {__builtin_inf(), "eps=inf"},
        {-__builtin_inf(), "eps=-inf"}, {123456789, "eps=123456789"}};
    uint64_t seed = 1;
    setun_value v = {0}, back;
    setun_error err = {0};
    st_str s = {0};
    for (size_t i = 0; i < SETUN_LEN(fixed); i++) {
        s.len = 0;
        v.f = fixed[i].f;
        st_attr_print(attr_eps, &v, &s);
        assert_string_equal(s.text, fixed[i].text);
        assert_non_null(st_attr_parse(attr_eps, s.text + 4, f->arena, &back, &err));
        assert_true(st_attr_same(attr_eps, &v, &back));
    }
    for (int i = 0; i < 5000; i++) {
        s.len = 0;
        v.i = (int64_t)next_random(&seed);
        if (v.f != v.f)
            continue;
        st_attr_print(attr_eps, &v, &s);
        assert_non_null(st_attr_parse(attr_eps, s.text + 4, f->arena, &back, &err));
        assert_true(v.i == back.i);
    }
    s.len = 0;
    v.f = __builtin_nan("");
    st_attr_print(attr_eps, &v, &s);
    assert_string_equal(s.text, "eps=nan");
    assert_non_null(st_attr_parse(attr_eps, "nan}", f->arena, &back, &err));
    assert_true(back.f != back.f);
    st_str_free(&s);
}

/* ---------------------------------------------------------------- the builder */

static setun_view view(uint32_t dtype, uint32_t rank, int64_t a, int64_t b)
{
    setun_view v = {NULL, dtype, rank, {a, b, 1, 1}};
    return v;
}

static void test_add_value_errors(void **state)
{
    fixture *f = *state;
    setun_error err = {0};
    setun_view ok = view(SETUN_F32, 2, 3, 4), bad;
    st_value_id id;
    st_graph *g;
    char long_name[2000];
    ASSERT_OK(st_graph_new(&g, f->arena, &err));
    memset(long_name, 'a', sizeof long_name);
    long_name[sizeof long_name - 1] = 0;
    ASSERT_OK(st_graph_add_value(g, "x", ST_INPUT, &ok, &id, &err));
    ASSERT_FAILS(st_graph_add_value(g, "", ST_INPUT, &ok, &id, &err), "an input needs a name");
    ASSERT_FAILS(st_graph_add_value(g, NULL, ST_CONST, &ok, &id, &err), "a constant needs a name");
    ASSERT_FAILS(st_graph_add_value(g, long_name, ST_STATE, &ok, &id, &err), "has 1999 bytes");
    ASSERT_FAILS(st_graph_add_value(g, "t", ST_TEMP, &ok, &id, &err), "only inputs, constants and states");
    bad = view(77, 2, 3, 4);
    ASSERT_FAILS(st_graph_add_value(g, "b", ST_INPUT, &bad, &id, &err), "an input \"b\": element type 77 is unknown");
    bad = view(SETUN_F32, 5, 3, 4);
    ASSERT_FAILS(st_graph_add_value(g, "b", ST_INPUT, &bad, &id, &err), "rank 5");
    bad = view(SETUN_F32, 2, -3, 4);
    ASSERT_FAILS(st_graph_add_value(g, "b", ST_INPUT, &bad, &id, &err), "neither a size nor a symbol");
    bad = view(SETUN_F32, 2, 4, -1);
    ASSERT_FAILS(st_graph_add_value(g, "b", ST_INPUT, &bad, &id, &err), "only the first may be");
    bad = view(SETUN_F32, 1, 4, 2);
    ASSERT_FAILS(st_graph_add_value(g, "b", ST_INPUT, &bad, &id, &err), "unused dimension 1 is 2");
    assert_int_equal(g->n_value, 1);
    ASSERT_FAILS(st_graph_add_output(g, "y", 1, &err), "there is no value 1");
    ASSERT_FAILS(st_graph_add_output(g, "", 0, &err), "an output needs a name");
}

static void test_in_place_rules(void **state)
{
    fixture *f = *state;
    static const struct { const char *lines, *part; } bad[] = {
        {"%a = bump x w\n", "input cache is updated in place, so it cannot be a constant (\"w\")"},
        {"%a = bump x x\n", "input cache is updated in place"},
        {"%a = bump x y\n", "cannot be an input (\"y\")"},
        {"%a = bump s s\n", "input cache is updated in place, but x reads the same memory"},
        {"%a = bump x s\n%b = bump x s\n", "cache reads s after bump has updated it in place; use the result"},
        {"%a = bump x s @\"m.lua:9\"\n%b = relu2 s\n", "x reads s after bump at m.lua:9 has updated it in place"},
        {"%a = relu2 x\n%b = bump x %a\n%c = relu2 %a\n", "x reads a value after bump has updated it"},
        {"%a = bump x s\noutput o s\n", "an output reads s after bump"},
    };
    for (size_t i = 0; i < SETUN_LEN(bad); i++) {
        char text[400];
        setun_error err = {0};
        st_graph *g;
        (void)snprintf(text, sizeof text, "graph setun/1\ninput x f32[4]\ninput y f32[4]\nconst w f32[4]\n"
                       "state s f32[4]\n%s", bad[i].lines);
        ASSERT_FAILS(st_graph_parse(text, "t", f->r, f->arena, &g, &err), bad[i].part);
    }
    /* An output named before the update is found by the verifier. */
    setun_error err = {0};
    st_graph *g;
    ASSERT_OK(st_graph_parse("graph setun/1\ninput x f32[4]\nstate s f32[4]\noutput o s\n%a = bump x s\n", "t", f->r,
                             f->arena, &g, &err));
    ASSERT_FAILS(st_graph_verify(g, &err), "output o is value 1, which is updated in place later");
    /* A chain of updates has one root. */
    g = parse_text("graph setun/1\ninput x f32[4]\nstate s f32[4]\n%a = bump x s\n%b = bump x %a\noutput o %b\n", f->r,
                   f->arena);
    assert_int_equal(g->value[3].root, 1);
    assert_int_equal(g->value[1].latest, 3);
}

/* An operator whose answers are chosen by its attribute. */
static setun_status infer_liar(setun_args *a, setun_error *err)
{
    setun_view *y = &a->out[0];
    *y = a->in[0];
    switch (a->attr[0].i) {
    case 0: break;
    case 1: y->dtype = 0; break;
    case 2: y->rank = 9; break;
    case 3: y->dim[1] = -1; break;
    case 4: y->dim[0] = SETUN_DIM_OUTPUTS; break;
    case 5: y->dim[0] = (int64_t)1 << 61; break;
    case 6: return SETUN_DECLINED;
    case 7: return SETUN_FAILED;
    case 8: y->dim[3] = 7; break;
    case 9: y->data = y; break;
    default: return setun_fail(err, SETUN_UNKNOWN, "no such lie");
    }
    return SETUN_OK;
}

static setun_status infer_other_size(setun_args *a, setun_error *err)
{
    (void)err;
    a->out[0] = a->in[0];
    a->out[0].dim[1] += a->attr[0].i;
    if (a->attr[0].i == 5) { /* the same memory in another shape */
        a->out[0].rank = 1;
        a->out[0].dim[0] *= a->in[0].dim[1];
        a->out[0].dim[1] = 1;
    }
    return SETUN_OK;
}

static void test_infer_is_not_believed(void **state)
{
    fixture *f = *state;
    static const setun_attr lie[] = {{"lie", "", SETUN_ATTR_INT, 1, {0}}};
    static const setun_port shared[] = {{"y", "", 1, 0}};
    static const setun_op liar = {.size = sizeof(setun_op), .name = "liar", .in = port_x, .out = port_y, .n_in = 1,
                                  .n_out = 1, .attr = lie, .n_attr = 1, .infer = infer_liar};
    static const setun_op twin = {.size = sizeof(setun_op), .name = "twin", .in = port_x, .out = shared, .n_in = 1,
                                  .n_out = 1, .attr = lie, .n_attr = 1, .infer = infer_other_size};
    static const char *const parts[] = {NULL, "liar: infer gave a bad output y: element type 0", "rank 9",
                                        "only the first may be", "output y has a symbolic size that no input has",
                                        "too large", "liar: infer declined", "liar: infer failed without a reason",
                                        "unused dimension 3 is 7", NULL, "no such lie"};
    setun_error err = {0};
    setun_view v = view(SETUN_F32, 2, SETUN_DIM_TOKENS, 4), square = view(SETUN_F32, 2, 3, 4);
    st_value_id x, s, y;
    st_graph *g;
    ASSERT_OK(st_graph_new(&g, f->arena, &err));
    ASSERT_OK(st_graph_add_value(g, "x", ST_INPUT, &v, &x, &err));
    ASSERT_OK(st_graph_add_value(g, "s", ST_STATE, &square, &s, &err));
    for (int64_t i = 0; i < (int64_t)SETUN_LEN(parts); i++) {
        setun_value a = {.i = i};
        uint32_t before = g->n_value;
        if (!parts[i]) {
            ASSERT_OK(st_graph_add_node(g, &liar, &x, &a, NULL, NULL, &y, &err));
            assert_null(g->value[y].view.data);
            continue;
        }
        ASSERT_FAILS(st_graph_add_node(g, &liar, &x, &a, "", "", &y, &err), parts[i]);
        assert_int_equal(g->n_value, before);
    }
    ASSERT_FAILS(st_graph_add_node(g, &liar, &x, NULL, "a.lua:1", "s", &y, &err),
                 "a.lua:1: liar in s: attribute lie is required");
    setun_value one = {.i = 1}, five = {.i = 5};
    ASSERT_FAILS(st_graph_add_node(g, &twin, &s, &one, "", "", &y, &err), "shares memory with input x but has another");
    ASSERT_OK(st_graph_add_node(g, &twin, &s, &five, "", "", &y, &err));
    assert_int_equal(g->value[y].root, s);
    x = 1000;
    ASSERT_FAILS(st_graph_add_node(g, &liar, &x, &one, "", "", &y, &err), "there is no value 1000");
    ASSERT_FAILS(st_graph_add_node(g, NULL, &x, &one, "", "", &y, &err), "needs an operator");
    ASSERT_OK(st_graph_verify(g, &err));
}

static void test_limits(void **state)
{
    fixture *f = *state;
    setun_error err = {0};
    setun_view v = view(SETUN_F32, 1, 4, 1);
    st_value_id id, out;
    st_graph *g;
    char name[32];
    ASSERT_OK(st_graph_new(&g, f->arena, &err));
    for (uint32_t i = 0; i < ST_MAX_VALUES; i++) {
        (void)snprintf(name, sizeof name, "value.%u", i);
        ASSERT_OK(st_graph_add_value(g, name, ST_STATE, &v, &id, &err));
    }
    ASSERT_FAILS(st_graph_add_value(g, "one more", ST_STATE, &v, &id, &err), "at most 65536 values");
    assert_int_equal(err.code, SETUN_FULL);
    ASSERT_FAILS(st_graph_add_node(g, &test_ops[0], &id, NULL, "", "", &out, &err), "at most 65536 values");
    for (uint32_t i = 0; i < ST_MAX_VALUES; i += 101) {
        (void)snprintf(name, sizeof name, "value.%u", i);
        assert_int_equal(st_graph_find(g, name), i);
    }
    for (uint32_t i = 0; i < ST_MAX_OUTPUTS; i++) {
        (void)snprintf(name, sizeof name, "o%u", i);
        ASSERT_OK(st_graph_add_output(g, name, i, &err));
    }
    ASSERT_FAILS(st_graph_add_output(g, "p", 0, &err), "at most 256 outputs");
    ASSERT_OK(st_graph_verify(g, &err));
}

static void test_bind(void **state)
{
    fixture *f = *state;
    setun_error err = {0};
    static const int64_t none[] = {-1, -1}, five[] = {5, -1}, both[] = {5, 0};
    static const char picked[] = "graph setun/1\ninput x f32[n,33]\ninput i i32[m]\n%2 = pick x i\noutput y %2\n";
    st_graph *g = parse_text(all, f->r, f->arena), *b;
    setun_args a;
    ASSERT_OK(st_graph_bind(g, none, f->arena, &b, &err));
    assert_string_equal(print_text(b, f->arena), all);
    ASSERT_OK(st_graph_bind(g, five, f->arena, &b, &err));
    ASSERT_OK(st_graph_verify(b, &err));
    assert_int_equal(b->value[7].view.dim[0], 5);
    assert_int_equal(b->value[12].view.dim[0], 5);
    assert_int_equal(b->value[12].view.dim[1], 129);
    assert_int_equal(g->value[7].view.dim[0], SETUN_DIM_TOKENS);
    ASSERT_OK(st_node_args(b, 3, f->arena, &a, &err));
    assert_int_equal(a.in[0].dim[0], 5);
    assert_int_equal(a.out[0].dim[1], 129);
    assert_ptr_equal(a.op, b->node[3].op);
    ASSERT_FAILS(st_node_args(b, 99, f->arena, &a, &err), "there is no node 99");
    g = parse_text(picked, f->r, f->arena);
    ASSERT_OK(st_graph_bind(g, five, f->arena, &b, &err));
    assert_int_equal(b->value[2].view.dim[0], SETUN_DIM_OUTPUTS);
    ASSERT_OK(st_graph_bind(g, both, f->arena, &b, &err));
    assert_int_equal(b->value[2].view.dim[0], 0);
    /* What fits for all n need not fit for one. */
    g = parse_text("graph setun/1\ninput a f32[n,2]\ninput b f32[n,2]\n%2 = add a b\n", f->r, f->arena);
    static const int64_t huge[] = {INT64_MAX / 2, -1};
    ASSERT_FAILS(st_graph_bind(g, huge, f->arena, &b, &err), "too large");
}

/* ---------------------------------------------------------------- the verifier */

#define CORRUPT(change, part)                          \
    do {                                               \
        g = parse_text(all, f->r, f->arena);           \
        change;                                        \
        ASSERT_FAILS(st_graph_verify(g, &err), part);  \
    } while (0)

static void test_verify_finds(void **state)
{
    fixture *f = *state;
    setun_error err = {0};
    st_graph *g;
    CORRUPT(g->n_node = 1000, "1000 nodes");
    CORRUPT(g->value[1].name = "", "value 1 has no name");
    CORRUPT(g->value[1].name = "w", "value 1 (w) has a name that the index does not lead to");
    CORRUPT(g->value[1].root = 0, "is not made by a node");
    CORRUPT(g->value[2].view.dim[0] = -1, "value 2 (blk.0.attn_norm) dimension 0 is symbolic");
    CORRUPT(g->value[2].view.dtype = 0, "element type 0");
    CORRUPT(g->value[6].kind = (st_value_kind)9, "is of no known kind");
    CORRUPT(g->value[6].node = 0, "value 6 comes out of order");
    CORRUPT(g->value[7].port = 1, "value 7 comes out of order");
    CORRUPT(g->value[8].port = 2, "node 2: quantize_i8 in blk.0: output scale does not lead back");
    CORRUPT(g->node[1].op = NULL, "value 6 is made by a broken node");
    CORRUPT(g->node[1].in[0] = 6, "node 1: rmsnorm: input x is value 6, which does not exist yet");
    CORRUPT(g->node[0].in[1] = 4, "node 0: bitnet_b158.lua:12: rmsnorm in blk.0: w has the wrong type");
    CORRUPT(g->node[2].out[1] = 9, "output scale is not the next value");
    CORRUPT(g->value[6].view.dim[1] = 34, "output y has not the type that infer gives");
    CORRUPT(g->value[6].root = 5, "output y shares memory, but its operator does not say so");
    CORRUPT(g->value[15].root = 15, "output cache does not share the memory of input cache");
    CORRUPT(g->value[4].kind = ST_INPUT, "input cache is updated in place, but may not be written");
    CORRUPT(g->node[6].in[0] = 4, "input cache is updated in place and also read as x");
    CORRUPT(g->value[4].latest = 4, "value 4 (blk.0.k) does not know its newest contents");
    CORRUPT(g->node[5].attr[0].s = NULL, "attribute pairing has no text");
    CORRUPT(g->n_value--, "node 6 has no outputs among the values");
    CORRUPT(g->n_node--, "value 15 comes out of order");
    CORRUPT(g->output[0].value = 99, "output logits is value 99, which does not exist");
    CORRUPT(g->output[0].value = 4, "output logits is value 4, which is updated in place later");
    CORRUPT(g->output[1].name = "logits", "the output name logits is used twice");
    CORRUPT(g->output[1].name = "", "output 1 has no name");
}

static void test_dot(void **state)
{
    fixture *f = *state;
    st_graph *g = parse_text(all, f->r, f->arena);
    st_str s = {0};
    st_graph_dot(g, &s);
    assert_false(s.failed);
    assert_true(strncmp(s.text, "digraph setun {\n", 16) == 0);
    assert_non_null(strstr(s.text, "  v1 [shape=invhouse, label=\"x\\nf32[n,33]\"];\n"));
    assert_non_null(strstr(s.text, "  v3 [shape=note, label=\"a \\\"name\\\" \\\\ \\x0a\\nf32[]\"];\n"));
    assert_non_null(strstr(s.text, "  n0 [shape=box, label=\"rmsnorm\\nblk.0\"];\n"));
    assert_non_null(strstr(s.text, "  n1 -> n2 [label=\"f32[n,33]\"];\n"));
    assert_non_null(strstr(s.text, "  n3 -> o0;\n"));
    st_str_free(&s);
}

static int count(const char *text, const char *part)
{
    int n = 0;
    for (const char *at = text; (at = strstr(at, part)); at++)
        n++;
    return n;
}

/* Names are text, whatever is in them; times are those that were given. */
static void test_html(void **state)
{
    fixture *f = *state;
    st_graph *g = parse_text(all, f->r, f->arena);
    double ns[64] = {1000, 2500};
    st_str s = {0};
    assert_in_range(g->n_node, 3, 64);
    g->node[1].scope = "<b>\x01\xff\xc2\x9b.0.q";
    g->node[1].where = "a&b\"'\xef\xbf\xbf\xe2\x82\xac";
    st_graph_html(g, "</title><script>", NULL, &s);
    assert_false(s.failed);
    assert_null(strstr(s.text, "<script>"));
    assert_int_equal(count(s.text, "&#60;/title&#62;&#60;script&#62;"), 2);
    assert_int_equal(count(s.text, "<g id=\"n"), (int)g->n_node);
    assert_non_null(strstr(s.text, "<b>&#60;b&#62;\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd.0</b>"));
    assert_non_null(strstr(s.text, "a&#38;b&#34;&#39;\xef\xbf\xbd\xe2\x82\xac</title>"));
    assert_null(strstr(s.text, " us</text>"));
    assert_int_equal(st_utf8_valid(s.text, s.len), s.len);
    st_str_free(&s);
    st_graph_html(g, "x", ns, &s);
    assert_non_null(strstr(s.text, "one token takes 3.5 us"));
    assert_non_null(strstr(s.text, "width=\"80.0\" height=\"10\"/><text x=\"1198\" y=\"16\">2.5 us</text>"));
    assert_non_null(strstr(s.text, "width=\"32.0\" height=\"10\"/><text x=\"1198\" y=\"16\">1.0 us</text>"));
    st_str_free(&s);
}

static void test_random_round_trip(void **state)
{
    fixture *f = *state;
    for (uint64_t seed = 1; seed < 60; seed++) {
        st_graph *g = random_graph(seed, 30, f->r, f->arena);
        const char *text = print_text(g, f->arena);
        assert_string_equal(print_text(parse_text(text, f->r, f->arena), f->arena), text);
    }
}

static void test_no_memory(void **state)
{
    fixture *f = *state;
    static const int64_t five[] = {5, -1};
    int64_t n;
    for (n = 0;; n++) {
        setun_error err = {0};
        st_arena *arena = st_arena_new();
        st_graph *g, *b;
        setun_args a;
        setun_status s;
        st_arena_fail_after(arena, n);
        s = st_graph_parse(all, "t", f->r, arena, &g, &err);
        if (s == SETUN_OK)
            s = st_graph_bind(g, five, arena, &b, &err);
        if (s == SETUN_OK)
            s = st_node_args(b, 0, arena, &a, &err);
        st_arena_free(arena);
        if (s == SETUN_OK)
            break;
        if (s != SETUN_NO_MEMORY || !strstr(err.text, "out of memory"))
            fail_msg("allocation %d: %d %s", (int)n, (int)s, err.text);
    }
    assert_true(n > 50);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_round_trip), TEST(test_free_form), TEST(test_parse_errors), TEST(test_types_in_text),
        TEST(test_floats_in_text), TEST(test_add_value_errors), TEST(test_in_place_rules),
        TEST(test_infer_is_not_believed), TEST(test_limits), TEST(test_bind), TEST(test_verify_finds), TEST(test_dot), TEST(test_html),
        TEST(test_random_round_trip), TEST(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
