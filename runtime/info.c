/* runtime/info.c -- what was decided about a model and from what evidence, and what is loaded. */
#include <inttypes.h>
#include <string.h>

#include "base/error.h"
#include "runtime/format.h"
#include "runtime/requantise.h"
#include "runtime/tune.h"

static setun_status finish(st_str *t, setun_status s, setun_write_fn *out, void *user, setun_error *err)
{
    if (s == SETUN_OK && t->failed)
        s = st_fail(err, SETUN_NO_MEMORY, "no memory for the text");
    if (s == SETUN_OK && out(user, t->text ? t->text : "", t->len))
        s = st_fail(err, SETUN_CANCELLED, "cancelled by the caller, who took no more text");
    st_str_free(t);
    return s;
}

/* One fact, in either form. */
typedef struct facts {
    st_str t;
    int    json;
    int    n;
} facts;

static void begin(facts *f, const char *key)
{
    if (f->json) {
        st_str_add(&f->t, f->n++ ? ",\n  " : "{\n  ");
        st_str_add_json(&f->t, key, strlen(key));
        st_str_add(&f->t, ": ");
    } else {
        st_str_addf(&f->t, "%-22s ", key);
    }
}

static void text(facts *f, const char *key, const char *value)
{
    begin(f, key);
    if (f->json)
        st_str_add_json(&f->t, value, strlen(value));
    else
        st_str_addf(&f->t, "%s\n", value);
}

static void number(facts *f, const char *key, int64_t value, const char *unit)
{
    begin(f, key);
    st_str_addf(&f->t, "%" PRId64, value);
    if (!f->json)
        st_str_addf(&f->t, "%s%s\n", *unit ? " " : "", unit);
}

static void megabytes(facts *f, const char *key, int64_t bytes)
{
    if (f->json) {
        number(f, key, bytes, "");
    } else {
        begin(f, key);
        st_str_addf(&f->t, "%.1f MB\n", (double)bytes / 1e6);
    }
}

/* Which template conversations would have, or why none. */
static void chat_template(facts *f, const setun_model *m)
{
    st_format format = {0};
    setun_error why;
    if (st_format_open(&format, m, NULL, &why) == SETUN_OK) {
        text(f, "chat_template", format.t->name);
        text(f, "chat_template_from", format.evidence);
    } else {
        text(f, "chat_template", "none");
        text(f, "chat_template_from", why.text);
    }
    st_format_close(&format);
}

/* The operator of the gate, as the graph has it. */
static const char *gate(const st_graph *g)
{
    static const char *const known[] = {"relu2", "silu", "gelu_tanh"};
    for (st_node_id n = 0; n < g->n_node; n++)
        for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
            if (strcmp(g->node[n].op->name, known[i]) == 0)
                return known[i];
    return "none";
}

/* Nodes of an operator; *first is one of them, or NULL. */
static int64_t nodes_of(const st_graph *g, const char *op, const st_node **first)
{
    int64_t n = 0;
    *first = NULL;
    for (st_node_id i = 0; i < g->n_node; i++)
        if (strcmp(g->node[i].op->name, op) == 0) {
            *first = *first ? *first : &g->node[i];
            n++;
        }
    return n;
}

static const st_hparam *key_of(const setun_model *m, const char *key)
{
    int64_t n;
    const st_hparam *hp = st_weights_config(m->weights, &n);
    for (int64_t i = 0; i < n; i++)
        if (strcmp(hp[i].key, key) == 0 && hp[i].kind != ST_HP_NULL)
            return &hp[i];
    return NULL;
}

/* Decisions, one after the other. */
typedef struct plan {
    facts *f;
    st_str line;
    int    n;
} plan;

static void decide(plan *p, const char *what)
{
    if (p->f->json) {
        st_str_add(&p->f->t, p->n ? ", " : "");
        st_str_add_json(&p->f->t, what, strlen(what));
    } else {
        text(p->f, "decision", what);
    }
    p->n++;
}

