/* tests/unit/script_models.c -- the model scripts: the graphs they build, and what they refuse. */
#include "tests/unit/script_world.h"

/* A model that exists only as names and sizes. */
typedef struct fake {
    int64_t     vocab, hidden, heads, kv_heads, head_dim, ffn;
    int         is_ternary, tied;
    const char *lie;  /* a tensor whose first size is one too many */
    int64_t     n_taken;
    int32_t     least_zeros, group, weight_only;
} fake;

static int fake_view(const fake *f, const char *name, setun_view *v)
{
    const struct { const char *end; int64_t rows, columns; } rows[] = {
        { "embed_tokens.weight", f->vocab, f->hidden },
        { "lm_head.weight", f->tied ? 0 : f->vocab, f->hidden },
        { "model.norm.weight", f->hidden, 0 },
        { "input_layernorm.weight", f->hidden, 0 },
        { "post_attention_layernorm.weight", f->hidden, 0 },
        { "attn_sub_norm.weight", f->heads * f->head_dim, 0 },
        { "ffn_sub_norm.weight", f->ffn, 0 },
        { "q_proj.weight", f->heads * f->head_dim, f->hidden },
        { "k_proj.weight", f->kv_heads * f->head_dim, f->hidden },
        { "v_proj.weight", f->kv_heads * f->head_dim, f->hidden },
        { "o_proj.weight", f->hidden, f->heads * f->head_dim },
        { "gate_proj.weight", f->ffn, f->hidden },
        { "up_proj.weight", f->ffn, f->hidden },
        { "down_proj.weight", f->hidden, f->ffn },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        size_t n = strlen(name), m = strlen(rows[i].end);
        if (n < m || strcmp(name + n - m, rows[i].end) != 0 || !rows[i].rows)
            continue;
        *v = (setun_view){ NULL, SETUN_BF16, rows[i].columns ? 2 : 1, { rows[i].rows, 1, 1, 1 } };
        v->dim[1] = rows[i].columns ? rows[i].columns : 1;
        if (f->lie && strcmp(f->lie, name) == 0)
            v->dim[0]++;
        return 1;
    }
    return 0;
}

static int fake_has(void *user, const char *name)
{
    setun_view v;
    return fake_view(user, name, &v);
}

static setun_status fake_tensor(void *user, const char *name, uint32_t want, setun_view *view, setun_error *err)
{
    fake *f = user;
    if (!fake_view(f, name, view))
        return setun_fail(err, SETUN_BAD_FILE, "model.safetensors: there is no tensor '%s'", name);
    if (want)
        view->dtype = want;
    f->n_taken++;
    return SETUN_OK;
}

static setun_status fake_ternary(void *user, const char *name, int32_t zeros, st_script_ternary *out, setun_error *err)
{
    fake *f = user;
    setun_view *codes = &out->codes;
    *out = (st_script_ternary){ .scale = { NULL, SETUN_F32, 1, { 1, 1, 1, 1 } }, .group = f->group, .weight_only = f->weight_only };
    if (!f->is_ternary || (!f->weight_only && (strstr(name, "embed_tokens") || strstr(name, "lm_head"))))
        return SETUN_DECLINED;
    if (!fake_view(f, name, codes))
        return setun_fail(err, SETUN_BAD_FILE, "model.safetensors: there is no tensor '%s'", name);
    codes->dtype = SETUN_T2;
    if (f->group)
        out->scale = (setun_view){ NULL, SETUN_F32, 2, { codes->dim[0], (codes->dim[1] + f->group - 1) / f->group, 1, 1 } };
    out->across = zeros >= f->least_zeros;
    if (out->across) {
        int64_t rows = codes->dim[0];
        codes->dim[0] = codes->dim[1];
        codes->dim[1] = rows;
    }
    f->n_taken++;
    return SETUN_OK;
}

