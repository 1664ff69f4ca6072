/* tests/unit/gguf_model.c -- a small model of every architecture as a GGUF file and as a Hugging Face
 * directory must give the same logits, bit for bit, and so must every lossless packing of it.
 *
 * gguf_world.h writes both forms.  Then every key is taken away, made 0, made as large as it goes, or
 * moved by one, and the file must be refused, by name, unless the table says that it may pass. */
#include <math.h>

#include "tests/unit/gguf_run.h"

static char *must_run_file(char *path, const asked *how, float *logits)
{
    must_run(path, how, logits, path);
    return path;
}

static void must_fail(char *path, const asked *how, const char *says)
{
    setun_error err = { 0 };
    float *logits = malloc(sizeof *logits * N_TOKENS * V);
    assert_non_null(logits);
    if (run(path, how, logits, &err) == SETUN_OK)
        fail_msg("runs, but should say: %s", says);
    if (!strstr(err.text, says) || !strstr(err.text, "model.gguf"))
        fail_msg("says: %s\n  should say: %s", err.text, says);
    free(logits);
    free(path);
}

static void test_lossless(void **state)
{
    static const struct { int type, plain; const char *name; asked how; change c; } forms[] = {
        { T_TQ1_0, T_BF16, "TQ1_0", { NULL, "int8", NULL }, { .key = NULL } },
        { T_TQ2_0, T_F16, "TQ2_0", { NULL, "int8", NULL }, { .key = NULL } },
        { T_I2S, T_BF16, "I2_S x86", { "x86", NULL, NULL }, { .layout = 0 } },
        { T_I2S, T_F32, "I2_S arm", { "arm", "int8", NULL }, { .layout = 1 } },
        { T_I2S, T_BF16, "I2_S rows4", { "rows4", NULL, NULL }, { .layout = 2 } },
        { T_IQ1_BN, T_Q8_0, "IQ1_BN", { NULL, NULL, NULL }, { .key = NULL } },
        { T_IQ2_BN, T_BF16, "IQ2_BN", { NULL, "int8", NULL }, { .key = NULL } },
    };
    float *want = malloc(LOGITS), *got = malloc(LOGITS);
    (void)state;
    assert_true(want && got);
    for (size_t a = 0; a < N_ARCHS; a++) {
        world *w = make_world(&archs[a], 77 + a);
        char *dir = temp_dir(), what[100];
        write_dir(w, dir, 1, &nothing);
        must_run(dir, NULL, want, archs[a].name);
        for (size_t f = 0; f < sizeof forms / sizeof *forms; f++) {
            asked how = forms[f].how;
            if (forms[f].type == T_I2S && !archs[a].bitnet && strcmp(archs[a].name, "qwen2") == 0)
                continue; /* nobody writes it, and the number 36 has another meaning there */
            (void)snprintf(what, sizeof what, "%s, %s", archs[a].name, forms[f].name);
            char *path = write_gguf(w, dir, forms[f].type, forms[f].plain, &forms[f].c);
            must_run(path, &how, got, what);
            same(got, want, what);
            free(path);
        }
        drop_dir(dir);
        drop_world(w);
    }
    free(want);
    free(got);
}

/* Linear layers as floats are ordinary matrices but in BitNet's architectures, where three values are
 * ternary again. */
static void test_floats(void **state)
{
    static const int types[] = { T_F32, T_F16, T_BF16, T_Q8_0 };
    float *want = malloc(LOGITS), *got = malloc(LOGITS);
    (void)state;
    assert_true(want && got);
    for (size_t a = 0; a < N_ARCHS; a++) {
        world *w = make_world(&archs[a], 177 + a);
        char *dir = temp_dir(), what[100];
        write_dir(w, dir, archs[a].bitnet, &nothing);
        must_run(dir, NULL, want, archs[a].name);
        for (int i = 0; i < 4; i++) {
            (void)snprintf(what, sizeof what, "%s, type %d", archs[a].name, types[i]);
            char *path = write_gguf(w, dir, types[i], types[i], &nothing);
            must_run(path, NULL, got, what);
            same(got, want, what);
            free(path);
        }
        drop_dir(dir);
        drop_world(w);
    }
    free(want);
    free(got);
}

