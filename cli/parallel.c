/* cli/parallel.c -- run --parallel: several texts that go on from one prompt, decoded together.
 *
 * The prompt is read once, and its state copied.  Text i is the one that `setun run` gives with the
 * seed of the first plus i.  Texts that have ended leave; the others go on in a smaller batch. */
#include "parallel.h"

#include <stdlib.h>
#include <string.h>

#include "sampling.h"

typedef struct text {
    setun_session *s;
    setun_sampler *sampler;
    const float   *logits; /* of its last token; NULL: setun_session_top has them */
    int32_t       *token;
    int64_t        n;
    int            ended;
} text;

static int fail(setun_error *err, const char *why)
{
    (void)snprintf(err->text, sizeof err->text, "%s", why);
    return cli_fail(err);
}

static int stop(void *user, int64_t done, int64_t total)
{
    (void)user; (void)done; (void)total;
    return cli_interrupted();
}

/* The next token of a text.  Returns an exit code. */
static int pick(const parallel *p, text *t, int64_t most, setun_error *err)
{
    int32_t token = cli_pick(t->sampler, t->s, t->logits, err);
    if (token < 0)
        return cli_fail(err);
    t->ended = setun_model_is_end(p->m, token) && !p->ignore_eos;
    if (!t->ended) {
        t->token[t->n++] = token;
        setun_sampler_accept(t->sampler, token);
        t->ended = t->n == most;
    }
    return 0;
}

/* One token of every text that goes on.  Returns an exit code. */
static int step(text **on, int32_t n, setun_batch *b, int32_t want, setun_error *err)
{
    int32_t token[PARALLEL_MOST];
    const float *logits[PARALLEL_MOST];
    for (int32_t i = 0; i < n; i++) {
        setun_screen screen = {.size = sizeof screen};
        token[i] = on[i]->token[on[i]->n - 1];
        if (want == SETUN_LOGITS_TOP && (!setun_sampler_screen(on[i]->sampler, &screen) ||
                                         setun_session_set_screen(on[i]->s, &screen, err) != SETUN_OK))
            return cli_fail(err);
    }
    if (setun_batch_step(b, token, want, logits, err) != SETUN_OK)
        return err->code == SETUN_CANCELLED ? CLI_INTERRUPTED : cli_fail(err);
    for (int32_t i = 0; i < n; i++)
        on[i]->logits = logits[i];
    return 0;
}

static int decode(const parallel *p, text *t, int64_t most, int32_t want, setun_error *err)
{
    setun_batch *b = NULL;
    text *on[PARALLEL_MOST];
    int32_t n = -1;
    int code = 0;
    while (code == 0 && !cli_interrupted()) {
        setun_session *s[PARALLEL_MOST];
        int32_t now = 0;
        for (long long i = 0; i < p->n_text && code == 0; i++) {
            if (!t[i].ended)
                code = pick(p, &t[i], most, err);
            if (!t[i].ended) {
                on[now] = &t[i];
                s[now++] = t[i].s;
            }
        }
        if (code || !now)
            break;
        if (now != n) { /* some have left */
            setun_batch_free(b);
            b = NULL;
            n = now;
            if (setun_batch_new(&b, p->m, s, n, err) != SETUN_OK)
                code = cli_fail(err);
        }
        if (code == 0)
            code = step(on, n, b, want, err);
    }
    setun_batch_free(b);
    return code ? code : cli_interrupted() ? CLI_INTERRUPTED : 0;
}

/* A piece of text on stdout, as it is or inside a JSON string. */
static void put(const char *bytes, size_t n, int json)
{
    if (json)
        cli_json(bytes, n);
    else
        (void)fwrite(bytes, 1, n, stdout);
}