#define HP_INT(k, v) { .key = k, .kind = ST_HP_INT, .i = v }
#define HP_FLOAT(k, v) { .key = k, .kind = ST_HP_FLOAT, .f = v }
#define HP_BOOL(k, v) { .key = k, .kind = ST_HP_BOOL, .i = v }
#define HP_STRING(k, v) { .key = k, .kind = ST_HP_STRING, .s = v }
#define HP_NULL(k) { .key = k, .kind = ST_HP_NULL }

/* The configuration of the 2B4T model with small sizes, then room for more keys. */
static const st_hparam bitnet_hp[24] = {
    HP_STRING("architectures.1", "BitNetForCausalLM"), HP_STRING("auto_map.AutoConfig", "x.BitNetConfig"),
    HP_INT("bos_token_id", 1), HP_INT("eos_token_id", 2), HP_STRING("hidden_act", "relu2"), HP_INT("hidden_size", 256),
    HP_FLOAT("initializer_range", 0.02), HP_INT("intermediate_size", 384), HP_INT("max_position_embeddings", 64),
    HP_STRING("model_type", "bitnet"), HP_INT("num_attention_heads", 4), HP_INT("num_hidden_layers", 2),
    HP_INT("num_key_value_heads", 2), HP_FLOAT("rms_norm_eps", 1e-5), HP_FLOAT("rope_theta", 500000.0),
    HP_BOOL("tie_word_embeddings", 1), HP_STRING("torch_dtype", "bfloat16"), HP_BOOL("use_cache", 1),
    HP_INT("vocab_size", 300), HP_STRING("quantization_config.quant_method", "bitnet"), HP_NULL("rope_scaling"),
    HP_INT("generation.eos_token_id.1", 2),
};
#define N_BITNET_HP 22

typedef struct trial {
    fake            f;
    st_hparam       hp[32];
    st_script_model m;
    const char     *arch, *file;
    st_graph       *g;
    const char     *path;
    setun_error     err;
} trial;

static void trial_init(trial *t)
{
    memset(t, 0, sizeof *t);
    t->f = (fake){ 300, 256, 4, 2, 64, 384, 1, 1, NULL, 0, INT32_MAX, 0, 0 };
    memcpy(t->hp, bitnet_hp, sizeof bitnet_hp);
    t->m = (st_script_model){ NULL, NULL, N_BITNET_HP, 64, SETUN_F32, fake_has, NULL, fake_tensor, fake_ternary };
    t->arch = "BitNetForCausalLM";
}

static st_hparam *key_of(trial *t, const char *key)
{
    for (int64_t i = 0; i < t->m.n_hp; i++)
        if (strcmp(t->hp[i].key, key) == 0)
            return &t->hp[i];
    t->hp[t->m.n_hp].key = key;
    return &t->hp[t->m.n_hp++];
}

static void set(trial *t, const char *key, st_hparam v)
{
    st_hparam *p = key_of(t, key);
    v.key = key;
    *p = v;
}

static setun_status build(world *w, trial *t)
{
    t->m.user = &t->f;
    t->m.hp = t->hp;
    st_script_made made;
    setun_status s = st_script_model_build(w->s, t->file, t->arch, &t->m, &made, &t->err);
    t->g = made.graph;
    t->path = made.path;
    return s;
}

static void build_fails(world *w, trial *t, const char *part)
{
    if (build(w, t) == SETUN_OK)
        fail_msg("built, but wants: %s", part);
    if (!strstr(t->err.text, part))
        fail_msg("gives: %s\n  wants: %s", t->err.text, part);
    assert_null(t->g);
}

