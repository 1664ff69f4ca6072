/* cli/lab.c -- lab and card: experiments with variants of a model, and the page about a packing.
 *
 * A variant's options are those of the command line under the same names: they go through cli_common, so that a
 * new one is known here at once. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

enum { AGAIN = CLI_OWN };

static const char lab_help[] =
    "usage: setun lab FILE.lua [-o DIR] [--again] [--json]\n\n"
    "Run an experiment: the variants of a model that the file lists, measured for size, perplexity, divergence from\n"
    "the base, error layer by layer, and speed.  The result is a table, DIR/results.json, and DIR/report.html, a page\n"
    "with drawings.  What was measured before, of the same inputs, is not measured again: after Ctrl-C the same\n"
    "command goes on.  docs/lab.md tells what a file can say.\n\n"
    "  -o, --output DIR       where to (default: FILE.lab)\n"
    "      --again            measure everything again\n"
    "      --json             print what results.json holds, not the table\n\n"
    "Common options go for all variants; a variant's own come after them.\n"
    CLI_COMMON_HELP;

static int shows(const cli *c) { return !c->quiet && isatty(2); }

static void on_begin(void *user, const char *variant, const char *measure)
{
    const cli *c = user;
    if (shows(c))
        fprintf(stderr, "\r\033[K%s: %s", variant, measure);
    else if (c->verbose)
        fprintf(stderr, "setun: %s: %s\n", variant, measure);
}

static int on_progress(void *user, int64_t done, int64_t total)
{
    if (shows(user) && total > 1)
        fprintf(stderr, " \033[s%3d %%\033[u\033[D", (int)(100 * done / total));
    return cli_interrupted();
}

/* ---------------------------------------------------------------- a variant's options */

static const struct option common[] = {CLI_COMMON_OPTIONS, {NULL, 0, NULL, 0}};

/* 0, or an exit code after a sentence. */
static int take_option(cli *v, const char *name, const char *value)
{
    const struct option *o = common;
    while (o->name && strcmp(o->name, name) != 0)
        o++;
    if (!o->name || o->val == 'q' || o->val == 'v' || o->val == 'h' || o->val == CLI_JSON) {
        (void)cli_usage(v, "there is no option '%s' for a variant; setun lab --help lists the common options", name);
        return CLI_FAILED;
    }
    if ((o->has_arg == required_argument) != (value != NULL)) {
        (void)cli_usage(v, value ? "the option '%s' takes no value but true" : "the option '%s' needs a value", name);
        return CLI_FAILED;
    }
    optarg = (char *)(uintptr_t)value; /* where cli_common looks for it, and only reads */
    return cli_common(v, o->val) == 1 ? 0 : CLI_FAILED;
}

static int take_variant(const cli *c, const setun_lab *l, const char *file, int32_t i, cli *v)
{
    char place[512];
    const char *name, *value;
    int code = 0;
    *v = *c;
    (void)snprintf(place, sizeof place, "%s, variant '%s'", file, setun_lab_variant(l, i));
    v->place = place;
    if (c->o.cache_dir == c->cache)
        v->o.cache_dir = v->cache;
    for (int32_t k = 0; !code && setun_lab_option(l, i, k, &name, &value); k++)
        code = take_option(v, name, value);
    v->place = NULL;
    cli_finish(v);
    return code;
}

/* ---------------------------------------------------------------- lab */

static int run(cli *c, const setun_lab *l, const char *file, setun_lab_options *o)
{
    setun_error err = {0};
    int32_t n = setun_lab_count(l);
    cli *v = calloc((size_t)n, sizeof *v);
    setun_options *options = calloc((size_t)n, sizeof *options);
    int code = 0;
    if (!v || !options) {
        fprintf(stderr, "setun: no memory for %d variants\n", n);
        code = CLI_FAILED;
    }
    for (int32_t i = 0; i < n && !code; i++) {
        code = take_variant(c, l, file, i, &v[i]);
        options[i] = v[i].o;
    }
    o->variant = options;
    cli_catch_interrupt();
    setun_status s = code ? SETUN_FAILED : setun_lab_run(l, o, cli_write, stdout, &err);
    if (!code && shows(c))
        fputs("\r\033[K", stderr);
    if (!code && s == SETUN_CANCELLED && cli_interrupted()) {
        fprintf(stderr, "setun: interrupted; what was measured is in %s, and the same command goes on from there\n", o->out);
        code = CLI_INTERRUPTED;
    } else if (!code && s != SETUN_OK) {
        code = cli_fail(&err);
    }
    free(options);
    free(v);
    return code ? code : cli_close_out();
}

