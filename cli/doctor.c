/* cli/doctor.c -- setun doctor: can this model, on this machine, be trusted?  One page, one verdict.
 *
 * Every line is a check that can fail.  Texts do not tell a broken kernel from a bad model; equal bits do: what
 * a model computes must not depend on how a text is cut, on the kernels or on the screened head. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

enum { QUICK = CLI_OWN };

#define N_TOKENS 24   /* of no meaning, fed in two ways */
#define N_REFERENCE 2 /* of them through the scalar definitions, which take seconds each in a large model */
#define N_TOP 40

static const char help[] =
    "usage: setun doctor MODEL [--quick] [--json]\n\n"
    "Is the model whole, and does this machine compute it right?  The files, every operator's cases, equal bits\n"
    "however a text is cut, the screened head against the full one, compiled kernels against the scalar definitions,\n"
    "and the tokenizer there and back.  Exit code 1 if anything is wrong.\n\n"
    "      --quick           without the operators' cases and the scalar definitions, which take the most time\n"
    CLI_COMMON_HELP;

typedef struct doctor {
    cli            *c;
    const char     *path;
    setun_model    *m;
    setun_session  *s;
    setun_vocab    *vocab; /* of a file whose model cannot be loaded */
    int32_t         token[N_TOKENS];
    float          *row;   /* logits after all tokens, and after N_REFERENCE of them; or vectors of these texts */
    float          *early;
    float          *vector; /* room for three; NULL: the model gives logits */
    int64_t         n_vocab; /* numbers in a row */
    int             quick, finite, n_line, n_wrong;
} doctor;

typedef enum verdict { RIGHT, WRONG, LEFT_OUT } verdict;

static void say(doctor *d, const char *what, verdict v, const char *text)
{
    static const char *const word[] = {"ok", "WRONG", "left out"};
    d->n_wrong += v == WRONG;
    if (d->c->json) {
        printf("%s\n  {\"check\": \"%s\", \"result\": \"%s\", \"text\": \"", d->n_line ? "," : "", what, v == WRONG ? "wrong" : word[v]);
        cli_json(text, strlen(text)); /* errors quote files, which may have any bytes in them */
        fputs("\"}", stdout);
    } else {
        printf("%-11s %-9s %s\n", what, word[v], text);
    }
    fflush(stdout); /* the next one may take its time */
    d->n_line++;
}

/* The vector of a text, alone or (at_once above 1) beside two others, which is another way of the same work. */
static setun_status embed(doctor *d, setun_session *s, int64_t n, int64_t at_once, const float **row, setun_error *err)
{
    const int32_t *const texts[] = {d->token, d->token + 1, d->token + 2};
    const int64_t lengths[] = {n, n > 1 ? n - 1 : 1, 1};
    setun_embedding e;
    setun_embedding_init(&e);
    e.pool = SETUN_POOL_LAST;
    e.norm = SETUN_NORM_RAW;
    *row = d->vector;
    return setun_session_embed(s, texts, lengths, at_once > 1 ? 3 : 1, &e, d->vector, err);
}

static setun_status feed(doctor *d, setun_session *s, int64_t n, int64_t at_once, const float **row, setun_error *err)
{
    const int32_t *ids = d->token;
    if (d->vector)
        return embed(d, s, n, at_once, row, err);
    setun_status status = setun_session_rewind(s, 0, err);
    for (int64_t i = 0; i < n && status == SETUN_OK; i += at_once)
        status = setun_session_feed(s, ids + i, n - i < at_once ? n - i : at_once,
                                    i + at_once >= n ? SETUN_LOGITS_LAST : SETUN_LOGITS_NONE, row, err);
    if (status == SETUN_OK && cli_interrupted()) {
        (void)snprintf(err->text, sizeof err->text, "interrupted");
        return err->code = SETUN_CANCELLED;
    }
    return status;
}

static int64_t first_difference(const float *a, const float *b, int64_t n)
{
    int64_t i = 0;
    while (i < n && memcmp(a + i, b + i, sizeof *a) == 0)
        i++;
    return i;
}

static const char *number(const doctor *d) { return d->vector ? "column" : "logit"; }

