/* cli/generate.c -- run: a prompt in, streamed text out. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "parallel.h"
#include "sampling.h"

enum { IGNORE_EOS = CLI_OWN, SPECIAL, ECHO, PROFILE, PARALLEL };

static const char help[] =
    "usage: setun run MODEL [-p TEXT | -f FILE] [options]\n\n"
    "Generate text after a prompt (standard input when neither -p nor -f is given).\n\n"
    "  -p, --prompt TEXT     the prompt;  -f, --file FILE: read it from a file\n"
    "  -n, --tokens N        most tokens to generate (default 256; -1: until the context is full)\n"
    CLI_SAMPLING_HELP
    "      --ignore-eos      do not stop at the end token\n"
    "      --special         recognise and print special tokens\n"
    "      --echo            print the prompt first\n"
    "      --parallel N      N texts with seeds S, S + 1, ..., decoded together and printed at the end, with --json\n"
    "                        as a line each; they go on from the prompt, which is read once\n"
    "      --profile         time per operator on stderr\n"
    CLI_COMMON_HELP;

typedef struct settings {
    cli            c;
    setun_sampling s;
    const char    *prompt, *file;
    long long      n, n_text;
    int            ignore_eos, special, echo, profile;
} settings;

/* Returns -1 to go on, else an exit code. */
static int parse(settings *a, int argc, char **argv)
{
    static const struct option options[] = {
        {"prompt", required_argument, NULL, 'p'}, {"file", required_argument, NULL, 'f'}, {"tokens", required_argument, NULL, 'n'},
        {"ignore-eos", no_argument, NULL, IGNORE_EOS}, {"special", no_argument, NULL, SPECIAL}, {"echo", no_argument, NULL, ECHO},
        {"profile", no_argument, NULL, PROFILE}, {"parallel", required_argument, NULL, PARALLEL}, CLI_SAMPLING_OPTIONS,
        CLI_COMMON_OPTIONS, {NULL, 0, NULL, 0}};
    int opt, r;
    while ((opt = getopt_long(argc, argv, "p:f:n:" CLI_COMMON_LETTERS, options, NULL)) != -1) {
        const cli *c = &a->c;
        switch (opt) {
        case 'p': a->prompt = optarg; break;
        case 'f': a->file = optarg; break;
        case 'n': if (cli_int(c, "-n", optarg, -1, 1 << 30, &a->n)) return CLI_USAGE; break;
        case IGNORE_EOS: a->ignore_eos = 1; break;
        case SPECIAL: a->special = 1; break;
        case ECHO: a->echo = 1; break;
        case PROFILE: a->profile = 1; break;
        case PARALLEL: if (cli_int(c, "--parallel", optarg, 1, PARALLEL_MOST, &a->n_text)) return CLI_USAGE; break;
        default:
            if ((r = cli_sampling(c, &a->s, opt)) == 0)
                r = cli_common(&a->c, opt);
            if (r != 1)
                return r == 2 ? 0 : r == 0 ? cli_usage(c, "unknown option") : CLI_USAGE;
        }
    }
    if (optind + 1 != argc)
        return cli_usage(&a->c, optind == argc ? "a model is missing" : "one model is enough");
    if (a->n_text && (a->echo || a->profile))
        return cli_usage(&a->c, "--parallel goes without --echo and --profile");
    if (a->prompt && a->file)
        return cli_usage(&a->c, "-p and -f exclude each other");
    if (!a->prompt && !a->file && isatty(0))
        return cli_usage(&a->c, "a prompt is missing (-p, -f or standard input)");
    cli_finish(&a->c);
    return -1;
}

static int on_progress(void *user, int64_t done, int64_t total)
{
    const settings *a = user;
    if (!a->c.quiet && isatty(2) && total > 512)
        fprintf(stderr, "\rprompt %3d %%%s", (int)(100 * done / total), done == total ? "\r          \r" : "");
    return cli_interrupted();
}

static setun_status feed(const settings *a, setun_session *s, const setun_sampler *sampler, const int32_t *ids, int64_t n,
                         const float **logits, setun_error *err)
{
    int32_t want = 0;
    setun_status status = cli_want(&a->c, s, sampler, &want, err);
    return status == SETUN_OK ? setun_session_feed(s, ids, n, want, logits, err) : status;
}

/* Text appears as it is made. */
static int write_now(void *file, const char *text, size_t n)
{
    return cli_write(file, text, n) || fflush(file) != 0;
}

