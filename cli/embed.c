/* cli/embed.c -- embed: a vector for each text, or the cosine of two. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

enum { POOL = CLI_OWN, NORMALIZE, NO_NORMALIZE, DIM, NPY, SIMILARITY, SPECIAL };

static const char help[] =
    "usage: setun embed MODEL [-p TEXT ... | -f FILE] [options]\n"
    "       setun embed MODEL --similarity TEXT TEXT [options]\n\n"
    "A vector for each text, with a model that is made for it: a line of numbers each.  Texts are taken as they\n"
    "are; what a model wants in front of a question (\"query: \", say) is yours to put there.\n\n"
    "  -p, --prompt TEXT     a text (again for more)\n"
    "  -f, --file FILE       a text per line (- is standard input, which is also read without -p and -f)\n"
    "      --similarity A B  instead: the cosine of the angle between the vectors of A and B\n"
    "      --pool HOW        last, mean or cls: which tokens' states count (default: what the model says)\n"
    "      --no-normalize    vectors as they are;  --normalize: of length 1 (default: what the model says)\n"
    "      --dim N           the first N columns only, then normalised\n"
    "      --npy FILE        write the vectors as a NumPy array, f32 [texts, columns], and print nothing\n"
    "      --special         recognise special tokens written in the texts\n"
    "      --json            a line each: index, tokens, embedding; with --similarity: the cosine\n"
    CLI_COMMON_HELP;

#define GROUP 256 /* texts that are given to the library at once */

typedef struct texts {
    const char **at;
    size_t      *bytes, n, cap;
} texts;

typedef struct settings {
    cli             c;
    setun_embedding e;
    texts           t;
    const char     *file, *npy;
    int             similarity, special;
} settings;

/* Nonzero: no memory, which has been said. */
static int add_text(texts *t, const char *text, size_t bytes)
{
    if (t->n == t->cap) {
        size_t cap = t->cap ? 2 * t->cap : 16;
        const char **at = realloc(t->at, cap * sizeof *at);
        size_t *size = at ? realloc(t->bytes, cap * sizeof *size) : NULL;
        t->at = at ? at : t->at;
        t->bytes = size ? size : t->bytes;
        if (!at || !size)
            return fprintf(stderr, "setun: no memory for the texts\n");
        t->cap = cap;
    }
    t->at[t->n] = text;
    t->bytes[t->n++] = bytes;
    return 0;
}

/* A text per line; the last line may end without a newline, and a carriage return before one is not text. */
static int add_lines(texts *t, const char *text, size_t n)
{
    for (const char *p = text, *end = text + n; p < end;) {
        const char *stop = memchr(p, '\n', (size_t)(end - p));
        size_t bytes = (size_t)((stop ? stop : end) - p);
        size_t cut = stop && bytes && p[bytes - 1] == '\r';
        if (add_text(t, p, bytes - cut))
            return -1;
        p += bytes + 1;
    }
    return 0;
}

static int find_pool(const char *name)
{
    static const char *const names[] = {"last", "mean", "cls"}; /* from SETUN_POOL_LAST on */
    for (int i = 0; i < 3; i++)
        if (strcmp(name, names[i]) == 0)
            return SETUN_POOL_LAST + i;
    return 0;
}

