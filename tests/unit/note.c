/* tests/unit/note.c -- what a session notes down: work at the sizes that ran, times, densities against a
 * plain count, memory whose classes add up; and that noting leaves the logits alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "runtime/session.h"

#define MODEL SETUN_SOURCE_DIR "/tests/models/shakespeare"
#define N 37
#define TERNARY 786432.0 /* bytes of the model's ternary matrices, four weights in a byte */
#define KV_ROW 2048.0    /* bytes of a position: 4 layers, keys and values, 2 heads of 64 f16 */

typedef struct given {
    setun_model   *m;
    setun_session *s;
    int32_t        ids[N];
} given;

static int setup(void **state)
{
    given *g = calloc(1, sizeof *g);
    setun_error err = {0};
    setun_options o;
    setun_options_init(&o);
    o.n_threads = 3;
    o.n_ctx = 128;
    *state = g;
    for (int i = 0; g && i < N; i++)
        g->ids[i] = (i * 131 + 5) % 1000;
    if (g && setun_model_load(&g->m, MODEL, &o, &err) == SETUN_OK && setun_session_new(&g->s, g->m, &err) == SETUN_OK)
        return 0;
    print_error("%s\n", err.text);
    return 1;
}

static int teardown(void **state)
{
    given *g = *state;
    setun_session_free(g->s);
    setun_model_free(g->m);
    free(g);
    return 0;
}

static void feed(given *g, int64_t n, int32_t want)
{
    const float *logits;
    assert_int_equal(setun_session_rewind(g->s, 0, NULL), SETUN_OK);
    assert_int_equal(setun_session_feed(g->s, g->ids, n, want, &logits, NULL), SETUN_OK);
}

static setun_work work(const given *g, int decode)
{
    setun_work w = {.size = sizeof w};
    setun_session_work(g->s, decode, &w);
    return w;
}

static void test_work(void **state)
{
    given *g = *state;
    assert_int_equal(setun_session_note(g->s, SETUN_NOTE_WORK, NULL), SETUN_OK);
    feed(g, N, SETUN_LOGITS_NONE);
    setun_work w = work(g, 0);
    assert_int_equal(w.n_token, N);
    /* Prefill reads every matrix once for all tokens.  (Operators' accounts leave a few bytes out.) */
    double ternary = w.bytes[SETUN_CLASS_TERNARY] * N;
    assert_true(ternary > 0.98 * TERNARY && ternary < 1.02 * TERNARY);
    assert_true(w.int_ops == TERNARY * 4);
    /* The cache is written once and its N rows are read once: no more, however long the context is. */
    double kv = w.bytes[SETUN_CLASS_KV] * N;
    assert_true(kv > 1.9 * KV_ROW * N && kv < 2.1 * KV_ROW * N);
    assert_int_equal(work(g, 1).n_token, 0);
    int32_t token = 7;
    const float *logits;
    assert_int_equal(setun_session_feed(g->s, &token, 1, SETUN_LOGITS_LAST, &logits, NULL), SETUN_OK);
    w = work(g, 1);
    assert_int_equal(w.n_token, 1);
    assert_true(w.bytes[SETUN_CLASS_TERNARY] <= TERNARY + 1000); /* less where gates are closed */
    assert_true(w.bytes[SETUN_CLASS_ROWS16] >= 1024 * 512);      /* the full head */
    assert_true(w.bytes[SETUN_CLASS_KV] > KV_ROW * (N + 1));
    assert_int_equal(setun_session_note(g->s, 0, NULL), SETUN_OK);
    feed(g, N, SETUN_LOGITS_NONE);
    assert_int_equal(work(g, 0).n_token, N); /* noted before, not now */
    assert_int_equal(setun_session_note(g->s, 8, NULL), SETUN_BAD_ARG);
}

static const st_node *find_node(const given *g, int which, const char *op)
{
    const st_graph *graph = g->m->program[which].graph;
    for (st_node_id i = 0; i < graph->n_node; i++)
        if (strcmp(graph->node[i].op->name, op) == 0)
            return &graph->node[i];
    fail_msg("no %s", op);
    return NULL;
}

