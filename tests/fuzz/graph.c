/* tests/fuzz/graph.c -- graphs as text: parse, check, print, simplify, plan; or, behind "case " and an
 * operator's name, the text of a test case. */
#include "tests/fuzz/fuzz.h"

#include "graph/graph.h"
#include "graph/plan.h"
#include "graph/registry.h"
#include "graph/rules.h"

static st_registry *operators(void)
{
    static st_registry *r;
    setun_error err = {0, ""};
    if (r)
        return r;
    FUZZ_CHECK(st_registry_new(&r, &err) == SETUN_OK);
    for (int i = 0; st_builtin_ops[i]; i++)
        fuzz_judge(st_registry_add(r, st_builtin_ops[i], "built-in", &err), &err, "");
    return r;
}

static void print(const st_graph *g, st_str *out)
{
    st_graph_print(g, out);
    FUZZ_CHECK(!out->failed && out->text);
}

/* What was read is whole, prints to what reads the same, and survives the stages before kernels. */
static void use(const st_graph *g, st_arena *a)
{
    static const int64_t bound[SETUN_N_SYMBOLS] = {5, 2};
    st_graph *again, *less;
    st_plan *plan;
    st_str one = {0}, two = {0};
    setun_error err = {0, ""};
    fuzz_judge(st_graph_verify(g, &err), &err, "never");
    print(g, &one);
    fuzz_judge(st_graph_parse(one.text, "printed", operators(), a, &again, &err), &err, "never");
    print(again, &two);
    FUZZ_CHECK(strcmp(one.text, two.text) == 0);
    setun_status s = st_graph_simplify(g, operators(), a, &less, &err);
    fuzz_judge(s, &err, "");
    if (s == SETUN_OK) {
        fuzz_judge(st_graph_verify(less, &err), &err, "never");
        s = st_plan_build(less, bound, 1, NULL, NULL, a, &plan, &err);
        fuzz_judge(s, &err, "");
        if (s == SETUN_OK)
            fuzz_judge(st_plan_verify(plan, &err), &err, "never");
    }
    st_str_free(&one);
    st_str_free(&two);
}

static void parse_case(char *text, st_arena *a)
{
    char *name = text + 5, *end = strchr(name, ' ');
    setun_args shape;
    int64_t size[SETUN_N_SYMBOLS];
    setun_error err = {0, ""};
    if (!end)
        return;
    *end = 0;
    const setun_op *op = st_registry_find(operators(), name);
    if (op)
        fuzz_judge(st_case_parse(op, end + 1, a, &shape, size, &err), &err, "case ");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    char *text = fuzz_text((fuzz_piece){data, n});
    st_arena *a = st_arena_new();
    st_graph *g = NULL;
    setun_error err = {0, ""};
    FUZZ_CHECK(a);
    if (text && strncmp(text, "case ", 5) == 0) {
        parse_case(text, a);
    } else if (text) {
        setun_status s = st_graph_parse(text, "test.graph", operators(), a, &g, &err);
        fuzz_judge(s, &err, "test.graph:");
        if (s == SETUN_OK)
            use(g, a);
    }
    st_arena_free(a);
    free(text);
    return 0;
}
