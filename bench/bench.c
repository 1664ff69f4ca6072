/* bench/bench.c -- setun bench: options, and the order of events.
 *
 * Every figure says what it is a share of, and limits are measured in the same run.  Nothing here can
 * fail a test: speed is reported, results are checked elsewhere.  Nothing is printed before all is
 * measured, so an interrupted run leaves no half of a result. */
#include "bench.h"
#include "sequences.h"

#include <stdlib.h>
#include <string.h>

enum { DEPTH = CLI_OWN, ROOFLINE, TOP, SEQUENCES, TOKENIZER };

static const char help[] =
    "usage: setun bench MODEL [-p 128,512] [-n 32] [--depth 0,1024] [-t 1,2] [-r 5] [-f TEXT] [--roofline] [--json]\n"
    "       setun bench MODEL --tokenizer -f TEXT [-r 5] [--json]\n\n"
    "Prefill, decode, time to the first token, load time and memory by part, and shares of the machine's own\n"
    "limits, measured in the same run.  Speeds are medians of R runs with least and most; a first run is not counted.\n\n"
    "  -p LIST          lengths of prefill (128,512; 0: none)\n"
    "  -n N             tokens of decode (32; 0: none)\n"
    "      --depth LIST decode behind so many tokens of context (0,1024)\n"
    "  -t LIST          thread counts, e.g. 1,2 (default: one per core)\n"
    "  -r R             runs of each (5)\n"
    "  -f FILE          feed the tokens of this text (default: tokens of no meaning)\n"
    "      --top K      only the K largest logits are wanted (40; 1 is greedy; 0: all)\n"
    "      --sequences LIST   decode with so many sequences together, e.g. 1,4,8, and nothing else\n"
    "      --tokenizer      opening the vocabulary, and the text of -f to ids and back, and nothing else\n"
    "      --roofline   time per operator, the limit that binds it, and why it is not faster (also --profile)\n"
    "      --json       one object for each thread count; keys in docs/performance.md\n"
    CLI_COMMON_HELP;

static void text_roofline(const bench_run *r);
static void json_roofline(const bench_run *r);

/* In the order of measuring; printed in the same order. */
const bench_part bench_parts[] = {
    {NULL, bench_text_machine, bench_json_machine},
    {NULL, bench_text_load, bench_json_load},
    {bench_first, bench_text_first, bench_json_first},
    {bench_prefill, bench_text_prefill, bench_json_prefill},
    {bench_decode, bench_text_decode, bench_json_decode},
    {bench_memory, bench_text_memory, bench_json_memory},
    {NULL, bench_text_density, bench_json_density},
    {bench_roofline, text_roofline, json_roofline}, /* last: what it notes down stays until it is printed */
};
const int bench_n_parts = (int)(sizeof bench_parts / sizeof bench_parts[0]);

static int parse_list(const cli *c, const char *name, char *text, long long min, long long max, bench_list *l)
{
    l->n = 0;
    l->given = 1;
    for (char *word = strtok(text, ","); word; word = strtok(NULL, ",")) {
        if (l->n == BENCH_MAX_LIST) {
            (void)cli_usage(c, "%s takes at most %d numbers", name, BENCH_MAX_LIST);
            return -1;
        }
        if (cli_int(c, name, word, min, max, &l->v[l->n++]))
            return -1;
    }
    return l->n ? 0 : cli_int(c, name, "", min, max, &l->v[0]); /* which says what is wrong */
}

