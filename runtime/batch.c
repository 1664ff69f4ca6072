/* runtime/batch.c -- several sessions that decode together: a token of each per step.
 *
 * Nodes without a state run once, on a row per sequence: the kernels for many tokens.  A node with a state
 * (kv_append, attention) becomes a step per sequence, with the kernel for one token, that session's
 * cache and its row of everything else.  These steps touch different memory, so a backend needs no
 * barriers between them.  No operator mixes rows, hence every sequence gets the bits that it gets alone.
 *
 * The machinery -- context, programs, temporaries -- is a session whose states are its peers': see
 * session.h.  Only positions tell what a state holds, and they move at the end of a step: one that
 * fails has changed nothing. */
#include <inttypes.h>
#include <string.h>

#include "base/error.h"
#include "runtime/session.h"

struct setun_batch {
    setun_session *all;
};

/* Who runs what was decided when the model was loaded. */
static setun_status as_before(void *user, uint32_t backend, const st_graph *g, st_node_id n, double *cost)
{
    const st_plan *p = user;
    (void)g;
    *cost = 0;
    return p->step[n].backend == backend ? SETUN_OK : SETUN_DECLINED;
}

/* The model's programs for many tokens have room for n_outputs rows of logits; these have it for all. */
static setun_status make_programs(setun_session *s, setun_error *err)
{
    const setun_model *m = s->m;
    const int64_t bound[SETUN_N_SYMBOLS] = {s->n_tokens, s->n_outputs};
    for (int i = ST_MANY; i < m->n_program; i += ST_MANY_TOP - ST_MANY) {
        st_program *p = st_arena_alloc(s->arena, sizeof *p);
        if (!p)
            return st_fail(err, SETUN_NO_MEMORY, "no memory for a program");
        *p = m->program[i];
        ST_TRY(st_plan_build(p->graph, bound, m->n_backend, as_before, m->program[i].plan, s->arena, &p->plan, err));
        ST_TRY(st_plan_verify(p->plan, err));
        s->program[i] = p;
    }
    return SETUN_OK;
}

static setun_status check_sessions(const setun_model *m, setun_session *const *s, int32_t n, setun_error *err)
{
    if (n < 1 || n > SETUN_MAX_BATCH)
        return st_fail(err, SETUN_BAD_ARG, "%d sessions; 1 to %d can decode together", n, SETUN_MAX_BATCH);
    for (int32_t i = 0; i < n; i++) {
        if (s[i]->m != m)
            return st_fail(err, SETUN_BAD_ARG, "session %d is of another model", i);
        for (int32_t j = 0; j < i; j++)
            if (s[i] == s[j])
                return st_fail(err, SETUN_BAD_ARG, "sessions %d and %d are the same", j, i);
    }
    return SETUN_OK;
}

setun_status setun_batch_new(setun_batch **out, const setun_model *m, setun_session *const *s, int32_t n, setun_error *err)
{
    setun_session *all = NULL;
    *out = NULL;
    ST_TRY(check_sessions(m, s, n, err));
    ST_TRY(st_session_alloc(&all, m, n, n, err));
    setun_batch *b = st_arena_alloc(all->arena, sizeof *b);
    setun_session **peer = st_arena_array(all->arena, n, sizeof *peer);
    setun_status status = b && peer ? SETUN_OK : st_fail(err, SETUN_NO_MEMORY, "no memory for a batch");
    if (status == SETUN_OK) {
        memcpy(peer, s, (size_t)n * sizeof *peer);
        all->peer = peer;
        all->n_peer = n;
    }
    if (status == SETUN_OK && n > 1) /* one is fed as it is fed alone */
        status = make_programs(all, err);
    if (status == SETUN_OK && n > 1)
        status = st_session_build(all, err);
    if (status != SETUN_OK) {
        setun_session_free(all);
        return status;
    }
    b->all = all;
    *out = b;
    return SETUN_OK;
}

