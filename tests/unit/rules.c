/* tests/unit/rules.c -- every row of st_rules by text and by execution; what must not be rewritten. */
#include "graph_ops.h"

#include "base/file.h"

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

static st_graph *simplify(const st_graph *g, const st_registry *r, st_arena *arena)
{
    setun_error err = {0};
    st_graph *out = NULL;
    ASSERT_OK(st_graph_simplify(g, r, arena, &out, &err));
    ASSERT_OK(st_graph_verify(out, &err));
    return out;
}

/* simplify(before) prints as after does. */
static void expect(fixture *f, const st_registry *r, const char *before, const char *after)
{
    st_graph *g = simplify(parse_text(before, f->r, f->arena), r, f->arena);
    assert_string_equal(print_text(g, f->arena), print_text(parse_text(after, f->r, f->arena), f->arena));
}

static void expect_unchanged(fixture *f, const st_registry *r, const char *text)
{
    expect(f, r, text, text);
}

static void test_rows(void **state)
{
    fixture *f = *state;
    static const int64_t sizes[][SETUN_N_SYMBOLS] = {{1, 1}, {3, 1}, {0, 1}, {7, 2}};
    int n_fusions = 0;
    for (const st_rule *rule = st_rules; rule->name; rule++) {
        st_graph *g = parse_text(rule->before, f->r, f->arena), *h = simplify(g, f->r, f->arena);
        assert_true(rule->pattern[0] != 0);
        expect(f, f->r, rule->before, rule->after);
        for (size_t i = 0; i < SETUN_LEN(sizes); i++)
            assert_true(run_graph(g, sizes[i], NULL, f->arena) == run_graph(h, sizes[i], NULL, f->arena));
        n_fusions += rule->apply != NULL;
        /* A rule whose operator is missing leaves the graph alone. */
        if (rule->apply) {
            st_registry *without = test_registry(rule->name);
            expect_unchanged(f, without, rule->before);
            st_registry_free(without);
        }
    }
    assert_int_equal(n_fusions, 3);
}

#define TOP "graph setun/1\ninput x f32[n,33]\ninput z f32[n,33]\nconst w f32[33]\nstate s f32[5,33]\n"

static void test_both_orders(void **state)
{
    fixture *f = *state;
    expect(f, f->r,
           "graph setun/1\ninput a f32[n,7]\ninput b f32[n,7]\n%r = relu2 a\n%y = mul %r b\noutput y %y\n",
           "graph setun/1\ninput a f32[n,7]\ninput b f32[n,7]\n%y = relu2_mul a b\noutput y %y\n");
    /* Two rectified factors: the first is taken. */
    expect(f, f->r,
           "graph setun/1\ninput a f32[n,7]\ninput b f32[n,7]\n%r = relu2 a\n%t = relu2 b\n%y = mul %r %t\n"
           "output y %y\n",
           "graph setun/1\ninput a f32[n,7]\ninput b f32[n,7]\n%t = relu2 b\n%y = relu2_mul a %t\noutput y %y\n");
}

static void test_other_uses(void **state)
{
    fixture *f = *state;
    expect_unchanged(f, f->r, "graph setun/1\ninput x f32[n,33]\nconst w f32[33]\n%h = rmsnorm x w\n"
                     "%q %c %u = quantize_i8 %h\n%y = relu2 %h\noutput q %q\noutput y %y\n");
    expect_unchanged(f, f->r, "graph setun/1\ninput x f32[n,33]\nconst w f32[33]\n%h = rmsnorm x w\n"
                     "%q %c %u = quantize_i8 %h\noutput q %q\noutput h %h\n");
    expect_unchanged(f, f->r, "graph setun/1\ninput x f32[n,33]\n%r = relu2 x\n%y = mul %r %r\noutput y %y\n");
    expect_unchanged(f, f->r, "graph setun/1\ninput x f32[n,33]\n%r = relu2 x\n%y = mul %r x\n"
                     "output y %y\noutput r %r\n");
    /* Two quantizations of one norm are one by then, so it has a single use. */
    expect(f, f->r,
           "graph setun/1\ninput x f32[n,33]\nconst w f32[33]\n%h = rmsnorm x w\n%q %c %u = quantize_i8 %h\n"
           "%q2 %c2 %u2 = quantize_i8 %h\noutput q %q\noutput r %q2\n",
           "graph setun/1\ninput x f32[n,33]\nconst w f32[33]\n%q %c %u = rmsnorm_i8 x w\noutput q %q\noutput r %q\n");
}