static void end_line(plan *p)
{
    p->f->t.failed |= p->line.failed;
    if (!p->line.failed)
        decide(p, p->line.text);
    st_str_free(&p->line);
}

static void say_norms(plan *p, const setun_model *m)
{
    static const char *const rows[][2] = {
        {"self_attn.attn_sub_norm.weight", "attention and gate have a norm behind them"},
        {"self_attn.inner_attn_ln.weight", "attention and gate have a norm behind them"},
        {"post_feedforward_layernorm.weight", "attention and feed-forward have a norm behind them, too, before they join the residual"},
        {"self_attn.q_norm.weight", "heads of queries and keys are normalised"},
        {"self_attn.q_proj.norm.weight", "every linear layer normalises its input"},
        {"self_attn.q_proj.bias", "queries, keys and values have a bias"},
    };
    static const char *const stems[] = {"model.layers.0.", "layers.0."};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        for (size_t k = 0; k < sizeof stems / sizeof stems[0]; k++) {
            char name[96];
            (void)snprintf(name, sizeof name, "%s%s", stems[k], rows[i][0]);
            if (!st_weights_find(m->weights, name))
                continue;
            st_str_addf(&p->line, "%s: tensor %s is there", rows[i][1], name);
            end_line(p);
        }
}

static void say_positions(plan *p, const setun_model *m)
{
    const st_node *one;
    const st_hparam *theta = key_of(m, "rope_theta"), *kind = NULL, *factor = NULL;
    static const char *const places[] = {"rope_scaling", "rope_parameters"}, *const members[] = {"rope_type", "type"};
    char key[64];
    theta = theta ? theta : key_of(m, "rope_parameters.rope_theta");
    if (theta)
        st_str_addf(&p->line, "the base of angles is %.9g: %s of config.json", theta->f, theta->key);
    else
        st_str_add(&p->line, "the base of angles is the architecture's: config.json has no rope_theta");
    end_line(p);
    for (int i = 0; i < 4 && !kind; i++) {
        (void)snprintf(key, sizeof key, "%s.%s", places[i / 2], members[i % 2]);
        kind = key_of(m, key);
        (void)snprintf(key, sizeof key, "%s.factor", places[i / 2]);
        factor = key_of(m, key);
    }
    if (kind && kind->kind == ST_HP_STRING && factor)
        st_str_addf(&p->line, "angles are scaled as %s does it, by %.9g: %s of config.json", kind->s, factor->f, kind->key);
    else
        st_str_add(&p->line, "angles are not scaled: config.json asks for nothing");
    end_line(p);
    int64_t layers = nodes_of(m->graph, "attention", &one), windows = 0, window = 0;
    for (st_node_id i = 0; i < m->graph->n_node; i++) /* attributes: scale, window */
        if (strcmp(m->graph->node[i].op->name, "attention") == 0 && m->graph->node[i].attr[1].i) {
            window = m->graph->node[i].attr[1].i;
            windows++;
        }
    const st_hparam *near = key_of(m, "rope_local_base_freq");
    if (windows) {
        st_str_addf(&p->line, "%" PRId64 " of %" PRId64 " layers see %" PRId64 " positions", windows, layers, window);
        if (near)
            st_str_addf(&p->line, ", with angles of base %.9g", near->f);
        st_str_add(&p->line, ": sliding_window, its pattern or layer_types, and rope_local_base_freq of config.json");
        end_line(p);
    }
}

