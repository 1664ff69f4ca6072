/* rt/program.c -- the commands of setun-rt; setun itself comes here when it is given a bundle.
 *
 * A user of setun/rt.h.  Exit codes are those of setun: 0 done, 1 failed with one sentence on stderr, 2 wrong usage.
 * Nothing is written but to stdout and stderr, so a signal may end it at any time. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/str.h"
#include "rt/text.h"
#include "setun/rt.h"

#define FAILED 1
#define USAGE  2

static const char help[] =
    "setun-rt -- runs a bundle of setun export\n\n"
    "usage: setun-rt logits BUNDLE --tokens 1,2,3 [--hash] [--chunk N]\n"
    "       setun-rt run BUNDLE [-p TEXT] [options]    (setun-rt run --help)\n"
    "       setun-rt chat BUNDLE [-s TEXT] [options]   (setun-rt chat --help)\n"
    "       setun-rt bench BUNDLE [--prompt-tokens N] [-n N]\n"
    "       setun-rt info BUNDLE\n\n"
    "      --tokens IDS      token ids, separated by commas\n"
    "      --hash            only a hash of the logits' bits: equal on every machine and thread count\n"
    "      --chunk N         feed N tokens at a time (default: all at once)\n"
    "      --prompt-tokens N bench: tokens of the prompt (default 512, or what fits)\n"
    "  -n N                  bench: tokens to decode (default 64, or what fits)\n"
    "  -t, --threads N       worker threads (default: one per core)\n"
    "  -h, --help            this text\n";

typedef struct arguments {
    const char *command, *path, *tokens;
    int64_t     threads, chunk, prompt, n;
    int         hash;
} arguments;

static int fail(const setun_error *err)
{
    (void)fflush(stdout);
    (void)fprintf(stderr, "setun-rt: %s\n", err->text);
    return FAILED;
}

static int usage(const char *command, const char *what, const char *value)
{
    (void)fprintf(stderr, "setun-rt %s: %s%s; see setun-rt --help\n", command, what, value);
    return USAGE;
}

static int close_out(void)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return 0;
    (void)fprintf(stderr, "setun-rt: writing the result failed: %s\n", strerror(errno));
    return FAILED;
}

/* ---------------------------------------------------------------- logits */

/* Ids in decimal, separated by commas or white space; malloc'ed, NULL after a message. */
static int32_t *parse_ids(const char *text, int64_t *n)
{
    int32_t *ids = malloc((strlen(text) / 2 + 2) * sizeof *ids);
    char *copy = strdup(text), *rest = NULL;
    int64_t id, ok = ids && copy;
    *n = 0;
    for (char *word = ok ? strtok_r(copy, ", \t\r\n", &rest) : NULL; word && ok; word = strtok_r(NULL, ", \t\r\n", &rest)) {
        ok = st_parse_i64(word, 0, INT32_MAX, &id) == 0;
        if (ok)
            ids[(*n)++] = (int32_t)id;
        else
            (void)usage("logits", "a token id is a whole number from 0 on, not ", word);
    }
    free(copy);
    if (ok)
        return ids;
    free(ids);
    return NULL;
}

static int logits(setun_rt *rt, const arguments *a)
{
    setun_rt_info info = { .size = sizeof info };
    setun_error err = { 0, "" };
    const float *row = NULL;
    int64_t n, chunk;
    int32_t *ids = parse_ids(a->tokens, &n);
    if (!ids)
        return USAGE;
    setun_rt_get_info(rt, &info);
    setun_status s = n ? SETUN_OK : setun_rt_feed(rt, ids, 0, &row, &err);
    for (int64_t i = 0; i < n && s == SETUN_OK; i += chunk) {
        chunk = a->chunk && a->chunk < n - i ? a->chunk : n - i;
        s = setun_rt_feed(rt, ids + i, chunk, i + chunk == n ? &row : NULL, &err);
    }
    free(ids);
    if (s != SETUN_OK)
        return fail(&err);
    if (a->hash)
        (void)printf("%016" PRIx64 "\n", setun_rt_hash(0, row, info.n_vocab));
    for (int64_t i = 0; i < info.n_vocab && !a->hash; i++)
        (void)printf("%.9g\n", (double)row[i]);
    return close_out();
}

/* ---------------------------------------------------------------- bench, info */

/* Ids that are everywhere in the vocabulary: 0, a large step, twice the step, ... */
static setun_status read_prompt(setun_rt *rt, int64_t n, int64_t n_vocab, const float **row, setun_error *err)
{
    int32_t *ids = calloc((size_t)n, sizeof *ids);
    setun_status s = SETUN_NO_MEMORY;
    for (int64_t i = 0; ids && i < n; i++)
        ids[i] = (int32_t)(i * 7919 % n_vocab);
    if (ids)
        s = setun_rt_feed(rt, ids, n, row, err);
    else
        (void)snprintf(err->text, sizeof err->text, "no memory for %" PRId64 " tokens", n);
    free(ids);
    return s;
}