static int generate(settings *a, setun_model *m, setun_session *s, setun_sampler *sampler, const int32_t *ids, int64_t n_ids)
{
    setun_error err = {0};
    cli_writer w = {setun_model_vocab(m), {{0}, 0}, a->special, write_now, stdout};
    const float *logits;
    int64_t room = setun_model_n_ctx(m) - n_ids, made = 0;
    setun_session_on_progress(s, on_progress, a);
    double t0 = cli_seconds();
    if (feed(a, s, sampler, ids, n_ids, &logits, &err) != SETUN_OK)
        return cli_fail(&err);
    (void)on_progress(a, n_ids, n_ids);
    double t1 = cli_seconds();
    for (int64_t i = 0; i < n_ids; i++) {
        setun_sampler_accept(sampler, ids[i]);
        if (a->echo && cli_emit(&w, ids[i], &err))
            return cli_fail(&err);
    }
    if (a->profile && setun_session_note(s, SETUN_NOTE_TIME | SETUN_NOTE_WORK, &err) != SETUN_OK)
        return cli_fail(&err);
    int64_t want = a->n < 0 ? room : a->n < room ? a->n : room;
    while (made < want && !cli_interrupted()) {
        int32_t token = cli_pick(sampler, s, logits, &err);
        if (token < 0)
            return cli_fail(&err);
        if (setun_model_is_end(m, token) && !a->ignore_eos)
            break;
        made++;
        setun_sampler_accept(sampler, token);
        if (cli_emit(&w, token, &err))
            return cli_fail(&err);
        if (made < want && feed(a, s, sampler, &token, 1, &logits, &err) != SETUN_OK)
            return err.code == SETUN_CANCELLED ? CLI_INTERRUPTED : cli_fail(&err);
    }
    double t2 = cli_seconds();
    if (cli_flush(&w, &err))
        return cli_fail(&err);
    if (fputc('\n', stdout) == EOF || cli_close_out())
        return CLI_FAILED;
    if (!a->c.quiet) {
        setun_model_stats st = {.size = sizeof st};
        setun_model_get_stats(m, &st);
        fprintf(stderr, "prompt %lld tokens, %.1f tokens/s; generated %lld, %.1f tokens/s; loaded in %.2f s; %.0f MB; %s, %d threads\n",
                (long long)n_ids, (double)n_ids / (t1 - t0), (long long)made,
                made > 1 ? (double)(made - 1) / (t2 - t1) : 0.0, 1e-9 * (double)st.load_ns,
                1e-6 * (double)st.resident_peak_bytes, st.isa, st.n_threads);
        if (want == room && made == room && a->n != made)
            fprintf(stderr, "setun: stopped because the context of %lld positions is full (--ctx)\n",
                    (long long)setun_model_n_ctx(m));
    }
    /* One step of four is counted, the others are timed: two feeds are the least that shows anything. */
    if (a->profile && made > 2 && setun_session_roofline(s, 1, NULL, 0, cli_write, stderr, &err) != SETUN_OK)
        return cli_fail(&err);
    return cli_interrupted() ? CLI_INTERRUPTED : 0;
}

int cli_run(int argc, char **argv)
{
    settings a = {.n = 256};
    setun_error err = {0};
    setun_model *m = NULL;
    setun_session *s = NULL;
    setun_sampler *sampler = NULL;
    int32_t *ids = NULL;
    int64_t n_ids = 0;
    size_t n_text = 0;
    cli_init(&a.c, "run", help);
    setun_sampling_init(&a.s);
    int code = parse(&a, argc, argv);
    if (code >= 0)
        return code;
    char *text = a.prompt ? NULL : cli_read(a.file ? a.file : "-", &n_text);
    if (!a.prompt && !text)
        return CLI_FAILED;
    const char *prompt = a.prompt ? a.prompt : text;
    if (a.prompt)
        n_text = strlen(a.prompt);
    uint32_t flags = SETUN_ENCODE_BOS | (a.special ? SETUN_ENCODE_SPECIAL : 0);
    if (cli_load(&a.c, argv[optind], &m, &err) != SETUN_OK ||
        setun_vocab_encode(setun_model_vocab(m), prompt, n_text, flags, &ids, &n_ids, &err) != SETUN_OK ||
        setun_sampler_new(&sampler, &a.s, setun_model_n_vocab(m), &err) != SETUN_OK ||
        (!a.n_text && setun_session_new(&s, m, &err) != SETUN_OK))
        code = cli_fail(&err);
    else if (n_ids == 0)
        code = cli_usage(&a.c, "the prompt is empty and the tokenizer adds nothing to it");
    else if (a.n_text)
        code = cli_parallel(&(parallel){&a.c, m, &a.s, ids, n_ids, a.n_text, a.n, a.ignore_eos, a.special});
    else
        code = generate(&a, m, s, sampler, ids, n_ids);
    setun_session_free(s);
    setun_sampler_free(sampler);
    setun_free(ids);
    setun_model_free(m);
    free(text);
    return code;
}
