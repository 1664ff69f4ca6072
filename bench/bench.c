/* bench/bench.c -- setun bench: speed as medians, beside the machine's limits measured in the same run.
 *
 * Every figure says what it is a share of.  Nothing here can fail a test: speed is reported, results
 * are checked elsewhere. */
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"
#include "sequences.h"

enum { DEPTH = CLI_OWN, PROFILE, TOP, SEQUENCES };

static const char help[] =
    "usage: setun bench MODEL [-p 512] [-n 64] [-t 1,2] [-r 5] [--depth D] [--profile] [--json]\n\n"
    "Prefill and decode speed (median, least and most of R runs), load and kernel time, memory, and shares of\n"
    "the machine's own limits, measured in the same run.\n\n"
    "  -p N             tokens of prefill (512; 0: none)\n"
    "  -n N             tokens of decode (64; 0: none)\n"
    "  -t LIST          thread counts, e.g. 1,2 (default: one per core)\n"
    "  -r R             runs of each (5)\n"
    "      --depth D    decode behind D tokens of context (0)\n"
    "      --top K      only the K largest logits are wanted (40; 1 is greedy; 0: all)\n"
    "      --sequences LIST   decode with so many sequences together, e.g. 1,4,8, and nothing else\n"
    "      --profile    time per operator, with its share of the limits\n"
    CLI_COMMON_HELP;

#define MAX_RUNS 101
#define MAX_COUNTS 16

typedef struct bench {
    cli       c;
    long long n_prefill, n_decode, n_run, depth;
    long long threads[MAX_COUNTS], top;
    int       n_threads, profile;
    char     *sequences;
} bench;

typedef struct spread {
    double median, min, max;
} spread;

typedef struct result {
    spread            prefill, decode; /* tokens per second */
    double            survivors, full; /* per token of decode: rows of the head computed exactly; share with all of them */
    setun_limits      limits;
    setun_model_stats stats;
} result;