int cli_lab(int argc, char **argv)
{
    static const struct option options[] = {
        {"output", required_argument, NULL, 'o'}, {"again", no_argument, NULL, AGAIN}, CLI_COMMON_OPTIONS, {NULL, 0, NULL, 0}};
    cli c;
    setun_error err = {0};
    setun_lab *l = NULL;
    setun_lab_options o = {.size = sizeof o, .begin = on_begin, .progress = on_progress, .user = &c};
    char out[4096];
    int opt;
    cli_init(&c, "lab", lab_help);
    while ((opt = getopt_long(argc, argv, "o:" CLI_COMMON_LETTERS, options, NULL)) != -1) {
        if (opt == 'o') {
            o.out = optarg;
        } else if (opt == AGAIN) {
            o.again = 1;
        } else {
            int done = cli_common(&c, opt);
            if (done != 1)
                return done == 2 ? 0 : CLI_USAGE;
        }
    }
    if (optind + 1 != argc)
        return cli_usage(&c, optind == argc ? "an experiment is missing" : "one experiment is enough");
    const char *file = argv[optind];
    size_t n = strlen(file);
    if (!o.out) {
        (void)snprintf(out, sizeof out, "%.*s.lab", (int)(n > 4 && strcmp(file + n - 4, ".lua") == 0 ? n - 4 : n), file);
        o.out = out;
    }
    if (!*o.out)
        return cli_usage(&c, "-o needs a name");
    o.json = c.json;
    cli_finish(&c);
    if (setun_lab_open(&l, file, &err) != SETUN_OK)
        return cli_fail(&err);
    int code = run(&c, l, file, &o);
    setun_lab_free(l);
    return code;
}

/* ---------------------------------------------------------------- card */

static const char card_help[] =
    "usage: setun card PACKING.lua[:NAME] [MODEL] [-o FILE]\n\n"
    "What a declared packing is and what can be said for it: its definition, a picture of its bits, tests of packing\n"
    "and of kernels, whether a model computes the same bits in it or how far away it is, and its speed beside the\n"
    "built-in form, measured in turns.  In Markdown; a FILE.html becomes a page.\n\n"
    "  -o, --output FILE      where to (default: standard output)\n"
    CLI_COMMON_HELP;

static int on_card(void *user, const char *what)
{
    if (shows(user))
        fprintf(stderr, "\r\033[K%s", what);
    return cli_interrupted();
}

int cli_card(int argc, char **argv)
{
    static const struct option options[] = {{"output", required_argument, NULL, 'o'}, CLI_COMMON_OPTIONS, {NULL, 0, NULL, 0}};
    cli c;
    setun_error err = {0};
    setun_card_options o = {.size = sizeof o, .progress = on_card, .user = &c};
    int64_t failed = 0;
    int opt;
    cli_init(&c, "card", card_help);
    while ((opt = getopt_long(argc, argv, "o:" CLI_COMMON_LETTERS, options, NULL)) != -1) {
        int done = 1;
        if (opt == 'o')
            o.out = optarg;
        else
            done = cli_common(&c, opt);
        if (done != 1)
            return done == 2 ? 0 : CLI_USAGE;
    }
    if (optind == argc || optind + 2 < argc)
        return cli_usage(&c, optind == argc ? "a packing is missing" : "a packing and a model are enough");
    if (o.out && !*o.out)
        return cli_usage(&c, "-o needs a name");
    if (c.o.packing || c.json)
        return cli_usage(&c, c.json ? "a card is no JSON" : "the packing is the first word, not --packing");
    cli_finish(&c);
    o.packing = argv[optind];
    o.model = argv[optind + 1];
    o.run = &c.o;
    size_t n = o.out ? strlen(o.out) : 0;
    o.html = n > 5 && strcmp(o.out + n - 5, ".html") == 0;
    cli_catch_interrupt();
    setun_status s = setun_card(&o, &failed, cli_write, stdout, &err);
    if (shows(&c))
        fputs("\r\033[K", stderr);
    if (s != SETUN_OK)
        return cli_fail(&err);
    if (failed) {
        fflush(stdout);
        fprintf(stderr, "setun: %lld tests of %s failed\n", (long long)failed, o.packing);
        return CLI_FAILED;
    }
    return cli_close_out();
}
