/* cli/repl.c -- repl: a model that stays loaded while its scripts are edited.
 *
 * Lines that begin with : are commands; all others are Lua.  Results go to stdout, everything else to stderr.  As in
 * chat the terminal does the line editing, and a line from a pipe is a line.  Whatever fails leaves the model as it was,
 * so the next line can be tried; a pipe learns of it from the exit code in the end. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "sampling.h"
#include "setun/inspect.h"

#define MOST_LINE ((size_t)1 << 20)
#define TOP 5

static const char help[] =
    "usage: setun repl MODEL [options]\n\n"
    "Keeps a model loaded while its scripts change.  Lines that begin with : are commands (:help lists them), others\n"
    "are Lua, in the closed world of model scripts, with tensor(\"NAME\").  A script that was changed is read again before\n"
    "the next line; weights are neither read nor packed again.  Ctrl-C ends what is running, Ctrl-D the program.\n\n"
    "      --no-watch         reload only when told to\n"
    CLI_COMMON_HELP;

static const char commands[] =
    ":load FILE.lua         the same weights by another architecture script\n"
    ":reload                read the scripts again now\n"
    ":logits TEXT           logits behind a text, or @1,2,3 behind tokens: the largest, and their hash\n"
    ":compare               the same logits before and after the last reload\n"
    ":tensors [PATTERN]     names and types; with @ what steps compute, once there are logits\n"
    ":stats NAME            min, max, mean, rms; of ternary matrices shares of -1, 0, +1 and scales\n"
    ":show NAME [SLICE]     numbers as NumPy prints them; slices are like [0:2, :, 5]\n"
    ":graph [script]        the graph, after the rules or as the script made it\n"
    ":help                  this list\n"
    ":quit                  end (also Ctrl-D)\n"
    "Anything else is Lua: t = tensor \"blk.0.attn_q\"; print(t.shape[1], t.rms, t(0, 5)); t:slice \"[0:2, :8]\"\n";

enum { NO_WATCH = CLI_OWN };

typedef struct repl {
    cli            c;
    setun_model   *m;
    setun_console *lua;
    int32_t       *ids;     /* of the last :logits; NULL: there was none */
    int64_t        n;
    float         *now, *before; /* their logits by this model and by the one before; NULL: not computed */
    int64_t        n_now, n_before;
    uint64_t       seen;    /* scripts as they were when they were last tried */
    int            tty, failed, no_watch;
    char          *line;
    size_t         n_line, cap;
} repl;

/* A mistake that the next line may do better. */
static void complain(repl *r, const char *text)
{
    (void)fflush(stdout);
    fprintf(stderr, "setun: %s\n", text);
    r->failed = 1;
}

static int stops(void *user)
{
    (void)user;
    return cli_interrupted();
}

static int on_progress(void *user, int64_t done, int64_t total)
{
    (void)done;
    (void)total;
    return stops(user);
}

static int write_text(void *user, const char *text, size_t n)
{
    (void)user;
    return cli_write(stdout, text, n);
}

/* ---------------------------------------------------------------- logits */

static setun_status compute(repl *r, setun_error *err)
{
    setun_session *s = NULL;
    const float *row = NULL;
    if (r->now)
        return SETUN_OK;
    setun_status st = setun_session_new(&s, r->m, err);
    if (st == SETUN_OK) {
        setun_session_on_progress(s, on_progress, r);
        st = setun_session_feed(s, r->ids, r->n, SETUN_LOGITS_LAST, &row, err);
    }
    int64_t n = st == SETUN_OK ? setun_model_n_vocab(r->m) : 0;
    if (st == SETUN_OK && !(r->now = malloc((size_t)n * sizeof *r->now))) {
        (void)snprintf(err->text, sizeof err->text, "no memory for logits");
        st = err->code = SETUN_NO_MEMORY;
    }
    if (st == SETUN_OK)
        memcpy(r->now, row, (size_t)n * sizeof *r->now);
    r->n_now = n;
    setun_session_free(s);
    return st;
}

static setun_status print_top(const repl *r, const char *title, const float *row, int64_t n, setun_error *err)
{
    int64_t done[TOP];
    if (title)
        printf("%s:\n", title);
    for (int k = 0; k < TOP && k < n; k++) {
        int64_t best = -1;
        for (int64_t i = 0; i < n; i++) {
            int taken = 0;
            for (int j = 0; j < k; j++)
                taken |= done[j] == i;
            if (!taken && (best < 0 || row[i] > row[best] || (isnan(row[best]) && !isnan(row[i]))))
                best = i;
        }
        done[k] = best;
        printf("%12.6f  %8.4f %%  ", (double)row[best], 100.0 * exp(-setun_nll(row, n, (int32_t)best)));
        /* Rows behind the vocabulary have no text. */
        if (best >= setun_vocab_size(setun_model_vocab(r->m)))
            printf("%" PRId64 "\n", best);
        else if (cli_print_piece(setun_model_vocab(r->m), (int32_t)best, err))
            return SETUN_FAILED;
    }
    printf("hash %016" PRIx64 "\n", setun_hash(0, row, n));
    return SETUN_OK;
}