/* The same tokens in one piece and one by one: other kernels, the same bits. */
static setun_status check_bits(doctor *d, setun_error *err)
{
    static const char *const ways[][2] = {{"fed one by one", "in one piece"}, {"alone", "beside other texts"}};
    const char *const *way = ways[d->vector != NULL];
    char text[200];
    const float *row = NULL;
    size_t bytes = (size_t)d->n_vocab * sizeof *row;
    setun_status s = feed(d, d->s, N_REFERENCE, 1, &row, err);
    if (s == SETUN_OK) {
        memcpy(d->early, row, bytes);
        s = feed(d, d->s, N_TOKENS, 1, &row, err);
    }
    if (s != SETUN_OK)
        return s;
    memcpy(d->row, row, bytes);
    int64_t strange = 0;
    while (strange < d->n_vocab && isfinite(d->row[strange]))
        strange++;
    d->finite = strange == d->n_vocab;
    if (!d->finite) {
        (void)snprintf(text, sizeof text, "%s %lld after %d tokens is %g: weights or scales are damaged", number(d), (long long)strange,
                       N_TOKENS, (double)d->row[strange]);
        say(d, "numbers", WRONG, text);
    } else {
        (void)snprintf(text, sizeof text, "all %ss are finite", number(d));
        say(d, "numbers", RIGHT, text);
    }
    if ((s = feed(d, d->s, N_TOKENS, N_TOKENS, &row, err)) != SETUN_OK)
        return s;
    int64_t i = first_difference(d->row, row, d->n_vocab);
    if (i < d->n_vocab)
        (void)snprintf(text, sizeof text, "%s %lld of %d tokens is %.9g %s and %.9g %s", number(d), (long long)i, N_TOKENS, (double)d->row[i],
                       way[0], (double)row[i], way[1]);
    else
        (void)snprintf(text, sizeof text, "the same bits, %s and %s", way[0], way[1]);
    say(d, "cuts", i < d->n_vocab ? WRONG : RIGHT, text);
    return SETUN_OK;
}

/* The largest logits as the screened head finds them, against all of them. */
static setun_status check_head(doctor *d, setun_error *err)
{
    setun_top top = {.size = sizeof top};
    const float *row = NULL;
    int32_t n = d->n_vocab < N_TOP ? (int32_t)d->n_vocab : N_TOP;
    if (d->vector) {
        say(d, "head", LEFT_OUT, "the model makes vectors of texts, and has none");
        return SETUN_OK;
    }
    if (!d->finite) { /* what is no number has no place among the largest */
        say(d, "head", LEFT_OUT, "logits are not finite");
        return SETUN_OK;
    }
    setun_status s = setun_session_set_top(d->s, n, err);
    if (s == SETUN_OK)
        s = feed(d, d->s, N_TOKENS - 1, N_TOKENS, &row, err);
    if (s == SETUN_OK)
        s = setun_session_feed(d->s, d->token + N_TOKENS - 1, 1, SETUN_LOGITS_TOP, &row, err);
    if (s != SETUN_OK)
        return s;
    setun_session_top(d->s, &top);
    char text[200];
    int32_t j = 0;
    for (; j < n && j < top.n; j++) {
        int64_t best = -1;
        for (int64_t i = 0; i < d->n_vocab; i++) { /* largest of those behind the last one */
            int later = !j || d->row[i] < top.logit[j - 1] || (d->row[i] == top.logit[j - 1] && i > top.id[j - 1]);
            best = later && (best < 0 || d->row[i] > d->row[best]) ? i : best;
        }
        if (best != top.id[j] || memcmp(&d->row[best], &top.logit[j], sizeof(float)))
            break;
    }
    if (j < n)
        (void)snprintf(text, sizeof text, "number %d of the largest logits is not that of the full head", (int)j + 1);
    else if (row || top.survivors < 0)
        (void)snprintf(text, sizeof text, "all logits are computed: there is no screened head, or it gave up");
    else
        (void)snprintf(text, sizeof text, "the %d largest logits are those of the full head; %lld rows of %lld were computed", (int)n,
                       (long long)top.survivors, (long long)d->n_vocab);
    say(d, "head", j < n ? WRONG : RIGHT, text);
    return SETUN_OK;
}

