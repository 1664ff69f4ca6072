/* tests/unit/reference.c -- the trained model against an independent implementation's numbers, and
 * one layer, operator by operator, against double-precision formulas written here.
 *
 * reference.json: logits in float64, a greedy continuation in float32 with the gap between the two
 * largest logits at each step, perplexity.  An int8 activation that rounds the other way moves a
 * logit by some hundredths, hence the tolerances; integer sums must be equal. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "runtime/model.h"

#define MODEL SETUN_SOURCE_DIR "/tests/models/shakespeare"
#define MIN_GAP 0.2 /* steps with a smaller one are undecidable by int8 roundings */

static setun_model *load(const char *backend, int64_t n_outputs)
{
    setun_options o;
    setun_model *m = NULL;
    setun_error err = {0};
    setun_options_init(&o);
    o.kv = "f32";
    o.n_outputs = n_outputs;
    o.backend = backend;
    if (setun_model_load(&m, MODEL, &o, &err) != SETUN_OK)
        fail_msg("%s", err.text);
    return m;
}

static int32_t *numbers(const json_t *array, size_t *n)
{
    *n = json_array_size(array);
    int32_t *v = calloc(*n + 1, sizeof *v);
    assert_non_null(v);
    for (size_t i = 0; i < *n; i++)
        v[i] = (int32_t)json_integer_value(json_array_get(array, i));
    return v;
}

static int64_t arg_max(const float *x, int64_t n)
{
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++)
        if (x[i] > x[best])
            best = i;
    return best;
}

static void check_last_logits(const float *got, const json_t *want, int64_t n)
{
    double worst = 0, square = 0, zp = 0, zq = 0, kl = 0;
    assert_int_equal(json_array_size(want), n);
    for (int64_t i = 0; i < n; i++) {
        double w = json_number_value(json_array_get(want, (size_t)i)), d = fabs((double)got[i] - w);
        worst = d > worst ? d : worst;
        square += d * d;
        zp += exp(w);
        zq += exp((double)got[i]);
    }
    for (int64_t i = 0; i < n; i++) {
        double w = json_number_value(json_array_get(want, (size_t)i));
        kl += exp(w) / zp * ((w - log(zp)) - ((double)got[i] - log(zq)));
    }
    double rms = sqrt(square / (double)n);
    print_message("  last logits: at most %.4f, root mean square %.5f, KL %.2e\n", worst, rms, kl);
    assert_true(worst <= 0.25);
    assert_true(rms <= 0.05);
    assert_true(kl <= 1e-3);
}

static void test_cases(void **state)
{
    json_error_t je;
    json_t *ref = json_load_file(MODEL "/reference.json", 0, &je);
    assert_non_null(ref);
    setun_model *m = load(NULL, 512);
    setun_session *s = NULL;
    setun_error err = {0};
    int64_t v = setun_model_n_vocab(m), decided = 0;
    const json_t *cases = json_object_get(ref, "cases");
    (void)state;
    assert_int_equal(json_array_size(cases), 4);
    assert_int_equal(setun_session_new(&s, m, &err), SETUN_OK);
    for (size_t c = 0; c < json_array_size(cases); c++) {
        const json_t *one = json_array_get(cases, c);
        const char *prompt = json_string_value(json_object_get(one, "prompt"));
        size_t n_tokens, n_greedy;
        int32_t *tokens = numbers(json_object_get(one, "tokens"), &n_tokens);
        int32_t *greedy = numbers(json_object_get(one, "greedy"), &n_greedy), *ids, *all;
        int64_t n_ids;
        const float *logits;
        assert_int_equal(setun_vocab_encode(setun_model_vocab(m), prompt, strlen(prompt), SETUN_ENCODE_BOS, &ids, &n_ids, &err), SETUN_OK);
        assert_int_equal(n_ids, n_tokens);
        assert_memory_equal(ids, tokens, n_tokens * sizeof *ids);
        all = calloc(n_tokens + n_greedy, sizeof *all);
        assert_non_null(all);
        memcpy(all, tokens, n_tokens * sizeof *all);
        memcpy(all + n_tokens, greedy, n_greedy * sizeof *all);
        assert_int_equal(setun_session_rewind(s, 0, &err), SETUN_OK);
        assert_int_equal(setun_session_feed(s, all, (int64_t)(n_tokens + n_greedy), SETUN_LOGITS_ALL, &logits, &err), SETUN_OK);
        check_last_logits(logits + ((int64_t)n_tokens - 1) * v, json_object_get(one, "last_logits"), v);
        for (size_t i = 0; i < n_greedy; i++) {
            double gap = json_number_value(json_array_get(json_object_get(one, "greedy_gap"), i));
            if (gap < MIN_GAP)
                continue;
            decided++;
            if (arg_max(logits + (int64_t)(n_tokens - 1 + i) * v, v) != greedy[i])
                fail_msg("case %zu step %zu (gap %g): %d was expected", c, i, gap, greedy[i]);
        }
        free(tokens);
        free(greedy);
        free(all);
        setun_free(ids);
    }
    print_message("  %lld greedy steps had a gap of at least %g\n", (long long)decided, MIN_GAP);
    assert_true(decided > 100);
    setun_session_free(s);
    setun_model_free(m);
    json_decref(ref);
}