/* The text between quotes, or as it is; "@1,2,3" is of tokens. */
static setun_status take_tokens(repl *r, char *text, setun_error *err)
{
    int32_t *ids = NULL;
    int64_t n = 0;
    size_t len = strlen(text);
    setun_status st = SETUN_OK;
    err->code = SETUN_BAD_ARG;
    if (text[0] == '@') {
        if (cli_ids(&r->c, text + 1, &ids, &n)) {
            (void)snprintf(err->text, sizeof err->text, "the tokens stay what they were");
            return SETUN_BAD_ARG;
        }
    } else {
        if (len > 1 && text[0] == '"' && text[len - 1] == '"') {
            text[len - 1] = 0;
            text++;
        }
        st = setun_vocab_encode(setun_model_vocab(r->m), text, strlen(text), SETUN_ENCODE_BOS, &ids, &n, err);
    }
    if (st == SETUN_OK && !n) {
        (void)snprintf(err->text, sizeof err->text, "there are no tokens");
        st = SETUN_BAD_ARG;
    }
    if (st != SETUN_OK) {
        setun_free(ids);
        return st;
    }
    int32_t *old = r->ids;
    r->ids = ids;
    r->n = n;
    free(r->now);
    free(r->before);
    r->now = r->before = NULL;
    setun_console_use(r->lua, r->m, r->ids, r->n);
    setun_free(old);
    return st;
}

static setun_status logits(repl *r, char *text, setun_error *err)
{
    if (*text) {
        setun_status st = take_tokens(r, text, err);
        if (st != SETUN_OK)
            return st;
    } else if (!r->ids) {
        (void)snprintf(err->text, sizeof err->text, ":logits needs a text, or tokens such as @1,2,3");
        return err->code = SETUN_BAD_ARG;
    }
    setun_status st = compute(r, err);
    return st == SETUN_OK ? print_top(r, NULL, r->now, r->n_now, err) : st;
}

static setun_status compare(repl *r, char *text, setun_error *err)
{
    setun_logits_diff d;
    (void)text;
    const char *lacks = !r->ids ? "there are no logits to compare; begin with :logits"
                      : !r->before ? "no other model has computed these logits; :reload or :load one" : NULL;
    if (lacks) {
        (void)snprintf(err->text, sizeof err->text, "%s", lacks);
        return err->code = SETUN_BAD_ARG;
    }
    setun_status st = compute(r, err);
    if (st == SETUN_OK)
        st = print_top(r, "before", r->before, r->n_before, err);
    if (st == SETUN_OK)
        st = print_top(r, "after", r->now, r->n_now, err);
    if (st != SETUN_OK)
        return st;
    if (r->n_now != r->n_before) {
        printf("%" PRId64 " logits before, %" PRId64 " after\n", r->n_before, r->n_now);
        return st;
    }
    setun_logits_compare(r->before, r->now, r->n_now, &d);
    if (!d.n_differ)
        printf("equal, bit for bit\n");
    else
        printf("%" PRId64 " of %" PRId64 " logits differ: max %.6g, rms %.6g; KL divergence %.6g nats; the largest is %s one\n",
               d.n_differ, r->n_now, d.max, d.rms, d.kl, d.same_top ? "the same" : "another");
    return st;
}

/* ---------------------------------------------------------------- reload */

/* What the model of before says is asked first: afterwards nobody can. */
static setun_status reload(repl *r, char *script, setun_error *err)
{
    setun_model *m = NULL;
    double t0 = cli_seconds();
    setun_status st = r->ids ? compute(r, err) : SETUN_OK;
    if (st == SETUN_CANCELLED)
        return st;
    r->seen = setun_model_scripts(r->m, 1);
    st = setun_model_reload(&m, r->m, *script ? script : NULL, err);
    if (st != SETUN_OK) {
        size_t used = strlen(err->text);
        (void)snprintf(err->text + used, sizeof err->text - used, " (the model of before stays)");
        return st;
    }
    setun_console_use(r->lua, m, r->ids, r->n);
    setun_model_free(r->m);
    r->m = m;
    r->seen = setun_model_scripts(m, 0);
    free(r->before);
    r->before = r->now;
    r->n_before = r->n_now;
    r->now = NULL;
    setun_model_stats s = {.size = sizeof s};
    setun_model_get_stats(m, &s);
    if (!r->c.quiet) {
        (void)fflush(stdout);
        fprintf(stderr, "(reloaded in %.2f s: %d kernels, %d compiled; weights are %s)\n", cli_seconds() - t0, s.n_kernels, s.n_compiled,
                setun_model_shares(m) ? "kept" : "loaded anew, because others are needed");
    }
    return SETUN_OK;
}