/* What is in the files of a directory settles these; the script has refused what contradicts it. */
static void from_directory(plan *p, const setun_model *m, const st_weights_stats *w)
{
    const st_node *one;
    int has_head = st_weights_find(m->weights, "lm_head.weight") != NULL;
    st_str_addf(&p->line, "the gate is %s: %s of config.json, which the script honours", gate(m->graph),
                key_of(m, "hidden_activation") ? "hidden_activation" : "hidden_act");
    end_line(p);
    if (!m->has_logits)
        st_str_add(&p->line, "there is no head: the model makes vectors of texts");
    else if (has_head && st_graph_find(m->graph, "output") != ST_NO_ID)
        st_str_add(&p->line, "the head is lm_head.weight: the tensor is there");
    else
        st_str_addf(&p->line, "the head is the embedding: %s", has_head ? "lm_head.weight repeats it, bit for bit" : "there is no tensor lm_head.weight");
    end_line(p);
    st_str_addf(&p->line, "linear layers are %s: %s", !w->ternary_weights ? "ordinary matrices" : w->n_weight_only
                ? "ternary, with activations in floats" : "ternary, with activations of 8 bits",
                w->ternary_weights ? w->scale_rule : "config.json and their values say nothing else");
    end_line(p);
    say_norms(p, m);
    say_positions(p, m);
    if (nodes_of(m->graph, "scale", &one)) {
        st_str_addf(&p->line, "rows of the embedding are multiplied by %.9g: the architecture says so", one->attr[0].f);
        end_line(p);
    }
    if (nodes_of(m->graph, "hadamard", &one)) {
        st_str_addf(&p->line, "what matrices read or give is rotated in blocks of %" PRId64 ": prism.hadamard of config.json names them", one->attr[0].i);
        end_line(p);
    }
}

static void decisions(facts *f, const setun_model *m, const st_weights_stats *w)
{
    int64_t n;
    const char *const *line = st_weights_lines(m->weights, &n);
    plan p = {.f = f};
    if (f->json)
        begin(f, "decisions");
    st_str_add(&f->t, f->json ? "[" : "");
    for (int64_t i = 0; i < n; i++) /* of a GGUF file */
        decide(&p, line[i]);
    if (n == 0)
        from_directory(&p, m, w);
    st_str_add(&f->t, f->json ? "]" : "");
}