/* One option.  Returns -1 to go on, else an exit code. */
static int take(settings *a, int opt, int argc, char **argv)
{
    long long n;
    switch (opt) {
    case 'p': return add_text(&a->t, optarg, strlen(optarg)) ? CLI_FAILED : -1;
    case 'f': a->file = optarg; return -1;
    case NPY: a->npy = optarg; return -1;
    case SPECIAL: a->special = 1; return -1;
    case NORMALIZE: a->e.norm = SETUN_NORM_ONE; return -1;
    case NO_NORMALIZE: a->e.norm = SETUN_NORM_RAW; return -1;
    case DIM:
        if (cli_int(&a->c, "--dim", optarg, 1, 1 << 20, &n))
            return CLI_USAGE;
        a->e.dim = (int32_t)n;
        return -1;
    case POOL:
        a->e.pool = find_pool(optarg);
        return a->e.pool ? -1 : cli_usage(&a->c, "--pool takes last, mean or cls, not '%s'", optarg);
    case SIMILARITY: /* its second text is the argument after the first */
        if (optind >= argc || a->similarity)
            return cli_usage(&a->c, a->similarity ? "one --similarity is enough" : "--similarity takes two texts");
        a->similarity = 1;
        if (add_text(&a->t, optarg, strlen(optarg)) || add_text(&a->t, argv[optind], strlen(argv[optind])))
            return CLI_FAILED;
        optind++;
        return -1;
    default:
        n = cli_common(&a->c, opt);
        return n == 1 ? -1 : n == 2 ? 0 : n == 0 ? cli_usage(&a->c, "unknown option") : CLI_USAGE;
    }
}

/* Returns -1 to go on, else an exit code. */
static int parse(settings *a, int argc, char **argv)
{
    static const struct option options[] = {
        {"prompt", required_argument, NULL, 'p'}, {"file", required_argument, NULL, 'f'}, {"pool", required_argument, NULL, POOL},
        {"normalize", no_argument, NULL, NORMALIZE}, {"no-normalize", no_argument, NULL, NO_NORMALIZE},
        {"dim", required_argument, NULL, DIM}, {"npy", required_argument, NULL, NPY},
        {"similarity", required_argument, NULL, SIMILARITY}, {"special", no_argument, NULL, SPECIAL},
        CLI_COMMON_OPTIONS, {NULL, 0, NULL, 0}};
    int opt, code;
    while ((opt = getopt_long(argc, argv, "p:f:" CLI_COMMON_LETTERS, options, NULL)) != -1)
        if ((code = take(a, opt, argc, argv)) >= 0)
            return code;
    if (optind + 1 != argc)
        return cli_usage(&a->c, optind == argc ? "a model is missing" : "one model is enough");
    if (a->t.n && a->file)
        return cli_usage(&a->c, "%s and -f exclude each other", a->similarity ? "--similarity" : "-p");
    if (a->similarity && (a->t.n > 2 || a->npy))
        return cli_usage(&a->c, "--similarity goes without %s", a->npy ? "--npy" : "-p");
    if (a->npy && (!*a->npy || a->c.json))
        return cli_usage(&a->c, *a->npy ? "--npy goes without --json" : "--npy needs a name");
    if (!a->t.n && !a->file && isatty(0))
        return cli_usage(&a->c, "a text is missing (-p, -f or standard input)");
    cli_finish(&a->c);
    return -1;
}

/* ---------------------------------------------------------------- results */

static void print_vector(const settings *a, size_t index, int64_t n_tokens, const float *v, int64_t columns)
{
    if (a->c.json)
        printf("{\"index\":%zu,\"tokens\":%lld,\"embedding\":[", index, (long long)n_tokens);
    for (int64_t i = 0; i < columns; i++)
        printf("%s%.9g", i ? a->c.json ? "," : " " : "", (double)v[i]);
    fputs(a->c.json ? "]}\n" : "\n", stdout);
}

/* ---------------------------------------------------------------- work */

typedef struct group {
    int32_t *tokens[GROUP];
    int64_t  n[GROUP];
    size_t   count;
} group;

static void drop_group(group *g)
{
    for (size_t i = 0; i < g->count; i++)
        setun_free(g->tokens[i]);
    g->count = 0;
}

/* Vectors of texts first .. first + GROUP - 1, at out. */
static setun_status embed_group(const settings *a, setun_session *s, const setun_vocab *v, size_t first, group *g, float *out,
                                setun_error *err)
{
    uint32_t flags = SETUN_ENCODE_BOS | (a->special ? SETUN_ENCODE_SPECIAL : 0);
    for (size_t i = first; i < a->t.n && g->count < GROUP; i++) {
        char why[sizeof err->text];
        size_t k = g->count;
        setun_status status = setun_vocab_encode(v, a->t.at[i], a->t.bytes[i], flags, &g->tokens[k], &g->n[k], err);
        if (status == SETUN_OK && g->n[k] > 0) {
            g->count++;
            continue;
        }
        if (status == SETUN_OK)
            setun_free(g->tokens[k]);
        (void)snprintf(why, sizeof why, "%s", status == SETUN_OK ? "there is nothing in it, and no token stands around texts" : err->text);
        (void)snprintf(err->text, sizeof err->text, "text %zu: %.400s", i + 1, why);
        return SETUN_BAD_ARG;
    }
    return setun_session_embed(s, (const int32_t *const *)g->tokens, g->n, (int64_t)g->count, &a->e, out, err);
}