static setun_status load(repl *r, char *script, setun_error *err)
{
    if (*script)
        return reload(r, script, err);
    (void)snprintf(err->text, sizeof err->text, ":load needs the name of a script");
    return err->code = SETUN_BAD_ARG;
}

/* Before each line: has somebody saved a script? */
static void watch(repl *r)
{
    setun_error err = {0};
    char none[] = "";
    if (!r->no_watch && setun_model_scripts(r->m, 1) != r->seen && reload(r, none, &err) != SETUN_OK)
        complain(r, err.text);
}

/* ---------------------------------------------------------------- looking */

static void print_about(const char *name, const setun_tensor_info *i)
{
    printf("%s %s[", name, i->type);
    for (uint32_t d = 0; d < i->rank; d++)
        printf("%s%" PRId64, d ? "," : "", i->dim[d]);
    printf("]\n  numbers %" PRId64 "\n", i->count);
    if (i->n_finite < i->count)
        printf("  not finite %" PRId64 "\n", i->count - i->n_finite);
    printf("  min %.9g  max %.9g  mean %.9g  rms %.9g\n", i->min, i->max, i->mean, i->rms);
    double share = i->count ? 100.0 / (double)i->count : 0;
    if (i->n_code[0] + i->n_code[1] + i->n_code[2])
        printf("  -1 %.4f %%  0 %.4f %%  +1 %.4f %%\n", share * (double)i->n_code[0], share * (double)i->n_code[1], share * (double)i->n_code[2]);
    if (i->n_scale == 1)
        printf("  scale %.9g\n", i->scale_min);
    else if (i->n_scale)
        printf("  %" PRId64 " scales from %.9g to %.9g\n", i->n_scale, i->scale_min, i->scale_max);
}

/* rest: what stands behind the name. */
static setun_status find_tensor(repl *r, char *text, setun_tensor **t, char **rest, setun_error *err)
{
    size_t n = strcspn(text, " \t");
    *rest = text + n + strspn(text + n, " \t");
    text[n] = 0;
    if (n)
        return setun_tensor_get(t, r->m, text, r->ids, r->n, err);
    (void)snprintf(err->text, sizeof err->text, "a tensor's name is missing; :tensors lists them");
    return err->code = SETUN_BAD_ARG;
}

static setun_status stats(repl *r, char *text, setun_error *err)
{
    setun_tensor *t = NULL;
    setun_tensor_info i;
    char *rest;
    setun_status st = find_tensor(r, text, &t, &rest, err);
    if (st == SETUN_OK)
        st = setun_tensor_about(t, &i, stops, r, err);
    if (st == SETUN_OK)
        print_about(text, &i);
    setun_tensor_free(t);
    return st;
}

static setun_status show(repl *r, char *text, setun_error *err)
{
    setun_tensor *t = NULL;
    char *rest;
    setun_status st = find_tensor(r, text, &t, &rest, err);
    if (st == SETUN_OK)
        st = setun_tensor_print(t, *rest ? rest : NULL, write_text, r, err);
    setun_tensor_free(t);
    return st;
}

static setun_status tensors(repl *r, char *text, setun_error *err)
{
    return setun_tensors_list(r->m, *text ? text : NULL, r->ids, r->n, write_text, r, err);
}

static setun_status graph(repl *r, char *text, setun_error *err)
{
    if (!*text || strcmp(text, "script") == 0)
        return setun_model_dump(r->m, *text ? "graph=script" : "graph", NULL, write_text, r, err);
    (void)snprintf(err->text, sizeof err->text, "there is :graph and :graph script, not '%.60s'", text);
    return err->code = SETUN_BAD_ARG;
}

static setun_status show_help(repl *r, char *text, setun_error *err)
{
    (void)r;
    (void)text;
    (void)err;
    return fputs(commands, stdout) < 0 ? SETUN_IO : SETUN_OK;
}

/* ---------------------------------------------------------------- lines */