static double seconds(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static spread sort(double *v, long long n)
{
    qsort(v, (size_t)n, sizeof *v, by_value);
    return (spread){v[n / 2], v[0], v[n - 1]};
}

static int parse(bench *b, int argc, char **argv)
{
    static const struct option options[] = {
        {"depth", required_argument, NULL, DEPTH}, {"profile", no_argument, NULL, PROFILE},
        {"top", required_argument, NULL, TOP}, {"sequences", required_argument, NULL, SEQUENCES}, CLI_COMMON_OPTIONS, {NULL, 0, NULL, 0}};
    int opt, r;
    const cli *c = &b->c;
    while ((opt = getopt_long(argc, argv, "p:n:r:" CLI_COMMON_LETTERS, options, NULL)) != -1) {
        switch (opt) {
        case 'p': if (cli_int(c, "-p", optarg, 0, 1 << 20, &b->n_prefill)) return CLI_USAGE; break;
        case 'n': if (cli_int(c, "-n", optarg, 0, 1 << 20, &b->n_decode)) return CLI_USAGE; break;
        case 'r': if (cli_int(c, "-r", optarg, 1, MAX_RUNS, &b->n_run)) return CLI_USAGE; break;
        case DEPTH: if (cli_int(c, "--depth", optarg, 0, 1 << 20, &b->depth)) return CLI_USAGE; break;
        case SEQUENCES: b->sequences = optarg; break;
        case PROFILE: b->profile = 1; break;
        case TOP: if (cli_int(c, "--top", optarg, 0, SETUN_MAX_TOP, &b->top)) return CLI_USAGE; break;
        case 't':
            for (char *word = strtok(optarg, ","); word; word = strtok(NULL, ","))
                if (b->n_threads == MAX_COUNTS || cli_int(c, "-t", word, 1, 1024, &b->threads[b->n_threads++]))
                    return CLI_USAGE;
            break;
        default:
            r = cli_common(&b->c, opt);
            if (r != 1)
                return r == 2 ? 0 : CLI_USAGE;
        }
    }
    if (optind + 1 != argc)
        return cli_usage(c, optind == argc ? "a model is missing" : "one model is enough");
    if (!b->n_threads)
        b->threads[b->n_threads++] = 0;
    cli_finish(&b->c);
    return -1;
}

static int cancelled(void *user, int64_t done, int64_t total)
{
    (void)user; (void)done; (void)total;
    return cli_interrupted();
}

/* Any tokens do: the work does not depend on them, except where operators skip zeros. */
static void make_tokens(int32_t *ids, int64_t n, int64_t n_vocab)
{
    for (int64_t i = 0; i < n; i++)
        ids[i] = (int32_t)((i * 7919 + 17) % n_vocab);
}

static setun_status measure(const bench *b, const setun_model *m, setun_session *s, result *r, setun_error *err)
{
    double runs[MAX_RUNS];
    int64_t n_vocab = setun_model_n_vocab(m), most = b->n_prefill > b->depth ? b->n_prefill : b->depth;
    int32_t *ids = malloc((size_t)(most + 1) * sizeof *ids), token;
    const float *logits;
    setun_status status = SETUN_OK;
    if (!ids)
        return SETUN_NO_MEMORY;
    make_tokens(ids, most + 1, n_vocab);
    long long top = b->c.o.full_head || b->top > n_vocab ? 0 : b->top, counted = 0;
    int32_t want = top ? SETUN_LOGITS_TOP : SETUN_LOGITS_LAST;
    setun_top last = {.size = sizeof last};
    if (top)
        status = setun_session_set_top(s, (int32_t)top, err);
    setun_session_on_progress(s, cancelled, NULL);
    for (long long i = -1; i < b->n_run && b->n_prefill && status == SETUN_OK; i++) { /* run -1 warms up */
        (void)setun_session_rewind(s, 0, NULL);
        if (i == 0 && b->profile)
            setun_session_profile(s, 1);
        double t = seconds();
        status = setun_session_feed(s, ids, b->n_prefill, want, &logits, err);
        if (i >= 0)
            runs[i] = (double)b->n_prefill / (seconds() - t);
    }
    if (b->n_prefill && status == SETUN_OK)
        r->prefill = sort(runs, b->n_run);
    (void)setun_session_rewind(s, 0, NULL);
    if (b->depth && status == SETUN_OK)
        status = setun_session_feed(s, ids, b->depth, SETUN_LOGITS_NONE, NULL, err);
    for (long long i = -1; i < b->n_run && b->n_decode && status == SETUN_OK; i++) {
        (void)setun_session_rewind(s, b->depth, NULL);
        long long n = i < 0 ? (b->n_decode < 8 ? b->n_decode : 8) : b->n_decode;
        if (i == 0 && b->profile && !b->n_prefill)
            setun_session_profile(s, 1);
        double t = seconds();
        for (long long j = 0; j < n && status == SETUN_OK; j++) {
            token = ids[j % (most + 1)];
            status = setun_session_feed(s, &token, 1, want, &logits, err);
            setun_session_top(s, &last);
            counted++;
            r->full += logits != NULL;
            r->survivors += logits ? 0.0 : (double)last.survivors;
        }
        if (i >= 0)
            runs[i] = (double)n / (seconds() - t);
    }
    if (b->n_decode && status == SETUN_OK)
        r->decode = sort(runs, b->n_run);
    if (counted) {
        r->survivors /= (double)counted;
        r->full /= (double)counted;
    }
    free(ids);
    return status;
}

/* Of decode: what the screened head reads, its exact rows, and what the full head reads where it was used
 * (after the screened one, if there is one). */
static double bytes_per_token(const result *r)
{
    const setun_model_stats *s = &r->stats;
    double all = (double)s->weight_bytes, top = (double)s->top_bytes + r->survivors * (double)s->head_row_bytes;
    return r->full >= 1 ? all : top + r->full * all;
}

static void print_text(const bench *b, const result *r)
{
    const setun_model_stats *s = &r->stats;
    double gb = 1e-9 * bytes_per_token(r);
    printf("threads %d, backend %s, kernels %s (%d: %d compiled, %d cached)\n", s->n_threads, s->backend, s->isa, s->n_kernels,
           s->n_compiled, s->n_cached);
    printf("  limits    read %.1f GB/s, int8 %.0f GMAC/s (%s), barrier %.0f ns\n", r->limits.read_gb_s, r->limits.int8_gmac_s,
           *r->limits.int8_with ? r->limits.int8_with : "not measured", r->limits.barrier_ns);
    printf("  load      %.2f s (weights %.2f s, kernels %.2f s)\n", 1e-9 * (double)s->load_ns, 1e-9 * (double)s->weights_ns,
           1e-9 * (double)s->kernels_ns);
    printf("  memory    %.0f MB resident, %.0f MB at most; KV cache %.0f MB, temporaries %.0f MB\n", 1e-6 * (double)s->resident_bytes,
           1e-6 * (double)s->resident_peak_bytes, 1e-6 * (double)s->kv_bytes, 1e-6 * (double)s->temp_bytes);
    if (b->n_prefill) {
        double gmac = r->prefill.median * 1e-9 * s->int_ops_token;
        printf("  prefill   %.2f tokens/s [%.2f-%.2f] over %lld tokens: %.1f GMAC/s ternary counted dense", r->prefill.median,
               r->prefill.min, r->prefill.max, b->n_prefill, gmac);
        if (r->limits.int8_gmac_s > 0)
            printf(" = %.0f %% of the int8 limit", 100 * gmac / r->limits.int8_gmac_s);
        putchar('\n');
    }
    if (b->n_decode) {
        double rate = r->decode.median * gb;
        printf("  decode    %.2f tokens/s [%.2f-%.2f] over %lld tokens at depth %lld: %.1f MB/token, %.1f GB/s", r->decode.median,
               r->decode.min, r->decode.max, b->n_decode, b->depth, 1e3 * gb, rate);
        if (r->limits.read_gb_s > 0)
            printf(" = %.0f %% of the read limit", 100 * rate / r->limits.read_gb_s);
        putchar('\n');
        if (r->full < 1)
            printf("  head      screened, the %lld largest logits, exact: %.1f rows computed in 16 bits; %.1f %% of the tokens with all\n",
                   b->top, r->survivors, 100 * r->full);
    }
}

static void print_json(const bench *b, const result *r, int first)
{
    const setun_model_stats *s = &r->stats;
    double gmac = r->prefill.median * 1e-9 * s->int_ops_token, rate = r->decode.median * 1e-9 * bytes_per_token(r);
    printf("%s\n  {\"threads\": %d, \"backend\": \"%s\", \"kernels\": \"%s\", \"n_kernels\": %d, \"compiled\": %d, \"cached\": %d,\n",
           first ? "" : ",", s->n_threads, s->backend, s->isa, s->n_kernels, s->n_compiled, s->n_cached);
    printf("   \"limits\": {\"read_gb_s\": %.4g, \"int8_gmac_s\": %.5g, \"int8_with\": \"%s\", \"barrier_ns\": %.4g},\n",
           r->limits.read_gb_s, r->limits.int8_gmac_s, r->limits.int8_with, r->limits.barrier_ns);
    printf("   \"load_s\": %.4f, \"weights_s\": %.4f, \"kernels_s\": %.4f, \"resident_bytes\": %lld, \"peak_bytes\": %lld, \"kv_bytes\": %lld,\n",
           1e-9 * (double)s->load_ns, 1e-9 * (double)s->weights_ns, 1e-9 * (double)s->kernels_ns, (long long)s->resident_bytes,
           (long long)s->resident_peak_bytes, (long long)s->kv_bytes);
    printf("   \"bytes_per_token\": %.0f, \"survivors\": %.2f, \"full_head_share\": %.4f, \"int_ops_per_token\": %.6g, \"float_ops_per_token\": %.6g,\n", bytes_per_token(r),
           r->survivors, r->full, s->int_ops_token, s->float_ops_token);
    printf("   \"prefill\": {\"tokens\": %lld, \"median\": %.5g, \"min\": %.5g, \"max\": %.5g, \"gmac_s\": %.5g, \"share_of_int8\": %.4f},\n",
           b->n_prefill, r->prefill.median, r->prefill.min, r->prefill.max, gmac,
           r->limits.int8_gmac_s > 0 ? gmac / r->limits.int8_gmac_s : 0.0);
    printf("   \"decode\": {\"tokens\": %lld, \"depth\": %lld, \"median\": %.5g, \"min\": %.5g, \"max\": %.5g, \"gb_s\": %.5g, \"share_of_read\": %.4f}}",
           b->n_decode, b->depth, r->decode.median, r->decode.min, r->decode.max, rate,
           r->limits.read_gb_s > 0 ? rate / r->limits.read_gb_s : 0.0);
}

/* One thread count: load, run, and keep the figures; profiles need the limits and are kept as a session. */
typedef struct run {
    setun_model   *m;
    setun_session *s;
    result         r;
} run;

static int run_one(bench *b, const char *path, long long threads, run *r)
{
    setun_error err = {0};
    b->c.o.n_threads = (int32_t)threads;
    r->r.stats.size = sizeof r->r.stats;
    if (cli_load(&b->c, path, &r->m, &err) != SETUN_OK || setun_session_new(&r->s, r->m, &err) != SETUN_OK ||
        measure(b, r->m, r->s, &r->r, &err) != SETUN_OK)
        return cli_fail(&err);
    setun_model_get_stats(r->m, &r->r.stats);
    if (!b->c.json && !b->c.quiet && setun_model_tuned(r->m, cli_write, stdout, &err) != SETUN_OK)
        return cli_fail(&err);
    if (!b->profile) { /* memory figures are of one model at a time */
        setun_session_free(r->s);
        setun_model_free(r->m);
        r->s = NULL;
        r->m = NULL;
    }
    return 0;
}

static int report(bench *b, run *r, int first)
{
    setun_error err = {0};
    setun_options o = b->c.o;
    o.log = NULL;
    if (setun_limits_measure(&o, r->r.stats.n_threads, &r->r.limits, &err) != SETUN_OK)
        return cli_fail(&err);
    if (b->c.json)
        print_json(b, &r->r, first);
    else
        print_text(b, &r->r);
    for (int decode = 0; decode < 2 && b->profile && !b->c.json; decode++) {
        if (decode ? !b->n_decode : !b->n_prefill)
            continue;
        printf("\n  %s, microseconds per call:\n", decode ? "decode" : "prefill");
        if (setun_session_profile_print(r->s, decode, r->r.limits.read_gb_s, r->r.limits.int8_gmac_s, cli_write, stdout, &err) != SETUN_OK)
            return cli_fail(&err);
    }
    return 0;
}

int cli_bench(int argc, char **argv)
{
    bench b = {.n_prefill = 512, .n_decode = 64, .n_run = 5, .top = 40};
    cli_init(&b.c, "bench", help);
    int code = parse(&b, argc, argv);
    if (code >= 0)
        return code;
    cli_catch_interrupt();
    if (b.sequences) {
        b.c.o.n_threads = (int32_t)b.threads[0];
        return bench_sequences(&b.c, argv[optind], b.sequences, b.n_decode, b.depth, b.top, b.n_run);
    }
    long long most = b.n_prefill > b.depth + b.n_decode ? b.n_prefill : b.depth + b.n_decode;
    if (!b.c.o.n_ctx && most >= 4096) /* more than the default makes room for */
        b.c.o.n_ctx = most + 1;
    if (b.c.json)
        fputs("[", stdout);
    code = 0;
    /* The limits come last: their array would count as the model's memory. */
    run runs[MAX_COUNTS];
    memset(runs, 0, sizeof runs);
    for (int i = 0; i < b.n_threads && code == 0; i++)
        code = run_one(&b, argv[optind], b.threads[i], &runs[i]);
    for (int i = 0; i < b.n_threads && code == 0; i++)
        code = report(&b, &runs[i], i == 0);
    for (int i = 0; i < b.n_threads; i++) {
        setun_session_free(runs[i].s);
        setun_model_free(runs[i].m);
    }
    if (b.c.json)
        fputs("\n]\n", stdout);
    return code ? code : cli_close_out();
}