/* A graph that differs is left in the build directory, to be looked at and, if right, copied. */
static void compare_golden(const char *text, const char *name)
{
    char path[1000], made[1000], *want = NULL;
    setun_error err = { 0 };
    int64_t n;
    st_out *o;
    (void)snprintf(path, sizeof path, "%s/tests/golden/%s", SETUN_SOURCE_DIR, name);
    (void)snprintf(made, sizeof made, "%s/%s", SETUN_BINARY_DIR, name);
    (void)st_file_read(path, 1 << 20, &want, &n, &err);
    if (!want || strcmp(text, want) != 0) {
        assert_int_equal(st_out_open(&o, made, 0, &err), SETUN_OK);
        assert_int_equal(st_out_write(o, text, (int64_t)strlen(text), &err), SETUN_OK);
        assert_int_equal(st_out_commit(o, &err), SETUN_OK);
        free(want);
        fail_msg("%s and %s differ", path, made);
    }
    free(want);
}

static void bitnet(void **state)
{
    world *w = world_new(NULL);
    trial t;
    (void)state;
    trial_init(&t);
    if (build(w, &t) != SETUN_OK)
        fail_msg("%s", t.err.text);
    assert_non_null(strstr(t.path, "models/bitnet_b158.lua"));
    if (st_graph_verify(t.g, &t.err) != SETUN_OK)
        fail_msg("%s", t.err.text);
    assert_int_equal(t.f.n_taken, 2 + 2 * (7 + 4)); /* every tensor once; the head is tied */
    st_str text = { 0 };
    st_graph_print(t.g, &text);
    assert_false(text.failed);
    compare_golden(text.text, "bitnet_tiny.graph");
    /* Equal nodes are made once: three quantisations of one input become one. */
    st_graph *simple;
    if (st_graph_simplify(t.g, w->r, w->arena, &simple, &t.err) != SETUN_OK)
        fail_msg("%s", t.err.text);
    if (st_graph_verify(simple, &t.err) != SETUN_OK)
        fail_msg("%s", t.err.text);
    assert_true(simple->n_node < t.g->n_node);
    /* The same script gives the same graph in another state. */
    world *w2 = world_new(NULL);
    trial t2;
    trial_init(&t2);
    assert_int_equal(build(w2, &t2), SETUN_OK);
    st_str text2 = { 0 };
    st_graph_print(t2.g, &text2);
    assert_string_equal(text.text, text2.text);
    st_str_free(&text);
    st_str_free(&text2);
    world_free(w2);
    world_free(w);
}

static void bitnet_refusals(void **state)
{
    static const struct { const char *key; st_hparam v; const char *says; } bad[] = {
        { "hidden_act", HP_STRING("", "gelu"), "bitnet_b158.lua:14: config.json: hidden_act is 'gelu', but" },
        { "foo", HP_INT("", 3), "config.json: key 'foo' = 3 is not understood by bitnet_b158.lua" },
        { "sliding.window", HP_FLOAT("", 0.5), "config.json: key 'sliding.window' = 0.5 is not understood" },
        { "logit_scale", HP_STRING("", "big"), "config.json: key 'logit_scale' = \"big\" is not" },
        { "attention_bias", HP_BOOL("", 1), "attention_bias is true" },
        { "hidden_size", HP_INT("", 0), "hidden_size must be a whole number from 1 on, it is 0" },
        { "hidden_size", HP_FLOAT("", 256.5), "hidden_size must be a whole number" },
        { "hidden_size", HP_NULL(""), "hidden_size must be a whole number from 1 on, it is missing" },
        { "hidden_size", HP_INT("", 254), "does not divide into 4 heads" },
        { "num_key_value_heads", HP_INT("", 3), "4 heads do not share 3" },
        { "num_hidden_layers", HP_INT("", INT64_MAX), "" },
        { "rms_norm_eps", HP_STRING("", "x"), "rms_norm_eps must be a number above 0" },
        { "rope_theta", HP_FLOAT("", 0.0), "rope_theta must be a number above 0" },
        { "vocab_size", HP_INT("", 299), "tensor token_embd is bf16[300,256], but config.json makes it [299,256]" },
        { "intermediate_size", HP_INT("", 385), "config.json makes it [385,256]" },
        { "rope_scaling.type", HP_STRING("", "yarn"), "rope_scaling of type 'yarn'" },
        { "rope_scaling", HP_STRING("", "linear"), "rope_scaling is 'linear', not an object" },
        { "rope_scaling.new", HP_INT("", 1), "config.json: key 'rope_scaling.new' = 1 is not understood" },
        { "tie_word_embeddings", HP_BOOL("", 0), "there is no tensor 'lm_head.weight'" },
    };
    world *w = world_new(NULL);
    trial t;
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        trial_init(&t);
        if (strncmp(bad[i].key, "rope_scaling.", 13) == 0)
            key_of(&t, "rope_scaling")->key = "use_cache";
        set(&t, bad[i].key, bad[i].v);
        build_fails(w, &t, bad[i].says);
    }
    trial_init(&t);
    t.f.lie = "model.layers.1.self_attn.o_proj.weight";
    build_fails(w, &t, "tensor blk.1.attn_out is t2[257,256], but config.json makes it [256,256]");
    trial_init(&t);
    t.arch = "MysteryForCausalLM";
    build_fails(w, &t, "is for the architecture 'MysteryForCausalLM'; there are BitnetForCausalLM (bitnet_1bitllm.lua), "
                       "BitNetForCausalLM (bitnet_b158.lua), Gemma3ForCausalLM (gemma3.lua), "
                       "LlamaForCausalLM (llama.lua), Qwen2ForCausalLM (qwen2.lua)");
    world_free(w);
}