/* One line without its end in r->line.  1: there is one; 0: the input has ended; -1: interrupted; -2: broken. */
static int read_line(repl *r)
{
    if (r->tty && isatty(2)) {
        (void)fflush(stdout);
        fputs("setun> ", stderr);
    }
    r->n_line = 0;
    for (int c; (c = getchar()) != '\n';) {
        if (c == EOF && ferror(stdin)) {
            if (cli_interrupted())
                return -1;
            fprintf(stderr, "setun: cannot read standard input: %s\n", strerror(errno));
            return -2;
        }
        if (c == EOF && !r->n_line)
            return 0;
        if (c == EOF)
            break;
        if (r->n_line + 2 > r->cap) {
            size_t cap = r->cap ? 2 * r->cap : 1024;
            char *more = cap > MOST_LINE ? NULL : realloc(r->line, cap);
            if (!more) {
                fprintf(stderr, "setun: a line of more than %zu bytes\n", MOST_LINE / 2);
                return -2;
            }
            r->line = more;
            r->cap = cap;
        }
        r->line[r->n_line++] = (char)c;
    }
    if (r->line)
        r->line[r->n_line] = 0;
    return 1;
}

/* Returns 1 to end. */
static int do_line(repl *r)
{
    static const struct { const char *name; setun_status (*fn)(repl *, char *, setun_error *); } known[] = {
        {"load", load}, {"reload", reload}, {"logits", logits}, {"compare", compare}, {"tensors", tensors}, {"stats", stats},
        {"show", show}, {"graph", graph}, {"help", show_help}};
    setun_error err = {0};
    char *text = r->line + strspn(r->line, " \t");
    if (strlen(r->line) != r->n_line) {
        complain(r, "the line has a zero byte in it");
        return 0;
    }
    for (size_t n = strlen(text); n && strchr(" \t\r", text[n - 1]); n--)
        text[n - 1] = 0;
    if (!*text)
        return 0;
    setun_status st = SETUN_UNKNOWN;
    if (*text != ':') {
        st = setun_console_run(r->lua, text, &err);
    } else {
        char *word = text + 1, *rest = word + strcspn(word, " \t");
        size_t n = (size_t)(rest - word);
        rest += strspn(rest, " \t");
        word[n] = 0;
        if (strcmp(word, "quit") == 0)
            return 1;
        (void)snprintf(err.text, sizeof err.text, "there is no command ':%.60s'; :help lists them", word);
        for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
            if (strcmp(word, known[i].name) == 0) {
                err.text[0] = 0;
                st = known[i].fn(r, rest, &err);
            }
    }
    if (st != SETUN_OK)
        complain(r, err.text);
    (void)fflush(stdout);
    return ferror(stdout) != 0;
}

/* Returns an exit code. */
static int converse(repl *r)
{
    for (;;) {
        int got = read_line(r);
        if (got >= 0 && !got)
            break;
        if (got == -2)
            return CLI_FAILED;
        if (got > 0 && r->n_line) {
            watch(r);
            if (!cli_interrupted() && do_line(r))
                break;
        }
        int number = cli_take_interrupt();
        if (number && (!r->tty || number != SIGINT)) /* a pipe has nobody to go on for */
            return CLI_INTERRUPTED;
        if (number)
            fputc('\n', stderr);
        clearerr(stdin);
    }
    int code = cli_close_out();
    return code ? code : r->failed && !r->tty ? CLI_FAILED : 0;
}

/* Returns -1 to go on, else an exit code. */
static int parse(repl *r, int argc, char **argv)
{
    static const struct option options[] = {{"no-watch", no_argument, NULL, NO_WATCH}, CLI_COMMON_OPTIONS, {NULL, 0, NULL, 0}};
    int opt;
    while ((opt = getopt_long(argc, argv, CLI_COMMON_LETTERS, options, NULL)) != -1) {
        int known = opt == NO_WATCH ? 1 : cli_common(&r->c, opt);
        r->no_watch |= opt == NO_WATCH;
        if (known != 1)
            return known == 2 ? 0 : CLI_USAGE;
    }
    if (optind + 1 != argc)
        return cli_usage(&r->c, optind == argc ? "a model is missing" : "one model is enough");
    cli_finish(&r->c);
    return -1;
}

int cli_repl(int argc, char **argv)
{
    repl r = {.tty = isatty(0)};
    setun_error err = {0};
    cli_init(&r.c, "repl", help);
    int code = parse(&r, argc, argv);
    if (code >= 0)
        return code;
    if (cli_load(&r.c, argv[optind], &r.m, &err) != SETUN_OK ||
        setun_console_new(&r.lua, write_text, stops, &r, &err) != SETUN_OK) {
        code = cli_fail(&err);
    } else {
        setun_console_use(r.lua, r.m, NULL, 0);
        r.seen = setun_model_scripts(r.m, 0);
        if (r.tty && !r.c.quiet)
            fprintf(stderr, "%s is loaded; :help lists commands\n", argv[optind]);
        code = converse(&r);
    }
    setun_console_free(r.lua);
    setun_model_free(r.m);
    setun_free(r.ids);
    free(r.now);
    free(r.before);
    free(r.line);
    return code;
}
