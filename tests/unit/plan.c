/* tests/unit/plan.c -- lives, places, backends: small plans by hand, random ones by execution. */
#include "graph_ops.h"

static const int64_t bound[SETUN_N_SYMBOLS] = {10, 2};

static const char chain[] = "graph setun/1\n"
                            "input x f32[n,16]\n"
                            "state s f32[3,16]\n"
                            "%a = relu2 x\n"
                            "%b = relu2 %a\n"
                            "%c = relu2 %b\n"
                            "%d = add %c %b\n"
                            "%s = bump %d s\n"
                            "output y %d\n"
                            "output s %s\n";

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

static st_plan *build(const st_graph *g, st_arena *arena)
{
    setun_error err = {0};
    st_plan *p = NULL;
    ASSERT_OK(st_plan_build(g, bound, 1, NULL, NULL, arena, &p, &err));
    ASSERT_OK(st_plan_verify(p, &err));
    return p;
}

static void test_chain(void **state)
{
    fixture *f = *state;
    st_graph *g = parse_text(chain, f->r, f->arena);
    st_plan *p = build(g, f->arena);
    /* Each value has 640 bytes.  a and b live together; c takes a's place; d must not take b's while
     * it is read, so three places serve four values. */
    assert_int_equal(p->n_step, 5);
    assert_int_equal(p->sum_bytes, 4 * 640);
    assert_int_equal(p->bytes, 3 * 640);
    assert_int_equal(p->place[2].offset, 0);
    assert_int_equal(p->place[3].offset, 640);
    assert_int_equal(p->place[4].offset, 0);
    assert_int_equal(p->place[5].offset, 1280);
    assert_int_equal(p->place[2].first, 0);
    assert_int_equal(p->place[2].last, 1);
    assert_int_equal(p->place[3].last, 3);
    assert_int_equal(p->place[5].last, 4);
    /* What lives in a state has no place here. */
    assert_int_equal(p->place[6].bytes, 0);
}

static void test_in_place_temp(void **state)
{
    fixture *f = *state;
    st_graph *g = parse_text("graph setun/1\ninput x f32[n,16]\n%a = relu2 x\n%b = bump x %a\n%c = relu2 x\n"
                             "%d = add %b %c\noutput y %d\n", f->r, f->arena);
    st_plan *p = build(g, f->arena);
    /* b is a's memory, so c must stay away from it until d has read it. */
    assert_int_equal(p->place[2].offset, p->place[1].offset);
    assert_int_equal(p->place[2].bytes, 640);
    assert_int_equal(p->place[1].last, 3);
    assert_int_equal(p->sum_bytes, 3 * 640);
    assert_int_equal(p->bytes, 3 * 640);
}

static void test_zero_sizes_and_empty(void **state)
{
    fixture *f = *state;
    setun_error err = {0};
    static const int64_t none[SETUN_N_SYMBOLS] = {0, 0};
    st_plan *p;
    st_graph *g = parse_text(chain, f->r, f->arena);
    ASSERT_OK(st_plan_build(g, none, 1, NULL, NULL, f->arena, &p, &err));
    ASSERT_OK(st_plan_verify(p, &err));
    assert_int_equal(p->bytes, 0);
    g = parse_text("graph setun/1\ninput x f32[n,16]\noutput y x\n", f->r, f->arena);
    p = build(g, f->arena);
    assert_int_equal(p->n_step, 0);
    assert_int_equal(p->bytes, 0);
}