static void to_llama(trial *t)
{
    trial_init(t);
    t->arch = "LlamaForCausalLM";
    set(t, "hidden_act", (st_hparam)HP_STRING("", "silu"));
    set(t, "model_type", (st_hparam)HP_STRING("", "llama"));
    set(t, "mlp_bias", (st_hparam)HP_BOOL("", 0));
}

static int count_ops(const st_graph *g, const char *name)
{
    int n = 0;
    for (uint32_t i = 0; i < g->n_node; i++)
        n += strcmp(g->node[i].op->name, name) == 0;
    return n;
}

/* Which matrices come transposed is decided by what the graph tells about their inputs, and everything else
 * stays as it was. */
static void transposed(void **state)
{
    static const struct { int is_llama; int32_t least; int64_t n; } want[] = {
        { 0, ST_ZEROS_RELU, 2 }, { 0, ST_ZEROS_GATED, 2 }, { 1, ST_ZEROS_RELU, 0 }, { 1, ST_ZEROS_GATED, 2 }};
    world *w = world_new(NULL);
    trial t;
    (void)state;
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        if (want[i].is_llama)
            to_llama(&t);
        else
            trial_init(&t);
        t.f.least_zeros = want[i].least;
        if (build(w, &t) != SETUN_OK)
            fail_msg("%s", t.err.text);
        assert_int_equal(count_ops(t.g, "ternary_matmul_t"), want[i].n);
        assert_int_equal(count_ops(t.g, "ternary_matmul"), 14 - want[i].n);
        for (int layer = 0; layer < 2; layer++) {
            char name[64];
            (void)snprintf(name, sizeof name, "blk.%d.ffn_down%s", layer, want[i].n ? ".t" : "");
            st_value_id v = st_graph_find(t.g, name);
            assert_int_not_equal(v, ST_NO_ID);
            assert_int_equal(t.g->value[v].view.dim[0], want[i].n ? 384 : 256);
            assert_int_equal(t.g->value[v].view.dim[1], want[i].n ? 256 : 384);
        }
    }
    world_free(w);
}

/* Scales of groups are passed on; where weights alone are ternary nothing is quantised, and the tied
 * embedding is asked for twice and is one. */