static int parse(bench *b, int argc, char **argv)
{
    static const struct option options[] = {
        {"depth", required_argument, NULL, DEPTH}, {"roofline", no_argument, NULL, ROOFLINE},
        {"profile", no_argument, NULL, ROOFLINE}, {"top", required_argument, NULL, TOP},
        {"file", required_argument, NULL, 'f'}, {"sequences", required_argument, NULL, SEQUENCES},
        {"tokenizer", no_argument, NULL, TOKENIZER}, CLI_COMMON_OPTIONS, {NULL, 0, NULL, 0}};
    int opt, r;
    const cli *c = &b->c;
    while ((opt = getopt_long(argc, argv, "p:n:r:f:" CLI_COMMON_LETTERS, options, NULL)) != -1) {
        switch (opt) {
        case 'p': if (parse_list(c, "-p", optarg, 0, 1 << 20, &b->prefill)) return CLI_USAGE; break;
        case 't': if (parse_list(c, "-t", optarg, 1, 1024, &b->threads)) return CLI_USAGE; break;
        case DEPTH: if (parse_list(c, "--depth", optarg, 0, 1 << 20, &b->depth)) return CLI_USAGE; break;
        case 'n': if (cli_int(c, "-n", optarg, 0, 1 << 20, &b->n_decode)) return CLI_USAGE; break;
        case 'r': if (cli_int(c, "-r", optarg, 1, BENCH_MAX_RUNS, &b->n_run)) return CLI_USAGE; break;
        case 'f': b->file = optarg; break;
        case SEQUENCES: b->sequences = optarg; break;
        case TOKENIZER: b->tokenizer = 1; break;
        case ROOFLINE: b->roofline = 1; break;
        case TOP: if (cli_int(c, "--top", optarg, 0, SETUN_MAX_TOP, &b->top)) return CLI_USAGE; break;
        default:
            r = cli_common(&b->c, opt);
            if (r != 1)
                return r == 2 ? 0 : CLI_USAGE;
        }
    }
    if (optind + 1 != argc)
        return cli_usage(c, optind == argc ? "a model is missing" : "one model is enough");
    if (b->tokenizer && !b->file)
        return cli_usage(c, "--tokenizer needs a text, and its speed depends on it: -f FILE");
    cli_finish(&b->c);
    return -1;
}

static int cancelled(void *user, int64_t done, int64_t total)
{
    (void)user; (void)done; (void)total;
    return cli_interrupted();
}

static setun_status keep_choices(bench_run *r, setun_error *err)
{
    size_t n;
    FILE *f = open_memstream(&r->tuned, &n);
    if (!f)
        return SETUN_NO_MEMORY;
    setun_status s = setun_model_tuned(r->m, cli_write, f, err);
    return fclose(f) == 0 ? s : SETUN_NO_MEMORY;
}

/* Load and measure; the limits come later, because their array would count as the model's memory. */
static setun_status run_one(bench *b, const char *path, long long threads, bench_run *r, setun_error *err)
{
    setun_status s;
    b->c.o.n_threads = (int32_t)threads;
    r->b = b;
    r->stats.size = sizeof r->stats;
    bench_say(r, "loading");
    if ((s = cli_load(&b->c, path, &r->m, err)) != SETUN_OK)
        return s;
    setun_model_get_stats(r->m, &r->stats);
    r->load_peak = r->stats.resident_peak_bytes;
    if ((s = keep_choices(r, err)) != SETUN_OK || (s = setun_session_new(&r->s, r->m, err)) != SETUN_OK || (s = bench_make_tokens(r, err)) != SETUN_OK)
        return s;
    long long top = b->c.o.full_head || b->top > setun_model_n_vocab(r->m) ? 0 : b->top;
    if (top && (s = setun_session_set_top(r->s, (int32_t)top, err)) != SETUN_OK)
        return s;
    setun_session_on_progress(r->s, cancelled, NULL);
    for (int i = 0; i < bench_n_parts && s == SETUN_OK; i++)
        s = bench_parts[i].measure ? bench_parts[i].measure(r, err) : SETUN_OK;
    setun_model_get_stats(r->m, &r->stats);
    if (s == SETUN_OK && !b->roofline) { /* memory figures are of one model at a time */
        setun_session_free(r->s);
        setun_model_free(r->m);
        r->s = NULL;
        r->m = NULL;
    }
    return s;
}

static setun_status measure_limits(bench *b, bench_run *r, setun_error *err)
{
    setun_options o = b->c.o;
    o.log = NULL;
    bench_say(r, "measuring the machine's limits");
    r->limits.size = sizeof r->limits;
    setun_status s = setun_limits_measure(&o, r->stats.n_threads, &r->limits, err);
    return s == SETUN_OK ? bench_check(err) : s;
}

static void report(const bench_run *r, int first)
{
    if (r->b->c.json)
        printf("%s\n  {\"version\": \"%s\"", first ? "" : ",", setun_version());
    for (int i = 0; i < bench_n_parts; i++) {
        void (*print)(const bench_run *) = r->b->c.json ? bench_parts[i].json : bench_parts[i].text;
        if (print)
            print(r);
    }
    if (r->b->c.json)
        putchar('}');
}

