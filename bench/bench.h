/* bench/bench.h -- what the files of `setun bench` share.
 *
 *     bench.c     options, order of events          measure.c   runs, medians, notes of a session
 *     print.c     results for people                json.c      the same for programs; keys in docs/performance.md
 *     sequences.c several sequences together: a bench of its own
 *     tokenizer.c text to ids and back: another one
 *
 * A measurement is a row of bench_parts (bench.c): what runs it, what prints it. */
#ifndef BENCH_H
#define BENCH_H

#include "cli.h"

#define BENCH_MAX_RUNS 101
#define BENCH_MAX_LIST 16
#define BENCH_MAX_PIECE 1024 /* bytes of a token that is decoded; longer ones are left out */
#define BENCH_FIRST_TOKENS 32 /* the prompt behind the time to the first token */

typedef struct bench_list {
    long long v[BENCH_MAX_LIST];
    int       n, given; /* given: on the command line, so nothing is left out silently */
} bench_list;

typedef struct bench {
    cli         c;
    bench_list  threads, prefill, depth;
    long long   n_decode, n_run, top;
    int         roofline, tokenizer;
    char       *sequences; /* NULL: not asked for */
    const char *file; /* whose tokens are fed; NULL: tokens of no meaning */
    char       *text; /* its bytes */
    size_t      n_text;
} bench;

typedef struct bench_spread {
    double median, min, max;
} bench_spread;

/* Prefill of `size` tokens, or decode behind `size` tokens. */
typedef struct bench_stage {
    long long    size;
    bench_spread rate; /* tokens per second */
    setun_work   work; /* per token */
    double       survivors, full; /* decode: rows of the head computed exactly; share of tokens with all of them */
} bench_stage;

/* One thread count. */
typedef struct bench_run {
    const bench      *b;
    setun_model      *m;
    setun_session    *s;
    int32_t          *ids;
    int64_t           n_ids, n_text; /* n_text: different tokens of the text; fewer than n_ids: it is repeated */
    bench_stage       prefill[BENCH_MAX_LIST], decode[BENCH_MAX_LIST];
    int               n_prefill, n_decode, has_memory;
    bench_spread      first;  /* seconds from the start of a prompt to its first token */
    double            first_cold; /* the first one after loading */
    int               n_first;
    setun_memory      memory;
    setun_density     density;
    setun_limits      limits;
    setun_model_stats stats;
    char             *tuned;     /* choices of kernels, a line each */
    int64_t           load_peak; /* bytes resident at most until the model was loaded */
} bench_run;

/* One kind of measurement.  measure may be NULL; text and json print what it left in the run.  json
 * writes `"key": value` pairs, the first with a comma in front. */
typedef struct bench_part {
    setun_status (*measure)(bench_run *r, setun_error *err);
    void         (*text)(const bench_run *r);
    void         (*json)(const bench_run *r);
} bench_part;
extern const bench_part bench_parts[];
extern const int        bench_n_parts;

/* measure.c */
double       bench_seconds(void);
bench_spread bench_sort(double *v, long long n);
void         bench_say(const bench_run *r, const char *fmt, ...) SETUN_PRINTF(2, 3); /* progress; "" clears it */
setun_status bench_check(setun_error *err); /* SETUN_CANCELLED after Ctrl-C */
setun_status bench_make_tokens(bench_run *r, setun_error *err);
setun_status bench_first(bench_run *r, setun_error *err);
setun_status bench_prefill(bench_run *r, setun_error *err);
setun_status bench_decode(bench_run *r, setun_error *err);
setun_status bench_memory(bench_run *r, setun_error *err);
setun_status bench_roofline(bench_run *r, setun_error *err);

/* Bytes that a token reads from memory. */
double bench_bytes(const setun_work *w);

int bench_tokenizer(const bench *b, const char *path); /* tokenizer.c; returns an exit code */

/* print.c and json.c: a function for each part. */
void bench_text_machine(const bench_run *r);
void bench_text_load(const bench_run *r);
void bench_text_memory(const bench_run *r);
void bench_text_first(const bench_run *r);
void bench_text_prefill(const bench_run *r);
void bench_text_decode(const bench_run *r);
void bench_text_density(const bench_run *r);
void bench_json_machine(const bench_run *r);
void bench_json_load(const bench_run *r);
void bench_json_memory(const bench_run *r);
void bench_json_first(const bench_run *r);
void bench_json_prefill(const bench_run *r);
void bench_json_decode(const bench_run *r);
void bench_json_density(const bench_run *r);

#endif
