/* cli/trace.c -- trace and tracediff: what steps compute, as files, and where two traces part. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

enum { TOKENS = CLI_OWN, SELECT, LIST, ALL, FORCE, MAP, TOLERANCE, COMMON };

#define MOST_PATTERNS 64
#define BATCH 512 /* what a model is loaded for if nothing is said */

static int on_progress(void *user, int64_t done, int64_t total)
{
    const cli *c = user;
    if (!c->quiet && isatty(2))
        fprintf(stderr, "\r%s %3d %%%s", c->command, total ? (int)(100 * done / total) : 100, done == total ? "\n" : "");
    return cli_interrupted();
}

/* ---------------------------------------------------------------- trace */

static const char trace_help[] =
    "usage: setun trace MODEL (--tokens 1,2,3 | -p TEXT) [--select PATTERN ...] -o DIR\n"
    "       setun trace MODEL (--tokens 1,2,3 | -p TEXT) [--select PATTERN ...] --list\n\n"
    "What every step computes behind some tokens: a NumPy file (.npy) for each tensor, and trace.json, which lists\n"
    "them in the order in which they are made.  A tensor has the name of the weight that it is made with\n"
    "(blk.0.attn_q), or of scope and operator (blk.0.add.2: the second).  DIR appears when it is complete; after a\n"
    "failure or Ctrl-C there is nothing.\n\n"
    "      --tokens IDS      taken as they are; no BOS is added\n"
    "  -p, --prompt TEXT     tokenized, with BOS\n"
    "      --select PATTERN  only tensors with such names (again for more): * any characters, ? one, [0-3] one of\n"
    "                        these; default: every step's results\n"
    "      --all             logits of every position, not of the last\n"
    "  -o, --output DIR      where to\n"
    "      --force           DIR may be an older trace, which is replaced\n"
    "      --list            names, shapes and sizes; nothing is computed\n"
    "      --json            the list as it is in trace.json\n"
    CLI_COMMON_HELP;

typedef struct trace_args {
    cli                 c;
    setun_trace_options o;
    const char         *select[MOST_PATTERNS], *prompt, *tokens;
    int                 list;
} trace_args;

/* One option.  Returns -1 to go on, else an exit code. */
static int take(trace_args *a, int opt)
{
    switch (opt) {
    case TOKENS: a->tokens = optarg; return -1;
    case 'p': a->prompt = optarg; return -1;
    case 'o': a->o.out = optarg; return -1;
    case ALL: a->o.all = 1; return -1;
    case FORCE: a->o.force = 1; return -1;
    case LIST: a->list = 1; return -1;
    case SELECT:
        if (a->o.n_select == MOST_PATTERNS)
            return cli_usage(&a->c, "more than %d times --select", MOST_PATTERNS);
        a->select[a->o.n_select++] = optarg;
        return -1;
    default: {
        int done = cli_common(&a->c, opt);
        return done == 1 ? -1 : done == 2 ? 0 : CLI_USAGE;
    }
    }
}

static int parse(trace_args *a, int argc, char **argv)
{
    static const struct option options[] = {
        {"tokens", required_argument, NULL, TOKENS}, {"prompt", required_argument, NULL, 'p'}, {"select", required_argument, NULL, SELECT},
        {"output", required_argument, NULL, 'o'}, {"list", no_argument, NULL, LIST}, {"all", no_argument, NULL, ALL},
        {"force", no_argument, NULL, FORCE}, CLI_COMMON_OPTIONS, {NULL, 0, NULL, 0}};
    int opt, code;
    while ((opt = getopt_long(argc, argv, "p:o:" CLI_COMMON_LETTERS, options, NULL)) != -1)
        if ((code = take(a, opt)) >= 0)
            return code;
    if (optind + 1 != argc)
        return cli_usage(&a->c, optind == argc ? "a model is missing" : "one model is enough");
    if (!a->tokens == !a->prompt)
        return cli_usage(&a->c, "give --tokens or -p");
    if (!a->o.out == !a->list)
        return cli_usage(&a->c, "give -o DIR, or --list");
    if (a->o.out && !*a->o.out)
        return cli_usage(&a->c, "-o needs a name");
    a->o.select = a->select;
    a->o.json = a->c.json;
    cli_finish(&a->c);
    return -1;
}

