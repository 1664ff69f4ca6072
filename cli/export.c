/* cli/export.c -- a model in one file, for setun-rt. */
#include <unistd.h>

#include "cli.h"

static const char help[] =
    "usage: setun export MODEL [--target ARCH] [--features L] [--vlen N] -o FILE\n\n"
    "Plan, kernels, weights, tokenizer and chat template in one file, a bundle: setun-rt, which is small and needs no\n"
    "libraries, runs it, and so does setun.  It is for this machine and those that have all its instructions, or for\n"
    "--target.  It is made for the options given here: --ctx, --batch, --kv and the like.  It computes all logits; there\n"
    "is no screened head in it.\n\n"
    "      --target ARCH     an architecture that Setun knows (an unknown name lists them)\n"
    "      --features L      what its CPU has beyond the oldest, e.g. +dotprod,+i8mm (an unknown name lists them)\n"
    "      --vlen N          bits of a RISC-V vector register: 128 (default) or 256\n"
    "  -o, --output FILE     where to\n" CLI_COMMON_HELP;

static int on_progress(void *user, int64_t done, int64_t total)
{
    const cli *c = user;
    if (!c->quiet && isatty(2))
        fprintf(stderr, "\rexporting %3d %%%s", (int)(100.0 * (double)done / (double)total), done == total ? "\n" : "");
    return cli_interrupted();
}

int cli_export(int argc, char **argv)
{
    enum { TARGET = CLI_OWN, FEATURES, VLEN };
    static const struct option options[] = {
        {"target", required_argument, NULL, TARGET}, {"features", required_argument, NULL, FEATURES},
        {"vlen", required_argument, NULL, VLEN}, {"output", required_argument, NULL, 'o'},
        CLI_COMMON_OPTIONS, {NULL, 0, NULL, 0}};
    cli c;
    setun_error err = {0};
    setun_export_options o = {.size = sizeof o, .progress = on_progress, .user = &c};
    long long vlen = 0;
    int opt, code = 0;
    cli_init(&c, "export", help);
    while ((opt = getopt_long(argc, argv, "o:" CLI_COMMON_LETTERS, options, NULL)) != -1) {
        switch (opt) {
        case TARGET: c.o.target = optarg; break;
        case FEATURES: c.o.cpu_features = optarg; break;
        case VLEN: if (cli_int(&c, "--vlen", optarg, 1, 65536, &vlen)) return CLI_USAGE; break;
        case 'o': o.out = optarg; break;
        default: {
            int r = cli_common(&c, opt);
            if (r != 1)
                return r > 0 ? 0 : CLI_USAGE;
        }
        }
    }
    if (optind + 1 != argc)
        return cli_usage(&c, optind == argc ? "a model is missing" : "one model is enough");
    if (!o.out || !*o.out)
        return cli_usage(&c, "-o is missing");
    c.o.vlen = (int32_t)vlen;
    c.o.full_head = 1;
    cli_finish(&c);
    setun_model *m = NULL;
    if (cli_load(&c, argv[optind], &m, &err) == SETUN_OK) {
        cli_catch_interrupt_making();
        if (setun_model_export(m, &o, &err) != SETUN_OK)
            code = cli_fail(&err);
    } else {
        code = cli_fail(&err);
    }
    setun_model_free(m);
    return code ? code : cli_close_out();
}
