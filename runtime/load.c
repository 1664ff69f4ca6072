/* runtime/load.c -- the pipeline, in order: load() at the end is the table of contents of Setun.
 *
 * Everything that can be refused is refused here, before the first token.  Loading ends with the
 * Lua state closed; after it a token touches only runtime/session.c, a backend and machine code. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "graph/rules.h"
#include "runtime/head.h"
#include "runtime/packing.h"
#include "runtime/requantise.h"
#include "runtime/quantizer.h"
#include "runtime/tune.h"
#include "scripts/host.h"

#define MAX_CTX (1 << 20)
#define DEFAULT_CTX 4096

static const st_hparam *hparam(const setun_model *m, const char *key)
{
    int64_t n;
    const st_hparam *hp = st_weights_config(m->weights, &n);
    for (int64_t i = 0; i < n; i++)
        if (strcmp(hp[i].key, key) == 0)
            return &hp[i];
    return NULL;
}

static setun_status choose_sizes(setun_model *m, setun_error *err)
{
    const setun_options *o = &m->engine->o;
    const st_hparam *limit = hparam(m, "max_position_embeddings");
    if (limit && limit->kind != ST_HP_NULL && (limit->kind != ST_HP_INT || limit->i < 1))
        return st_fail(err, SETUN_BAD_FILE, "%s: config.json, max_position_embeddings is not a whole number from 1 on", m->path);
    int64_t most = limit && limit->kind == ST_HP_INT ? limit->i : DEFAULT_CTX;
    m->n_ctx = o->n_ctx ? o->n_ctx : most < DEFAULT_CTX ? most : DEFAULT_CTX;
    if (m->n_ctx > most)
        return st_fail(err, SETUN_BAD_ARG, "%s: %" PRId64 " positions asked for, but the model was made for %" PRId64
                       " (config.json, max_position_embeddings)", m->path, m->n_ctx, most);
    if (m->n_ctx > MAX_CTX)
        return st_fail(err, SETUN_BAD_ARG, "%" PRId64 " positions asked for; at most %d are possible", m->n_ctx, MAX_CTX);
    m->n_batch = o->n_batch < m->n_ctx ? o->n_batch : m->n_ctx;
    m->n_outputs = o->n_outputs < m->n_batch ? o->n_outputs : m->n_batch;
    return SETUN_OK;
}

static int32_t find_dtype(const char *kv)
{
    static const struct { const char *name; uint32_t dtype; } known[] = {
        {"f32", SETUN_F32}, {"f16", SETUN_F16}, {"bf16", SETUN_BF16}, {"q8", SETUN_Q8}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(kv, known[i].name) == 0)
            return (int32_t)known[i].dtype;
    return 0;
}

/* From which knowledge about the zeros of its input on a ternary matrix is kept transposed.  Behind a
 * rectifier (ST_ZEROS_RELU) most inputs are 0 in every model known, and reading all of a transposed matrix
 * costs no more than a row-major one, so that is the default; behind other gates it depends on the model. */
static setun_status choose_down(setun_model *m, setun_error *err)
{
    static const struct { const char *name; int32_t least; } known[] = {
        {"auto", ST_ZEROS_RELU}, {"channel", ST_ZEROS_GATED}, {"row", INT32_MAX}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(m->engine->o.down, known[i].name) == 0) {
            m->least_zeros = known[i].least;
            return SETUN_OK;
        }
    return st_fail(err, SETUN_UNKNOWN, "the layout '%s' of down matrices is not known; auto, channel and row are", m->engine->o.down);
}