static int bench(setun_rt *rt, const arguments *a)
{
    setun_rt_info info = { .size = sizeof info };
    setun_error err = { 0, "" };
    const float *row;
    setun_rt_get_info(rt, &info);
    int64_t n = a->n ? a->n : info.n_ctx / 4 < 64 ? info.n_ctx / 4 + 1 : 64;
    int64_t prompt = a->prompt ? a->prompt : info.n_ctx - n < 512 ? info.n_ctx - n : 512;
    int64_t start = st_now_ns();
    setun_status s = read_prompt(rt, prompt, info.n_vocab, &row, &err);
    int64_t read = st_now_ns();
    for (int64_t i = 0; i < n && s == SETUN_OK; i++) {
        int32_t token = setun_rt_best(rt, row);
        s = setun_rt_feed(rt, &token, 1, &row, &err);
    }
    int64_t end = st_now_ns();
    if (s != SETUN_OK)
        return fail(&err);
    (void)printf("%s, %d threads\n", info.name, info.n_threads);
    (void)printf("prompt of %" PRId64 " tokens: %10.1f tokens/s\n", prompt, 1e9 * (double)prompt / (double)(read - start));
    (void)printf("decode of %" PRId64 " tokens: %10.1f tokens/s\n", n, 1e9 * (double)n / (double)(end - read));
    return close_out();
}

static int about(setun_rt *rt)
{
    setun_rt_info info = { .size = sizeof info };
    setun_rt_get_info(rt, &info);
    (void)printf("model       %s\nmade by     setun %s\ntarget      %s\ncpu         %s\nfeatures    %s\n", info.name, info.made_by,
                 info.target, info.cpu, info.features);
    (void)printf("context     %" PRId64 "\nbatch       %" PRId64 "\nvocabulary  %" PRId64 "\nweights     %" PRId64 " bytes\n",
                 info.n_ctx, info.n_batch, info.n_vocab, info.weight_bytes);
    return close_out();
}

/* ---------------------------------------------------------------- */

static int number(const arguments *a, const char *option, const char *text, int64_t most, int64_t *out)
{
    char what[96];
    if (st_parse_i64(text, 1, most, out) == 0)
        return 0;
    (void)snprintf(what, sizeof what, "%s takes a whole number from 1 to %" PRId64 ", not ", option, most);
    return usage(a->command, what, text);
}

static int parse(int argc, char **argv, arguments *a)
{
    enum { TOKENS = 256, HASH, CHUNK, PROMPT };
    static const struct option options[] = {
        { "tokens", required_argument, NULL, TOKENS }, { "hash", no_argument, NULL, HASH },
        { "chunk", required_argument, NULL, CHUNK }, { "prompt-tokens", required_argument, NULL, PROMPT },
        { "threads", required_argument, NULL, 't' }, { NULL, 0, NULL, 0 } };
    int opt, bad = 0;
    a->command = argv[0];
    while (!bad && (opt = getopt_long(argc, argv, "t:n:", options, NULL)) != -1) {
        switch (opt) {
        case TOKENS: a->tokens = optarg; break;
        case HASH: a->hash = 1; break;
        case CHUNK: bad = number(a, "--chunk", optarg, 1 << 30, &a->chunk); break;
        case PROMPT: bad = number(a, "--prompt-tokens", optarg, 1 << 20, &a->prompt); break;
        case 'n': bad = number(a, "-n", optarg, 1 << 20, &a->n); break;
        case 't': bad = number(a, "--threads", optarg, 1024, &a->threads); break;
        default: bad = USAGE; /* getopt said what */
        }
    }
    if (bad)
        return bad;
    if (optind + 1 != argc)
        return usage(a->command, optind == argc ? "a bundle is missing" : "one bundle is enough", "");
    a->path = argv[optind];
    return 0;
}

int setun_rt_main(int argc, char **argv)
{
    arguments a = { 0 };
    setun_rt *rt;
    setun_error err = { 0, "" };
    int is_logits, is_bench, code = 0;
    if (argc > 0 && strcmp(argv[0], "run") == 0)
        return st_rt_run(argc, argv);
    if (argc > 0 && strcmp(argv[0], "chat") == 0)
        return st_rt_chat(argc, argv);
    for (int i = 0; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return fputs(help, stdout) < 0 ? FAILED : close_out();
    if (argc < 1)
        return fputs(help, stderr), USAGE;
    if (strcmp(argv[0], "--version") == 0)
        return printf("setun-rt " SETUN_VERSION "\n") < 0 ? FAILED : close_out();
    is_logits = strcmp(argv[0], "logits") == 0;
    is_bench = strcmp(argv[0], "bench") == 0;
    if (!is_logits && !is_bench && strcmp(argv[0], "info"))
        return usage(argv[0], "there is no such command", "");
    if ((code = parse(argc, argv, &a)) != 0)
        return code;
    if (is_logits && !a.tokens)
        return usage("logits", "give --tokens", "");
    if (setun_rt_open(&rt, a.path, (int32_t)a.threads, &err) != SETUN_OK)
        return fail(&err);
    code = is_logits ? logits(rt, &a) : is_bench ? bench(rt, &a) : about(rt);
    setun_rt_close(rt);
    return code;
}