/* Is this key, changed in this way, still a model, though perhaps another one? */
static int may_pass(const arch *a, const char *key, int how)
{
    static const char *const optional[] = { ".attention.value_length", ".rope.dimension_count", ".vocab_size",
                                            "tokenizer.ggml.eos_token_id", "tokenizer.ggml.bos_token_id" };
    if (strcmp(key, ".context_length") == 0) /* a limit */
        return how != MISSING && how != ZERO && how != MAXIMUM;
    if (strcmp(key, ".attention.sliding_window") == 0) /* another window */
        return how == ONE_MORE || how == ONE_LESS;
    if (strstr(key, "rms_epsilon") || strcmp(key, ".rope.freq_base") == 0) /* other numbers */
        return how == ONE_MORE || (how == ONE_LESS && !strstr(key, "rms")) ||
               (how == MISSING && strcmp(key, ".rope.freq_base") == 0 && (a->interleaved || strcmp(a->name, "bitnet") == 0));
    if (strcmp(key, ".attention.sliding_window_pattern") == 0 || strcmp(key, ".rope.freq_base_swa") == 0) /* other layers, or angles */
        return how == MISSING || ((how == ONE_MORE || how == ONE_LESS) && a->gemma);
    if (strcmp(key, ".rope.scaling.factor") == 0)
        return how == ONE_MORE || how == ONE_LESS;
    if (strcmp(key, ".expert_count") == 0 || strcmp(key, ".pooling_type") == 0) /* a mixture, or vectors: other models */
        return how == MISSING || how == ZERO;
    if (strcmp(key, "general.quantization_version") == 0)
        return how == MISSING;
    if (strcmp(key, ".attention.key_length") == 0) /* follows from the heads, unless they are of another size */
        return 0;
    if (strcmp(key, ".attention.head_count_kv") == 0 && how == MISSING)
        return a->heads == a->kv;
    for (size_t i = 0; i < sizeof optional / sizeof *optional; i++)
        if (strcmp(key, optional[i]) == 0)
            return how == MISSING || (i > 2 && how != MAXIMUM);
    return 0;
}

static void test_keys(void **state)
{
    static const char *const keys[] = {
        ".context_length", ".embedding_length", ".block_count", ".feed_forward_length", ".attention.head_count",
        ".attention.head_count_kv", ".attention.layer_norm_rms_epsilon", ".rope.freq_base", ".rope.dimension_count", ".vocab_size",
        ".attention.key_length", ".attention.value_length", ".attention.sliding_window", "tokenizer.ggml.eos_token_id",
        "tokenizer.ggml.bos_token_id", ".rope.freq_base_swa", ".attention.sliding_window_pattern", ".rope.scaling.factor",
        ".expert_count", ".pooling_type", "general.quantization_version" };
    int refused = 0, passed = 0;
    (void)state;
    for (size_t a = 0; a < N_ARCHS; a++) {
        world *w = make_world(&archs[a], 277 + a);
        char *dir = temp_dir();
        gguf_maker tensors = { .alignment = 32 };
        put_tensors(&tensors, w, T_IQ2_BN, T_BF16, &nothing);
        for (size_t k = 0; k < sizeof keys / sizeof *keys; k++)
            for (int how = MISSING; how < N_WAYS; how++) {
                int has = (!strstr(keys[k], "e_length") && !strstr(keys[k], "y_length")) || archs[a].head_norm;
                change c = { .key = keys[k], .how = how, .linear = strstr(keys[k], "scaling") ? 4 : 0 };
                setun_error err = { 0 };
                if (!has || (strstr(keys[k], "window") && !archs[a].gemma))
                    continue;
                gguf_maker m = { .alignment = 32, .n_tensors = tensors.n_tensors };
                put_keys(&m, w, T_IQ2_BN, &c);
                st_str_addn(&m.infos, tensors.infos.text, tensors.infos.len);
                st_str_addn(&m.data, tensors.data.text, tensors.data.len);
                char *path = finish_gguf(&m, dir);
                st_weights *files;
                setun_status st = st_weights_open(&files, path, NULL, &err);
                st_weights_close(st == SETUN_OK ? files : NULL);
                if ((st == SETUN_OK) != may_pass(&archs[a], keys[k], how))
                    fail_msg("%s%s, change %d: %s", archs[a].name, keys[k], how, st == SETUN_OK ? "passes" : err.text);
                if (st != SETUN_OK && (!strstr(err.text, "model.gguf") || !(strstr(err.text, keys[k] + 1) || strstr(err.text, "tensor "))))
                    fail_msg("%s%s, change %d, says: %s", archs[a].name, keys[k], how, err.text);
                refused += st != SETUN_OK;
                passed += st == SETUN_OK;
                free(path);
            }
        st_str_free(&tensors.infos);
        st_str_free(&tensors.data);
        drop_dir(dir);
        drop_world(w);
    }
    print_message("  %d changes of keys were refused, %d are harmless or make another model\n", refused, passed);
    assert_true(refused > 300);
}

