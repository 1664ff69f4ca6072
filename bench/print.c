/* bench/print.c -- results for people. */
#include "bench.h"

void bench_text_machine(const bench_run *r)
{
    const setun_model_stats *s = &r->stats;
    printf("threads %d, backend %s, kernels %s (%d: %d compiled, %d cached)\n", s->n_threads, s->backend, s->isa, s->n_kernels,
           s->n_compiled, s->n_cached);
    if (*s->quantizer)
        printf("  quantizer %s: not the one that the model was trained with\n", s->quantizer);
    for (int i = 0; i < r->limits.n_at; i++) {
        const setun_limit *l = &r->limits.at[i];
        printf("  limits    %d thread%s: read %.1f GB/s (%.1f in plain order), int8 %.0f GMAC/s (%s), float %.0f GMAC/s, barrier %.0f ns\n", l->n_threads,
               l->n_threads == 1 ? "" : "s", l->read_gb_s, r->limits.plain_gb_s[i], l->int8_gmac_s,
               *r->limits.int8_with ? r->limits.int8_with : "not measured", l->float_gmac_s, l->barrier_ns);
    }
}

void bench_text_load(const bench_run *r)
{
    const setun_model_stats *s = &r->stats;
    int64_t parts = s->engine_ns + s->files_ns + s->pack_ns + s->graph_ns + s->tokenizer_ns + s->kernels_ns;
    printf("  load      %.2f s: engine %.2f, files %.2f, packed weights %.2f, graph %.2f, kernels %.2f (of it tuning %.2f), "
           "tokenizer %.2f, rest %.2f\n", 1e-9 * (double)s->load_ns, 1e-9 * (double)s->engine_ns, 1e-9 * (double)s->files_ns,
           1e-9 * (double)s->pack_ns, 1e-9 * (double)s->graph_ns, 1e-9 * (double)s->kernels_ns, 1e-9 * (double)s->tune_ns,
           1e-9 * (double)s->tokenizer_ns, 1e-9 * (double)(s->load_ns - parts));
    if (!r->b->c.quiet && r->tuned)
        fputs(r->tuned, stdout);
}

void bench_text_memory(const bench_run *r)
{
    const setun_model_stats *s = &r->stats;
    printf("  memory    %.0f MB resident, %.0f MB at most, %.0f of it while loading", 1e-6 * (double)s->resident_bytes,
           1e-6 * (double)s->resident_peak_bytes, 1e-6 * (double)r->load_peak);
    if (r->has_memory)
        printf("; of %.0f MB behind the runs, by pages present:\n           ", 1e-6 * (double)r->memory.resident_bytes);
    for (int c = 0; c < SETUN_CLASS_CODE && r->has_memory; c++)
        printf(" %s %.1f,", setun_class_name(c), 1e-6 * (double)r->memory.resident[c]);
    if (r->has_memory)
        printf(" by mappings: %s %.1f, what is left: %s %.1f", setun_class_name(SETUN_CLASS_CODE),
               1e-6 * (double)r->memory.resident[SETUN_CLASS_CODE], setun_class_name(SETUN_CLASS_REST),
               1e-6 * (double)r->memory.resident[SETUN_CLASS_REST]);
    putchar('\n');
}

void bench_text_first(const bench_run *r)
{
    printf("  first     %.1f ms [%.1f-%.1f] to the first token of a prompt of %d; %.2f s with loading (a prompt of %.1f ms)\n",
           1e3 * r->first.median, 1e3 * r->first.min, 1e3 * r->first.max, r->n_first,
           1e-9 * (double)r->stats.load_ns + r->first_cold, 1e3 * r->first_cold);
}

/* What the stage makes of each limit. */
static void print_shares(const bench_run *r, const bench_stage *stage)
{
    const setun_limits *l = &r->limits;
    double rate = 1e-9 * stage->rate.median;
    if (!stage->work.n_token) {
        puts("; the backend does not show its work");
        return;
    }
    printf(": %.2f MB/token, %.1f GB/s", 1e-6 * bench_bytes(&stage->work), rate * bench_bytes(&stage->work));
    if (l->read_gb_s > 0)
        printf(" = %.0f %% of the read limit (%.0f of plain order)", 100 * rate * bench_bytes(&stage->work) / l->read_gb_s,
               100 * rate * bench_bytes(&stage->work) / l->plain_gb_s[l->n_at - 1]);
    printf("; %.1f GMAC/s", rate * stage->work.int_ops);
    if (l->int8_gmac_s > 0)
        printf(" = %.0f %% of int8", 100 * rate * stage->work.int_ops / l->int8_gmac_s);
    if (l->float_gmac_s > 0)
        printf("; float %.0f %%", 100 * rate * stage->work.float_ops / l->float_gmac_s);
    putchar('\n');
}

static void print_work(const setun_work *w)
{
    printf("            per token, MB:");
    for (int c = 0; c <= SETUN_CLASS_KV; c++)
        printf(" %s %.2f,", setun_class_name(c), 1e-6 * w->bytes[c]);
    printf(" in caches %.2f; million operations:", 1e-6 * w->bytes[SETUN_CLASS_TEMP]);
    for (int c = 0; c <= SETUN_CLASS_TEMP; c++)
        printf(" %s %.2f%s", setun_class_name(c), 1e-6 * w->ops[c], c < SETUN_CLASS_TEMP ? "," : "\n");
}

void bench_text_prefill(const bench_run *r)
{
    for (int i = 0; i < r->n_prefill; i++) {
        const bench_stage *p = &r->prefill[i];
        printf("  prefill   %.2f tokens/s [%.2f-%.2f] over %lld tokens", p->rate.median, p->rate.min, p->rate.max, p->size);
        print_shares(r, p);
    }
    if (r->n_prefill && r->prefill[r->n_prefill - 1].work.n_token)
        print_work(&r->prefill[r->n_prefill - 1].work);
}

void bench_text_decode(const bench_run *r)
{
    for (int i = 0; i < r->n_decode; i++) {
        const bench_stage *d = &r->decode[i];
        printf("  decode    %.2f tokens/s [%.2f-%.2f] over %lld tokens at depth %lld", d->rate.median, d->rate.min, d->rate.max,
               r->b->n_decode, d->size);
        print_shares(r, d);
        if (d->work.n_token)
            print_work(&d->work);
    }
    if (r->n_decode && r->decode[0].full < 1)
        printf("  head      screened, the %lld largest logits: %.1f rows computed exactly; %.1f %% of the tokens with all\n",
               r->b->top, r->decode[0].survivors, 100 * r->decode[0].full);
}

void bench_text_density(const bench_run *r)
{
    const setun_density *d = &r->density;
    const char *whose = r->b->text ? "of the text" : "of the bench's own tokens, which mean nothing";
    if (d->n_layer == 0) {
        if (d->n_token)
            puts("  densities not gated by relu2");
        return;
    }
    printf("  densities %s: gates open %.1f %%, inputs of down %.1f %%, other int8 inputs %.1f %% not 0", whose, 100 * d->gates[0],
           100 * d->down[0], 100 * d->other);
    if (d->gates[3] >= 0)
        printf("; for 8 neighbours gates %.1f %%, down %.1f %%", 100 * d->gates[3], 100 * d->down[3]);
    if (d->dead >= 0)
        printf("; dead neurons %.2f %%", 100 * d->dead);
    putchar('\n');
    if (r->b->text && r->n_text < r->n_ids)
        printf("            the text has %lld tokens and is repeated\n", (long long)r->n_text);
}