/* Operators whose data decide say what they did. */
static void test_counted(void **state)
{
    const given *g = *state;
    const st_graph *graph = g->m->program[ST_ONE].graph;
    const st_node *n = find_node(g, ST_ONE, "ternary_matmul_gated");
    setun_view in[6], out[1] = {graph->value[n->out[0]].view};
    setun_args a = {.size = sizeof a, .n_in = 6, .n_out = 1, .op = n->op, .in = in, .out = out};
    for (int i = 0; i < 6; i++)
        in[i] = graph->value[n->in[i]].view;
    int64_t rows = in[5].dim[1], row_bytes = in[0].dim[1] / 4;
    float *gate = calloc((size_t)rows, sizeof *gate);
    setun_cost all;
    in[5].data = gate;
    n->op->cost(&a, &all);
    for (int64_t open = 0; open <= rows; open += rows / 8) {
        setun_counted c = {.size = sizeof c};
        for (int64_t i = 0; i < rows; i++)
            gate[i] = i < open ? 0.5f : i % 2 ? 0.0f : -1.0f;
        n->op->counted(&a, &c);
        int64_t listed = open * 100 <= rows * 40 ? open : 0, read = listed || !open ? open : rows;
        assert_true(c.rows == (double)listed && c.bytes == all.bytes - (double)((rows - read) * row_bytes));
        assert_true(c.int_ops == (double)(read * in[0].dim[1]));
    }
    free(gate);
    n = find_node(g, ST_MANY, "ternary_matmul_t");
    for (int i = 0; i < 5; i++)
        in[i] = g->m->program[ST_MANY].graph->value[n->in[i]].view;
    int64_t n_token = 3, wide = in[0].dim[1], channels = in[3].dim[0], columns = in[3].dim[1];
    int8_t *q = calloc((size_t)(n_token * wide), 1);
    setun_counted t = {.size = sizeof t};
    q[5] = q[wide + 5] = q[wide + 6] = -1; /* three uses of two channels; token 2 uses none */
    in[0].data = q;
    in[0].dim[0] = in[1].dim[0] = in[2].dim[0] = n_token;
    out[0].dim[0] = n_token;
    a.n_in = 5;
    a.op = n->op;
    n->op->cost(&a, &all);
    n->op->counted(&a, &t);
    assert_true(t.rows == 2 && t.int_ops == (double)(3 * columns));
    assert_true(t.bytes == all.bytes - (double)(channels - 2) * t.row_bytes);
    free(q);
    if (g->m->n_program <= ST_TOP)
        return; /* no screened head */
    graph = g->m->program[ST_TOP].graph;
    n = find_node(g, ST_TOP, "head_rescore");
    int32_t count = 17;
    setun_counted c = {.size = sizeof c};
    for (int i = 0; i < 4; i++)
        in[i] = graph->value[n->in[i]].view;
    in[3].data = &count;
    a.n_in = 4;
    a.op = n->op;
    n->op->counted(&a, &c);
    assert_true(c.rows == 17 && c.row_bytes == 2 * 256 && c.float_ops == 17 * 256 && c.bytes > 17 * 512);
}

/* Logits with notes are those without. */
static void test_bits(void **state)
{
    given *g = *state;
    uint64_t hash[3];
    for (int i = 0; i < 3; i++) {
        const float *logits;
        uint32_t what = i == 0 ? 0 : i == 1 ? SETUN_NOTE_TIME : SETUN_NOTE_WORK | SETUN_NOTE_DENSITY;
        assert_int_equal(setun_session_note(g->s, what, NULL), SETUN_OK);
        assert_int_equal(setun_session_rewind(g->s, 0, NULL), SETUN_OK);
        assert_int_equal(setun_session_feed(g->s, g->ids, N, SETUN_LOGITS_LAST, &logits, NULL), SETUN_OK);
        hash[i] = setun_hash(0, logits, setun_model_n_vocab(g->m));
    }
    assert_true(hash[0] == hash[1] && hash[0] == hash[2]);
    assert_int_equal(setun_session_note(g->s, 0, NULL), SETUN_OK);
}

static int take(void *user, const char *text, size_t n)
{
    st_str_addn(user, text, n);
    return 0;
}

static void test_roofline(void **state)
{
    given *g = *state;
    setun_error err = {0};
    setun_limits l = {.size = sizeof l, .n_threads = 3, .n_at = 1, .at = {{3, 0, 10, 100, 50, 100}}};
    st_str t = {0};
    assert_int_equal(setun_session_note(g->s, SETUN_NOTE_TIME | SETUN_NOTE_WORK, NULL), SETUN_OK);
    feed(g, N, SETUN_LOGITS_NONE);
    assert_int_equal(setun_session_roofline(g->s, 0, &l, 0, take, &t, &err), SETUN_BAD_ARG); /* counted, not timed */
    for (int i = 0; i < 4; i++)
        feed(g, N, SETUN_LOGITS_NONE);
    assert_int_equal(setun_session_note(g->s, 0, NULL), SETUN_OK);
    assert_int_equal(g->s->run[ST_MANY].n_timed, 3);
    assert_int_equal(g->s->run[ST_MANY].n_counted, 2);
    for (uint32_t i = 0; i < g->s->run[ST_MANY].n_run_step; i++) {
        assert_true(g->s->run[ST_MANY].ns[i] > 0);
        /* Two of three threads at most can wait for the third. */
        assert_true(g->s->run[ST_MANY].waits[i] >= 0 && g->s->run[ST_MANY].waits[i] <= 2 * g->s->run[ST_MANY].ns[i]);
    }
    assert_int_equal(setun_session_roofline(g->s, 0, &l, 0, take, &t, &err), SETUN_OK);
    assert_non_null(strstr(t.text, "\nternary_matmul_gated "));
    assert_non_null(strstr(t.text, "\neach at its limit "));
    st_str_free(&t);
    memset(&t, 0, sizeof t);
    assert_int_equal(setun_session_roofline(g->s, 0, NULL, 1, take, &t, &err), SETUN_OK); /* no limits: no shares */
    assert_non_null(strstr(t.text, "\"floor_us\": 0"));
    st_str_free(&t);
}