static void test_refusals(void **state)
{
    static const struct { const char *arch; int type; asked how; change c; const char *says; } wrongs[] = {
        { "bitnet-b1.58", T_IQ2_BN, { NULL, NULL, NULL }, { .drop = "blk.1.ffn_sub_norm.weight" }, "tensor blk.1.ffn_sub_norm.weight is missing" },
        { "bitnet-b1.58", T_IQ2_BN, { NULL, NULL, NULL }, { .drop = "token_embd.weight" }, "tensor token_embd.weight is missing" },
        { "bitnet-b1.58", T_IQ2_BN, { NULL, NULL, NULL }, { .add = "blk.0.attn_q.bias" }, "tensor blk.0.attn_q.bias is not one that Setun knows for the architecture bitnet-b1.58" },
        { "bitnet-b1.58", T_IQ2_BN, { NULL, NULL, NULL }, { .add = "blk.01.attn_norm.weight" }, "tensor blk.01.attn_norm.weight is not one" },
        { "bitnet-b1.58", T_IQ2_BN, { NULL, NULL, NULL }, { .add = "blk.2.attn_norm.weight" }, "tensor blk.2.attn_norm.weight is there, but bitnet-b1.58.block_count is 2" },
        { "bitnet-b1.58", T_IQ2_BN, { NULL, NULL, NULL }, { .add = "rope_freqs.weight" }, "rope_freqs.weight" },
        { "bitnet-b1.58", T_IQ2_BN, { NULL, NULL, NULL }, { .text_key = "bitnet-b1.58.logit_scale", .text = "1" }, "key bitnet-b1.58.logit_scale is not known to Setun" },
        { "bitnet-b1.58", T_IQ2_BN, { NULL, NULL, NULL }, { .text_key = "bitnet-b1.58.attention.sliding_window", .text = "1" }, "attention.sliding_window is not known" },
        { "bitnet-b1.58", T_IQ2_BN, { NULL, NULL, NULL }, { .text_key = "bitnet-b1.58.hidden_activation", .text = "silu" }, "hidden_activation is 'silu'; with this architecture Setun computes relu2" },
        { "bitnet-b1.58", T_IQ2_BN, { NULL, NULL, NULL }, { .text_key = "bitnet-b1.58.rope.scaling.type", .text = "yarn" }, "rope.scaling.type is 'yarn'; none and linear are known" },
        { "bitnet-b1.58", T_IQ2_BN, { NULL, NULL, NULL }, { .text_key = "bitnet-b1.58.rope.scaling.type", .text = "linear" }, "rope.scaling.factor is missing" },
        { "bitnet-b1.58", T_IQ2_BN, { NULL, NULL, NULL }, { .text_key = "bitnet-b1.58.expert_count", .text = "1" }, "expert_count is not 0" },
        { "bitnet-b1.58", T_IQ2_BN, { NULL, NULL, NULL }, { .text_key = "prism.hadamard.block_size", .text = "1" }, "key prism.hadamard.block_size: activations must go through a Hadamard transform" },
        { "bitnet-b1.58", T_IQ2_BN, { NULL, NULL, NULL }, { .text_key = "x.y", .text = "1" }, "the key x.y is not known" },
        { "bitnet-b1.58", T_IQ2_BN, { NULL, NULL, NULL }, { .text_key = "general.type", .text = "adapter" }, "general.type is not \"model\"" },
        { "bitnet-b1.58", T_IQ2_BN, { NULL, NULL, NULL }, { .text_key = "general.quantization_version", .text = "2" }, "general.quantization_version is not 2" },
        { "bitnet-b1.58", T_I2S, { NULL, NULL, NULL }, { .key = NULL }, "say --i2s-layout x86 (most files), arm or rows4" },
        { "bitnet-b1.58", T_I2S, { NULL, NULL, NULL }, { .name = "bitnet2b" }, "say --i2s-layout" },
        { "bitnet-b1.58", T_IQ2_BN, { "x86", NULL, NULL }, { .key = NULL }, "a layout of I2_S was given, but no tensor has this type" },
        { "bitnet-b1.58", T_TQ2_0, { NULL, "float", NULL }, { .key = NULL }, "--activations float was given, but bitnet-b1.58 means int8" },
        { "bitnet-b1.58", T_F32, { NULL, NULL, NULL }, { .scales = SCALES_ROWS }, "the layer is not ternary, and with the architecture bitnet-b1.58 it has to be" },
        { "llama", T_TQ1_0, { NULL, NULL, NULL }, { .key = NULL }, "say --activations int8 (BitNet, Falcon3, Falcon-E) or --activations float (TriLM, BitCPM)" },
        { "qwen3", T_IQ1_BN, { NULL, "float", NULL }, { .key = NULL }, "--activations float was given, but IQ1_BN means int8" },
        { "qwen3", T_Q2_0, { NULL, "int8", NULL }, { .key = NULL }, "--activations int8 was given, but Q2_0 means float" },
        { "qwen2", T_F16, { NULL, "int8", NULL }, { .key = NULL }, "--activations int8 was given, but no linear layer is ternary" },
        { "qwen3", T_PQ2_0, { NULL, NULL, NULL }, { .two_at = 700 }, "has the weight +2 at row 2, column 188: it is not ternary" },
        { "llama", T_IQ1_BN, { NULL, NULL, NULL }, { .llama3 = 2 }, "tensor rope_freqs.weight: its divisors are not those of Llama 3's scaling" },
        { "qwen2", T_IQ1_BN, { NULL, NULL, NULL }, { .llama3 = 1 }, "tensor rope_freqs.weight is not F32 for half a head" },
        { "qwen2", T_F16, { NULL, NULL, NULL }, { .drop = "blk.0.attn_k.bias" }, "tensor blk.0.attn_k.bias is missing" },
        { "gemma3", T_F16, { NULL, NULL, NULL }, { .drop = "blk.1.post_ffw_norm.weight" }, "tensor blk.1.post_ffw_norm.weight is missing" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof wrongs / sizeof *wrongs; i++) {
        world *w = make_world(named(wrongs[i].arch), 377 + i);
        char *dir = temp_dir();
        must_fail(write_gguf(w, dir, wrongs[i].type, T_BF16, &wrongs[i].c), &wrongs[i].how, wrongs[i].says);
        drop_dir(dir);
        drop_world(w);
    }
}

/* Ternary weights whose activations stay floats: a directory has the products of weight and scale. */
static void test_weight_only(void **state)
{
    static const struct { const char *arch; int type; change c; } forms[] = {
        { "llama", T_TQ2_0, { .scales = 0 } }, { "llama", T_TQ1_0, { .scales = 256 } }, { "llama", T_TQ2_0, { .scales = SCALES_ROWS } },
        { "llama", T_F16, { .scales = 64 } }, { "qwen3", T_Q2_0, { .scales = 64 } }, { "qwen3", T_Q2_0, { .scales = 128 } },
        { "qwen3", T_Q2_0_128, { .scales = 128 } }, { "qwen3", T_PQ2_0, { .scales = 256 } }, { "qwen3", T_PTQ1_0, { .scales = 128 } },
        { "qwen3", T_PQ2_0, { .scales = 128, .embedding = 1 } }, { "qwen2", T_Q2_0, { .scales = 64, .embedding = 1 } },
        { "gemma3", T_PTQ1_0, { .scales = SCALES_ROWS, .embedding = 1 } }, { "qwen2", T_Q8_0, { .scales = 128 } },
        { "llama", T_TQ2_0, { .scales = 256, .embedding = 1 } } };
    float *want = malloc(LOGITS), *got = malloc(LOGITS);
    (void)state;
    assert_true(want && got);
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        world *w = make_world(named(forms[i].arch), 727 + i);
        char *dir = temp_dir(), what[60], *cache = join(dir, "cache");
        int is_tq = forms[i].type == T_TQ1_0 || forms[i].type == T_TQ2_0;
        asked how = { NULL, is_tq ? "float" : NULL, cache };
        (void)snprintf(what, sizeof what, "%s, type %d, scales %d", forms[i].arch, forms[i].type, forms[i].c.scales);
        if (forms[i].c.embedding)
            (void)all_ternary(w);
        write_dir(w, dir, 0, &forms[i].c);
        must_run(dir, NULL, want, what);
        char *path = write_gguf(w, dir, forms[i].type, T_BF16, &forms[i].c);
        for (int k = 0; k < 2; k++) {
            must_run(path, &how, got, what);
            same(got, want, what);
        }
        if (is_tq) { /* with 8-bit activations it is another model */
            how.activations = "int8";
            must_run(path, &how, got, what);
            assert_memory_not_equal(got, want, LOGITS);
        }
        free(path);
        free(cache);
        drop_dir(dir);
        drop_world(w);
    }
    free(want);
    free(got);
}

