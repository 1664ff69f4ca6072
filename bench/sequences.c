/* bench/sequences.c -- decode with several sequences together, which read the weights once for all.
 *
 * The sequences of a count are copies of one prompt and are given different tokens.  Speed is told as the
 * sum and per sequence, and as the bytes of weights that a step has to read, whatever their number. */
#include "sequences.h"

#include <stdlib.h>
#include <string.h>

#include "bench.h"

#define MAX_COUNTS 16
#define MAX_RUNS 101
#define WARM 3

typedef struct sequences {
    cli            *c;
    long long       n, depth, top, n_run;
    setun_model    *m;
    setun_session **s;
    setun_batch    *b;
    int32_t        *token;
    setun_limits    limits;
    int             roofline;
} sequences;

/* n steps of all sequences behind the prompt. */
static setun_status steps(sequences *q, long long count, long long n, double *took, setun_error *err)
{
    int64_t n_vocab = setun_model_n_vocab(q->m);
    setun_status status = SETUN_OK;
    for (long long i = 0; i < count && status == SETUN_OK; i++)
        status = setun_session_rewind(q->s[i], q->depth, err);
    double start = bench_seconds();
    for (long long j = 0; j < n && status == SETUN_OK; j++) {
        for (long long i = 0; i < count; i++)
            q->token[i] = (int32_t)((j * 7919 + i * 104729 + 17) % n_vocab);
        status = setun_batch_step(q->b, q->token, q->top ? SETUN_LOGITS_TOP : SETUN_LOGITS_LAST, NULL, err);
        if (status == SETUN_OK && cli_interrupted()) {
            err->text[0] = 0;
            status = SETUN_CANCELLED;
        }
    }
    *took = bench_seconds() - start;
    return status;
}

/* Every step timed on its own: at least two runs are needed, and 16 are enough. */
static setun_status note(sequences *q, long long count, setun_error *err)
{
    double took;
    setun_status status = setun_batch_note(q->b, SETUN_NOTE_TIME | SETUN_NOTE_WORK, err);
    for (int i = 0; i < 2 && status == SETUN_OK; i++)
        status = steps(q, count, q->n < 8 ? q->n : 8, &took, err);
    (void)setun_batch_note(q->b, 0, NULL);
    return status;
}

static setun_status print_roofline(const sequences *q, double step, setun_error *err)
{
    if (q->c->json)
        fputs(",\n   \"roofline\": ", stdout);
    else
        printf("\n  every step timed on its own; a step took %.0f microseconds without that:\n", 1e6 * step);
    return setun_batch_roofline(q->b, &q->limits, q->c->json, cli_write, stdout, err);
}

static setun_status measure(sequences *q, long long count, int first, setun_error *err)
{
    double run[MAX_RUNS], all = (double)(q->n * count);
    setun_status status = setun_batch_new(&q->b, q->m, q->s, (int32_t)count, err);
    if (status == SETUN_OK)
        status = steps(q, count, q->n < WARM ? q->n : WARM, &run[0], err);
    for (long long i = 0; i < q->n_run && status == SETUN_OK; i++) {
        status = steps(q, count, q->n, &run[i], err);
        run[i] = all / run[i];
    }
    if (status == SETUN_OK && q->roofline)
        status = note(q, count, err);
    if (status != SETUN_OK)
        return status;
    bench_spread rate = bench_sort(run, q->n_run);
    double step = (double)count / rate.median;
    setun_model_stats st = {.size = sizeof st};
    setun_model_get_stats(q->m, &st);
    double bytes = (double)(q->top && st.top_bytes ? st.top_bytes : st.weight_bytes);
    if (q->c->json)
        printf("%s\n  {\"sequences\": %lld, \"threads\": %d, \"kernels\": \"%s\", \"tokens\": %lld, \"depth\": %lld, \"top\": %lld,\n"
               "   \"tokens_s\": {\"median\": %.5g, \"min\": %.5g, \"max\": %.5g}, \"each_s\": %.5g, \"step_ms\": %.5g, "
               "\"weights_gb_s\": %.4g", first ? "" : ",", count, st.n_threads, st.isa, q->n, q->depth, q->top, rate.median,
               rate.min, rate.max, rate.median / (double)count, 1e3 * step, 1e-9 * bytes / step);
    else
        printf("  %3lld sequences  %8.2f tokens/s [%.2f-%.2f], %.2f each; %.2f ms a step, weights at %.1f GB/s\n", count, rate.median,
               rate.min, rate.max, rate.median / (double)count, 1e3 * step, 1e-9 * bytes / step);
    if (q->roofline)
        status = print_roofline(q, step, err);
    if (q->c->json)
        putchar('}');
    return status;
}