static void text_roofline(const bench_run *r)
{
    setun_error err = {0};
    for (int decode = 0; decode < 2 && r->b->roofline; decode++) {
        if (decode ? !r->n_decode : !r->n_prefill)
            continue;
        const bench_stage *t = decode ? &r->decode[0] : &r->prefill[r->n_prefill - 1];
        printf("\n  %s %s %lld, every step timed on its own; a call took %.0f microseconds without that:\n", decode ? "decode" : "prefill",
               decode ? "behind" : "of", t->size, 1e6 * (decode ? 1 : (double)t->size) / t->rate.median);
        if (setun_session_roofline(r->s, decode, &r->limits, 0, cli_write, stdout, &err) != SETUN_OK)
            printf("  %s\n", err.text);
    }
}

static void json_roofline(const bench_run *r)
{
    setun_error err = {0};
    for (int decode = 0; decode < 2 && r->b->roofline; decode++) {
        printf(",\n   \"roofline_%s\": ", decode ? "decode" : "prefill");
        if ((decode ? !r->n_decode : !r->n_prefill) ||
            setun_session_roofline(r->s, decode, &r->limits, 1, cli_write, stdout, &err) != SETUN_OK)
            fputs("null", stdout);
    }
}

static void free_run(bench_run *r)
{
    setun_session_free(r->s);
    setun_model_free(r->m);
    free(r->ids);
    free(r->tuned);
}

int cli_bench(int argc, char **argv)
{
    bench b = {.threads = {{0}, 1, 0}, .prefill = {{128, 512}, 2, 0}, .depth = {{0, 1024}, 2, 0}, .n_decode = 32, .n_run = 5, .top = 40};
    setun_error err = {0};
    cli_init(&b.c, "bench", help);
    int code = parse(&b, argc, argv);
    if (code >= 0)
        return code;
    cli_catch_interrupt();
    if (b.sequences) {
        b.c.o.n_threads = (int32_t)b.threads.v[0];
        return bench_sequences(&b.c, argv[optind], b.sequences, b.n_decode, b.depth.v[0], b.top, b.n_run, b.roofline);
    }
    if (b.file && !(b.text = cli_read(b.file, &b.n_text)))
        return CLI_FAILED;
    if (b.tokenizer) {
        code = b.n_text ? bench_tokenizer(&b, argv[optind]) : cli_usage(&b.c, "the text is empty");
        free(b.text);
        return code;
    }
    long long most = BENCH_FIRST_TOKENS;
    for (int i = 0; i < b.prefill.n; i++)
        most = b.prefill.v[i] > most ? b.prefill.v[i] : most;
    for (int i = 0; i < b.depth.n; i++)
        most = b.depth.v[i] + b.n_decode > most ? b.depth.v[i] + b.n_decode : most;
    if (!b.c.o.n_ctx && most > 4096) /* more than the default makes room for */
        b.c.o.n_ctx = most;
    bench_run *runs = calloc(BENCH_MAX_LIST, sizeof *runs);
    setun_status s = runs ? SETUN_OK : SETUN_NO_MEMORY;
    for (int i = 0; i < b.threads.n && s == SETUN_OK; i++)
        s = run_one(&b, argv[optind], b.threads.v[i], &runs[i], &err);
    for (int i = 0; i < b.threads.n && s == SETUN_OK; i++)
        s = measure_limits(&b, &runs[i], &err);
    if (runs)
        bench_say(&runs[0], "%s", "");
    if (s == SETUN_OK && b.c.json)
        fputs("[", stdout);
    for (int i = 0; i < b.threads.n && s == SETUN_OK; i++)
        report(&runs[i], i == 0);
    if (s == SETUN_OK && b.c.json)
        fputs("\n]\n", stdout);
    for (int i = 0; i < b.threads.n && runs; i++)
        free_run(&runs[i]);
    free(runs);
    free(b.text);
    if (s == SETUN_NO_MEMORY && !*err.text)
        (void)snprintf(err.text, sizeof err.text, "no memory to measure");
    return s == SETUN_OK ? cli_close_out() : cli_fail(&err);
}