#define GATED "graph setun/1\ninput gate f32[n,33]\ninput q i8[n,128]\ninput c f32[n]\ninput u i32[n]\n" \
              "const w t2[33,7]\nconst ws f32[1]\nconst g f32[33]\n"
#define GATE_PARTS GATED "%up = ternary_matmul q c u w ws\n%r = relu2 gate\n"

/* The gate skips rows wherever the sign of a zero cannot show, and nowhere else. */
static void test_gated_matmul(void **state)
{
    fixture *f = *state;
    static const char *const after = GATED "%y = ternary_matmul_gated q c u w ws gate\n"
                                     "%q8 %c8 %u8 = rmsnorm_i8 %y g {eps=0.5}\noutput q8 %q8\noutput c8 %c8\n";
    /* From the four operators of a script, in one pass; both orders of the product. */
    expect(f, f->r, GATE_PARTS "%y = mul %r %up\n%h = rmsnorm %y g {eps=0.5}\n%q8 %c8 %u8 = quantize_i8 %h\n"
           "output q8 %q8\noutput c8 %c8\n", after);
    expect(f, f->r, GATE_PARTS "%y = mul %up %r\n%q8 %c8 %u8 = rmsnorm_i8 %y g {eps=0.5}\n"
           "output q8 %q8\noutput c8 %c8\n", after);
    /* Two readers that both lose the sign. */
    expect(f, f->r, GATE_PARTS "%y = mul %up %r\n%a %b %d = rmsnorm_i8 %y g {eps=0.5}\n%h = rmsnorm %y g {eps=0.25}\n"
           "%a2 %b2 %d2 = quantize_i8 %h\noutput a %a\noutput a2 %a2\n",
           GATED "%y = ternary_matmul_gated q c u w ws gate\n%a %b %d = rmsnorm_i8 %y g {eps=0.5}\n"
           "%a2 %b2 %d2 = rmsnorm_i8 %y g {eps=0.25}\noutput a %a\noutput a2 %a2\n");
#define UNGATED(rest) \
    expect(f, f->r, GATE_PARTS "%y = mul %r %up\n" rest, \
           GATED "%up = ternary_matmul q c u w ws\n%y = relu2_mul gate %up\n" rest)
    UNGATED("output y %y\noutput g g\n");
    UNGATED("%q8 %c8 %u8 = rmsnorm_i8 %y g {eps=0.5}\noutput q8 %q8\noutput y %y\n");
    UNGATED("%z = add %y gate\n%q8 %c8 %u8 = rmsnorm_i8 %z g {eps=0.5}\noutput q8 %q8\n");
    UNGATED("%q8 %c8 %u8 = rmsnorm_i8 %y g {eps=0.5}\n%z = add %y gate\noutput q8 %q8\noutput z %z\n");
    UNGATED("%h = rmsnorm %y g {eps=0.5}\noutput h %h\n");
    UNGATED("%h = rmsnorm %y g {eps=0.5}\n%q8 %c8 %u8 = quantize_i8 %h\noutput q8 %q8\noutput h %h\n");
    UNGATED("%q8 %c8 %u8 = quantize_i8 %y\noutput q8 %q8\noutput g g\n");
#undef UNGATED
    /* Somebody else wants what the matrix gives; then it must be computed whole. */
    expect(f, f->r, GATE_PARTS "%y = mul %r %up\n%q8 %c8 %u8 = rmsnorm_i8 %y g {eps=0.5}\n"
           "output q8 %q8\noutput up %up\n",
           GATED "%up = ternary_matmul q c u w ws\n%y = relu2_mul gate %up\n"
           "%q8 %c8 %u8 = rmsnorm_i8 %y g {eps=0.5}\noutput q8 %q8\noutput up %up\n");
    /* The rectifier on the matrix itself opens no gate. */
    expect(f, f->r, GATED "%up = ternary_matmul q c u w ws\n%r = relu2 %up\n%y = mul %r gate\n"
           "%q8 %c8 %u8 = rmsnorm_i8 %y g {eps=0.5}\noutput q8 %q8\n",
           GATED "%up = ternary_matmul q c u w ws\n%y = relu2_mul %up gate\n"
           "%q8 %c8 %u8 = rmsnorm_i8 %y g {eps=0.5}\noutput q8 %q8\n");
}