/* A scale for each row, and 8-bit activations: no directory has that, but two packings do. */
static void test_rows(void **state)
{
    float *want = malloc(LOGITS), *got = malloc(LOGITS);
    world *w = make_world(named("bitnet"), 757);
    char *dir = temp_dir();
    const change rows = { .scales = SCALES_ROWS };
    (void)state;
    assert_true(want && got);
    free(must_run_file(write_gguf(w, dir, T_IQ1_BN, T_BF16, &rows), NULL, want));
    free(must_run_file(write_gguf(w, dir, T_IQ2_BN, T_BF16, &rows), NULL, got));
    same(got, want, "IQ2_BN");
    free(must_run_file(write_gguf(w, dir, T_TQ2_0, T_BF16, &rows), NULL, got));
    same(got, want, "TQ2_0");
    free(must_run_file(write_gguf(w, dir, T_IQ2_BN, T_BF16, &nothing), NULL, got));
    assert_memory_not_equal(got, want, LOGITS);
    drop_dir(dir);
    drop_world(w);
    free(want);
    free(got);
}

/* What files say in other ways than most. */
static void test_forms(void **state)
{
    static const struct { const char *arch; int type, plain; change c; } forms[] = {
        { "bitnet-b1.58", T_TQ2_0, T_F16, { .ones = 1 } },
        { "bitnet-25", T_IQ2_BN, T_F16, { .repeat = 1 } },
        { "bitnet-25", T_IQ2_BN, T_Q8_0, { .repeat = 1 } },
        { "bitnet-b1.58", T_IQ2_BN, T_BF16, { .lists = 1 } },
        { "bitnet-b1.58", T_IQ2_BN, T_BF16, { .text_key = "bitnet-b1.58.hidden_activation", .text = "relu2" } },
        { "llama", T_IQ2_BN, T_BF16, { .text_key = "llama.rope.scaling.type", .text = "none" } },
        { "llama", T_IQ1_BN, T_BF16, { .llama3 = 1, .config = ",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8.0,"
          "\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,\"original_max_position_embeddings\":8192}" } },
        { "qwen2", T_IQ1_BN, T_BF16, { .linear = 4, .config = ",\"rope_scaling\":{\"type\":\"linear\",\"factor\":4.0}" } },
        { "bitnet", T_IQ1_BN, T_BF16, { .linear = 1 } },
        { "gemma3", T_IQ1_BN, T_BF16, { .layers = "wf", .config = ",\"layer_types\":[\"sliding_attention\",\"full_attention\"]" } },
    };
    float *want = malloc(LOGITS), *got = malloc(LOGITS), *plain = malloc(LOGITS);
    (void)state;
    assert_true(want && got && plain);
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        arch own = *named(forms[i].arch);
        if (forms[i].c.layers) /* layer_types instead of the pattern */
            own.extra = ",\"head_dim\":128,\"query_pre_attn_scalar\":128,\"sliding_window\":4,\"rope_local_base_freq\":1e4";
        world *w = make_world(&own, 477 + i);
        char *dir = temp_dir(), what[40], *path = write_gguf(w, dir, forms[i].type, forms[i].plain, &forms[i].c);
        (void)snprintf(what, sizeof what, "form %d, %s", (int)i, own.name);
        write_dir(w, dir, 1, &forms[i].c);
        must_run(dir, NULL, want, what);
        must_run(path, NULL, got, what);
        same(got, want, what);
        free(path);
        if (forms[i].c.config) { /* and it makes a difference */
            own.extra = named(own.name)->extra;
            write_dir(w, dir, 1, &nothing);
            must_run(dir, NULL, plain, what);
            assert_memory_not_equal(plain, want, LOGITS);
        }
        drop_dir(dir);
        drop_world(w);
    }
    free(want);
    free(got);
    free(plain);
}