/* Sessions for the largest count, all behind the same prompt. */
static setun_status prepare(sequences *q, long long most, setun_error *err)
{
    int64_t n_vocab = setun_model_n_vocab(q->m);
    int32_t *prompt = calloc((size_t)q->depth + 1, sizeof *prompt);
    q->s = calloc((size_t)most, sizeof(setun_session *));
    q->token = calloc((size_t)most, sizeof *q->token);
    setun_status status = prompt && q->s && q->token ? SETUN_OK : SETUN_NO_MEMORY;
    if (q->top > n_vocab || q->c->o.full_head)
        q->top = 0;
    for (long long i = 0; i < most && status == SETUN_OK; i++) {
        status = setun_session_new(&q->s[i], q->m, err);
        if (status == SETUN_OK && q->top)
            status = setun_session_set_top(q->s[i], (int32_t)q->top, err);
        for (long long j = 0; j < q->depth && i == 0; j++)
            prompt[j] = (int32_t)((j * 7919 + 17) % n_vocab);
        if (status == SETUN_OK && q->depth)
            status = i ? setun_session_copy(q->s[i], q->s[0], err)
                       : setun_session_feed(q->s[0], prompt, q->depth, SETUN_LOGITS_NONE, NULL, err);
    }
    free(prompt);
    return status;
}

int bench_sequences(cli *c, const char *model, char *list, long long n, long long depth, long long top, long long n_run, int roofline)
{
    sequences q = {.c = c, .roofline = roofline, .n = n < 1 ? 1 : n, .depth = depth, .top = top,
                   .n_run = n_run < 1 ? 1 : n_run < MAX_RUNS ? n_run : MAX_RUNS};
    long long count[MAX_COUNTS], most = 0;
    int n_count = 0, code = 0;
    setun_error err = {0};
    for (char *word = strtok(list, ","); word; word = strtok(NULL, ",")) {
        if (n_count == MAX_COUNTS || cli_int(c, "--sequences", word, 1, SETUN_MAX_BATCH, &count[n_count++]))
            return CLI_USAGE;
        most = count[n_count - 1] > most ? count[n_count - 1] : most;
    }
    if (!n_count)
        return cli_usage(c, "--sequences wants numbers, for example 1,4,8");
    if (!c->o.n_ctx && q.depth + q.n >= 4096) /* more than the default makes room for */
        c->o.n_ctx = q.depth + q.n + 1;
    setun_status status = cli_load(c, model, &q.m, &err);
    if (status == SETUN_OK)
        status = prepare(&q, most, &err);
    if (status == SETUN_OK && roofline) {
        setun_model_stats st = {.size = sizeof st};
        setun_model_get_stats(q.m, &st);
        q.limits.size = sizeof q.limits;
        status = setun_limits_measure(&c->o, st.n_threads, &q.limits, &err);
    }
    if (c->json)
        fputs("[", stdout);
    for (int i = 0; i < n_count && status == SETUN_OK; i++) {
        status = measure(&q, count[i], i == 0, &err);
        setun_batch_free(q.b);
        q.b = NULL;
    }
    if (c->json)
        fputs("\n]\n", stdout);
    if (status == SETUN_CANCELLED)
        code = CLI_INTERRUPTED;
    else if (status != SETUN_OK)
        code = cli_fail(&err);
    for (long long i = 0; i < most && q.s; i++)
        setun_session_free(q.s[i]);
    free(q.s);
    free(q.token);
    setun_model_free(q.m);
    return code ? code : cli_close_out();
}