/* The ids come first: for as many tokens as there are the model is loaded. */
static int encode(trace_args *a, const char *model, int32_t **ids)
{
    setun_error err = {0};
    setun_vocab *v = NULL;
    if (a->tokens && cli_ids(&a->c, a->tokens, ids, &a->o.n_tokens))
        return CLI_USAGE;
    if (a->prompt && (setun_vocab_open(&v, model, &err) != SETUN_OK ||
                      setun_vocab_encode(v, a->prompt, strlen(a->prompt), SETUN_ENCODE_BOS, ids, &a->o.n_tokens, &err) != SETUN_OK)) {
        setun_vocab_free(v);
        return cli_fail(&err);
    }
    setun_vocab_free(v);
    a->o.tokens = *ids;
    if (!a->o.n_tokens)
        return cli_usage(&a->c, "there are no tokens");
    if (!a->c.o.n_batch && a->o.n_tokens > BATCH)
        a->c.o.n_batch = a->o.n_tokens;
    if (a->o.all)
        a->c.o.n_outputs = a->o.n_tokens;
    return 0;
}

static int no_report(void *user, const char *text, size_t n)
{
    (void)user, (void)text, (void)n;
    return 0;
}

int cli_trace(int argc, char **argv)
{
    trace_args a = {.o = {.size = sizeof a.o, .progress = on_progress}};
    setun_error err = {0};
    setun_model *m = NULL;
    int32_t *ids = NULL;
    cli_init(&a.c, "trace", trace_help);
    a.o.user = &a.c;
    int code = parse(&a, argc, argv);
    if (code >= 0)
        return code;
    code = encode(&a, argv[optind], &ids);
    /* How much will be written is no result: it goes beside them. */
    int result = a.list || a.c.json;
    if (!code && (cli_load(&a.c, argv[optind], &m, &err) != SETUN_OK ||
                  setun_trace(m, &a.o, !result && a.c.quiet ? no_report : cli_write, result ? stdout : stderr, &err) != SETUN_OK))
        code = cli_fail(&err);
    setun_model_free(m);
    setun_free(ids);
    return code ? code : cli_close_out();
}

/* ---------------------------------------------------------------- tracediff */

static const char tracediff_help[] =
    "usage: setun tracediff A B [--map FILE] [--tolerance SHARE] [--common] [--json]\n\n"
    "A is a trace that setun trace made.  B is another, or a directory with NumPy files (.npy) of whatever made\n"
    "them.  Tensors are compared in the order in which A made them, so the first that differs is where the two\n"
    "part.  Sides of length 1 do not count as a difference in shape.\n\n"
    "      --map FILE         lines \"NAME-IN-A FILE-IN-B\": only these are compared; * stands for the same digits on\n"
    "                         both sides (blk.*.attn_q layers.*.self_attn.q_proj); # begins a comment\n"
    "      --tolerance SHARE  differences up to this share of a tensor's largest number do not count, nor does\n"
    "                         another type; NaN and shapes always do (default 0: every bit counts)\n"
    "      --common           only names that both have are compared\n"
    "      --json             the result for programs\n"
    "  -q, --quiet            no progress\n"
    "  -h, --help             this text\n\n"
    "Exit code: 0 no difference, 1 some, 2 not compared or wrong usage, 130 interrupted.\n";

int cli_tracediff(int argc, char **argv)
{
    static const struct option options[] = {
        {"map", required_argument, NULL, MAP}, {"tolerance", required_argument, NULL, TOLERANCE}, {"common", no_argument, NULL, COMMON},
        {"json", no_argument, NULL, CLI_JSON}, {"quiet", no_argument, NULL, 'q'}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
    cli c;
    setun_error err = {0};
    setun_tracediff_options o = {.size = sizeof o, .progress = on_progress};
    int32_t differs = 0;
    int opt;
    cli_init(&c, "tracediff", tracediff_help);
    while ((opt = getopt_long(argc, argv, "qh", options, NULL)) != -1) {
        switch (opt) {
        case MAP: o.map = optarg; break;
        case COMMON: o.common = 1; break;
        case TOLERANCE: if (cli_float(&c, "--tolerance", optarg, 0, 1, &o.tolerance)) return CLI_USAGE; break;
        default: {
            int done = cli_common(&c, opt);
            if (done != 1)
                return done == 2 ? 0 : CLI_USAGE;
        }
        }
    }
    if (optind + 2 != argc)
        return cli_usage(&c, optind + 2 > argc ? "two traces are needed" : "'%s' is one word too many", argv[argc - 1]);
    o.a = argv[optind];
    o.b = argv[optind + 1];
    o.json = c.json;
    o.user = &c;
    cli_catch_interrupt();
    if (setun_tracediff(&o, &differs, cli_write, stdout, &err) != SETUN_OK) {
        int code = cli_fail(&err);
        return code == CLI_FAILED ? CLI_USAGE : code; /* 1 means that they differ */
    }
    return cli_close_out() ? CLI_USAGE : differs != 0;
}