setun_status setun_model_info(const setun_model *m, int32_t json, setun_write_fn *out, void *user, setun_error *err)
{
    facts f = {.json = json};
    st_weights_stats w;
    const setun_model_stats *s = &m->stats;
    int64_t n_hp, other = 0;
    const st_hparam *hp = st_weights_config(m->weights, &n_hp);
    st_weights_get_stats(m->weights, &w);
    text(&f, "path", m->path);
    text(&f, "architecture", st_weights_architecture(m->weights));
    text(&f, "script", m->script);
    decisions(&f, m, &w);
    for (int64_t i = 0; i < n_hp; i++) {
        char key[300];
        (void)snprintf(key, sizeof key, "config.%s", hp[i].key);
        if (hp[i].kind == ST_HP_STRING)
            text(&f, key, hp[i].s);
        else if (hp[i].kind == ST_HP_FLOAT) {
            begin(&f, key);
            st_str_addf(&f.t, json ? "%.17g" : "%.9g\n", hp[i].f);
        } else if (hp[i].kind == ST_HP_NULL) {
            begin(&f, key);
            st_str_add(&f.t, json ? "null" : "null\n");
        } else if (hp[i].kind == ST_HP_BOOL) {
            begin(&f, key);
            st_str_addf(&f.t, json ? "%s" : "%s\n", hp[i].i ? "true" : "false");
        } else {
            number(&f, key, hp[i].i, "");
        }
    }
    for (int64_t i = 0; i < st_weights_count(m->weights); i++)
        other += st_weights_at(m->weights, i)->bytes;
    number(&f, "tensors", st_weights_count(m->weights), "");
    megabytes(&f, "tensor_bytes", other);
    number(&f, "ternary_weights", w.ternary_weights, "");
    megabytes(&f, "ternary_bytes", w.ternary_bytes);
    begin(&f, "bits_per_ternary");
    st_str_addf(&f.t, json ? "%.4f" : "%.4f\n",
                w.ternary_weights ? 8.0 * (double)w.ternary_bytes / (double)w.ternary_weights : 0.0);
    megabytes(&f, "mapped_float_bytes", w.mapped_bytes);
    megabytes(&f, "converted_bytes", w.copied_bytes);
    text(&f, "weight_scale_rule", w.scale_rule);
    if (w.near_threshold)
        number(&f, "near_rounding_threshold", w.near_threshold, "master weights within 1e-6 of a rounding threshold");
    number(&f, "transposed_matrices", w.n_across, "that are not read where their input is 0");
    text(&f, "packed_weights", !w.ternary_weights ? "none" : st_weights_pack_hit(m->weights) ? "mapped from the cache" : "packed now");
    text(&f, "quantizer", m->quantizer.name);
    if (!m->quantizer.is_own) {
        text(&f, "quantizer_own", m->quantizer.own);
        text(&f, "quantizer_doc", m->quantizer.doc);
        text(&f, "quantizer_source", *m->quantizer.source ? m->quantizer.source : "not said");
    }
    if (m->packed.name) {
        text(&f, "packing", m->packed.name);
        begin(&f, "packing_bits");
        st_str_addf(&f.t, json ? "%.4f" : "%.4f\n", m->packed.bits);
        megabytes(&f, "packing_bytes", m->packed.bytes);
        text(&f, "packing_made", st_pack_is_hit(m->pack) ? "mapped from the cache" : "packed now");
        number(&f, "packing_weights", m->packed.weights, "");
        number(&f, "packing_changed", m->packed.changed, "weights");
        number(&f, "packing_scales", m->packed.scales_changed, "scales changed");
        if (m->packed.from_floats) {
            begin(&f, "packing_error");
            st_str_addf(&f.t, json ? "%.6g" : "%.6g of the weights' root mean square\n", st_requantise_error(&m->packed));
            number(&f, "packing_dense", m->packed.n_dense, "matrices that were floats in their products, too");
        }
    }
    number(&f, "context", m->n_ctx, "positions");
    text(&f, "kv_cache_type", m->engine->o.kv);
    megabytes(&f, "kv_cache_bytes", s->kv_bytes);
    megabytes(&f, "temporary_bytes", s->temp_bytes);
    megabytes(&f, "bytes_per_token", s->weight_bytes);
    if (s->top_bytes)
        megabytes(&f, "bytes_per_token_top", s->top_bytes);
    number(&f, "vocabulary", m->n_vocab, "");
    if (m->n_embedding) {
        number(&f, "embedding", m->n_embedding, "columns");
        text(&f, "pooling", m->pooling_from ? st_pooling_name(m->pooling.kind) : "nobody says");
        text(&f, "pooling_from", m->pooling_from ? m->pooling_from : "nowhere");
        text(&f, "normalised", m->pooling.raw ? "no" : "to length 1");
    }
    text(&f, "head", !m->has_logits ? "none" : s->top_bytes ? "screened by 6-bit rows with proven bounds, then 8 bits, then the stored rows: the largest logits are exact"
                                  : "all logits from the stored rows");
    chat_template(&f, m);
    text(&f, "backend", s->backend);
    text(&f, "kernels", s->isa);
    number(&f, "kernels_compiled", s->n_compiled, "");
    number(&f, "kernels_cached", s->n_cached, "");
    st_str tuned = {0};
    st_tune_print(m->tune, "", "; ", &tuned);
    text(&f, "tuned", tuned.text ? tuned.text : "nothing: kernels are the default ones");
    f.t.failed |= tuned.failed;
    st_str_free(&tuned);
    text(&f, "exact", !m->quantizer.is_own ?
         "ternary weights as trained, activations by another quantizer than in the training, the same bits on every machine" :
         w.n_weight_only ?
         "ternary weights, 32-bit activations: as trained, in a fixed order, the same bits on every machine" : w.ternary_weights ?
         "ternary sums and int8 activations as trained, other weights as stored, the same bits on every machine" :
         "no ternary weights; 32-bit sums in a fixed order, the same bits on every machine");
    text(&f, "approximate", strcmp(m->engine->o.kv, "f32") == 0 ? "nothing" :
         strcmp(m->engine->o.kv, "q8") == 0 ? "the KV cache is rounded to 8 bits and a scale per 32 numbers (--kv f32 keeps it exact)" :
         "the KV cache is rounded to 16 bits (--kv f32 keeps it exact)");
    if (json)
        st_str_add(&f.t, "\n}\n");
    return finish(&f.t, SETUN_OK, out, user, err);
}