static int stop(void *user, int64_t done, int64_t total)
{
    (void)user; (void)done; (void)total;
    return cli_interrupted();
}

/* All texts: printed as they come, or kept in all, which has room for them. */
static setun_status embed_all(const settings *a, const setun_model *m, setun_session *s, int64_t columns, float *all,
                              setun_error *err)
{
    group g = {.count = 0};
    setun_status status = SETUN_OK;
    int keep = a->npy || a->similarity;
    for (size_t first = 0; first < a->t.n && status == SETUN_OK; first += GROUP) {
        float *out = keep ? all + (int64_t)first * columns : all;
        status = embed_group(a, s, setun_model_vocab(m), first, &g, out, err);
        for (size_t i = 0; i < g.count && status == SETUN_OK && !keep; i++)
            print_vector(a, first + i, g.n[i], out + (int64_t)i * columns, columns);
        drop_group(&g);
        if (status == SETUN_OK && !keep && (fflush(stdout) != 0 || ferror(stdout)))
            break; /* nobody listens; said at the end */
    }
    return status;
}

static int work(const settings *a, const setun_model *m)
{
    setun_error err = {0};
    setun_session *s = NULL;
    int64_t columns = a->e.dim ? a->e.dim : setun_model_n_embedding(m);
    size_t rows = a->npy || a->t.n < GROUP ? a->t.n : GROUP;
    float *all = calloc(rows * (size_t)columns + 1, sizeof *all);
    if (!all)
        return fprintf(stderr, "setun: no memory for the vectors\n"), CLI_FAILED;
    setun_status status = setun_session_new(&s, m, &err);
    if (status == SETUN_OK) {
        setun_session_on_progress(s, stop, NULL);
        status = embed_all(a, m, s, columns, all, &err);
    }
    int code = status == SETUN_OK ? 0 : cli_fail(&err);
    if (!code && a->similarity)
        printf(a->c.json ? "{\"cosine\":%.9g}\n" : "%.9g\n", setun_cosine(all, all + columns, columns));
    else if (!code && a->npy && setun_npy_save(a->npy, &(setun_view){all, SETUN_F32, 2, {(int64_t)a->t.n, columns, 1, 1}}, &err) != SETUN_OK)
        code = cli_fail(&err);
    setun_session_free(s);
    free(all);
    return code ? code : cli_close_out();
}

int cli_embed(int argc, char **argv)
{
    settings a = {.file = NULL};
    setun_error err = {0};
    setun_model *m = NULL;
    char *text = NULL;
    size_t n = 0;
    setun_embedding_init(&a.e);
    cli_init(&a.c, "embed", help);
    int code = parse(&a, argc, argv);
    if (code < 0 && !a.t.n && (!(text = cli_read(a.file ? a.file : "-", &n)) || add_lines(&a.t, text, n)))
        code = CLI_FAILED;
    if (code < 0 && !a.t.n)
        code = cli_usage(&a.c, "there is no text in %s", a.file ? a.file : "standard input");
    if (code < 0) {
        /* For the mean every token's state is wanted, and which way is the model's choice. */
        a.c.o.n_outputs = a.c.o.n_batch ? a.c.o.n_batch : 512;
        code = cli_load(&a.c, argv[optind], &m, &err) == SETUN_OK ? work(&a, m) : cli_fail(&err);
    }
    setun_model_free(m);
    free(text);
    free(a.t.at);
    free(a.t.bytes);
    return code;
}