static void test_verify_finds(void **state)
{
    fixture *f = *state;
    setun_error err = {0};
    st_graph *g = parse_text(chain, f->r, f->arena);
    st_plan *p = build(g, f->arena);
    st_place keep = p->place[5];
    p->place[5].offset = 640;
    ASSERT_FAILS(st_plan_verify(p, &err), "values 3 and 5 live at the same time");
    p->place[5].offset = 1281;
    ASSERT_FAILS(st_plan_verify(p, &err), "value 5 has 640 bytes at 1281");
    p->place[5].offset = 1280 + 64;
    ASSERT_FAILS(st_plan_verify(p, &err), "in a buffer of 1920");
    p->place[5] = keep;
    p->place[5].bytes = 576;
    ASSERT_FAILS(st_plan_verify(p, &err), "wants 640");
    p->place[5] = keep;
    p->place[5].last = 3;
    ASSERT_FAILS(st_plan_verify(p, &err), "value 5 is read in step 4, but lives from 3 to 3");
    p->place[5].last = 4;
    p->place[5].first = 4;
    ASSERT_FAILS(st_plan_verify(p, &err), "value 5 is written in step 3");
    p->place[5] = keep;
    p->step[1].node = 2;
    ASSERT_FAILS(st_plan_verify(p, &err), "step 1 runs node 2 out of order");
    p->step[1].node = 1;
    p->n_step = 4;
    ASSERT_FAILS(st_plan_verify(p, &err), "4 steps for 5 nodes");
    p->n_step = 5;
    ASSERT_OK(st_plan_verify(p, &err));
    g = parse_text("graph setun/1\ninput x f32[n,16]\n%a = relu2 x\n%b = relu2 x\n%c = bump x %a\noutput y %c\n"
                   "output a %b\n", f->r, f->arena);
    p = build(g, f->arena);
    p->place[3].offset += 64;
    ASSERT_FAILS(st_plan_verify(p, &err), "value 3 is not where value 1 is");
    p->place[3].offset -= 64;
    p->place[2].last = 1;
    ASSERT_FAILS(st_plan_verify(p, &err), "value 2 is given back in step 2");
}

/* Backend 0 takes everything but mul at cost 2; backend 1 takes add and bump at cost 1. */
static setun_status cost(void *user, uint32_t backend, const st_graph *g, st_node_id n, double *seconds)
{
    const char *name = g->node[n].op->name;
    (void)user;
    if (backend == 0) {
        *seconds = 2;
        return strcmp(name, "mul") == 0 ? SETUN_DECLINED : SETUN_OK;
    }
    *seconds = strcmp(name, "bump") == 0 ? 2 : 1;
    return strcmp(name, "add") == 0 || strcmp(name, "bump") == 0 ? SETUN_OK : SETUN_DECLINED;
}

static setun_status bad_cost(void *user, uint32_t backend, const st_graph *g, st_node_id n, double *seconds)
{
    (void)backend, (void)g, (void)n;
    *seconds = user ? -1 : 0;
    return user ? SETUN_OK : SETUN_IO;
}

static void test_backends(void **state)
{
    fixture *f = *state;
    setun_error err = {0};
    static const char *const names[] = {"reference", "cpu"};
    st_graph *g = parse_text(chain, f->r, f->arena);
    st_plan *p;
    st_str s = {0};
    int flag = 0;
    ASSERT_OK(st_plan_build(g, bound, 2, cost, NULL, f->arena, &p, &err));
    assert_int_equal(p->step[0].backend, 0);
    assert_int_equal(p->step[3].backend, 1); /* cheaper */
    assert_int_equal(p->step[4].backend, 0); /* equal: the first */
    st_plan_print(p, names, &s);
    assert_false(s.failed);
    assert_string_equal(s.text,
                        "plan setun/1 n=10 m=2\n"
                        " step  backend    operator               offset       bytes  until  value\n"
                        "    0  reference  relu2                       0         640      1  %2 f32[n,16]\n"
                        "    1  reference  relu2                     640         640      3  %3 f32[n,16]\n"
                        "    2  reference  relu2                       0         640      3  %4 f32[n,16]\n"
                        "    3  cpu        add                      1280         640      4  %5 f32[n,16]\n"
                        "    4  reference  bump                        -           -      -  %6 f32[3,16] in s\n"
                        "temporaries 1920 bytes, 2560 without reuse, saved 25.0 %\n");
    st_str_free(&s);
    ASSERT_FAILS(st_plan_build(g, bound, 2, bad_cost, NULL, f->arena, &p, &err), "relu2: backend 0 failed");
    ASSERT_FAILS(st_plan_build(g, bound, 2, bad_cost, &flag, f->arena, &p, &err), "not a time");
    ASSERT_FAILS(st_plan_build(g, bound, 0, cost, NULL, f->arena, &p, &err), "relu2: no backend runs it (0 asked)");
    g = parse_text("graph setun/1\ninput x f32[n,16]\n%a = mul x x @\"m.lua:3\" in \"blk.2\"\noutput y %a\n", f->r,
                   f->arena);
    ASSERT_FAILS(st_plan_build(g, bound, 2, cost, NULL, f->arena, &p, &err), "m.lua:3: mul in blk.2: no backend");
}

