/* rt/run.c -- run of setun-rt: a prompt in, streamed text out, as setun run has it. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"
#include "rt/text.h"

#define MOST_PROMPT ((int64_t)256 << 20)

static const char help[] =
    "usage: setun-rt run BUNDLE [-p TEXT | -f FILE] [options]\n\n"
    "Generate text after a prompt (standard input when neither -p nor -f is given).\n\n"
    "  -p, --prompt TEXT     the prompt;  -f, --file FILE: read it from a file\n"
    "  -n, --tokens N        most tokens to generate (default 256; -1: until the context is full)\n"
    "      --ignore-eos      do not stop at the end token\n"
    "      --special         recognise and print special tokens\n"
    "      --echo            print the prompt first\n" ST_RT_TEXT_HELP;

typedef struct settings {
    st_rt_text  t;
    const char *prompt, *file, *path;
    int64_t     n_threads;
    int         ignore_eos, echo;
} settings;

/* Returns -1 to go on, else an exit code. */
static int parse(settings *a, int argc, char **argv)
{
    enum { IGNORE_EOS = 256, SPECIAL, ECHO };
    static const struct option options[] = {
        {"prompt", required_argument, NULL, 'p'}, {"file", required_argument, NULL, 'f'}, {"ignore-eos", no_argument, NULL, IGNORE_EOS},
        {"special", no_argument, NULL, SPECIAL}, {"echo", no_argument, NULL, ECHO}, {"help", no_argument, NULL, 'h'},
        ST_RT_TEXT_OPTIONS, {NULL, 0, NULL, 0}};
    int opt, r;
    while ((opt = getopt_long(argc, argv, "p:f:n:t:qh", options, NULL)) != -1) {
        switch (opt) {
        case 'p': a->prompt = optarg; break;
        case 'f': a->file = optarg; break;
        case 'h': return fputs(help, stdout) < 0;
        case IGNORE_EOS: a->ignore_eos = 1; break;
        case SPECIAL: a->t.special = 1; break;
        case ECHO: a->echo = 1; break;
        default:
            r = st_rt_text_option(&a->t, "run", opt, optarg, &a->n_threads);
            if (r != 1)
                return r ? 2 : st_rt_usage("run", "unknown option", "");
        }
    }
    if (optind + 1 != argc)
        return st_rt_usage("run", optind == argc ? "a bundle is missing" : "one bundle is enough", "");
    if (a->prompt && a->file)
        return st_rt_usage("run", "-p and -f exclude each other", "");
    if (!a->prompt && !a->file && isatty(0))
        return st_rt_usage("run", "a prompt is missing (-p, -f or standard input)", "");
    a->path = argv[optind];
    return -1;
}

static setun_status read_input(char **text, int64_t *n, setun_error *err)
{
    st_str s = {0};
    char part[65536];
    for (size_t got; !s.failed && (int64_t)s.len <= MOST_PROMPT && (got = fread(part, 1, sizeof part, stdin)) > 0;)
        st_str_addn(&s, part, got);
    st_str_add(&s, "");
    *text = s.text;
    *n = (int64_t)s.len;
    if (s.failed)
        return st_fail(err, SETUN_NO_MEMORY, "no memory for standard input");
    return (int64_t)s.len > MOST_PROMPT ? st_fail(err, SETUN_FULL, "cannot read standard input: more than 256 MiB")
           : ferror(stdin)              ? st_fail(err, SETUN_IO, "cannot read standard input: %s", strerror(errno))
                                        : SETUN_OK;
}

static void report(const settings *a, int64_t n_prompt, int64_t n, int64_t room, const int64_t t[3])
{
    double reading = 1e-9 * (double)(t[1] - t[0]), making = 1e-9 * (double)(t[2] - t[1]);
    if (a->t.quiet)
        return;
    (void)fprintf(stderr, "prompt %lld tokens, %.1f tokens/s; generated %lld, %.1f tokens/s; %d threads\n", (long long)n_prompt,
                  (double)n_prompt / reading, (long long)n, n > 1 ? (double)(n - 1) / making : 0.0, a->t.info.n_threads);
    if (n == room && a->t.n != n)
        (void)fprintf(stderr, "setun-rt: stopped because the context of %lld positions is full\n", (long long)a->t.info.n_ctx);
}

static setun_status generate(settings *a, const int32_t *ids, int64_t n, setun_error *err)
{
    st_rt_text *t = &a->t;
    st_detok d = {.drop = 0};
    const float *logits;
    int64_t room = t->info.n_ctx - n, want = t->n < 0 || t->n > room ? room : t->n, made = 0, at[3] = {st_now_ns(), 0, 0};
    if (n < 1)
        return st_fail(err, SETUN_BAD_ARG, "the prompt is empty and the tokenizer adds nothing to it");
    ST_TRY(setun_rt_feed(t->rt, ids, n, &logits, err));
    at[1] = st_now_ns();
    for (int64_t i = 0; i < n; i++) {
        setun_sampler_accept(t->sampler, ids[i]);
        if (a->echo && st_rt_emit(t, &d, ids[i], err))
            return SETUN_FAILED;
    }
    while (made < want) {
        int32_t token = st_rt_pick(t, logits, err);
        if (token < 0)
            return SETUN_FAILED;
        if (setun_rt_is_end(t->rt, token) && !a->ignore_eos)
            break;
        made++;
        setun_sampler_accept(t->sampler, token);
        if (st_rt_emit(t, &d, token, err))
            return SETUN_FAILED;
        if (made < want)
            ST_TRY(setun_rt_feed(t->rt, &token, 1, &logits, err));
    }
    at[2] = st_now_ns();
    if (st_rt_emit(t, &d, -1, err))
        return SETUN_FAILED;
    if (fputc('\n', stdout) == EOF || fflush(stdout) != 0)
        return st_fail(err, SETUN_IO, "writing the text failed: %s", strerror(errno));
    report(a, n, made, room, at);
    return SETUN_OK;
}

int st_rt_run(int argc, char **argv)
{
    settings a = {.t = {.n = 256}};
    setun_error err = {0};
    char *text = NULL;
    int32_t *ids = NULL;
    int64_t n_text = 0, n = 0;
    setun_sampling_init(&a.t.sampling);
    int code = parse(&a, argc, argv);
    if (code >= 0)
        return code;
    setun_status s = a.file ? st_file_read(a.file, MOST_PROMPT, &text, &n_text, &err) : a.prompt ? SETUN_OK : read_input(&text, &n_text, &err);
    if (a.prompt)
        n_text = (int64_t)strlen(a.prompt);
    if (s == SETUN_OK)
        s = st_rt_text_open(&a.t, a.path, (int32_t)a.n_threads, 0, &err);
    if (s == SETUN_OK)
        s = st_tokenizer_encode(a.t.tokenizer, a.prompt ? a.prompt : text, n_text, ST_TOK_BOS | (a.t.special ? ST_TOK_SPECIAL : 0), &ids, &n, &err);
    if (s == SETUN_OK)
        s = generate(&a, ids, n, &err);
    st_rt_text_close(&a.t);
    free(ids);
    free(text);
    return s == SETUN_OK ? 0 : st_rt_fail(&err);
}
