/* bench/json.c -- results for programs.  docs/performance.md lists the keys; they stay. */
#include "bench.h"

static double of(double a, double b)
{
    return b > 0 ? a / b : 0;
}

void bench_json_machine(const bench_run *r)
{
    const setun_model_stats *s = &r->stats;
    const setun_limits *l = &r->limits;
    printf(", \"threads\": %d, \"backend\": \"%s\", \"kernels\": \"%s\", \"n_kernels\": %d, \"compiled\": %d, \"cached\": %d, "
           "\"runs\": %lld,\n", s->n_threads, s->backend, s->isa, s->n_kernels, s->n_compiled, s->n_cached, r->b->n_run);
    if (*s->quantizer)
        printf("   \"quantizer\": \"%s\",\n", s->quantizer);
    printf("   \"limits\": {\"read_gb_s\": %.4g, \"int8_gmac_s\": %.5g, \"int8_with\": \"%s\", \"float_gmac_s\": %.5g, \"barrier_ns\": %.4g, "
           "\"cache_bytes\": %lld, \"all_cache_bytes\": %lld, \"at\": [", l->read_gb_s, l->int8_gmac_s, l->int8_with, l->float_gmac_s, l->barrier_ns,
           (long long)l->cache_bytes, (long long)l->all_cache_bytes);
    for (int i = 0; i < l->n_at; i++)
        printf("%s\n     {\"threads\": %d, \"read_gb_s\": %.4g, \"plain_gb_s\": %.4g, \"int8_gmac_s\": %.5g, \"float_gmac_s\": %.5g, \"barrier_ns\": %.4g}",
               i ? "," : "", l->at[i].n_threads, l->at[i].read_gb_s, l->plain_gb_s[i], l->at[i].int8_gmac_s, l->at[i].float_gmac_s, l->at[i].barrier_ns);
    printf("]}");
}

void bench_json_load(const bench_run *r)
{
    const setun_model_stats *s = &r->stats;
    printf(",\n   \"load_s\": %.4f, \"load\": {\"engine_s\": %.4f, \"files_s\": %.4f, \"pack_s\": %.4f, \"graph_s\": %.4f, \"kernels_s\": %.4f, "
           "\"tune_s\": %.4f, \"tokenizer_s\": %.4f}", 1e-9 * (double)s->load_ns, 1e-9 * (double)s->engine_ns,
           1e-9 * (double)s->files_ns, 1e-9 * (double)s->pack_ns, 1e-9 * (double)s->graph_ns, 1e-9 * (double)s->kernels_ns,
           1e-9 * (double)s->tune_ns, 1e-9 * (double)s->tokenizer_ns);
}

void bench_json_memory(const bench_run *r)
{
    const setun_model_stats *s = &r->stats;
    printf(",\n   \"resident_bytes\": %lld, \"peak_bytes\": %lld, \"load_peak_bytes\": %lld, \"kv_bytes\": %lld, "
           "\"temporary_bytes\": %lld,\n   \"memory\": ", (long long)s->resident_bytes, (long long)s->resident_peak_bytes, (long long)r->load_peak, (long long)s->kv_bytes, (long long)s->temp_bytes);
    if (!r->has_memory) {
        printf("null");
        return;
    }
    printf("{\"sum\": %lld", (long long)r->memory.resident_bytes);
    for (int c = 0; c < SETUN_N_CLASS; c++)
        printf(", \"%s\": %lld", setun_class_name(c), (long long)r->memory.resident[c]);
    putchar('}');
}

void bench_json_first(const bench_run *r)
{
    printf(",\n   \"first_token\": {\"tokens\": %d, \"median_s\": %.6g, \"min_s\": %.6g, \"max_s\": %.6g, \"cold_s\": %.6g, "
           "\"with_load_s\": %.6g}", r->n_first, r->first.median, r->first.min, r->first.max, r->first_cold,
           1e-9 * (double)r->stats.load_ns + r->first_cold);
}

static void print_work(const setun_work *w)
{
    printf("\"bytes_per_token\": %.0f, \"bytes\": {", bench_bytes(w));
    for (int c = 0; c <= SETUN_CLASS_TEMP; c++)
        printf("%s\"%s\": %.0f", c ? ", " : "", setun_class_name(c), w->bytes[c]);
    printf("}, \"ops\": {");
    for (int c = 0; c <= SETUN_CLASS_TEMP; c++)
        printf("%s\"%s\": %.0f", c ? ", " : "", setun_class_name(c), w->ops[c]);
    printf("}, \"int_ops_per_token\": %.6g, \"float_ops_per_token\": %.6g", w->int_ops, w->float_ops);
}

static void print_stage(const bench_run *r, const bench_stage *s)
{
    const setun_limits *l = &r->limits;
    double rate = 1e-9 * s->rate.median, gb = rate * bench_bytes(&s->work), gmac = rate * s->work.int_ops;
    printf("\"median\": %.5g, \"min\": %.5g, \"max\": %.5g, \"gb_s\": %.5g, \"share_of_read\": %.4f, \"gmac_s\": %.5g, "
           "\"share_of_int8\": %.4f, \"share_of_float\": %.4f,\n      ", s->rate.median, s->rate.min, s->rate.max, gb,
           of(gb, l->read_gb_s), gmac, of(gmac, l->int8_gmac_s), of(rate * s->work.float_ops, l->float_gmac_s));
    print_work(&s->work);
}

void bench_json_prefill(const bench_run *r)
{
    printf(",\n   \"prefill\": [");
    for (int i = 0; i < r->n_prefill; i++) {
        printf("%s\n     {\"tokens\": %lld, ", i ? "," : "", r->prefill[i].size);
        print_stage(r, &r->prefill[i]);
        putchar('}');
    }
    putchar(']');
}

void bench_json_decode(const bench_run *r)
{
    printf(",\n   \"decode\": [");
    for (int i = 0; i < r->n_decode; i++) {
        const bench_stage *d = &r->decode[i];
        printf("%s\n     {\"tokens\": %lld, \"depth\": %lld, ", i ? "," : "", r->b->n_decode, d->size);
        print_stage(r, d);
        printf(", \"survivors\": %.2f, \"full_head_share\": %.4f}", d->survivors, d->full);
    }
    putchar(']');
}

/* A share that is not known is null. */
static void print_share(const char *key, double v)
{
    if (v < 0)
        printf(", \"%s\": null", key);
    else
        printf(", \"%s\": %.5f", key, v);
}

void bench_json_density(const bench_run *r)
{
    static const char *const gates[4] = {"gates_open", "gates_open_2", "gates_open_4", "gates_open_8"},
                      *const down[4] = {"down_nonzero", "down_nonzero_2", "down_nonzero_4", "down_nonzero_8"};
    const setun_density *d = &r->density;
    printf(",\n   \"densities\": {\"of\": \"%s\", \"gated_by_relu2\": %s, \"layers\": %d, \"tokens\": %lld", r->b->text ? "text" : "own tokens",
           d->n_layer ? "true" : "false", d->n_layer, (long long)d->n_token);
    for (int i = 0; i < 4; i++)
        print_share(gates[i], d->n_layer ? d->gates[i] : -1);
    for (int i = 0; i < 4; i++)
        print_share(down[i], d->n_layer ? d->down[i] : -1);
    print_share("other_nonzero", d->n_token ? d->other : -1);
    print_share("dead_neurons", d->n_layer ? d->dead : -1);
    putchar('}');
}
