/* cli/sampling.c -- drawing tokens and writing them, for run and chat. */
#include "sampling.h"

#include <math.h>
#include <stdlib.h>
#include <time.h>

double cli_seconds(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int cli_sampling(const cli *c, setun_sampling *s, int opt)
{
    long long i;
    double f;
    switch (opt) {
    case CLI_TEMP: if (cli_float(c, "--temp", optarg, 0, 100, &f)) return -1; s->temp = (float)f; return 1;
    case CLI_TOP_P: if (cli_float(c, "--top-p", optarg, 1e-6, 1, &f)) return -1; s->top_p = (float)f; return 1;
    case CLI_MIN_P: if (cli_float(c, "--min-p", optarg, 0, 1, &f)) return -1; s->min_p = (float)f; return 1;
    case CLI_REPEAT: if (cli_float(c, "--repeat-penalty", optarg, 0.01, 100, &f)) return -1; s->repeat_penalty = (float)f; return 1;
    case CLI_TOP_K: if (cli_int(c, "--top-k", optarg, 0, 1 << 30, &i)) return -1; s->top_k = (int32_t)i; return 1;
    case CLI_REPEAT_LAST: if (cli_int(c, "--repeat-last", optarg, 0, 1 << 20, &i)) return -1; s->repeat_last = (int32_t)i; return 1;
    case CLI_SEED: if (cli_int(c, "--seed", optarg, 0, INT64_MAX, &i)) return -1; s->seed = (uint64_t)i; return 1;
    case CLI_GREEDY: s->temp = 0; return 1;
    default: return 0;
    }
}

setun_status cli_want(const cli *c, setun_session *s, const setun_sampler *sampler, int32_t *want, setun_error *err)
{
    setun_screen screen = {.size = sizeof screen};
    int few = !c->o.full_head && setun_sampler_screen(sampler, &screen);
    *want = few ? SETUN_LOGITS_TOP : SETUN_LOGITS_LAST;
    return few ? setun_session_set_screen(s, &screen, err) : SETUN_OK;
}

int32_t cli_pick(setun_sampler *sampler, const setun_session *s, const float *logits, setun_error *err)
{
    setun_top top = {.size = sizeof top};
    setun_session_top(s, &top);
    int32_t token = logits ? setun_sampler_pick(sampler, logits) : setun_sampler_pick_top(sampler, &top);
    /* Among the largest a logit that is no number counts as minus infinity. */
    if (logits ? logits[token] == logits[token] : top.logit[0] > -INFINITY)
        return token;
    (void)snprintf(err->text, sizeof err->text, "the model's logits are not numbers: its weights may be damaged");
    return -1;
}

static int fail(setun_error *err, const char *why)
{
    (void)snprintf(err->text, sizeof err->text, "%s", why);
    return -1;
}

int cli_emit(cli_writer *w, int32_t token, setun_error *err)
{
    const char *bytes;
    size_t n;
    if (setun_vocab_piece(w->v, token, w->special, &bytes, &n, err) != SETUN_OK)
        return -1;
    char *out = malloc(4 * (n + 8));
    if (!out)
        return fail(err, "no memory for a piece of text");
    size_t m = n ? setun_stream_push(&w->stream, bytes, n, out) : 0;
    int bad = m && w->out(w->user, out, m);
    free(out);
    return bad ? fail(err, "writing the text failed") : 0;
}

int cli_flush(cli_writer *w, setun_error *err)
{
    char tail[64];
    size_t n = setun_stream_push(&w->stream, NULL, 0, tail);
    return n && w->out(w->user, tail, n) ? fail(err, "writing the text failed") : 0;
}