/* The adapters between what scripts ask and what model/ answers. */
static int has(void *user, const char *name) { return st_weights_has(((setun_model *)user)->weights, name); }
static int repeats(void *user, const char *name, const char *of)
{
    return st_weights_repeats(((setun_model *)user)->weights, name, of);
}
static setun_status tensor(void *user, const char *name, uint32_t want, setun_view *v, setun_error *err)
{
    setun_model *m = user;
    int64_t t = st_now_ns();
    setun_status s = st_weights_tensor(m->weights, name, want, v, err);
    m->lacks |= s == SETUN_FULL;
    m->stats.pack_ns += st_now_ns() - t;
    return s;
}
/* A script names the matrix; weights.h names the linear that owns the matrix and its scale. */
static setun_status ternary(void *user, const char *name, int32_t zeros, st_script_ternary *out, setun_error *err)
{
    setun_model *m = user;
    st_ternary t;
    static const char suffix[] = ".weight";
    char linear[256];
    size_t n = strlen(name), tail = sizeof suffix - 1;
    if (n <= tail || n >= sizeof linear || strcmp(name + n - tail, suffix))
        return SETUN_DECLINED;
    memcpy(linear, name, n - tail);
    linear[n - tail] = 0;
    int64_t start = st_now_ns();
    setun_status s = st_weights_ternary(m->weights, linear, zeros >= m->least_zeros, &t, err);
    m->stats.pack_ns += st_now_ns() - start;
    m->lacks |= s == SETUN_FULL;
    if (s == SETUN_OK && m->engine->o.from_floats)
        s = st_requantise_note(m, name, t.codes.data, err);
    if (s == SETUN_OK)
        *out = (st_script_ternary){ t.codes, t.scale, t.group, t.across, t.weight_only };
    return s;
}

/* The model's own word on how embeddings are made, or the script's where it has none. */
static setun_status choose_pooling(setun_model *m, const char *said, setun_error *err)
{
    int32_t from_script = st_pooling_find(said);
    if (said && !from_script)
        return st_fail(err, SETUN_BAD_SCRIPT, "%s: the pooling '%s' is not known; last, mean and cls are", m->script, said);
    const st_hparam *from_gguf = hparam(m, "gguf.pooling"); /* gguf_model.c knows the names */
    if (from_gguf && from_gguf->kind == ST_HP_STRING)
        m->pooling = (st_pooling){ st_pooling_find(from_gguf->s), 0, m->path };
    else
        ST_TRY(st_pooling_read(&m->pooling, m->path, m->arena, err));
    m->pooling_from = m->pooling.kind ? m->pooling.file : from_script ? m->script : NULL;
    if (!m->pooling.kind)
        m->pooling.kind = from_script;
    return SETUN_OK;
}

static setun_status run_script(setun_model *m, st_script *script, setun_error *err)
{
    const setun_options *o = &m->engine->o;
    int64_t start = st_now_ns();
    st_script_model sm = {.user = m, .n_ctx = m->n_ctx, .has = has, .repeats = repeats, .tensor = tensor, .ternary = ternary};
    sm.hp = st_weights_config(m->weights, &sm.n_hp);
    sm.kv_dtype = (uint32_t)find_dtype(o->kv);
    if (!sm.kv_dtype)
        return st_fail(err, SETUN_UNKNOWN, "KV cache type '%s' is not known; f32, f16, bf16 and q8 are", o->kv);
    ST_TRY(choose_down(m, err));
    ST_TRY(st_quantizer_choose(m, script, err));
    ST_TRY(st_weights_pack_begin(m->weights, st_cache_dir(m->engine->cache), m->least_zeros == INT32_MAX ? "row" : o->down, err));
    int64_t built = st_now_ns();
    st_script_made made;
    ST_TRY(st_script_model_build(script, o->script, st_weights_architecture(m->weights), &sm, &made, err));
    m->graph = made.graph;
    m->script = made.path;
    ST_TRY(choose_pooling(m, made.pooling, err));
    m->stats.graph_ns = st_now_ns() - built - m->stats.pack_ns;
    ST_TRY(st_head_prepare(m, err));
    ST_TRY(st_weights_pack_end(m->weights, err));
    m->stats.pack_ns = st_now_ns() - start - m->stats.graph_ns;
    ST_TRY(st_weights_all_used(m->weights, err));
    ST_TRY(st_quantizer_settle(m, script, &made, err));
    ST_TRY(st_graph_verify(m->graph, err));
    const st_script_packing *packing;
    ST_TRY(st_packing_choose(m, script, made.packing, &packing, err));
    if (o->from_floats && !packing)
        return st_fail(err, SETUN_BAD_ARG, "floats can be quantised again for a packing that says how, and there is none: name one with "
                       "--packing FILE.lua");
    return packing ? st_packing_apply(m, script, packing, err) : SETUN_OK;
}