static void groups(void **state)
{
    world *w = world_new(NULL);
    trial t;
    (void)state;
    for (int only = 0; only < 2; only++) {
        to_llama(&t);
        t.f.group = 64;
        t.f.weight_only = only;
        if (build(w, &t) != SETUN_OK)
            fail_msg("%s", t.err.text);
        assert_int_equal(count_ops(t.g, "ternary_matmul"), only ? 0 : 14);
        assert_int_equal(count_ops(t.g, "ternary_matmul_f32"), only ? 15 : 0);
        assert_int_equal(count_ops(t.g, "embed_ternary"), only);
        assert_int_equal(count_ops(t.g, "matmul"), !only);
        assert_int_equal(count_ops(t.g, "quantize_i8") != 0, !only);
        for (uint32_t i = 0; i < t.g->n_node; i++) /* every product, and the embedding */
            if (strstr(t.g->node[i].op->name, "ternary"))
                assert_int_equal(t.g->node[i].attr[0].i, 64);
    }
    world_free(w);
}

static void llama(void **state)
{
    world *w = world_new(NULL);
    trial t;
    (void)state;
    to_llama(&t);
    if (build(w, &t) != SETUN_OK)
        fail_msg("%s", t.err.text);
    assert_int_equal(count_ops(t.g, "ternary_matmul"), 14);
    assert_int_equal(count_ops(t.g, "matmul"), 1);
    assert_int_equal(count_ops(t.g, "rmsnorm"), 5);
    /* floats, an untied head, a head size of its own, scaled rotary positions */
    to_llama(&t);
    t.f.is_ternary = t.f.tied = 0;
    t.f.head_dim = 32;
    set(&t, "tie_word_embeddings", (st_hparam)HP_BOOL("", 0));
    set(&t, "head_dim", (st_hparam)HP_INT("", 32));
    key_of(&t, "rope_scaling")->key = "rope_scaling.rope_type";
    set(&t, "rope_scaling.rope_type", (st_hparam)HP_STRING("", "llama3"));
    set(&t, "rope_scaling.factor", (st_hparam)HP_FLOAT("", 8.0));
    set(&t, "rope_scaling.low_freq_factor", (st_hparam)HP_FLOAT("", 1.0));
    set(&t, "rope_scaling.high_freq_factor", (st_hparam)HP_FLOAT("", 4.0));
    set(&t, "rope_scaling.original_max_position_embeddings", (st_hparam)HP_INT("", 32));
    t.m.kv_dtype = SETUN_F16;
    if (build(w, &t) != SETUN_OK)
        fail_msg("%s", t.err.text);
    if (st_graph_verify(t.g, &t.err) != SETUN_OK)
        fail_msg("%s", t.err.text);
    assert_int_equal(count_ops(t.g, "ternary_matmul"), 0);
    assert_int_equal(count_ops(t.g, "matmul"), 15);
    assert_int_equal(t.f.n_taken, 3 + 2 * 9);
    st_str text = { 0 };
    st_graph_print(t.g, &text);
    assert_non_null(strstr(text.text, "scaling=\"llama3\" factor=8"));
    assert_non_null(strstr(text.text, "state blk.1.v f16[2,64,32]"));
    st_str_free(&text);
    /* the newer spelling */
    to_llama(&t);
    key_of(&t, "rope_theta")->key = "rope_parameters.rope_theta";
    set(&t, "rope_parameters.rope_type", (st_hparam)HP_STRING("", "default"));
    if (build(w, &t) != SETUN_OK)
        fail_msg("%s", t.err.text);
    st_graph_print(t.g, &text);
    assert_non_null(strstr(text.text, "rope_table {theta=5e+05 dim=64"));
    st_str_free(&text);
    to_llama(&t);
    key_of(&t, "rope_scaling")->key = "rope_scaling.type";
    set(&t, "rope_scaling.type", (st_hparam)HP_STRING("", "linear"));
    build_fails(w, &t, "rope_scaling.factor must be a number above 0, it is missing");
    set(&t, "rope_scaling.factor", (st_hparam)HP_INT("", 2));
    assert_int_equal(build(w, &t), SETUN_OK);
    to_llama(&t);
    set(&t, "hidden_act", (st_hparam)HP_STRING("", "gelu"));
    build_fails(w, &t, "llama.lua:12: config.json: hidden_act is 'gelu', but this script computes only silu");
    to_llama(&t);
    set(&t, "mlp_bias", (st_hparam)HP_BOOL("", 1));
    build_fails(w, &t, "mlp_bias is true");
    world_free(w);
}

