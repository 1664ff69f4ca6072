/* cli/compile.c -- what is made of a model ahead of time, for this machine or another: kernels, and bundles. */
#include <unistd.h>

#include "cli.h"

#define MACHINE_HELP \
    "      --target ARCH     an architecture that Setun knows (an unknown name lists them)\n" \
    "      --features L      what its CPU has beyond the oldest, e.g. +dotprod,+i8mm (an unknown name lists them)\n" \
    "      --vlen N          bits of a RISC-V vector register: 128 (default) or 256\n"

static const char compile_help[] =
    "usage: setun compile MODEL --target ARCH [--features L] [--vlen N] -o DIR\n\n"
    "Code of all kernels of a model for another machine, and the record TARGET.  There, --kernels DIR uses them, also\n"
    "in a Setun without a compiler.  They are made for the options given here: --ctx, --batch, --kv and the like.\n\n"
    MACHINE_HELP
    "  -o, --output DIR      where to; doing it again completes what was interrupted\n" CLI_COMMON_HELP
    "\nExit code: 0 written, 1 not, 2 wrong usage, 130 interrupted.\n";

static const char export_help[] =
    "usage: setun export MODEL [--target ARCH] [--features L] [--vlen N] -o FILE\n\n"
    "Plan, kernels, weights, tokenizer and chat template in one file, a bundle: setun-rt, which is small and needs no\n"
    "libraries, runs it, and so does setun.  It is for this machine and those that have all its instructions, or for\n"
    "--target.  It is made for the options given here: --ctx, --batch, --kv and the like.  It computes all logits; there\n"
    "is no screened head in it.\n\n"
    MACHINE_HELP
    "  -o, --output FILE     where to\n" CLI_COMMON_HELP;

static int on_progress(void *user, int64_t done, int64_t total)
{
    const cli *c = user;
    if (!c->quiet && isatty(2))
        fprintf(stderr, "\rsetun %s %3d %%%s", c->command, (int)(100.0 * (double)done / (double)total), done == total ? "\n" : "");
    return cli_interrupted();
}

/* Options and the model's name.  Returns -1 to go on, else an exit code. */
static int read_line(cli *c, int argc, char **argv, const char **out)
{
    enum { TARGET = CLI_OWN, FEATURES, VLEN };
    static const struct option options[] = {
        {"target", required_argument, NULL, TARGET}, {"features", required_argument, NULL, FEATURES},
        {"vlen", required_argument, NULL, VLEN}, {"output", required_argument, NULL, 'o'},
        CLI_COMMON_OPTIONS, {NULL, 0, NULL, 0}};
    long long vlen = 0;
    int opt;
    while ((opt = getopt_long(argc, argv, "o:" CLI_COMMON_LETTERS, options, NULL)) != -1) {
        switch (opt) {
        case TARGET: c->o.target = optarg; break;
        case FEATURES: c->o.cpu_features = optarg; break;
        case VLEN: if (cli_int(c, "--vlen", optarg, 1, 65536, &vlen)) return CLI_USAGE; break;
        case 'o': *out = optarg; break;
        default: {
            int r = cli_common(c, opt);
            if (r != 1)
                return r > 0 ? 0 : CLI_USAGE;
        }
        }
    }
    c->o.vlen = (int32_t)vlen;
    if (optind + 1 != argc)
        return cli_usage(c, optind == argc ? "a model is missing" : "one model is enough");
    return *out && **out ? -1 : cli_usage(c, "-o is missing");
}

/* Load the model and make what is asked for: one of the two is given. */
static int make(cli *c, const char *model, const setun_compile_options *kernels, const setun_export_options *bundle)
{
    setun_error err = {0};
    setun_model *m = NULL;
    int code = 0;
    cli_finish(c);
    setun_status s = cli_load(c, model, &m, &err);
    if (s == SETUN_OK) {
        cli_catch_interrupt_making();
        s = kernels ? setun_model_compile(m, kernels, &err) : setun_model_export(m, bundle, &err);
    }
    if (s != SETUN_OK)
        code = cli_fail(&err);
    setun_model_free(m);
    return code ? code : cli_close_out();
}

int cli_compile(int argc, char **argv)
{
    cli c;
    setun_compile_options o = {.size = sizeof o, .progress = on_progress, .user = &c};
    cli_init(&c, "compile", compile_help);
    int code = read_line(&c, argc, argv, &o.out);
    if (code >= 0)
        return code;
    if (!c.o.target)
        return cli_usage(&c, "--target is missing");
    return make(&c, argv[optind], &o, NULL);
}

int cli_export(int argc, char **argv)
{
    cli c;
    setun_export_options o = {.size = sizeof o, .progress = on_progress, .user = &c};
    cli_init(&c, "export", export_help);
    int code = read_line(&c, argc, argv, &o.out);
    if (code >= 0)
        return code;
    c.o.full_head = 1;
    return make(&c, argv[optind], NULL, &o);
}