st_value_id st_program_output(const st_program *p, const char *name)
{
    for (uint32_t i = 0; i < p->graph->n_output; i++)
        if (strcmp(p->graph->output[i].name, name) == 0)
            return p->graph->output[i].value;
    return ST_NO_ID;
}

setun_status st_step_make(const st_program *p, st_node_id n, st_arena *arena, setun_step *step, setun_error *err)
{
    const st_node *node = &p->graph->node[n];
    const setun_op *op = node->op;
    setun_operand *in = st_arena_array(arena, op->n_in + 1, sizeof *in);
    setun_operand *out = st_arena_array(arena, op->n_out + 1, sizeof *out);
    const char *label = st_arena_printf(arena, "%s%s%s", node->scope, *node->scope ? " " : "", op->name);
    if (!in || !out || !label)
        return st_fail(err, SETUN_NO_MEMORY, "no memory for a step");
    for (uint32_t i = 0; i < op->n_in; i++) {
        in[i].shape = p->graph->value[node->in[i]].view;
        in[i].shape.data = NULL;
    }
    for (uint32_t i = 0; i < op->n_out; i++)
        out[i].shape = p->graph->value[node->out[i]].view;
    memset(step, 0, sizeof *step);
    step->size = (uint32_t)sizeof *step;
    step->n_in = op->n_in;
    step->n_out = op->n_out;
    step->n_attr = op->n_attr;
    step->op = op;
    step->in = in;
    step->out = out;
    step->attr = node->attr;
    step->label = label;
    if (p->kernel[n])
        step->code = &p->kernel[n]->code;
    return SETUN_OK;
}

typedef struct plan_context {
    const setun_model *m;
    const st_program  *p;
    st_arena          *tmp;
    int                no_memory;
} plan_context;

static setun_status plan_cost(void *user, uint32_t backend, const st_graph *g, st_node_id n, double *cost)
{
    plan_context *c = user;
    const st_plugin_info *b = c->m->backend[backend];
    setun_step step;
    (void)g;
    if (st_step_make(c->p, n, c->tmp, &step, NULL) != SETUN_OK) {
        c->no_memory = 1; /* nobody declined; the caller says what really happened */
        return SETUN_DECLINED;
    }
    return b->backend->supports(b->self, &step, cost);
}

/* Which kernels the nodes of a program need, with room for n_outputs rows of logits.  Sizes that are -1 stay
 * symbolic. */
static setun_status ask_kernels(setun_model *m, st_program *p, const st_graph *from, const int64_t size[SETUN_N_SYMBOLS],
                                int64_t n_outputs, setun_error *err)
{
    p->bound[0] = size[0] < 0 ? m->n_batch : size[0];
    p->bound[1] = n_outputs;
    ST_TRY(st_graph_bind(from, size, m->arena, &p->graph, err));
    p->kernel = st_arena_array(m->arena, p->graph->n_node + 1, sizeof *p->kernel);
    if (!p->kernel)
        return st_fail(err, SETUN_NO_MEMORY, "no memory for a program");
    for (st_node_id n = 0; n < p->graph->n_node; n++) {
        setun_args shape;
        st_kernel *kernel = NULL;
        ST_TRY(st_node_args(p->graph, n, m->arena, &shape, err));
        setun_status s = st_tune_knobs(m->tune, &shape, err);
        /* Kernels that the backend would not run are not worth compiling. */
        if (s == SETUN_OK)
            s = m->backend[0]->backend_info.wants_code
                    ? st_kernels_ask(m->kernels, &shape, p->graph->node[n].where, &kernel, err) : SETUN_DECLINED;
        if (s != SETUN_OK && s != SETUN_DECLINED) {
            if (*p->graph->node[n].where)
                st_wrap(err, "%s", p->graph->node[n].where);
            return s;
        }
        p->kernel[n] = kernel;
    }
    return SETUN_OK;
}

static setun_status make_plan(setun_model *m, st_program *p, setun_error *err)
{
    plan_context c = {m, p, st_arena_new(), 0};
    if (!c.tmp)
        return st_fail(err, SETUN_NO_MEMORY, "no memory for a plan");
    setun_status s = st_plan_build(p->graph, p->bound, m->n_backend, plan_cost, &c, m->arena, &p->plan, err);
    st_arena_free(c.tmp);
    if (s != SETUN_OK && c.no_memory)
        s = st_fail(err, SETUN_NO_MEMORY, "no memory for a plan");
    return s == SETUN_OK ? st_plan_verify(p->plan, err) : s;
}

