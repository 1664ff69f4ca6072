/* bench/tokenizer.c -- how fast a vocabulary is opened, and a text made into ids and back.
 *
 * One thread does all of it and waits for nothing, so its processor time is told: what else runs on
 * the machine counts little.  The rest of a model is not looked at, so a GGUF file that is only a
 * vocabulary will do. */
#include "bench.h"

#include <stdlib.h>
#include <time.h>

static double seconds(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* All of it back to text; the text itself is of no interest here. */
static setun_status decode(const setun_vocab *v, const int32_t *ids, int64_t n, char *out, setun_error *err)
{
    setun_stream stream;
    setun_stream_start(&stream, v);
    for (int64_t i = 0; i < n; i++) {
        const char *bytes;
        size_t m;
        setun_status s = setun_vocab_piece(v, ids[i], 1, &bytes, &m, err);
        if (s != SETUN_OK)
            return s;
        if (m > 0 && m <= BENCH_MAX_PIECE)
            (void)setun_stream_push(&stream, bytes, m, out);
    }
    return SETUN_OK;
}

static setun_status run(const char *path, const bench *b, double *open, double *encode, double *back, int64_t *n, setun_error *err)
{
    char out[4 * (BENCH_MAX_PIECE + 8)];
    setun_vocab *v;
    int32_t *ids = NULL;
    double t0 = seconds();
    setun_status s = setun_vocab_open(&v, path, err);
    if (s != SETUN_OK)
        return s;
    double t1 = seconds();
    s = setun_vocab_encode(v, b->text, b->n_text, 0, &ids, n, err);
    double t2 = seconds();
    if (s == SETUN_OK)
        s = decode(v, ids, *n, out, err);
    *open = t1 - t0;
    *encode = (double)b->n_text / (t2 - t1);
    *back = (double)b->n_text / (seconds() - t2);
    setun_free(ids);
    setun_vocab_free(v);
    return s == SETUN_OK ? bench_check(err) : s;
}

int bench_tokenizer(const bench *b, const char *path)
{
    double open[BENCH_MAX_RUNS], encode[BENCH_MAX_RUNS], back[BENCH_MAX_RUNS];
    setun_error err = {0};
    int64_t n = 0;
    for (long long i = 0; i < b->n_run; i++)
        if (run(path, b, &open[i], &encode[i], &back[i], &n, &err) != SETUN_OK)
            return cli_fail(&err);
    bench_spread o = bench_sort(open, b->n_run), e = bench_sort(encode, b->n_run), d = bench_sort(back, b->n_run);
    if (b->c.json) {
        printf("{\"runs\": %lld, \"bytes\": %zu, \"tokens\": %lld, \"open_s\": %.6g, \"open_least_s\": %.6g, \"encode_mb_s\": %.6g, "
               "\"encode_most_mb_s\": %.6g, \"decode_mb_s\": %.6g, \"decode_most_mb_s\": %.6g}\n",
               b->n_run, b->n_text, (long long)n, o.median, o.min, e.median * 1e-6, e.max * 1e-6, d.median * 1e-6, d.max * 1e-6);
        return cli_close_out();
    }
    printf("%zu bytes, %lld tokens, processor time of one thread, %lld runs\n", b->n_text, (long long)n, b->n_run);
    printf("open    %9.1f ms (%.1f to %.1f)\n", 1e3 * o.median, 1e3 * o.min, 1e3 * o.max);
    printf("encode  %9.2f MB/s (%.2f to %.2f)\n", e.median * 1e-6, e.min * 1e-6, e.max * 1e-6);
    printf("decode  %9.2f MB/s (%.2f to %.2f)\n", d.median * 1e-6, d.min * 1e-6, d.max * 1e-6);
    return cli_close_out();
}