/* Scripts of the user's own. */
static void own_scripts(void **state)
{
#define MODEL(body) "return setun.model { architectures = {'X'}, build = function(g, hp)\n" body "\nend }"
    static const char *const bad[][2] = {
        { "return 1", "t.lua: a model script ends with return setun.model" },
        { "return setun.model {}", "t.lua:1: setun.model: architectures must be a list" },
        { "return setun.model { architectures = {1}, build = print }", "t.lua:1: architectures must be a string" },
        { "return setun.model { architectures = {'X'} }", "build must be a function" },
        { "return setun.model { architectures = {'X'}, build = print, layers = 3 }", "no field 'layers'" },
        { MODEL(""), "t.lua: build made no output" },
        { MODEL("g:rmsnrom(1)"), "t.lua:2: there is no operator or method 'rmsnrom'" },
        { MODEL("g.relu2(1)"), "t.lua:2: call methods of a graph with a colon" },
        { MODEL("g:relu2()"), "t.lua:2: relu2: input x is missing" },
        { MODEL("g:relu2(3)"), "t.lua:2: relu2: input x is number" },
        { MODEL("g:relu2(g:input 'tokens')"), "t.lua:2: relu2: x is i32[n]" },
        { MODEL("g:input 'x'"), "t.lua:2: input: a model has the inputs" },
        { MODEL("g:input('tokens', 'f32[n]')"), "t.lua:2: input: the inputs of a model have fixed types" },
        { MODEL("g:rmsnorm(g:input 'tokens', g:input 'tokens')"), "t.lua:2: rmsnorm: attribute eps is missing" },
        { MODEL("g:rmsnorm(g:input 'tokens', g:input 'tokens', {eps = 'x'})"), "t.lua:2: rmsnorm: attribute eps must be" },
        { MODEL("g:rmsnorm(g:input 'tokens', g:input 'tokens', {eps = 1, esp = 2})"), "t.lua:2: rmsnorm has no attribute 'esp'" },
        { MODEL("g:relu2(g:input 'tokens', 4, 5)"), "t.lua:2: relu2 takes 1 inputs" },
        { MODEL("local x = g:input 'tokens' + 1"), "t.lua:2: add works on two values" },
        { MODEL("g:weight 'model.embed_tokens.weight' g:output('y', g:scope 'b':weight('x'))"), "t.lua:2: model.safetensors: there is no tensor 'b.x'" },
        { MODEL("g:weight('model.norm.weight', 'i8')"), "t.lua:2: weight: a tensor is converted to f32 or not at all" },
        { MODEL("g:state('s', 'f32', {0})"), "t.lua:2: size 1 is not a number from 1 on" },
        { MODEL("g:state('s', 'f32', {1 << 62, 1 << 62})"), "t.lua:2: " },
        { MODEL("g:state('s', 'f9', {1})"), "'f9' is not an element type" },
        { MODEL("g:state('s', 'f32', {4}) g:state('s', 'f32', {4})"), "t.lua:2: " },
        { MODEL("g:scope('%s', 1)"), "t.lua:2: scope: " },
        { MODEL("g:scope('%d')"), "t.lua:2: scope: " },
        { MODEL("g:scope(('x'):rep(1000))"), "t.lua:2: scope: the name is longer" },
        { MODEL("hp.x.y = 1"), "t.lua:2: attempt to index a nil" },
        { MODEL("g:const('c', 'i32', {2}, {1, 2.5})"), "t.lua:2: const: value 2" },
        { MODEL("g:const('c', 'f32', {3}, {1, 2})"), "t.lua:2: const: the values must be a list of 3" },
        { MODEL("for i = 1, 1e9 do g:scope('a%d', i):state('s', 'f32', {1}) end"), "t.lua:2: " },
        { MODEL("g:output('y', setun.graph():input('x', 'f32[2]'))"), "t.lua:2: output: input y belongs to another graph" },
        { "return setun.model { architectures = {'X'}, names = {['a.%d'] = 'x.%d.%d'}, build = function(g)\n"
          "g:weight 'a.3' end }", "t.lua:2: the script's names have 'x.%d.%d' for 'a.%d'" },
        { "return setun.model { architectures = {'X'}, names = {}, build = function(g)\ng:weight 'a.3' end }",
          "t.lua:2: the script's names have no entry 'a.%d'" },
        { "return setun.model { architectures = {'X'}, names = {a = 'model.norm.weight', b = 'model.norm.weight'},\n"
          "build = function(g) g:weight 'a' g:weight 'b' end }", "t.lua:2: tensor 'model.norm.weight' is already used as a" },
    };
    world *w = world_new(&small);
    trial t;
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        trial_init(&t);
        t.file = file_of(w, bad[i][0], strlen(bad[i][0]));
        build_fails(w, &t, bad[i][1]);
    }
    /* What a script keeps of a finished build is dead, and its tables are its own. */
    static const char keep[] =
        "kept = kept or {}\nlocal def = { architectures = {'X'}, names = {['a.%d'] = 'model.layers.%d.input_layernorm.weight'},\n"
        "ignore = {'generation.*'}, build = function(g, hp)\n"
        "  kept.g, kept.hp = g, hp\n  local v = hp.num_hidden_layers + hp.n_ctx assert(hp.kv == 'f32')\n"
        "  local x = g:embed(g:const('c', 'f32', {2, 2}, {1, 2, 3, 4}), g:input 'tokens')\n"
        "  assert(x.shape == 'f32[n,2]' and x.dtype == 'f32' and x.dims[1] == 'n' and x.dims[2] == 2)\n"
        "  local n = g:weight('a.7', 'f32') assert(n.shape == 'f32[256]' and g:has 'a.7')\n"
        "  kept.x = x\n  g:output('y', x * x) end }\n"
        "local m = setun.model(def)\ndef.build, def.names, def.architectures = 1, 2, 3\n"
        "setun.op 'probe' { doc = 'd', input = {x='f32[...]'}, output = {y='like x'}, cases = {'x:f32[1]'},\n"
        "eval = function(x)\n"
        "  for _, f in pairs { function() return kept.g:input 'tokens' end, function() return kept.hp.n_ctx end,\n"
        "    function() return kept.x.shape end, function() return kept.x + kept.x end } do\n"
        "    local ok, why = pcall(f) assert(not ok and why:find 'finished' or why:find 'gone', why) end\n"
        "  return x end }\nreturn m";
    trial_init(&t);
    t.file = file_of(w, keep, strlen(keep));
    build_fails(w, &t, "is not understood by t.lua");
    t.m.n_hp = 0;
    set(&t, "num_hidden_layers", (st_hparam)HP_INT("", 2));
    world *w2 = world_new(&small);
    if (build(w2, &t) != SETUN_OK)
        fail_msg("%s", t.err.text);
    setun_error err = { 0 };
    st_case c;
    const setun_op *op = st_registry_find(w2->r, "probe");
    assert_int_equal(st_case_make(op, "x:f32[1]", 1, w2->arena, &c, &err), SETUN_OK);
    if (op->eval(&c.run, &err) != SETUN_OK)
        fail_msg("%s", err.text);
    world_free(w2);
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bitnet), cmocka_unit_test(bitnet_refusals), cmocka_unit_test(llama),
        cmocka_unit_test(transposed), cmocka_unit_test(groups), cmocka_unit_test(own_scripts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