static void test_perplexity(void **state)
{
    json_error_t je;
    json_t *ref = json_load_file(MODEL "/reference.json", 0, &je);
    setun_model *m = load(NULL, 256);
    setun_session *s = NULL;
    setun_error err = {0};
    (void)state;
    assert_non_null(ref);
    FILE *f = fopen(MODEL "/heldout.txt", "rb");
    assert_non_null(f);
    char *text = malloc(1 << 20);
    assert_non_null(text);
    size_t n_text = fread(text, 1, 1 << 20, f);
    (void)fclose(f);
    int32_t *ids, window[257];
    int64_t n, v = setun_model_n_vocab(m);
    double nll = 0, want = json_number_value(json_object_get(json_object_get(ref, "perplexity"), "ppl"));
    assert_int_equal(setun_vocab_encode(setun_model_vocab(m), text, n_text, 0, &ids, &n, &err), SETUN_OK);
    assert_true(n >= 20 * 256);
    assert_int_equal(setun_session_new(&s, m, &err), SETUN_OK);
    for (int w = 0; w < 20; w++) {
        const float *logits;
        window[0] = setun_vocab_bos(setun_model_vocab(m));
        memcpy(window + 1, ids + w * 256, 256 * sizeof *window);
        assert_int_equal(setun_session_rewind(s, 0, &err), SETUN_OK);
        assert_int_equal(setun_session_feed(s, window, 256, SETUN_LOGITS_ALL, &logits, &err), SETUN_OK);
        for (int i = 0; i < 256; i++)
            nll += setun_nll(logits + i * v, v, window[i + 1]);
    }
    double ppl = exp(nll / (20 * 256));
    print_message("  perplexity %.5f, reference %.5f (%.4f %%)\n", ppl, want, 100 * (ppl / want - 1));
    assert_true(fabs(ppl / want - 1) < 0.005);
    setun_free(ids);
    free(text);
    setun_session_free(s);
    setun_model_free(m);
    json_decref(ref);
}

/* ---------------------------------------------------------------- one layer in double
 *
 * Every node of layer 0 runs by eval on what the nodes before it gave; each result is compared with
 * a formula in double on the same inputs.  Ternary sums are recomputed from the file's own packing. */

typedef struct walk {
    const st_graph *g;
    setun_view     *v;   /* concrete, with data, per value */
    const st_weights *w;
    double          worst; /* largest difference over the layer, relative to the output's largest value */
    int             n_sum, n_op;
} walk;

static double at(const setun_view *v, int64_t i)
{
    return v->dtype == SETUN_F32 ? (double)((float *)v->data)[i] : (double)setun_bf16_f32(((uint16_t *)v->data)[i]);
}

static void compare(walk *k, const char *op, const setun_view *got, const double *want)
{
    double top = 0, worst = 0;
    int64_t n = setun_count(got);
    for (int64_t i = 0; i < n; i++) {
        double d = fabs(at(got, i) - want[i]);
        top = fabs(want[i]) > top ? fabs(want[i]) : top;
        worst = d > worst ? d : worst;
    }
    if (worst > 1e-5 * top)
        fail_msg("%s differs by %g of %g", op, worst, top);
    k->worst = worst / top > k->worst ? worst / top : k->worst;
    k->n_op++;
}

/* value r, c of a packed tensor: row r + i R is in bits 2i of packed row r. */
static int code(const setun_view *packed, int64_t rows, int64_t r, int64_t c)
{
    int64_t quarter = (rows + 3) / 4;
    return (((const uint8_t *)packed->data)[r % quarter * packed->dim[1] + c] >> (2 * (r / quarter)) & 3) - 1;
}