static void test_attributes(void **state)
{
    fixture *f = *state;
    expect_unchanged(f, f->r, "graph setun/1\ninput x f32[n,33]\nconst w f32[33]\n%a = rmsnorm x w {eps=0.5}\n"
                     "%b = rmsnorm x w\n%y = add %a %b\noutput y %y\n");
    expect(f, f->r,
           "graph setun/1\ninput x f32[n,33]\nconst w f32[33]\n%a = rmsnorm x w {eps=0.5}\n"
           "%b = rmsnorm x w {eps=0.5}\n%y = add %a %b\noutput y %y\n",
           "graph setun/1\ninput x f32[n,33]\nconst w f32[33]\n%a = rmsnorm x w {eps=0.5}\n"
           "%y = add %a %a\noutput y %y\n");
    expect_unchanged(f, f->r, "graph setun/1\ninput x f32[n]\nconst t f32[8,1]\ninput p i32[n]\n"
                     "%a = rope x t p {pairing=neox}\n%b = rope x t p\n%y = add %a %b\noutput y %y\n");
    expect(f, f->r, "graph setun/1\ninput x f32[n]\nconst t f32[8,1]\ninput p i32[n]\n"
                    "%a = rope x t p {pairing=neox}\n%b = rope x t p {pairing=neox}\n%y = add %a %b\noutput y %y\n",
           "graph setun/1\ninput x f32[n]\nconst t f32[8,1]\ninput p i32[n]\n"
           "%a = rope x t p {pairing=neox}\n%y = add %a %a\noutput y %y\n");
}

static const setun_op *named(const char *name)
{
    for (uint32_t i = 0; i < SETUN_LEN(test_ops); i++)
        if (strcmp(test_ops[i].name, name) == 0)
            return &test_ops[i];
    fail_msg("no %s", name);
    return NULL;
}

/* A plugin may register another operator under the fused name; it is used only if it fits. */
static void test_fused_operator_that_does_not_fit(void **state)
{
    static const char text[] = "graph setun/1\ninput x f32[n,33]\nconst w f32[33]\n%h = rmsnorm x w {eps=0.5}\n"
                               "%q %c %u = quantize_i8 %h\noutput q %q\noutput c %c\n";
    static const setun_attr required[] = {{"eps", "", SETUN_ATTR_FLOAT, 0, {.f = 1}},
                                          {"b", "", SETUN_ATTR_INT, 1, {0}}};
    static const setun_port in_place[] = {{"q", "", 1, 0}, {"scale", "", 0, 0}, {"sum", "", 0, 0}};
    static const char *const with_b[] = {"x:f32[2,7] w:f32[7] b=1", NULL}, *const with_x[] = {"x:f32[2,7]", NULL};
    fixture *f = *state;
    for (int i = 0; i < 6; i++) {
        setun_error err = {0};
        st_registry *r = test_registry("rmsnorm_i8");
        setun_op op = *named("rmsnorm_i8");
        if (i == 0) { /* eps would be lost */
            op.attr = NULL;
            op.n_attr = 0;
        } else if (i == 1) { /* b is not known */
            op.attr = required;
            op.n_attr = 2;
            op.cases = with_b;
        } else if (i == 2) { /* another number of inputs */
            op.n_in = 1;
            op.cases = with_x;
        } else if (i == 3) { /* of outputs */
            op.n_out = 1;
        } else if (i == 4) { /* another type of outputs */
            op.infer = infer_matmul;
        } else { /* an update in place */
            op.out = in_place;
        }
        ASSERT_OK(st_registry_add(r, &op, "other.so", &err));
        expect_unchanged(f, r, text);
        st_registry_free(r);
    }
    expect(f, f->r, text, "graph setun/1\ninput x f32[n,33]\nconst w f32[33]\n"
           "%q %c %u = rmsnorm_i8 x w {eps=0.5}\noutput q %q\noutput c %c\n");
}

