/* cli/perplexity.c -- setun perplexity: options, progress, and how the result is printed. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

enum { CONVENTION = CLI_OWN, WINDOW, STRIDE, WINDOWS, SAVE, AGAINST };

static const char help[] =
    "usage: setun perplexity MODEL FILE [--convention NAME] [--window N] [--windows K] [--json]\n"
    "       setun perplexity MODEL FILE --save-logits OUT ...\n"
    "       setun perplexity OTHER FILE --kl OUT ...\n\n"
    "How well a model predicts a text: e to the mean of -ln of each token's probability, +/- its standard error.\n"
    "Figures compare only if text, tokenizer, convention and window are the same.\n\n"
    "      --convention NAME  which tokens are predicted from which:\n"
    "                         disjoint (default): windows side by side, each behind a BOS, all tokens count\n"
    "                         llama.cpp: windows side by side, BOS instead of the first token, the second half counts\n"
    "                         huggingface: a window that slides by --stride, what is new in it counts\n"
    "      --window N         tokens of a window (256; llama.cpp 512; huggingface: the context)\n"
    "      --stride N         of huggingface (half a window)\n"
    "      --windows K        stop after K windows (default: the whole text)\n"
    "      --save-logits OUT  keep all logits in a file, 4 bytes for each token of the vocabulary and of the text\n"
    "      --kl OUT           compare with logits that another model, or this one with other options, saved:\n"
    "                         Kullback-Leibler divergence, equal choices, ratio of perplexities\n"
    "      --json             the same as one object; the first keys are ppl, nll, tokens\n"
    CLI_COMMON_HELP;

typedef struct showing {
    const cli         *c;
    setun_ppl_options *o;
    int                on;    /* is anybody looking? */
    int64_t            shown; /* tokens at the last line */
} showing;

static void begin(void *user, const setun_ppl *planned)
{
    const showing *s = user;
    if (s->o->save && !s->c->quiet)
        fprintf(stderr, "setun: %s will have %.1f MB: the logits of %lld tokens\n", s->o->save, (double)planned->save_bytes * 1e-6,
                (long long)planned->tokens);
}

static int progress(void *user, int64_t done, int64_t total, double ppl)
{
    showing *s = user;
    if (s->on && (done == total || done - s->shown >= 256)) {
        fprintf(stderr, "\r%lld of %lld tokens, ppl %.4f ", (long long)done, (long long)total, ppl);
        s->shown = done;
    }
    return cli_interrupted();
}

static int print(const cli *c, const setun_ppl_options *o, const setun_ppl *p)
{
    static const char *const shares[] = {"50", "90", "95", "99", "99.9"};
    const char *name = setun_ppl_name(o->convention);
    if (c->json) {
        printf("{\"ppl\": %.9g, \"nll\": %.9g, \"tokens\": %lld, \"error\": %.9g, \"convention\": \"%s\", \"window\": %lld, "
               "\"stride\": %lld, \"windows\": %lld",
               p->ppl, p->nll, (long long)p->tokens, p->error, name, (long long)p->window, (long long)p->stride, (long long)p->windows);
        if (o->against) {
            printf(", \"kl\": {\"mean\": %.9g, \"error\": %.9g, \"max\": %.9g", p->kl, p->kl_error, p->kl_max);
            for (int i = 0; i < 5; i++)
                printf(", \"%s\": %.9g", shares[i], p->kl_at[i]);
            printf("}, \"same_top\": %.9g, \"same_top_error\": %.9g, \"base_ppl\": %.9g, \"ratio\": %.9g, \"ratio_error\": %.9g",
                   p->same_top, p->same_top_error, p->base_ppl, p->ratio, p->ratio_error);
        }
        printf("}\n");
        return cli_close_out();
    }
    printf("ppl %.6f +/- %.5f  nll %.6f  tokens %lld\n", p->ppl, p->error, p->nll, (long long)p->tokens);
    printf("convention %s, %lld windows of %lld", name, (long long)p->windows, (long long)p->window);
    printf(o->convention == SETUN_PPL_HUGGINGFACE ? ", one every %lld\n" : "\n", (long long)p->stride);
    if (o->against) {
        printf("kl mean %.9g +/- %.3g  max %.9g\n", p->kl, p->kl_error, p->kl_max);
        for (int i = 0; i < 5; i++)
            printf("kl %4s %% %.9g\n", shares[i], p->kl_at[i]);
        printf("same top token %.3f %% +/- %.3f\n", 100 * p->same_top, 100 * p->same_top_error);
        printf("ppl saved %.6f  ratio %.6f +/- %.6f\n", p->base_ppl, p->ratio, p->ratio_error);
    }
    return cli_close_out();
}