static void check_sums(walk *k, const st_node *n, const char *file_name)
{
    char name[256];
    const setun_view *q = &k->v[n->in[0]], *scale = &k->v[n->in[1]], *ws = &k->v[n->in[4]], *y = &k->v[n->out[0]];
    int turned = strcmp(n->op->name, "ternary_matmul_t") == 0;
    int64_t rows = y->dim[1], columns = k->g->value[n->in[3]].view.dim[turned ? 0 : 1];
    (void)snprintf(name, sizeof name, "model.layers.0.%s.weight", file_name);
    const st_tensor *t = st_weights_find(k->w, name);
    assert_non_null(t);
    (void)snprintf(name, sizeof name, "model.layers.0.%s.weight_scale", file_name);
    const st_tensor *ts = st_weights_find(k->w, name);
    assert_non_null(ts);
    assert_true(at(&ts->view, 0) == at(ws, 0));
    for (int64_t i = 0; i < q->dim[0]; i++)
        for (int64_t r = 0; r < rows; r++) {
            int32_t s = 0;
            for (int64_t c = 0; c < columns; c++)
                s += code(&t->view, rows, r, c) * ((int8_t *)q->data)[i * q->dim[1] + c];
            float want = (float)s * (((float *)ws->data)[0] / ((float *)scale->data)[i]);
            if (n->op->n_in > 5) { /* the sums with a gate */
                float gate = ((float *)k->v[n->in[5]].data)[i * rows + r];
                want = gate > 0 ? (gate * gate) * want : 0;
            }
            if (want != ((float *)y->data)[i * rows + r])
                fail_msg("%s: integer sum of token %lld row %lld", file_name, (long long)i, (long long)r);
        }
    k->n_sum++;
}

/* q, scale, sum of x by the published formula, in the float steps that the formula names. */
static void check_quantized(walk *k, const st_node *n, const double *x, int64_t rows, int64_t d)
{
    const setun_view *q = &k->v[n->out[0]], *scale = &k->v[n->out[1]], *sum = &k->v[n->out[2]];
    for (int64_t i = 0; i < rows; i++) {
        double a = 1e-5;
        int32_t total = 0;
        for (int64_t j = 0; j < d; j++)
            a = fabs(x[i * d + j]) > a ? fabs(x[i * d + j]) : a;
        assert_true(fabs(((float *)scale->data)[i] / (127 / a) - 1) < 1e-5);
        for (int64_t j = 0; j < d; j++) {
            int8_t got = ((int8_t *)q->data)[i * q->dim[1] + j];
            double exact = x[i * d + j] * 127 / a;
            /* Equal, unless the exact value lies at a tie within float precision. */
            assert_true(fabs(exact - got) <= 0.5 + 1e-3);
            total += got;
        }
        assert_int_equal(((int32_t *)sum->data)[i], total);
    }
}

static void norm(const setun_view *x, const setun_view *w, double eps, double *y)
{
    int64_t d = x->dim[1];
    for (int64_t i = 0; i < x->dim[0]; i++) {
        double s = 0;
        for (int64_t j = 0; j < d; j++)
            s += at(x, i * d + j) * at(x, i * d + j);
        for (int64_t j = 0; j < d; j++)
            y[i * d + j] = at(x, i * d + j) / sqrt(s / (double)d + eps) * at(w, j);
    }
}

static void attend(const walk *k, const st_node *n, double *y)
{
    const setun_view *q = &k->v[n->in[0]], *kc = &k->v[n->in[1]], *vc = &k->v[n->in[2]], *pos = &k->v[n->in[3]];
    int64_t heads = q->dim[1], d = q->dim[2], kv = kc->dim[0], places = kc->dim[1];
    double e[512];
    for (int64_t i = 0; i < q->dim[0]; i++)
        for (int64_t h = 0; h < heads; h++) {
            int32_t last = ((int32_t *)pos->data)[i];
            int64_t kh = h / (heads / kv);
            double top = -1e300, z = 0;
            for (int64_t j = 0; j <= last; j++) {
                e[j] = 0;
                for (int64_t c = 0; c < d; c++)
                    e[j] += at(q, (i * heads + h) * d + c) * at(kc, (kh * places + j) * d + c);
                e[j] /= sqrt((double)d);
                top = e[j] > top ? e[j] : top;
            }
            for (int64_t j = 0; j <= last; j++)
                z += e[j] = exp(e[j] - top);
            for (int64_t c = 0; c < d; c++) {
                double o = 0;
                for (int64_t j = 0; j <= last; j++)
                    o += e[j] / z * at(vc, (kh * places + j) * d + c);
                y[(i * heads + h) * d + c] = o;
            }
        }
}