static int print(const parallel *p, const text *t, int number, setun_error *err)
{
    setun_stream stream = {{0}, 0};
    char *out = NULL, tail[64];
    unsigned long long seed = p->sampling->seed + (unsigned)number;
    printf(p->c->json ? "{\"text\": \"" : "%s--- %d, seed %llu\n", p->c->json || !number ? "" : "\n", number + 1, seed);
    for (int64_t i = 0; i < t->n; i++) {
        const char *bytes;
        size_t n;
        if (setun_vocab_piece(setun_model_vocab(p->m), t->token[i], p->special, &bytes, &n, err) != SETUN_OK)
            return cli_fail(err);
        out = malloc(4 * (n + 8));
        if (!out)
            return fail(err, "no memory for a piece of text");
        if (n)
            put(out, setun_stream_push(&stream, bytes, n, out), p->c->json);
        free(out);
    }
    put(tail, setun_stream_push(&stream, NULL, 0, tail), p->c->json);
    if (p->c->json)
        printf("\", \"seed\": %llu, \"tokens\": %lld}", seed, (long long)t->n);
    putchar('\n');
    return 0;
}

/* Everything for text i; the prompt is fed to the first and copied. */
static setun_status start(const parallel *p, text *t, long long i, int64_t most, int32_t *want, setun_error *err)
{
    setun_sampling sampling = *p->sampling;
    sampling.seed += (uint64_t)i;
    t[i].token = malloc((size_t)(most + 1) * sizeof *t[i].token);
    if (!t[i].token) {
        (void)snprintf(err->text, sizeof err->text, "no memory for %lld tokens", (long long)most);
        return SETUN_NO_MEMORY;
    }
    setun_status status = setun_session_new(&t[i].s, p->m, err);
    if (status == SETUN_OK)
        status = setun_sampler_new(&t[i].sampler, &sampling, setun_model_n_vocab(p->m), err);
    for (int64_t j = 0; j < p->n_ids && status == SETUN_OK; j++)
        setun_sampler_accept(t[i].sampler, p->ids[j]);
    if (status != SETUN_OK)
        return status;
    if (i) {
        t[i].logits = t[0].logits;
        return setun_session_copy(t[i].s, t[0].s, err);
    }
    /* Where few logits decide, the others are not computed. */
    setun_screen screen = {.size = sizeof screen};
    *want = setun_sampler_screen(t[0].sampler, &screen) && !p->c->o.full_head ? SETUN_LOGITS_TOP : SETUN_LOGITS_LAST;
    int32_t first = screen.temp > 0.0f ? SETUN_LOGITS_LAST : *want; /* of a draw by a seed there is one for each */
    if (first == SETUN_LOGITS_TOP)
        status = setun_session_set_screen(t[0].s, &screen, err);
    setun_session_on_progress(t[0].s, stop, NULL);
    return status == SETUN_OK ? setun_session_feed(t[0].s, p->ids, p->n_ids, first, &t[0].logits, err) : status;
}

int cli_parallel(const parallel *p)
{
    text t[PARALLEL_MOST];
    setun_error err = {0};
    int64_t room = setun_model_n_ctx(p->m) - p->n_ids, most = p->n < 0 || p->n > room ? room : p->n;
    int32_t want = 0;
    int code = 0;
    double t0 = cli_seconds(), t1 = t0, t2;
    memset(t, 0, sizeof t);
    for (long long i = 0; i < p->n_text && code == 0; i++) {
        t[i].ended = most < 1;
        if (start(p, t, i, most < 1 ? 0 : most, &want, &err) != SETUN_OK)
            code = cli_fail(&err);
        if (i == 0)
            t1 = cli_seconds();
    }
    if (code == 0)
        code = decode(p, t, most, want, &err);
    t2 = cli_seconds();
    for (int i = 0; i < p->n_text && (code == 0 || code == CLI_INTERRUPTED); i++)
        if (print(p, &t[i], i, &err))
            code = CLI_FAILED;
    if (code == 0)
        code = cli_close_out();
    if (code == 0 && !p->c->quiet) {
        long long made = 0;
        for (long long i = 0; i < p->n_text; i++)
            made += t[i].n;
        fprintf(stderr, "prompt %lld tokens, %.1f tokens/s; %lld texts, %lld tokens, together %.1f tokens/s\n", (long long)p->n_ids,
                (double)p->n_ids / (t1 - t0), p->n_text, made, (double)made / (t2 - t1));
    }
    for (long long i = 0; i < p->n_text; i++) {
        setun_session_free(t[i].s);
        setun_sampler_free(t[i].sampler);
        free(t[i].token);
    }
    return code;
}