/* The model once more, without any kernel. */
static setun_status check_reference(doctor *d, setun_error *err)
{
    setun_options o = d->c->o;
    setun_model *m = NULL;
    setun_session *s = NULL;
    const float *row = NULL;
    char text[200];
    o.backend = "reference";
    o.n_threads = 1;
    setun_status status = setun_model_load(&m, d->path, &o, err);
    if (status == SETUN_OK)
        status = setun_session_new(&s, m, err);
    if (status == SETUN_OK)
        status = feed(d, s, N_REFERENCE, 1, &row, err);
    if (status == SETUN_OK) {
        int64_t i = first_difference(d->early, row, d->n_vocab);
        if (i < d->n_vocab)
            (void)snprintf(text, sizeof text, "%s %lld of %d tokens is %.9g with this machine's kernels and %.9g by definition",
                           number(d), (long long)i, N_REFERENCE, (double)d->early[i], (double)row[i]);
        else
            (void)snprintf(text, sizeof text, "kernels give the bits of the scalar definitions, all %ss of %d tokens", number(d), N_REFERENCE);
        say(d, "kernels", i < d->n_vocab ? WRONG : RIGHT, text);
    }
    setun_session_free(s);
    setun_model_free(m);
    return status;
}

static int no_text(void *user, const char *text, size_t n)
{
    (void)user; (void)text; (void)n;
    return cli_interrupted();
}

static setun_status check_operators(doctor *d, setun_error *err)
{
    int64_t failed = 0;
    char text[120];
    setun_status s = setun_check(NULL, 0, NULL, &d->c->o, &failed, no_text, NULL, err);
    if (s != SETUN_OK)
        return s;
    (void)snprintf(text, sizeof text, failed ? "%lld checks failed; setun check tells which"
                                             : "every operator's cases agree: definition, interpreter, compiled, backends", (long long)failed);
    say(d, "operators", failed ? WRONG : RIGHT, text);
    return SETUN_OK;
}

/* A text's tokens, put together again, are the text; a space that a tokenizer puts in front may stay. */
static setun_status round_trip(const setun_vocab *v, const char *text, int *same, setun_error *err)
{
    int32_t *ids = NULL;
    int64_t n = 0;
    size_t at = 0, length = strlen(text), extra = 0;
    setun_stream stream;
    *same = 1;
    setun_stream_start(&stream, v); /* as a whole text, which some vocabularies begin with a space less */
    setun_status s = setun_vocab_encode(v, text, length, 0, &ids, &n, err);
    for (int64_t i = 0; i <= n && s == SETUN_OK && *same; i++) {
        const char *piece = "";
        char few[512], *out = few, *more = NULL;
        size_t bytes = 0;
        s = i < n ? setun_vocab_piece(v, ids[i], 0, &piece, &bytes, err) : SETUN_OK;
        if (s == SETUN_OK && i < n && !bytes)
            continue; /* nothing to push: that would end the text */
        if (4 * (bytes + 8) > sizeof few)
            out = more = malloc(4 * (bytes + 8));
        bytes = s == SETUN_OK && out ? setun_stream_push(&stream, piece, bytes, out) : 0;
        extra = i == 0 && bytes && out[0] == ' ' && text[0] != ' ';
        bytes -= extra;
        *same = s == SETUN_OK && out && bytes <= length - at && memcmp(text + at, out + extra, bytes) == 0;
        at += *same ? bytes : 0;
        free(more);
    }
    *same &= at == length;
    setun_free(ids);
    return s;
}

static setun_status check_tokenizer(doctor *d, setun_error *err)
{
    static const char *const texts[] = {
        "Hello, world!", "  two  spaces and\ttabs\n\n\nlines\r\n", "1234567 3.14159 0x7f", "na\xc3\xafve \xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e",
        "\xf0\x9f\x99\x82\xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x94\xac", "if (a[i] != b->c) { return -1; } // don't", "x"};
    char text[400];
    setun_status s = d->m ? SETUN_OK : setun_vocab_open(&d->vocab, d->path, err);
    if (s != SETUN_OK)
        return s;
    const setun_vocab *v = d->m ? setun_model_vocab(d->m) : d->vocab;
    size_t n = sizeof texts / sizeof texts[0];
    for (size_t i = 0; i < n && s == SETUN_OK; i++) {
        int same = 0;
        s = round_trip(v, texts[i], &same, err);
        if (s == SETUN_OK && !same) {
            (void)snprintf(text, sizeof text, "text %d does not come back byte for byte", (int)i + 1);
            say(d, "tokenizer", WRONG, text);
            return SETUN_OK;
        }
    }
    for (int64_t id = 0, size = setun_vocab_size(v); id < size && s == SETUN_OK; id++) {
        const char *piece;
        size_t bytes;
        s = setun_vocab_piece(v, (int32_t)id, 1, &piece, &bytes, err);
    }
    if (s != SETUN_OK)
        return s;
    const char *about = setun_vocab_about(v);
    (void)snprintf(text, sizeof text, "%d texts come back byte for byte; %lld pieces%s%s", (int)n, (long long)setun_vocab_size(v),
                   about ? "; " : "", about ? about : "");
    say(d, "tokenizer", RIGHT, text);
    return SETUN_OK;
}