static void test_updates_in_place(void **state)
{
    fixture *f = *state;
    /* Equal updates are two updates; an update that nobody reads still happens. */
    expect_unchanged(f, f->r, "graph setun/1\ninput x f32[n,33]\nstate s f32[5,33]\nstate t f32[5,33]\n"
                     "%a = bump x s\n%b = bump x %a\n%c = bump x t\noutput b %b\n");
    /* Both copies are needed: one of them is updated. */
    expect_unchanged(f, f->r, "graph setun/1\ninput x f32[n,33]\n%a = relu2 x\n%b = bump x %a\n%c = relu2 x\n"
                     "output b %b\noutput c %c\n");
    expect_unchanged(f, f->r, "graph setun/1\ninput x f32[n,33]\n%c = relu2 x\n%a = relu2 x\n%b = bump x %a\n"
                     "output b %b\noutput c %c\n");
    /* An update of a temporary that nobody reads is nothing. */
    expect(f, f->r, TOP "%a = relu2 x\n%b = bump x %a\n%c = relu2 z\noutput c %c\n",
           "graph setun/1\ninput x f32[n,33]\ninput z f32[n,33]\n%c = relu2 z\noutput c %c\n");
    /* The norm reads s before the update; fused with the quantization it would read it after. */
    expect_unchanged(f, f->r, "graph setun/1\ninput x f32[n,33]\nconst w f32[33]\nstate s f32[5,33]\n"
                     "%h = rmsnorm s w\n%a = bump x s\n%q %c %u = quantize_i8 %h\noutput q %q\noutput a %a\n");
    expect(f, f->r, "graph setun/1\ninput x f32[n,33]\nconst w f32[33]\nstate s f32[5,33]\n"
                    "%h = rmsnorm s w\n%q %c %u = quantize_i8 %h\n%a = bump x s\noutput q %q\noutput a %a\n",
           "graph setun/1\ninput x f32[n,33]\nconst w f32[33]\nstate s f32[5,33]\n"
           "%q %c %u = rmsnorm_i8 s w\n%a = bump x s\noutput q %q\noutput a %a\n");
    /* What is updated in place must stay a temporary. */
    expect_unchanged(f, f->r, "graph setun/1\ninput x f32[n,33]\n%t = rope_table {theta=1 dim=2}\n%b = bump x %t\n"
                     "output b %b\n");
}

static void test_sources(void **state)
{
    fixture *f = *state;
    expect(f, f->r, TOP "const v f32[1]\n%y = relu2 z\noutput y %y\n",
           "graph setun/1\ninput x f32[n,33]\ninput z f32[n,33]\n%y = relu2 z\noutput y %y\n");
    expect_unchanged(f, f->r, "graph setun/1\ninput x f32[n,33]\nconst w f32[33]\noutput w w\n");
    expect_unchanged(f, f->r, "graph setun/1\n");
}