/* The cache: written, then read; and anew for another file. */
static void test_cache(void **state)
{
    static const struct { const char *arch; int type, plain; } forms[] = {
        { "bitnet-b1.58", T_IQ2_BN, T_Q8_0 }, { "llama", T_F16, T_Q8_0 }, { "llama", T_Q8_0, T_F16 } };
    float *want = malloc(LOGITS), *got = malloc(LOGITS);
    (void)state;
    assert_true(want && got);
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        const arch *a = named(forms[i].arch);
        char *dir = temp_dir(), *cache = join(dir, "cache");
        asked how = { NULL, NULL, cache };
        for (uint64_t seed = 577; seed < 579; seed++) {
            world *w = make_world(a, seed);
            char *path = write_gguf(w, dir, forms[i].type, forms[i].plain, &nothing);
            write_dir(w, dir, a->bitnet, &nothing);
            must_run(dir, NULL, want, a->name);
            for (int k = 0; k < 2; k++) {
                must_run(path, &how, got, a->name);
                same(got, want, k ? "from the cache" : "with a new cache");
            }
            free(path);
            drop_world(w);
        }
        free(cache);
        drop_dir(dir);
    }
    free(want);
    free(got);
}

/* Everything that a script may ask of a file. */
static setun_status ask_all(const char *path, const st_weights_choice *choice, setun_error *err)
{
    st_weights *w;
    setun_status s = st_weights_open_as(&w, path, choice, NULL, err);
    for (int64_t i = 0; s == SETUN_OK && i < st_weights_count(w); i++) {
        const char *name = st_weights_at(w, i)->name;
        char linear[128];
        st_ternary t;
        setun_view v;
        (void)snprintf(linear, sizeof linear, "%.*s", (int)strlen(name) - 7, name);
        s = strcmp(name + strlen(linear), ".weight") ? SETUN_DECLINED : st_weights_ternary(w, linear, i % 2 != 0, &t, err);
        if (s == SETUN_DECLINED)
            s = st_weights_tensor(w, name, 0, &v, err);
    }
    if (w)
        st_weights_close(w);
    return s;
}