/* An error is the result of the check that met it; only an interrupt ends the visit. */
static int visit(doctor *d, const char *what, setun_status (*check)(doctor *, setun_error *))
{
    setun_error err = {0};
    if (cli_interrupted())
        return -1;
    if (check(d, &err) == SETUN_OK)
        return 0;
    if (err.code == SETUN_CANCELLED || cli_interrupted())
        return -1;
    say(d, what, WRONG, err.text);
    return 0;
}

static setun_status open_model(doctor *d, setun_error *err)
{
    setun_status s = cli_load(d->c, d->path, &d->m, err);
    if (s == SETUN_OK)
        s = setun_session_new(&d->s, d->m, err);
    if (s != SETUN_OK)
        return s;
    int logits = setun_model_has_logits(d->m);
    d->n_vocab = logits ? setun_model_n_vocab(d->m) : setun_model_n_embedding(d->m);
    d->row = calloc((size_t)d->n_vocab, sizeof *d->row);
    d->early = calloc((size_t)d->n_vocab, sizeof *d->early);
    d->vector = logits ? NULL : calloc(3 * (size_t)d->n_vocab, sizeof *d->vector);
    if (!d->row || !d->early || (!logits && !d->vector)) {
        (void)snprintf(err->text, sizeof err->text, "no memory for rows of results");
        return err->code = SETUN_NO_MEMORY;
    }
    for (int64_t i = 0; i < N_TOKENS; i++)
        d->token[i] = (int32_t)((i * 7919 + 17) % setun_model_n_vocab(d->m));
    say(d, "files", RIGHT, "read; all that the model's script asks for is there in the right shape (setun info has the details)");
    return SETUN_OK;
}

int cli_doctor(int argc, char **argv)
{
    static const struct option options[] = {{"quick", no_argument, NULL, QUICK}, CLI_COMMON_OPTIONS, {NULL, 0, NULL, 0}};
    cli c;
    doctor d = {.c = &c};
    int opt, gone = 0;
    cli_init(&c, "doctor", help);
    while ((opt = getopt_long(argc, argv, CLI_COMMON_LETTERS, options, NULL)) != -1) {
        int r = opt == QUICK ? 1 : cli_common(&c, opt);
        d.quick |= opt == QUICK;
        if (r != 1)
            return r == 2 ? 0 : CLI_USAGE;
    }
    if (optind + 1 != argc)
        return cli_usage(&c, optind == argc ? "a model is missing" : "one model is enough");
    cli_finish(&c);
    cli_catch_interrupt();
    d.path = argv[optind];
    if (c.json)
        fputs("{\"checks\": [", stdout);
    gone = visit(&d, "files", open_model);
    if (d.early && !gone)
        gone = visit(&d, "numbers", check_bits) || visit(&d, "head", check_head);
    if (!gone) /* needs no weights: what is wrong with those may leave it whole */
        gone = visit(&d, "tokenizer", check_tokenizer);
    if (d.quick && d.early)
        say(&d, "kernels", LEFT_OUT, "scalar definitions and operators' cases: --quick");
    else if (d.early && !gone)
        gone = visit(&d, "kernels", check_reference) || visit(&d, "operators", check_operators);
    if (c.json)
        printf("\n], \"sound\": %s}\n", gone ? "null" : d.n_wrong ? "false" : "true");
    else if (!gone)
        printf(d.n_wrong ? "\nNOT SOUND: %d wrong\n" : "\nsound\n", d.n_wrong);
    setun_session_free(d.s);
    setun_model_free(d.m);
    setun_vocab_free(d.vocab);
    free(d.row);
    free(d.early);
    free(d.vector);
    int code = cli_close_out();
    return gone ? CLI_INTERRUPTED : d.n_wrong ? CLI_FAILED : code;
}