setun_status setun_model_tuned(const setun_model *m, setun_write_fn *out, void *user, setun_error *err)
{
    st_str t = {0};
    st_tune_print(m->tune, "  tuned     ", "\n            ", &t);
    if (t.len)
        st_str_add(&t, "\n");
    return finish(&t, SETUN_OK, out, user, err);
}

setun_status setun_plugins_print(const setun_options *o, setun_write_fn *out, void *user, setun_error *err)
{
    st_engine *e;
    st_str t = {0};
    ST_TRY(st_engine_open(&e, o, err));
    for (int64_t i = 0; i < st_plugins_count(e->plugins); i++) {
        const st_plugin_info *p = st_plugins_at(e->plugins, i);
        st_str_addf(&t, "%s\n  file     %s\n  version  %s (%s)\n", p->id, p->file, p->version, p->build);
        if (p->backend)
            st_str_addf(&t, "  backend  %s: %s%s\n", p->backend_info.name, p->backend_info.doc,
                        p == e->backend ? " [in use]" : "");
        for (uint32_t j = 0; p->ops && j < p->ops->n; j++)
            st_str_addf(&t, "  operator %s: %s\n", p->ops->op[j]->name, p->ops->op[j]->doc);
        if (p->format)
            st_str_addf(&t, "  format %s: %s\n", p->format->name, p->format->doc);
    }
    st_str_addf(&t, "code generator: %s%s%s\n", e->codegen_file ? e->target.isa : "none",
                e->compiles && !e->codegen_file ? "; kernels may be in the cache for " : "",
                e->compiles && !e->codegen_file ? e->target.isa : "");
    if (e->compiles && e->codegen_file)
        st_str_addf(&t, "  LLVM     %u.%u.%u\n  target   %s, %s\n", e->target.llvm_version >> 16, e->target.llvm_version >> 8 & 255,
                    e->target.llvm_version & 255, e->target.triple, e->target.cpu);
    setun_status s = finish(&t, SETUN_OK, out, user, err);
    st_engine_close(e);
    return s;
}

static void print_ports(st_str *t, const char *title, const setun_port *p, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        st_str_addf(t, "- %s `%s`: %s%s\n", title, p[i].name, p[i].doc, p[i].shares ? " (in place)" : "");
}

setun_status setun_ops_print(const setun_options *o, setun_write_fn *out, void *user, setun_error *err)
{
    st_engine *e;
    st_str t = {0};
    ST_TRY(st_engine_open(&e, o, err));
    st_str_add(&t, "# Operators\n\nWritten by `setun doc ops` from the operators' own descriptors.\n");
    for (int64_t i = 0; i < st_registry_count(e->registry); i++) {
        const setun_op *op = st_registry_at(e->registry, i);
        st_str_addf(&t, "\n## %s\n\n%s\n\n", op->name, op->doc);
        print_ports(&t, "in", op->in, op->n_in);
        for (uint32_t j = 0; j < op->n_attr; j++)
            st_str_addf(&t, "- attribute `%s`: %s%s\n", op->attr[j].name, op->attr[j].doc,
                        op->attr[j].required ? " (required)" : "");
        print_ports(&t, "out", op->out, op->n_out);
    }
    setun_status s = finish(&t, SETUN_OK, out, user, err);
    st_engine_close(e);
    return s;
}