/* Bytes of the header, one by one, are something else: the file is refused with a sentence, or is another
 * model.  Sanitizers see the rest. */
static void test_damage(void **state)
{
    static const struct { const char *arch; int type; } forms[] = { { "bitnet-b1.58", T_I2S }, { "gemma3", T_TQ1_0 }, { "llama", T_F16 } };
    int refused = 0, passed = 0;
    (void)state;
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        world *w = make_world(named(forms[i].arch), 677 + i);
        char *dir = temp_dir(), *path = write_gguf(w, dir, forms[i].type, T_Q8_0, &nothing);
        st_weights_choice choice = { .i2s = forms[i].type == T_I2S, .activations = forms[i].type == T_TQ1_0 };
        setun_error err = { 0 };
        FILE *f = fopen(path, "r+b");
        assert_non_null(f);
        if (ask_all(path, &choice, &err) != SETUN_OK)
            fail_msg("%s: %s", forms[i].arch, err.text);
        for (int k = 0; k < 250; k++) {
            long at = (long)(next_random(&w->seed) % 6000);
            assert_int_equal(fseek(f, at, SEEK_SET), 0);
            int was = fgetc(f), is = k % 2 ? was ^ 1 << next_random(&w->seed) % 8 : (int)(next_random(&w->seed) & 255);
            assert_int_equal(fseek(f, at, SEEK_SET), 0);
            assert_int_equal(fputc(is, f), is);
            assert_int_equal(fflush(f), 0);
            memset(&err, 0, sizeof err);
            setun_status s = ask_all(path, &choice, &err);
            assert_true(s == SETUN_OK || (s < 0 && err.text[0]));
            refused += s != SETUN_OK;
            passed += s == SETUN_OK;
            assert_int_equal(fseek(f, at, SEEK_SET), 0);
            assert_int_equal(fputc(was, f), was);
        }
        assert_int_equal(fclose(f), 0);
        free(path);
        drop_dir(dir);
        drop_world(w);
    }
    print_message("  %d damaged files were refused, %d are other models\n", refused, passed);
    assert_true(refused > 300);
}