/* ---------------------------------------------------------------- densities */

/* A gate of made-up values, odd numbers of tokens: what the plain definition says. */
static void test_union(void **state)
{
    given *g = *state;
    const st_graph *graph = g->m->program[ST_MANY].graph;
    const st_node *n = find_node(g, ST_MANY, "ternary_matmul_gated");
    st_node_id node = (st_node_id)(n - graph->node);
    int64_t columns = graph->value[n->in[5]].view.dim[1];
    for (int64_t rows = 1; rows <= 21; rows += 5) {
        setun_view in[6] = {{0}};
        setun_args a = {.size = sizeof a, .n_in = 6, .n_out = 1, .op = n->op, .in = in};
        float *gate = malloc((size_t)(rows * columns) * sizeof *gate);
        double want[4] = {0, 0, 0, 0};
        for (int64_t i = 0; i < rows * columns; i++)
            gate[i] = (float)((i * 2654435761 >> 7) % 5) - 3.0f; /* one of five is above 0, some are 0 */
        for (int k = 0; k < 4; k++) {
            int64_t wide = 1 << k, groups = 0;
            for (int64_t t = 0; t + wide <= rows; t += wide) {
                groups++;
                for (int64_t c = 0; c < columns; c++) {
                    int any = 0;
                    for (int64_t j = 0; j < wide; j++)
                        any |= gate[(t + j) * columns + c] > 0;
                    want[k] += any;
                }
            }
            want[k] = groups ? want[k] / (double)(groups * columns) : -1;
        }
        in[5] = (setun_view){gate, SETUN_F32, 2, {rows, columns, 1, 1}};
        assert_int_equal(setun_session_note(g->s, SETUN_NOTE_DENSITY, NULL), SETUN_OK);
        st_density_see(g->s, ST_MANY, node, &a);
        setun_density d = {.size = sizeof d};
        setun_session_density(g->s, 0, &d);
        for (int k = 0; k < 4; k++)
            assert_true(d.gates[k] == want[k]);
        free(gate);
    }
}

/* A chunk and its tokens one by one have the same densities; single tokens have no neighbours. */
static void test_density(void **state)
{
    given *g = *state;
    setun_density chunk = {.size = sizeof chunk}, single = {.size = sizeof single};
    assert_int_equal(setun_session_note(g->s, SETUN_NOTE_DENSITY, NULL), SETUN_OK);
    feed(g, N, SETUN_LOGITS_NONE);
    setun_session_density(g->s, -1, &chunk);
    assert_int_equal(chunk.n_layer, 4);
    assert_int_equal(chunk.n_token, N);
    assert_int_equal(setun_session_note(g->s, SETUN_NOTE_DENSITY, NULL), SETUN_OK);
    assert_int_equal(setun_session_rewind(g->s, 0, NULL), SETUN_OK);
    for (int i = 0; i < N; i++)
        assert_int_equal(setun_session_feed(g->s, &g->ids[i], 1, SETUN_LOGITS_NONE, NULL, NULL), SETUN_OK);
    setun_session_density(g->s, -1, &single);
    assert_true(chunk.gates[0] == single.gates[0] && chunk.down[0] == single.down[0] && chunk.other == single.other);
    assert_true(single.gates[1] == -1 && single.down[3] == -1);
    assert_true(chunk.gates[0] > 0.1 && chunk.gates[0] < chunk.gates[1] && chunk.gates[1] < chunk.gates[2] &&
                chunk.gates[2] < chunk.gates[3] && chunk.gates[3] < 1);
    assert_true(chunk.down[0] > 0.05 && chunk.down[0] < chunk.gates[0]); /* a closed gate gives a 0 */
    assert_true(chunk.zero_gate == 0 && chunk.zero_up == 0 && chunk.dead == 0);
    assert_int_equal(setun_session_note(g->s, 0, NULL), SETUN_OK);
}

static void test_memory(void **state)
{
    given *g = *state;
    setun_memory m = {.size = sizeof m};
    setun_error err = {0};
    setun_status s = setun_session_memory(g->s, &m, &err);
    if (s == SETUN_UNKNOWN)
        skip(); /* not every system says */
    assert_int_equal(s, SETUN_OK);
    int64_t sum = 0;
    for (int c = 0; c < SETUN_N_CLASS; c++) {
        assert_non_null(setun_class_name(c));
        assert_true(m.resident[c] >= 0 && (c > SETUN_CLASS_TEMP || m.resident[c] <= m.held[c]));
        sum += m.resident[c];
    }
    assert_null(setun_class_name(SETUN_N_CLASS));
    assert_true(sum == m.resident_bytes);
    assert_true(m.held[SETUN_CLASS_TERNARY] == (int64_t)TERNARY && m.resident[SETUN_CLASS_TERNARY] > 0);
    assert_true(m.held[SETUN_CLASS_KV] == (int64_t)KV_ROW * 128);
    assert_true(m.resident[SETUN_CLASS_CODE] > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_work), cmocka_unit_test(test_counted), cmocka_unit_test(test_bits), cmocka_unit_test(test_roofline), cmocka_unit_test(test_union),
        cmocka_unit_test(test_density), cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
