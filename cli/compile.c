/* cli/compile.c -- kernels of a model for another machine, ahead of time. */
#include <unistd.h>

#include "cli.h"

static const char help[] =
    "usage: setun compile MODEL --target ARCH [--features L] [--vlen N] -o DIR\n\n"
    "Code of all kernels of a model for another machine, and the record TARGET.  There, --kernels DIR uses them, also\n"
    "in a Setun without a compiler.  They are made for the options given here: --ctx, --batch, --kv and the like.\n\n"
    "      --target ARCH     an architecture that Setun knows (an unknown name lists them)\n"
    "      --features L      what its CPU has beyond the oldest, e.g. +dotprod,+i8mm (an unknown name lists them)\n"
    "      --vlen N          bits of a RISC-V vector register: 128 (default) or 256\n"
    "  -o, --output DIR      where to; doing it again completes what was interrupted\n" CLI_COMMON_HELP
    "\nExit code: 0 written, 1 not, 2 wrong usage, 130 interrupted.\n";

static int on_kernel(void *user, int64_t done, int64_t total)
{
    const cli *c = user;
    if (!c->quiet && isatty(2))
        fprintf(stderr, "\rcompiling %3d %%%s", (int)(100 * done / total), done == total ? "\n" : "");
    return cli_interrupted();
}

int cli_compile(int argc, char **argv)
{
    enum { TARGET = CLI_OWN, FEATURES, VLEN };
    static const struct option options[] = {
        {"target", required_argument, NULL, TARGET}, {"features", required_argument, NULL, FEATURES},
        {"vlen", required_argument, NULL, VLEN}, {"output", required_argument, NULL, 'o'},
        CLI_COMMON_OPTIONS, {NULL, 0, NULL, 0}};
    cli c;
    setun_error err = {0};
    setun_compile_options o = {.size = sizeof o, .progress = on_kernel, .user = &c};
    long long vlen = 0;
    int opt, code = 0;
    cli_init(&c, "compile", help);
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
    if (!c.o.target)
        return cli_usage(&c, "--target is missing");
    if (!o.out || !*o.out)
        return cli_usage(&c, "-o is missing");
    c.o.vlen = (int32_t)vlen;
    cli_finish(&c);
    setun_model *m = NULL;
    setun_status s = cli_load(&c, argv[optind], &m, &err);
    if (s == SETUN_OK) {
        cli_catch_interrupt_making();
        s = setun_model_compile(m, &o, &err);
    }
    if (s != SETUN_OK)
        code = cli_fail(&err);
    setun_model_free(m);
    return code ? code : cli_close_out();
}
