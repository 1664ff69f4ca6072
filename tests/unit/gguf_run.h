/* tests/unit/gguf_run.h -- the logits of a model of gguf_world.h, in whatever form it is, bit for bit.
 *
 * Everything is static; for gguf_model.c and convert_world.c. */
#ifndef ST_TESTS_GGUF_RUN_H
#define ST_TESTS_GGUF_RUN_H

#include "runtime/model.h"
#include "tests/unit/gguf_world.h"

#define N_TOKENS 6

/* ---------------------------------------------------------------- running */

static const int32_t fed[N_TOKENS] = { 3, 300, 77, 255, 112, 9 };

typedef struct asked {
    const char *layout, *activations, *cache;
} asked;

static setun_status run(const char *path, const asked *how, float *logits, setun_error *err)
{
    setun_options o;
    setun_model *m = NULL;
    setun_session *s = NULL;
    const float *got;
    setun_options_init(&o);
    o.kv = "f32";
    o.n_threads = 1;
    o.backend = "reference"; /* compiling takes time, and gives the same bits: tests/unit/ops.c */
    o.interpret = 1;
    o.full_head = !how || !how->cache; /* rows of a head that is decoded are made with a cache */
    o.n_outputs = N_TOKENS;
    o.i2s_layout = how ? how->layout : NULL;
    o.activations = how ? how->activations : NULL;
    o.cache_dir = how ? how->cache : NULL;
    setun_status st = setun_model_load(&m, path, &o, err);
    if (st == SETUN_OK)
        st = setun_session_new(&s, m, err);
    if (st == SETUN_OK)
        st = setun_session_feed(s, fed, N_TOKENS, SETUN_LOGITS_ALL, &got, err);
    if (st == SETUN_OK)
        memcpy(logits, got, sizeof *logits * N_TOKENS * V);
    setun_session_free(s);
    setun_model_free(m);
    return st;
}

static void must_run(const char *path, const asked *how, float *logits, const char *what)
{
    setun_error err = { 0 };
    if (run(path, how, logits, &err) != SETUN_OK)
        fail_msg("%s: %s", what, err.text);
}

static void same(const float *a, const float *b, const char *what)
{
    for (int64_t i = 0; i < N_TOKENS * V; i++)
        if (bits_of(a[i]) != bits_of(b[i]) || !isfinite(a[i]))
            fail_msg("%s: logit %d is %.9g, not %.9g", what, (int)i, (double)a[i], (double)b[i]);
}

#define LOGITS (sizeof(float) * N_TOKENS * V)

#endif
