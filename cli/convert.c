/* cli/convert.c -- convert and diff: a model in another form, and whether two files hold one model. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

enum { TO = CLI_OWN, FLOATS, TERNARY, LOSSLESS, FORCE, TOKENS, NO_RUN };

static int on_progress(void *user, int64_t done, int64_t total)
{
    const cli *c = user;
    if (!c->quiet && isatty(2))
        fprintf(stderr, "\r%s %3d %%%s", c->command, total ? (int)(100 * done / total) : 100, done == total ? "\n" : "");
    return cli_interrupted();
}

/* ---------------------------------------------------------------- convert */

static const char convert_help[] =
    "usage: setun convert IN OUT --to FORM [options]\n\n"
    "The same model in another form.  IN is a Hugging Face directory, a GGUF file or, with a plugin that knows its\n"
    "format, another program's file.  OUT is written beside its\n"
    "place, read again, compared with all of IN, and only then gets its name; after a failure or Ctrl-C there is\n"
    "nothing.  Codes are always equal; the report says whether scales and floats are, or what changed.\n\n"
    "      --to FORM             hf         a directory with packed linear layers (four codes in a byte, a scale)\n"
    "                            hf-float   a directory with floats instead; readers no longer quantise activations\n"
    "                            tq1_0, tq2_0, i2_s, iq1_bn, iq2_bn, q2_0, q2_0-128, pq2_0, ptq1_0\n"
    "                                       a GGUF file with linear layers of this type\n"
    "                            i2_s-arm, i2_s-rows4\n"
    "                                       the other two layouts of I2_S\n"
    "      --float TYPE          embedding and head as f32, f16, bf16 or, in GGUF, q8_0 (default: as they are)\n"
    "      --ternary RULE        linear layers that are floats, and that IN does not call ternary: absmean rounds\n"
    "                            them, exact takes those whose values are -a, 0 and a\n"
    "      --lossless            fail where a scale or a float would change, or activations be used otherwise\n"
    "      --force               OUT may exist: a file, or a directory with a model and no directories in it\n"
    "      --i2s-layout NAME     how I2_S lies in IN, if it does not tell: x86, arm or rows4\n"
    "      --activations TYPE    what IN was trained with, if it does not tell: int8 or float (the default of\n"
    "                            --ternary exact)\n"
    "      --plugin FILE         a plugin that reads IN (again for more; also SETUN_PLUGIN_PATH)\n"
    "  -q, --quiet               no progress, no report\n"
    "  -h, --help                this text\n\n"
    "Exit code: 0 written, 1 not, 2 wrong usage, 130 interrupted.\n";

static int no_report(void *user, const char *text, size_t n)
{
    (void)user, (void)text, (void)n;
    return 0;
}

int cli_convert(int argc, char **argv)
{
    static const struct option options[] = {
        {"to", required_argument, NULL, TO}, {"float", required_argument, NULL, FLOATS}, {"ternary", required_argument, NULL, TERNARY},
        {"lossless", no_argument, NULL, LOSSLESS}, {"force", no_argument, NULL, FORCE},
        {"i2s-layout", required_argument, NULL, CLI_I2S_LAYOUT}, {"activations", required_argument, NULL, CLI_ACTIVATIONS},
        {"plugin", required_argument, NULL, CLI_PLUGIN}, {"quiet", no_argument, NULL, 'q'}, {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0}};
    cli c;
    setun_error err = {0};
    setun_convert_options o = {.size = sizeof o, .progress = on_progress};
    int opt;
    cli_init(&c, "convert", convert_help);
    while ((opt = getopt_long(argc, argv, "qh", options, NULL)) != -1) {
        switch (opt) {
        case TO: o.to = optarg; break;
        case FLOATS: o.floats = optarg; break;
        case TERNARY: o.ternary = optarg; break;
        case LOSSLESS: o.lossless = 1; break;
        case FORCE: o.force = 1; break;
        default: {
            int done = cli_common(&c, opt);
            if (done != 1)
                return done == 2 ? 0 : CLI_USAGE;
        }
        }
    }
    if (optind + 2 != argc)
        return cli_usage(&c, optind + 2 > argc ? "an input and an output are needed" : "'%s' is one word too many", argv[argc - 1]);
    if (!o.to)
        return cli_usage(&c, "--to is missing; there are %s", setun_convert_forms());
    o.in = argv[optind];
    o.out = argv[optind + 1];
    o.i2s_layout = c.o.i2s_layout;
    o.activations = c.o.activations;
    o.plugins = *c.plugins ? c.plugins : NULL;
    o.user = &c;
    cli_catch_interrupt_making();
    return setun_convert(&o, c.quiet ? no_report : cli_write, stdout, &err) == SETUN_OK ? cli_close_out() : cli_fail(&err);
}

/* ---------------------------------------------------------------- diff */

static const char diff_help[] =
    "usage: setun diff A B [options]\n\n"
    "Do A and B hold the same model?  Each is a Hugging Face directory or a GGUF file, in any form that Setun\n"
    "reads.  Compared are the codes, scales and floats of every tensor, what config.json says or would say, and\n"
    "behind a few tokens what every step computes, up to the logits.  Only what differs is listed.\n\n"
    "      --tokens LIST         the tokens to run both on, separated by commas (default 1,2,3,4,5,6,7,8)\n"
    "      --no-run              compare the files alone\n"
    "      --ternary RULE        of linear layers that are floats: absmean, exact (see setun convert)\n"
    "      --json                the result for programs\n"
    CLI_COMMON_HELP
    "\nExit code: 0 no difference, 1 some, 2 not compared or wrong usage, 130 interrupted.\n";

static int report_diff(const setun_diff_options *o)
{
    setun_error err = {0};
    int32_t differs = 0;
    cli_catch_interrupt();
    setun_status st = setun_diff(o, &differs, cli_write, stdout, &err);
    if (st != SETUN_OK) {
        int code = cli_fail(&err);
        return code == CLI_FAILED ? CLI_USAGE : code; /* 1 means that they differ */
    }
    return cli_close_out() ? CLI_USAGE : differs != 0;
}

int cli_diff(int argc, char **argv)
{
    static const struct option options[] = {
        {"tokens", required_argument, NULL, TOKENS}, {"no-run", no_argument, NULL, NO_RUN}, {"ternary", required_argument, NULL, TERNARY},
        CLI_COMMON_OPTIONS, {NULL, 0, NULL, 0}};
    cli c;
    setun_diff_options o = {.size = sizeof o, .progress = on_progress};
    const char *tokens = "1,2,3,4,5,6,7,8";
    int32_t *ids = NULL;
    int opt, run = 1;
    cli_init(&c, "diff", diff_help);
    while ((opt = getopt_long(argc, argv, CLI_COMMON_LETTERS, options, NULL)) != -1) {
        switch (opt) {
        case TOKENS: tokens = optarg; break;
        case NO_RUN: run = 0; break;
        case TERNARY: o.ternary = optarg; break;
        default: {
            int done = cli_common(&c, opt);
            if (done != 1)
                return done == 2 ? 0 : CLI_USAGE;
        }
        }
    }
    if (optind + 2 != argc)
        return cli_usage(&c, optind + 2 > argc ? "two models are needed" : "'%s' is one word too many", argv[argc - 1]);
    cli_finish(&c);
    if (run && cli_ids(&c, tokens, &ids, &o.n_tokens))
        return CLI_USAGE;
    o.a = argv[optind];
    o.b = argv[optind + 1];
    o.json = c.json;
    o.tokens = ids;
    o.run = &c.o;
    o.user = &c;
    int code = report_diff(&o);
    free(ids);
    return code;
}