void setun_batch_free(setun_batch *b)
{
    if (b)
        setun_session_free(b->all);
}

static setun_status check_step(const setun_session *all, const int32_t *tokens, int32_t want, setun_error *err)
{
    const setun_model *m = all->m;
    if (want != SETUN_LOGITS_NONE && want != SETUN_LOGITS_LAST && want != SETUN_LOGITS_TOP)
        return st_fail(err, SETUN_BAD_ARG, "want is %d; sessions together know SETUN_LOGITS_NONE, _LAST and _TOP", want);
    if (want != SETUN_LOGITS_NONE)
        ST_TRY(st_session_predicts(all, err));
    for (int32_t i = 0; i < all->n_peer; i++) {
        if (tokens[i] < 0 || tokens[i] >= m->n_vocab)
            return st_fail(err, SETUN_BAD_ARG, "token %d of session %d is outside the vocabulary of %" PRId64, tokens[i], i,
                           m->n_vocab);
        if (all->peer[i]->position >= m->n_ctx)
            return st_fail(err, SETUN_FULL, "no room in session %d: the context holds %" PRId64 " positions", i, m->n_ctx);
    }
    return SETUN_OK;
}

/* The results of a run.  A row whose screening fails is computed in full, by its session alone: the same keys
 * and values are written again. */
static setun_status results(setun_session *all, int which, const int32_t *tokens, int32_t want, const float **logits,
                            setun_error *err)
{
    const float *first = (const float *)(void *)(all->temp_host + all->run[which].at[0]);
    for (int32_t i = 0; i < all->n_peer; i++) {
        setun_session *p = all->peer[i];
        const float *row = NULL;
        if (want != SETUN_LOGITS_NONE && which == ST_MANY) {
            row = first + i * all->m->n_vocab;
        } else if (which == ST_MANY_TOP && !st_session_screened(p, all, which, i)) {
            setun_status status = st_session_full(p, tokens[i], &row, err);
            p->position -= status == SETUN_OK;
            ST_TRY(status);
        }
        if (want == SETUN_LOGITS_TOP && row)
            st_session_sorted(p, row);
        if (logits)
            logits[i] = row;
    }
    return SETUN_OK;
}

setun_status setun_batch_step(setun_batch *b, const int32_t *tokens, int32_t want, const float **logits, setun_error *err)
{
    setun_session *all = b->all;
    int which = want == SETUN_LOGITS_TOP && all->program[ST_MANY_TOP] ? ST_MANY_TOP : ST_MANY;
    int32_t n = all->n_peer;
    ST_TRY(check_step(all, tokens, want, err));
    if (n == 1)
        return setun_session_feed(all->peer[0], tokens, 1, want, logits, err);
    for (int32_t i = 0; i < n; i++) {
        all->tokens[i] = tokens[i];
        all->positions[i] = (int32_t)all->peer[i]->position;
        all->outputs[i] = i;
    }
    ST_TRY(st_session_run(all, which, n, want == SETUN_LOGITS_NONE ? 0 : n, err));
    ST_TRY(results(all, which, tokens, want, logits, err));
    for (int32_t i = 0; i < n; i++)
        all->peer[i]->position++;
    return SETUN_OK;
}

/* One session is fed as it is fed alone, so it is the one that knows. */
setun_status setun_batch_note(setun_batch *b, uint32_t what, setun_error *err)
{
    return setun_session_note(b->all->n_peer == 1 ? b->all->peer[0] : b->all, what, err);
}

setun_status setun_batch_roofline(const setun_batch *b, const setun_limits *l, int32_t json, setun_write_fn *out, void *user,
                                  setun_error *err)
{
    const setun_session *all = b->all;
    return all->n_peer == 1 ? setun_session_roofline(all->peer[0], 1, l, json, out, user, err)
                            : setun_session_roofline(all, 0, l, json, out, user, err);
}