static void test_bounds(void **state)
{
    fixture *f = *state;
    setun_error err = {0};
    st_graph *g = parse_text(chain, f->r, f->arena);
    st_plan *p;
    static const int64_t open[SETUN_N_SYMBOLS] = {-1, 1}, huge[SETUN_N_SYMBOLS] = {INT64_MAX / 64, 1},
                         large[SETUN_N_SYMBOLS] = {(int64_t)1 << 55, 1};
    ASSERT_FAILS(st_plan_build(g, open, 1, NULL, NULL, f->arena, &p, &err), "depends on n, which has no upper bound");
    ASSERT_FAILS(st_plan_build(g, huge, 1, NULL, NULL, f->arena, &p, &err), "too large");
    ASSERT_FAILS(st_plan_build(g, large, 1, NULL, NULL, f->arena, &p, &err), "too large");
}

/* The plan changes where results lie, never what they are; for any size below the bound. */
static void test_random_runs(void **state)
{
    fixture *f = *state;
    int64_t saved = 0;
    for (uint64_t seed = 1; seed <= 150; seed++) {
        st_mark mark = st_arena_mark(f->arena);
        st_graph *g = random_graph(seed, (uint32_t)(3 + seed % 40), f->r, f->arena);
        st_plan *p = build(g, f->arena);
        static const int64_t sizes[][SETUN_N_SYMBOLS] = {{10, 2}, {1, 1}, {7, 0}, {0, 0}};
        const int64_t *size = sizes[seed % 4];
        assert_true(p->bytes <= p->sum_bytes);
        saved += p->sum_bytes - p->bytes;
        assert_true(run_graph(g, size, NULL, f->arena) == run_graph(g, size, p, f->arena));
        st_arena_rewind(f->arena, mark);
    }
    assert_true(saved > 100000);
}

static void test_no_memory(void **state)
{
    fixture *f = *state;
    st_graph *g = random_graph(7, 30, f->r, f->arena);
    int64_t n;
    for (n = 0;; n++) {
        setun_error err = {0};
        st_plan *p = NULL;
        st_arena *arena = st_arena_new();
        setun_status s;
        st_arena_fail_after(arena, n);
        s = st_plan_build(g, bound, 1, NULL, NULL, arena, &p, &err);
        st_arena_free(arena);
        if (s == SETUN_OK)
            break;
        assert_int_equal(s, SETUN_NO_MEMORY);
        assert_non_null(strstr(err.text, "out of memory"));
    }
    assert_int_equal(n, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_chain, setup, teardown),
        cmocka_unit_test_setup_teardown(test_in_place_temp, setup, teardown),
        cmocka_unit_test_setup_teardown(test_zero_sizes_and_empty, setup, teardown),
        cmocka_unit_test_setup_teardown(test_verify_finds, setup, teardown),
        cmocka_unit_test_setup_teardown(test_backends, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bounds, setup, teardown),
        cmocka_unit_test_setup_teardown(test_random_runs, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_memory, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