static setun_status make_programs(setun_model *m, setun_error *err)
{
    static const int64_t one[SETUN_N_SYMBOLS] = {1, 1}, many[SETUN_N_SYMBOLS] = {-1, -1};
    int64_t t = st_now_ns();
    st_graph *top;
    st_pool *pool;
    m->backend[0] = m->engine->backend;
    m->backend[1] = m->engine->reference;
    m->n_backend = m->engine->backend == m->engine->reference ? 1 : 2;
    ST_TRY(st_kernels_new(&m->kernels, m->engine, m->arena, err));
    ST_TRY(st_tune_open(&m->tune, m->engine, m->arena, err));
    ST_TRY(ask_kernels(m, &m->program[ST_ONE], m->simple, one, 1, err));
    ST_TRY(ask_kernels(m, &m->program[ST_MANY], m->simple, many, m->n_outputs, err));
    m->n_program = ST_TOP;
    ST_TRY(st_head_graph(m, &top, err));
    if (top) {
        ST_TRY(ask_kernels(m, &m->program[ST_TOP], top, one, 1, err));
        ST_TRY(ask_kernels(m, &m->program[ST_MANY_TOP], top, many, 1, err));
        m->n_program = ST_N_PROGRAM;
    }
    ST_TRY(st_pool_new(&pool, m->engine->o.n_threads, 1, err));
    setun_status s = st_kernels_build(m->kernels, pool, err);
    int64_t built = st_now_ns();
    if (s == SETUN_OK)
        s = st_tune_measure(m->tune, m, pool, err);
    m->stats.tune_ns = st_now_ns() - built;
    st_pool_free(pool);
    for (int i = 0; i < m->n_program && s == SETUN_OK; i++)
        s = make_plan(m, &m->program[i], err);
    m->stats.kernels_ns = st_now_ns() - t;
    return s;
}

/* An output's width, if it has a row of floats per row that is asked for; 0: it has not, or there is none. */
static int64_t output_width(const st_graph *g, const char *name)
{
    for (uint32_t i = 0; i < g->n_output; i++) {
        const setun_view *v = &g->value[g->output[i].value].view;
        if (strcmp(g->output[i].name, name) == 0 && v->dtype == SETUN_F32 && v->rank == 2 && v->dim[0] == SETUN_DIM_OUTPUTS)
            return v->dim[1];
    }
    return 0;
}

/* Rows of the table that tokens are looked up in: how many tokens a model without logits knows. */
static int64_t token_rows(const st_graph *g)
{
    st_value_id tokens = st_graph_find(g, "tokens");
    for (st_node_id n = 0; n < g->n_node; n++)
        if (strcmp(g->node[n].op->name, "embed") == 0 && g->node[n].in[1] == tokens)
            return g->value[g->node[n].in[0]].view.dim[0];
    return 0;
}

/* The graph's interface is fixed: what sessions feed and read. */
static setun_status check_interface(setun_model *m, setun_error *err)
{
    static const struct { const char *name; int64_t dim; } want[] = {
        {"tokens", SETUN_DIM_TOKENS}, {"positions", SETUN_DIM_TOKENS}, {"outputs", SETUN_DIM_OUTPUTS}};
    for (size_t i = 0; i < 3; i++) {
        st_value_id v = st_graph_find(m->graph, want[i].name);
        const setun_view *view = v == ST_NO_ID ? NULL : &m->graph->value[v].view;
        if (!view || m->graph->value[v].kind != ST_INPUT || view->dtype != SETUN_I32 || view->dim[0] != want[i].dim)
            return st_fail(err, SETUN_BAD_SCRIPT, "%s: the graph must use the input '%s'", m->script, want[i].name);
    }
    m->n_vocab = output_width(m->graph, "logits");
    m->has_logits = m->n_vocab > 0;
    m->n_embedding = output_width(m->graph, "embedding");
    if (!m->has_logits)
        m->n_vocab = token_rows(m->graph);
    if (m->has_logits || (m->n_embedding > 0 && m->n_vocab > 0))
        return SETUN_OK;
    return st_fail(err, SETUN_BAD_SCRIPT, "%s: the graph has no output 'logits' of type f32[m,vocabulary], nor an output "
                   "'embedding' of type f32[m,d] of tokens that are looked up", m->script);
}