/* ---------------------------------------------------------------- the official file */

typedef struct official {
    const char *architecture, *name;
    int         pre, eot; /* tokenizer.ggml.pre is there; token 128009 is <|eot_id|> */
} official;

/* All of 2B4T but its weights: they are a hole in the file. */
static char *write_official(const char *dir, const official *o)
{
    static const struct { const char *name; int id; int64_t cols, rows; } layer[] = {
        { "attn_norm", 0, 2560, 1 }, { "ffn_down", 36, 6912, 2560 }, { "ffn_sub_norm", 0, 6912, 1 }, { "ffn_gate", 36, 2560, 6912 },
        { "ffn_up", 36, 2560, 6912 }, { "ffn_norm", 0, 2560, 1 }, { "attn_sub_norm", 0, 2560, 1 }, { "attn_k", 36, 2560, 640 },
        { "attn_output", 36, 2560, 2560 }, { "attn_q", 36, 2560, 2560 }, { "attn_v", 36, 2560, 640 } };
    static const struct { const char *key; uint32_t v; } numbers[] = {
        { "vocab_size", 128256 }, { "context_length", 4096 }, { "embedding_length", 2560 }, { "block_count", 30 },
        { "feed_forward_length", 6912 }, { "rope.dimension_count", 128 }, { "attention.head_count", 20 }, { "attention.head_count_kv", 5 } };
    gguf_maker m = { .alignment = 32 };
    st_str tokens = { 0 }, file = { 0 };
    char key[64], *path = join(dir, "model.gguf");
    size_t at = 0, scale_at[210];
    int n_scales = 0;
    kv_text(&m, "general.architecture", o->architecture);
    kv_text(&m, "general.name", o->name);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        (void)snprintf(key, sizeof key, "%s.%s", o->architecture, numbers[i].key);
        kv_u32(&m, key, numbers[i].v);
    }
    (void)snprintf(key, sizeof key, "%s.attention.layer_norm_rms_epsilon", o->architecture);
    kv(&m, key, KV_F32, bits_of(1e-5f), 4);
    (void)snprintf(key, sizeof key, "%s.rope.freq_base", o->architecture);
    kv(&m, key, KV_F32, bits_of(500000.0f), 4);
    kv_u32(&m, "general.file_type", 40);
    for (int i = 0; i < 128256; i++) {
        const char *text = i == 128009 && o->eot ? "<|eot_id|>" : "x";
        put_le(&tokens, strlen(text), 8);
        st_str_add(&tokens, text);
    }
    kv_array(&m, "tokenizer.ggml.tokens", KV_STRING, 128256, tokens.text, tokens.len);
    kv_u32(&m, "tokenizer.ggml.eos_token_id", 128001);
    if (o->pre)
        kv_text(&m, "tokenizer.ggml.pre", "llama-bpe");
    for (int l = -1; l < 30; l++)
        for (int i = 0; i < (l < 0 ? 2 : 11); i++) {
            int64_t cols = l < 0 ? 2560 : layer[i].cols, rows = l < 0 ? i ? 1 : 128256 : layer[i].rows;
            int id = l < 0 ? !i : layer[i].id, rank = rows > 1 ? 2 : 1;
            (void)snprintf(key, sizeof key, l < 0 ? i ? "output_norm.weight" : "token_embd.weight" : "blk.%d.%s.weight", l, l < 0 ? "" : layer[i].name);
            gguf_tensor(&m, key, (uint32_t)id, rank, (const int64_t[]){ cols, rows }, "", 0);
            memcpy(m.infos.text + m.infos.len - 8, &at, 8);
            size_t bytes = (size_t)(cols * rows);
            if (id == 36)
                scale_at[n_scales++] = at + bytes / 4;
            at += id == 36 ? bytes / 4 + 32 : bytes * (id ? 2 : 4);
        }
    gguf_bytes(&m, &file);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(file.text, 1, file.len, f), file.len);
    assert_int_equal(n_scales, 210);
    for (int i = 0; i < n_scales; i++) {
        const float one = 1.5f;
        assert_int_equal(fseek(f, (long)(file.len + scale_at[i]), SEEK_SET), 0);
        assert_int_equal(fwrite(&one, 4, 1, f), 1);
    }
    assert_int_equal(fclose(f), 0);
    assert_int_equal(truncate(path, (off_t)(file.len + at)), 0);
    st_str_free(&tokens);
    st_str_free(&file);
    return path;
}

