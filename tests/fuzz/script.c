/* tests/fuzz/script.c -- a hostile Lua script: as a file of operators, whose cases are then made, evaluated,
 * lowered and interpreted, and as a model script that builds a graph from tensors it is offered. */
#include "tests/fuzz/fuzz.h"

#include "codegen/kir.h"
#include "graph/registry.h"
#include "scripts/host.h"

#define MEMORY (32 << 20)
#define STEPS 200000

/* A model of which every matrix is 64 x 64. */
static const st_hparam hp[] = {
    {"hidden_size", ST_HP_INT, 64, 64.0, NULL},
    {"intermediate_size", ST_HP_INT, 64, 64.0, NULL},
    {"vocab_size", ST_HP_INT, 64, 64.0, NULL},
    {"num_hidden_layers", ST_HP_INT, 1, 1.0, NULL},
    {"num_attention_heads", ST_HP_INT, 4, 4.0, NULL},
    {"rms_norm_eps", ST_HP_FLOAT, 0, 1e-5, NULL},
    {"hidden_act", ST_HP_STRING, 0, 0.0, "relu2"},
    {"tie_word_embeddings", ST_HP_BOOL, 0, 0.0, NULL},
};

/* A tensor is there whose name ends in "weight": a vector if there is "norm" in it, else a matrix, of the size
 * that the name may begin with: "w.03x64.weight". */
static int has(void *user, const char *name)
{
    size_t n = strlen(name);
    (void)user;
    return n >= 6 && strcmp(name + n - 6, "weight") == 0;
}

static setun_status tensor(void *user, const char *name, uint32_t want, setun_view *view, setun_error *err)
{
    static float data[64 * 64];
    int rows = 64, cols = 64;
    if (!has(user, name))
        return st_fail(err, SETUN_BAD_FILE, "there is no tensor %s", name);
    if (sscanf(name, "w.%2dx%2d.", &rows, &cols) == 2 && (rows < 0 || cols < 0 || rows > 64 || cols > 64))
        return st_fail(err, SETUN_BAD_FILE, "tensor %s is too large", name);
    *view = (setun_view){data, want ? want : SETUN_BF16, 2, {rows, cols, 1, 1}};
    if (strstr(name, "norm"))
        *view = (setun_view){data, want ? want : SETUN_BF16, 1, {rows, 1, 1, 1}};
    return SETUN_OK;
}

/* With 63 rows a matrix is an ordinary one, with 62 it has a scale for 16 weights each. */
static setun_status ternary(void *user, const char *name, int32_t zeros, st_script_ternary *out, setun_error *err)
{
    static uint8_t codes[64 * 64];
    setun_view v;
    (void)zeros;
    ST_TRY(tensor(user, name, SETUN_T2, &v, err));
    v.data = codes;
    *out = (st_script_ternary){.codes = v, .scale = {NULL, SETUN_F32, 1, {1, 1, 1, 1}}};
    if (v.dim[0] == 63)
        return SETUN_DECLINED;
    if (v.dim[0] == 62) {
        out->group = 16;
        out->weight_only = 1;
        out->scale = (setun_view){NULL, SETUN_F32, 2, {v.dim[0], (v.dim[1] + 15) / 16, 1, 1}};
    }
    return SETUN_OK;
}

/* One launch of everything, and how it ends is the kernel's own business: every access is checked. */
static void run_kernel(st_kir *k, const st_case *c, st_arena *a)
{
    const setun_view *view[ST_MAX_ARGS];
    void *arg[ST_MAX_ARGS];
    int64_t bytes[ST_MAX_ARGS], dim[ST_MAX_SLOTS];
    setun_error err = {0, ""};
    for (uint32_t v = 0; v < c->run.n_in + c->run.n_out; v++) {
        view[v] = v < c->run.n_in ? &c->run.in[v] : &c->run.out[v - c->run.n_in];
        arg[v] = view[v]->data;
        bytes[v] = setun_view_bytes(view[v]);
    }
    for (uint32_t d = 0; d < k->n_slot; d++)
        dim[d] = view[k->slot[d].arg]->dim[k->slot[d].dim];
    setun_launch l = {arg, dim, k};
    int64_t units = st_grid_units(&k->grid, view);
    setun_tile tile = {0, units < 4 ? units : 4, NULL};
    (void)a;
    k->max_steps = 20000;
    if (units > 0)
        fuzz_judge(st_kir_eval(k, &l, bytes, &tile, &err), &err, "");
}