static setun_status add_end(setun_model *m, int64_t id, setun_error *err)
{
    if (setun_model_is_end(m, (int32_t)id))
        return SETUN_OK;
    if (m->n_end == (int32_t)(sizeof m->end / sizeof m->end[0]))
        return st_fail(err, SETUN_UNKNOWN, "%s: more than %d tokens end a text (eos_token_id)", m->path, m->n_end);
    m->end[m->n_end++] = (int32_t)id;
    return SETUN_OK;
}

static setun_status open_vocab(setun_model *m, setun_error *err)
{
    if (!m->kept->tokenizer)
        ST_TRY(st_tokenizer_open(&m->kept->tokenizer, m->path, err));
    m->vocab.tokenizer = m->kept->tokenizer;
    if (st_tokenizer_size(m->vocab.tokenizer) > m->n_vocab)
        return st_fail(err, SETUN_BAD_FILE, "%s: the tokenizer has ids up to %" PRId64 ", but the model only %" PRId64 " rows",
                       m->path, st_tokenizer_size(m->vocab.tokenizer) - 1, m->n_vocab);
    /* generation_config.json may name several ends; config.json usually names one. */
    int64_t n;
    const st_hparam *hp = st_weights_config(m->weights, &n);
    for (int64_t i = 0; i < n; i++) {
        const char *key = hp[i].key;
        if (strncmp(key, "generation.", 11) == 0)
            key += 11;
        if (strncmp(key, "eos_token_id", 12) || (key[12] && key[12] != '.') || hp[i].kind == ST_HP_NULL)
            continue;
        if (hp[i].kind != ST_HP_INT || hp[i].i < 0 || hp[i].i >= m->n_vocab)
            return st_fail(err, SETUN_BAD_FILE, "%s: %s is not the id of a token", m->path, hp[i].key);
        ST_TRY(add_end(m, hp[i].i, err));
    }
    const int32_t *end; /* a GGUF file says so itself, and by its tokens' names */
    n = st_tokenizer_ends(m->vocab.tokenizer, &end);
    for (int64_t i = 0; i < n; i++)
        ST_TRY(add_end(m, end[i], err));
    return SETUN_OK;
}

/* Work and traffic of one token of decode, from the operators' own accounts. */
static setun_status account(setun_model *m, setun_error *err)
{
    const st_graph *g = m->program[ST_ONE].graph;
    setun_model_stats *s = &m->stats;
    for (st_node_id n = 0; n < g->n_node; n++) {
        setun_args a;
        setun_cost c = {0, 0, 0};
        ST_TRY(st_node_args(g, n, m->arena, &a, err));
        if (a.op->cost)
            a.op->cost(&a, &c);
        s->int_ops_token += c.int_ops;
        s->float_ops_token += c.float_ops;
    }
    for (uint32_t v = 0; v < g->n_value; v++) {
        const st_value *value = &g->value[v];
        if (value->kind == ST_STATE)
            s->kv_bytes += setun_view_bytes(&value->view);
        if (value->kind != ST_CONST)
            continue;
        /* An embedding that is not also the head is read one row at a time. */
        int64_t used = 0;
        for (st_node_id n = 0; n < g->n_node; n++)
            for (uint32_t i = 0; i < g->node[n].op->n_in; i++)
                if (g->node[n].in[i] == v)
                    used += strncmp(g->node[n].op->name, "embed", 5) && strcmp(g->node[n].op->name, "rope");
        if (used)
            s->weight_bytes += setun_view_bytes(&value->view);
    }
    /* Screened: six bits and the bounds instead of the matrix, and then some of its rows. */
    if (m->n_program > ST_TOP) {
        s->head_row_bytes = setun_row_bytes(m->head_dtype, m->head_columns);
        s->top_bytes = s->weight_bytes - m->n_vocab * s->head_row_bytes + setun_view_bytes(&m->head.code) +
                       setun_view_bytes(&m->head.meta);
    }
    for (int i = 0; i < m->n_program; i++)
        if (m->program[i].plan->bytes > s->temp_bytes)
            s->temp_bytes = m->program[i].plan->bytes;
    st_weights_stats ws;
    st_weights_get_stats(m->weights, &ws);
    s->ternary_weights = ws.ternary_weights;
    s->ternary_bytes = m->packed.name ? m->packed.bytes : ws.ternary_bytes;
    s->head_bytes = ws.head_bytes;
    s->n_kernels = m->kernels->n;
    for (int32_t i = 0; i < m->kernels->n; i++) {
        const st_kernel *k = m->kernels->kernel[i];
        s->n_compiled += k->compiled;
        s->n_cached += !m->engine->o.interpret && !k->compiled && !k->interpreted;
    }
    s->n_threads = m->engine->o.n_threads;
    if (!m->quantizer.is_own)
        (void)snprintf(s->quantizer, sizeof s->quantizer, "%s", m->quantizer.name);
    (void)snprintf(s->isa, sizeof s->isa, "%s", m->engine->backend->backend_info.wants_code ? st_engine_isa(m->engine) : "eval");
    (void)snprintf(s->backend, sizeof s->backend, "%s", m->engine->backend->backend_info.name);
    return SETUN_OK;
}