static int has_line(const st_weights *w, const char *part)
{
    int64_t n, found = 0;
    const char *const *line = st_weights_lines(w, &n);
    for (int64_t i = 0; i < n; i++)
        found += strstr(line[i], part) != NULL;
    return (int)found;
}

static int has_end(const st_weights *w, int64_t id)
{
    int64_t n, found = 0;
    const st_hparam *hp = st_weights_config(w, &n);
    for (int64_t i = 0; i < n; i++)
        found += strstr(hp[i].key, "eos_token_id") != NULL && hp[i].i == id;
    return (int)found;
}

static void test_official(void **state)
{
    static const struct { official o; const char *refused, *line; int eot; } cases[] = {
        { { "bitnet-b1.58", "bitnet2b", 0, 1 }, NULL, "<|eot_id|>, ends a text, too", 1 },
        { { "bitnet-25", "bitnet2b_2501", 0, 1 }, NULL, "<|eot_id|>, ends a text, too", 1 },
        { { "bitnet-b1.58", "bitnet2b", 0, 0 }, NULL, "the gate is relu2", 0 },
        { { "bitnet-b1.58", "bitnet2b", 1, 1 }, "which has three layouts of one size", NULL, 0 },
        { { "bitnet-b1.58", "my conversion", 0, 1 }, "which has three layouts of one size", NULL, 0 },
        { { "bitnet", "bitnet2b", 0, 1 }, NULL, "repaired: the architecture bitnet means SiLU, but the sizes are those of BitNet b1.58 2B4T", 1 },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *dir = temp_dir(), *path = write_official(dir, &cases[i].o);
        st_weights *w = NULL;
        setun_error err = { 0 };
        setun_status s = st_weights_open(&w, path, NULL, &err);
        if ((s == SETUN_OK) != !cases[i].refused)
            fail_msg("case %d: %s", (int)i, s == SETUN_OK ? "opens" : err.text);
        if (cases[i].refused)
            assert_non_null(strstr(err.text, cases[i].refused));
        else {
            assert_true(has_line(w, cases[i].line));
            assert_int_equal(has_end(w, 128001), 1);
            assert_int_equal(has_end(w, 128009), cases[i].eot);
            assert_string_equal(st_weights_architecture(w), "BitNetForCausalLM");
        }
        st_weights_close(w);
        free(path);
        drop_dir(dir);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_lossless), cmocka_unit_test(test_floats), cmocka_unit_test(test_keys),
                                        cmocka_unit_test(test_refusals), cmocka_unit_test(test_weight_only), cmocka_unit_test(test_rows), cmocka_unit_test(test_forms),
                                        cmocka_unit_test(test_cache), cmocka_unit_test(test_damage), cmocka_unit_test(test_official) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