static int convention_of(const cli *c, const char *text, int32_t *out)
{
    for (*out = 0; setun_ppl_name(*out); ++*out)
        if (strcmp(setun_ppl_name(*out), text) == 0)
            return 0;
    return cli_usage(c, "there is no convention '%s': disjoint, llama.cpp, huggingface", text);
}

/* 0, or an exit code; -1: help was printed. */
static int parse(cli *c, int argc, char **argv, setun_ppl_options *o)
{
    static const struct option options[] = {
        {"convention", required_argument, NULL, CONVENTION}, {"window", required_argument, NULL, WINDOW},
        {"stride", required_argument, NULL, STRIDE}, {"windows", required_argument, NULL, WINDOWS},
        {"save-logits", required_argument, NULL, SAVE}, {"kl", required_argument, NULL, AGAINST},
        CLI_COMMON_OPTIONS, {NULL, 0, NULL, 0}};
    long long window = 0, stride = 0, windows = 0;
    int opt, bad = 0;
    while (!bad && (opt = getopt_long(argc, argv, CLI_COMMON_LETTERS, options, NULL)) != -1) {
        switch (opt) {
        case CONVENTION: bad = convention_of(c, optarg, &o->convention); break;
        case WINDOW: bad = cli_int(c, "--window", optarg, 2, 1 << 20, &window); break;
        case STRIDE: bad = cli_int(c, "--stride", optarg, 1, 1 << 20, &stride); break;
        case WINDOWS: bad = cli_int(c, "--windows", optarg, 1, 1 << 30, &windows); break;
        case SAVE: o->save = optarg; break;
        case AGAINST: o->against = optarg; break;
        default: {
            int code = cli_common(c, opt);
            if (code != 1)
                return code == 2 ? -1 : CLI_USAGE;
        }
        }
    }
    if (bad)
        return CLI_USAGE;
    if (optind + 2 != argc)
        return cli_usage(c, "a model and a text file are needed");
    if (stride && o->convention != SETUN_PPL_HUGGINGFACE)
        return cli_usage(c, "--stride is for --convention huggingface");
    if (stride && window && stride > window)
        return cli_usage(c, "a stride of %lld leaves out tokens between windows of %lld", stride, window);
    if (o->save && o->against)
        return cli_usage(c, "--save-logits and --kl are for two runs");
    o->window = window;
    o->stride = stride;
    o->windows = windows;
    return 0;
}

int cli_perplexity(int argc, char **argv)
{
    cli c;
    setun_error err = {0};
    setun_ppl_options o = {.size = sizeof o, .begin = begin, .progress = progress};
    setun_ppl result = {.size = sizeof result};
    cli_init(&c, "perplexity", help);
    int code = parse(&c, argc, argv, &o);
    if (code)
        return code < 0 ? 0 : code;
    cli_finish(&c);
    c.o.n_outputs = 64;
    size_t n_text;
    char *text = cli_read(argv[optind + 1], &n_text);
    if (!text)
        return CLI_FAILED;
    showing s = {&c, &o, !c.quiet && isatty(2), 0};
    setun_model *m = NULL;
    o.user = &s;
    setun_status status = cli_load(&c, argv[optind], &m, &err);
    if (status == SETUN_OK)
        status = setun_perplexity(m, text, n_text, &o, &result, &err);
    if (s.on && s.shown)
        fputs("\n", stderr);
    code = status == SETUN_OK ? print(&c, &o, &result) : cli_interrupted() ? CLI_INTERRUPTED : cli_fail(&err);
    setun_model_free(m);
    free(text);
    return code;
}
