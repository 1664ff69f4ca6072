/* rt/text.c -- what run and chat of setun-rt share: opening a bundle's text, drawing tokens, writing them, options. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "rt/text.h"

int st_rt_fail(const setun_error *err)
{
    (void)fflush(stdout);
    (void)fprintf(stderr, "setun-rt: %s\n", err->text);
    return 1;
}

int st_rt_usage(const char *command, const char *what, const char *value)
{
    (void)fprintf(stderr, "setun-rt %s: %s%s; see setun-rt %s --help\n", command, what, value, command);
    return 2;
}

static setun_status open_tokenizer(st_rt_text *t, const st_bundle *b, const char *path, setun_error *err)
{
    if (!b->bytes[ST_BUNDLE_TOKENIZER])
        return st_fail(err, SETUN_BAD_FILE, "%s: the bundle has no tokenizer, so it makes no text", path);
    ST_TRY(st_tokenizer_load(&t->tokenizer, b->section[ST_BUNDLE_TOKENIZER], b->bytes[ST_BUNDLE_TOKENIZER], path, err));
    int64_t n = st_tokenizer_size(t->tokenizer);
    return n <= t->info.n_vocab ? SETUN_OK
                                : st_fail(err, SETUN_BAD_FILE, "%s: the tokenizer has %lld tokens, but the model %lld", path, (long long)n,
                                          (long long)t->info.n_vocab);
}

static setun_status open_turns(st_rt_text *t, const st_bundle *b, const char *path, setun_error *err)
{
    if (!b->bytes[ST_BUNDLE_TEMPLATE])
        return st_fail(err, SETUN_BAD_FILE, "%s: the bundle has no chat template", path);
    ST_TRY(st_turns_load(&t->turns, b->section[ST_BUNDLE_TEMPLATE], b->bytes[ST_BUNDLE_TEMPLATE], path, err));
    if (*t->turns->why)
        return st_fail(err, SETUN_UNKNOWN, "%s: the bundle has no chat template: %s", path, t->turns->why);
    return st_turns_check(t->turns, t->info.n_vocab, path, err);
}

setun_status st_rt_text_open(st_rt_text *t, const char *path, int32_t n_threads, int chat, setun_error *err)
{
    ST_TRY(setun_rt_open(&t->rt, path, n_threads, err));
    t->info = (setun_rt_info){.size = sizeof t->info};
    setun_rt_get_info(t->rt, &t->info);
    ST_TRY(open_tokenizer(t, st_rt_bundle(t->rt), path, err));
    if (chat)
        ST_TRY(open_turns(t, st_rt_bundle(t->rt), path, err));
    return setun_sampler_new(&t->sampler, &t->sampling, t->info.n_vocab, err);
}

void st_rt_text_close(st_rt_text *t)
{
    setun_sampler_free(t->sampler);
    st_turns_free(t->turns);
    st_tokenizer_close(t->tokenizer); /* its bytes are the bundle's */
    setun_rt_close(t->rt);
}

int32_t st_rt_pick(st_rt_text *t, const float *logits, setun_error *err)
{
    int32_t token = setun_sampler_pick(t->sampler, logits);
    if (logits[token] == logits[token])
        return token;
    (void)st_fail(err, SETUN_FAILED, "the model's logits are not numbers: its weights may be damaged");
    return -1;
}

int st_rt_emit(const st_rt_text *t, st_detok *d, int32_t token, setun_error *err)
{
    const char *bytes = NULL;
    int64_t n = 0;
    int special = 0;
    if (token >= 0 && st_tokenizer_bytes(t->tokenizer, token, &bytes, &n, &special, err) != SETUN_OK)
        return -1;
    if (token >= 0 && (n == 0 || (special && !t->special)))
        return 0;
    char *out = malloc((size_t)(4 * (n + 8)));
    if (!out)
        return (void)st_fail(err, SETUN_NO_MEMORY, "no memory for a piece of text"), -1;
    size_t made = (size_t)st_detok_push(d, bytes, n, out);
    int bad = fwrite(out, 1, made, stdout) != made || (made && fflush(stdout) != 0);
    free(out);
    return bad ? (void)st_fail(err, SETUN_IO, "writing the text failed"), -1 : 0;
}

/* ---------------------------------------------------------------- options */

static int whole(const char *command, const char *name, const char *text, int64_t min, int64_t max, int64_t *out)
{
    char what[128];
    if (st_parse_i64(text, min, max, out) == 0)
        return 1;
    (void)snprintf(what, sizeof what, "%s takes a whole number from %lld to %lld, not ", name, (long long)min, (long long)max);
    return st_rt_usage(command, what, text), -1;
}

static int real(const char *command, const char *name, const char *text, double min, double max, float *out)
{
    char what[128];
    double x;
    if (st_parse_f64(text, &x) == 0 && x >= min && x <= max) {
        *out = (float)x;
        return 1;
    }
    (void)snprintf(what, sizeof what, "%s takes a number from %g to %g, not ", name, min, max);
    return st_rt_usage(command, what, text), -1;
}

int st_rt_text_option(st_rt_text *t, const char *command, int opt, const char *value, int64_t *n_threads)
{
    setun_sampling *s = &t->sampling;
    int64_t i = 0;
    int r;
    switch (opt) {
    case 'n': return whole(command, "-n", value, -1, 1 << 30, &t->n);
    case 't': return whole(command, "--threads", value, 1, 1024, n_threads);
    case 'q': t->quiet = 1; return 1;
    case ST_RT_GREEDY: s->temp = 0; return 1;
    case ST_RT_TEMP: return real(command, "--temp", value, 0, 100, &s->temp);
    case ST_RT_TOP_P: return real(command, "--top-p", value, 1e-6, 1, &s->top_p);
    case ST_RT_MIN_P: return real(command, "--min-p", value, 0, 1, &s->min_p);
    case ST_RT_REPEAT: return real(command, "--repeat-penalty", value, 0.01, 100, &s->repeat_penalty);
    case ST_RT_TOP_K:
        r = whole(command, "--top-k", value, 0, 1 << 30, &i);
        s->top_k = (int32_t)i;
        return r;
    case ST_RT_REPEAT_LAST:
        r = whole(command, "--repeat-last", value, 0, 1 << 20, &i);
        s->repeat_last = (int32_t)i;
        return r;
    case ST_RT_SEED:
        r = whole(command, "--seed", value, 0, INT64_MAX, &i);
        s->seed = (uint64_t)i;
        return r;
    default: return 0;
    }
}