/* Constants with data are computed with; those without are left for later. */
static void test_folding(void **state)
{
    fixture *f = *state;
    setun_error err = {0};
    float data[2][3] = {{1, -2, 3}, {10, 20, 30}};
    st_graph *g = parse_text("graph setun/1\nconst a f32[3]\nconst b f32[3]\nconst c f32[3]\n"
                             "const add.y f32[1]\nconst add.y.1 f32[1]\ninput x f32[n,3]\n"
                             "%s = add a b\n%r = relu2 %s\n%t = add %r c\n%h = rmsnorm x %r\n"
                             "output t %t\noutput h %h\noutput s %s\n", f->r, f->arena), *h;
    g->value[0].view.data = data[0];
    g->value[1].view.data = data[1];
    h = simplify(g, f->r, f->arena);
    assert_string_equal(print_text(h, f->arena),
                        "graph setun/1\nconst c f32[3]\ninput x f32[n,3]\nconst add.y.2 f32[3]\nconst relu2.y f32[3]\n"
                        "%4 = add relu2.y c\n%5 = rmsnorm x relu2.y\noutput t %4\noutput h %5\noutput s add.y.2\n");
    const float *y = h->value[3].view.data;
    assert_non_null(y);
    assert_true(y[0] == 121 && y[1] == 324 && y[2] == 1089);
    assert_int_equal((uintptr_t)y % 64, 0);
    /* What fails while loading names its line. */
    g = parse_text("graph setun/1\n%t = rope_table {theta=-1 dim=2} @\"m.lua:7\" in \"blk\"\noutput t %t\n", f->r,
                   f->arena);
    ASSERT_FAILS(st_graph_simplify(g, f->r, f->arena, &h, &err), "m.lua:7: rope_table in blk: theta is negative");
    /* A table of 512 MB is not worth keeping. */
    expect_unchanged(f, f->r, "graph setun/1\n%t = rope_table {theta=1 dim=128 positions=1048576}\noutput t %t\n");
}

static void test_random(void **state)
{
    fixture *f = *state;
    uint32_t before = 0, after = 0, fused = 0;
    for (uint64_t seed = 1; seed <= 200; seed++) {
        static const int64_t sizes[][SETUN_N_SYMBOLS] = {{3, 2}, {1, 1}, {0, 0}};
        const int64_t *size = sizes[seed % 3];
        setun_error err = {0};
        st_mark mark = st_arena_mark(f->arena);
        st_graph *g = random_graph(seed, (uint32_t)(3 + seed % 60), f->r, f->arena);
        st_graph *h = simplify(g, f->r, f->arena);
        st_plan *p;
        before += g->n_node;
        after += h->n_node;
        for (st_node_id n = 0; n < h->n_node; n++)
            fused += strcmp(h->node[n].op->name, "relu2_mul") == 0 || strcmp(h->node[n].op->name, "rmsnorm_i8") == 0;
        ASSERT_OK(st_plan_build(h, size, 1, NULL, NULL, f->arena, &p, &err));
        ASSERT_OK(st_plan_verify(p, &err));
        assert_true(run_graph(g, size, NULL, f->arena) == run_graph(h, size, p, f->arena));
        /* Once is enough. */
        assert_string_equal(print_text(h, f->arena), print_text(simplify(h, f->r, f->arena), f->arena));
        st_arena_rewind(f->arena, mark);
    }
    if (after >= before || fused < 20)
        fail_msg("%u nodes became %u, %u of them fused", before, after, fused);
}

static void test_no_memory(void **state)
{
    fixture *f = *state;
    st_graph *g = random_graph(11, 40, f->r, f->arena);
    int64_t n;
    for (n = 0;; n++) {
        setun_error err = {0};
        st_arena *arena = st_arena_new();
        st_graph *h;
        setun_status s;
        st_arena_fail_after(arena, n);
        s = st_graph_simplify(g, f->r, arena, &h, &err);
        st_arena_free(arena);
        if (s == SETUN_OK)
            break;
        if (s != SETUN_NO_MEMORY || !strstr(err.text, "out of memory"))
            fail_msg("allocation %d: %d %s", (int)n, (int)s, err.text);
    }
    assert_true(n > 10);
}