static void try_cases(const setun_op *op)
{
    for (int i = 0; op->cases[i] && i < 3; i++) {
        st_arena *a = st_arena_new();
        setun_error err = {0, ""};
        st_case c;
        st_kir *k;
        st_target t;
        FUZZ_CHECK(a);
        st_target_generic(&t);
        /* Parsing first: a case may be as large as memory, which is the wish of whoever runs it. */
        int64_t size[SETUN_N_SYMBOLS], total = 0;
        setun_args shape;
        setun_status s = st_case_parse(op, op->cases[i], a, &shape, size, &err);
        fuzz_judge(s, &err, "");
        for (uint32_t v = 0; s == SETUN_OK && v < shape.n_in; v++) {
            setun_view full = shape.in[v];
            st_view_bind(&full, size);
            total += setun_view_bytes(&full);
        }
        if (s == SETUN_OK && total >= 0 && total < 1 << 12) { /* its outputs may be the square of it */
            s = st_case_make(op, op->cases[i], 1, a, &c, &err);
            fuzz_judge(s, &err, op->name);
            if (s == SETUN_OK && op->eval)
                fuzz_judge(op->eval(&c.run, &err), &err, "");
            if (s == SETUN_OK && op->lower) {
                s = st_kir_lower(&k, &c.shape, &t, a, &err);
                if (s != SETUN_DECLINED)
                    fuzz_judge(s, &err, "");
                if (s == SETUN_OK)
                    run_kernel(k, &c, a);
            }
        }
        st_arena_free(a);
    }
}

static void build(st_script *s, const char *path)
{
    st_script_model m = {.hp = hp, .n_hp = sizeof hp / sizeof *hp, .n_ctx = 64, .kv_dtype = SETUN_F16, .has = has, .tensor = tensor,
                         .ternary = ternary};
    setun_error err = {0, ""};
    st_script_made made = {0};
    setun_status st = st_script_model_build(s, path, "Any", &m, &made, &err);
    fuzz_judge(st, &err, "");
    if (st == SETUN_OK)
        fuzz_judge(st_graph_verify(made.graph, &err), &err, "never");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const st_script_limits limits = {.memory_bytes = MEMORY, .steps = STEPS};
    st_arena *a = st_arena_new();
    st_registry *r;
    st_script *s;
    setun_error err = {0, ""};
    char path[1024];
    FUZZ_CHECK(a && st_registry_new(&r, &err) == SETUN_OK);
    for (int i = 0; st_builtin_ops[i]; i++)
        fuzz_judge(st_registry_add(r, st_builtin_ops[i], "built-in", &err), &err, "");
    fuzz_judge(st_script_open(&s, SETUN_SOURCE_DIR "/scripts", r, a, &limits, &err), &err, "never");
    (void)snprintf(path, sizeof path, "%s", fuzz_put("t.lua", data, n));
    int64_t known = st_registry_count(r);
    setun_status st = st_script_ops(s, path, &err);
    /* A script is named by itself or by the library that it called; a file that is none, by its path. */
    FUZZ_CHECK(st == SETUN_OK || strstr(err.text, ".lua"));
    fuzz_judge(st, &err, "");
    for (int64_t i = known; i < st_registry_count(r) && i < known + 4; i++)
        try_cases(st_registry_at(r, i));
    build(s, path);
    FUZZ_CHECK(st_arena_bytes(a) < 2 * (int64_t)MEMORY);
    st_script_close(s);
    st_registry_free(r);
    st_arena_free(a);
    return 0;
}