/* The pipeline.  Every stage can be printed with `setun dump`. */
static setun_status load(setun_model *m, const setun_model *of, st_script **script, setun_error *err)
{
    int64_t t = st_now_ns(), before;
    st_engine *e = m->engine;
    ST_TRY(st_kept_open(m, of, err));                                                          /* files */
    m->stats.files_ns = st_now_ns() - t;
    ST_TRY(choose_sizes(m, err));
    ST_TRY(st_script_open(script, e->scripts, e->registry, m->arena, NULL, err));
    ST_TRY(run_script(m, *script, err));                                                       /* graph */
    m->files = st_script_files(*script);
    ST_TRY(check_interface(m, err));
    m->stats.weights_ns = st_now_ns() - t;
    ST_TRY(st_graph_simplify(m->graph, e->registry, m->arena, &m->simple, err));               /* rules */
    ST_TRY(st_graph_verify(m->simple, err));
    ST_TRY(make_programs(m, err));                                                             /* kernels, plans */
    before = st_now_ns();
    ST_TRY(open_vocab(m, err));
    m->stats.tokenizer_ns = st_now_ns() - before;
    ST_TRY(account(m, err));
    if (e->codegen)
        st_module_rest(e->codegen->compiler()); /* it has made its kernels */
    st_memory_trim();
    return SETUN_OK;
}

setun_status setun_model_load(setun_model **out, const char *path, const setun_options *o, setun_error *err)
{
    return st_model_load(out, path, o, NULL, err);
}

setun_status st_model_load(setun_model **out, const char *path, const setun_options *o, const setun_model *of, setun_error *err)
{
    st_arena *arena = st_arena_new();
    setun_model *m = arena ? st_arena_alloc(arena, sizeof *m) : NULL;
    st_script *script = NULL;
    *out = NULL;
    if (!m || !(m->path = st_arena_strdup(arena, path))) {
        st_arena_free(arena);
        return st_fail(err, SETUN_NO_MEMORY, "no memory to load a model");
    }
    m->arena = arena;
    int64_t start = st_now_ns();
    setun_status s = st_engine_open(&m->engine, o, err);
    m->stats.engine_ns = st_now_ns() - start;
    if (s == SETUN_OK)
        s = load(m, of, &script, err);
    m->stats.load_ns = st_now_ns() - start;
    st_script_close(script);
    if (s != SETUN_OK) {
        int lacks = m->lacks && of;
        setun_model_free(m);
        return lacks ? st_model_load(out, path, o, NULL, err) : s; /* from the files, as at first */
    }
    *out = m;
    return SETUN_OK;
}

void setun_model_free(setun_model *m)
{
    if (!m)
        return;
    st_pack_close(m->pack);
    st_kept_close(m);
    st_engine_close(m->engine);
    st_arena_free(m->arena);
}