/* tests/golden/bitnet_block.graph holds a graph of the operators in ops/, what the rules make of it,
 * and its plan, one after the other.  A difference is written beside the build, to be looked at and
 * then copied. */
static void test_golden(void **state)
{
    static const char path[] = SETUN_SOURCE_DIR "/tests/golden/bitnet_block.graph";
    static const char *const names[] = {"cpu"};
    static const int64_t bound[SETUN_N_SYMBOLS] = {16, 1}, size[SETUN_N_SYMBOLS] = {5, 1};
    fixture *f = *state;
    setun_error err = {0};
    st_registry *r;
    st_str now = {0};
    char *text = NULL;
    const char *cut;
    int64_t n = 0;
    ASSERT_OK(st_registry_new(&r, &err));
    for (int i = 0; st_builtin_ops[i]; i++)
        ASSERT_OK(st_registry_add(r, st_builtin_ops[i], "built-in", &err));
    ASSERT_OK(st_file_read(path, 1 << 20, &text, &n, &err));
    cut = strstr(text, "---\n");
    assert_non_null(cut);
    st_graph *g = parse_text(st_arena_strndup(f->arena, text, (size_t)(cut - text)), r, f->arena);
    st_graph *h = simplify(g, r, f->arena);
    st_plan *p;
    ASSERT_OK(st_plan_build(h, bound, 1, NULL, NULL, f->arena, &p, &err));
    ASSERT_OK(st_plan_verify(p, &err));
    st_str_addn(&now, text, (size_t)(cut - text));
    st_str_add(&now, "---\n");
    st_graph_print(h, &now);
    st_str_add(&now, "---\n");
    st_plan_print(p, names, &now);
    assert_false(now.failed);
    if (strcmp(now.text, text) != 0) {
        st_out *o;
        ASSERT_OK(st_out_open(&o, SETUN_BINARY_DIR "/bitnet_block.graph", 0, &err));
        ASSERT_OK(st_out_write(o, now.text, (int64_t)now.len, &err));
        ASSERT_OK(st_out_commit(o, &err));
        fail_msg("%s: graph or plan changed; see %s/bitnet_block.graph", path, SETUN_BINARY_DIR);
    }
    assert_true(run_graph(g, size, NULL, f->arena) == run_graph(h, size, p, f->arena));
    st_str_free(&now);
    free(text);
    st_registry_free(r);
}

/* The rows hold for the operators in ops/ too, as far as they exist. */
static void test_rows_of_real_operators(void **state)
{
    static const int64_t size[SETUN_N_SYMBOLS] = {3, 1};
    fixture *f = *state;
    setun_error err = {0};
    st_registry *r;
    int applied = 0;
    ASSERT_OK(st_registry_new(&r, &err));
    for (int i = 0; st_builtin_ops[i]; i++)
        ASSERT_OK(st_registry_add(r, st_builtin_ops[i], "built-in", &err));
    for (const st_rule *rule = st_rules; rule->name; rule++) {
        st_graph *g = parse_text(rule->before, r, f->arena), *h = simplify(g, r, f->arena);
        if (rule->apply && !st_registry_find(r, rule->name)) {
            assert_string_equal(print_text(h, f->arena), print_text(g, f->arena));
            continue;
        }
        applied++;
        assert_string_equal(print_text(h, f->arena), print_text(parse_text(rule->after, r, f->arena), f->arena));
        assert_true(run_graph(g, size, NULL, f->arena) == run_graph(h, size, NULL, f->arena));
    }
    assert_true(applied >= 6);
    st_registry_free(r);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_rows), TEST(test_both_orders), TEST(test_other_uses), TEST(test_gated_matmul),
        TEST(test_attributes),
        TEST(test_fused_operator_that_does_not_fit),
        TEST(test_updates_in_place), TEST(test_sources), TEST(test_folding), TEST(test_random), TEST(test_no_memory),
        TEST(test_golden), TEST(test_rows_of_real_operators),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