static void check_node(walk *k, const st_node *n, const char *const *linears)
{
    const char *op = n->op->name;
    const setun_view *x = n->op->n_in ? &k->v[n->in[0]] : NULL, *o = &k->v[n->out[0]];
    int64_t count = setun_count(x), d = x->rank > 1 ? x->dim[x->rank - 1] : 1;
    double *y = calloc((size_t)count + 1, sizeof *y);
    assert_non_null(y);
    if (strncmp(op, "ternary_matmul", 14) == 0) {
        check_sums(k, n, linears[k->n_sum]);
    } else if (strcmp(op, "quantize_i8") == 0) {
        for (int64_t i = 0; i < count; i++)
            y[i] = at(x, i);
        check_quantized(k, n, y, x->dim[0], d);
    } else if (strcmp(op, "rmsnorm_i8") == 0 || strcmp(op, "rmsnorm") == 0) {
        norm(x, &k->v[n->in[1]], n->attr[0].f, y);
        if (op[7])
            check_quantized(k, n, y, x->dim[0], d);
        else
            compare(k, op, o, y);
    } else if (strcmp(op, "rope") == 0) {
        int64_t heads = x->dim[1];
        for (int64_t i = 0; i < count; i++) {
            int64_t c = i % d, half = d / 2, p = ((int32_t *)k->v[n->in[2]].data)[i / d / heads];
            double a = (double)p * pow(10000.0, -2.0 * (double)(c % half) / (double)d);
            y[i] = c < half ? at(x, i) * cos(a) - at(x, i + half) * sin(a) : at(x, i) * cos(a) + at(x, i - half) * sin(a);
        }
        compare(k, op, o, y);
    } else if (strcmp(op, "attention") == 0) {
        attend(k, n, y);
        compare(k, op, o, y);
    } else if (strcmp(op, "relu2_mul") == 0 || strcmp(op, "mul") == 0 || strcmp(op, "add") == 0) {
        for (int64_t i = 0; i < count; i++) {
            double a = at(x, i), b = at(&k->v[n->in[1]], i), r = a > 0 ? a * a : 0;
            y[i] = *op == 'a' ? a + b : *op == 'm' ? a * b : r * b;
        }
        compare(k, op, o, y);
    } else if (strcmp(op, "kv_append") && strcmp(op, "reshape")) {
        fail_msg("operator %s has no formula in this test", op);
    }
    free(y);
}

static void test_layer(void **state)
{
    /* The order of the linears in layer 0's graph. */
    static const char *const linears[] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                                          "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"};
    static const int32_t tokens[] = {1021, 870, 266, 79, 44, 441, 324, 268, 280, 111, 382};
    enum { N = sizeof tokens / sizeof tokens[0] };
    setun_model *m = load("reference", 1);
    const st_graph *g = m->program[ST_MANY].graph;
    walk k = {.g = g, .w = m->weights};
    void **own = calloc(g->n_value, sizeof *own);
    k.v = calloc(g->n_value, sizeof *k.v);
    assert_true(own && k.v);
    (void)state;
    for (uint32_t i = 0; i < g->n_value; i++) {
        k.v[i] = g->value[i].view;
        if (k.v[i].rank && k.v[i].dim[0] < 0)
            k.v[i].dim[0] = k.v[i].dim[0] == SETUN_DIM_TOKENS ? N : 1;
        if (g->value[i].kind == ST_CONST)
            continue;
        if (g->value[i].root != i)
            k.v[i].data = k.v[g->value[i].root].data;
        else
            k.v[i].data = own[i] = aligned_alloc(64, (size_t)(setun_view_bytes(&k.v[i]) + 127) / 64 * 64);
        assert_non_null(k.v[i].data);
        if (g->value[i].root == i)
            memset(own[i], 0, (size_t)setun_view_bytes(&k.v[i]));
    }
    memcpy(k.v[st_graph_find(g, "tokens")].data, tokens, sizeof tokens);
    for (int32_t i = 0; i < N; i++)
        ((int32_t *)k.v[st_graph_find(g, "positions")].data)[i] = i;
    for (uint32_t i = 0; i < g->n_node && k.n_sum < 8; i++) {
        const st_node *n = &g->node[i];
        setun_view in[8], out[8];
        setun_error err = {0};
        for (uint32_t j = 0; j < n->op->n_in; j++)
            in[j] = k.v[n->in[j]];
        for (uint32_t j = 0; j < n->op->n_out; j++)
            out[j] = k.v[n->out[j]];
        setun_args a = {sizeof a, n->op->n_in, n->op->n_out, n->op->n_attr, n->op, in, out, n->attr, NULL};
        if (n->op->eval(&a, &err) != SETUN_OK)
            fail_msg("%s", err.text);
        if (strncmp(n->scope, "blk.0", 5) == 0)
            check_node(&k, n, linears);
        else if (k.n_sum == 7)
            break;
    }
    print_message("  %d operators within %.1e in all, %d matrices of equal integer sums\n", k.n_op, k.worst, k.n_sum);
    assert_int_equal(k.n_sum, 7);
    assert_true(k.n_op >= 5);
    for (uint32_t i = 0; i < g->n_value; i++)
        free(own[i]);
    free(own);
    free(k.v);
    setun_model_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cases), cmocka_unit_test(test_perplexity), cmocka_unit_test(test_layer)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
