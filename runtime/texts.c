/* runtime/texts.c -- several texts in one run of a session, so that weights are read once for all of them.
 *
 * Nodes without a state see one long text: they do not mix rows.  A node with a state (kv_append, attention)
 * becomes a step per text, with that text's rows, positions from 0 on, and a cache of its own: the rows
 * from `first` on of every head of the session's cache, as a view of the whole cache's shape that begins
 * `first` rows later. Rows of different texts do not meet, and each step does what it does for the text alone, so
 * every text gets the bits that it gets alone.
 *
 *     cache of a head    | text 0: rows 0..6 | text 1: rows 7..9 | text 2: rows 10..14 | ...
 *
 * The program is made for the texts at hand and dropped again: that takes some microseconds a step. */
#include "runtime/texts.h"

#include <string.h>

#include "base/error.h"

/* Where a value of a node with a state is, for one text. */
static setun_status operand_of(const setun_session *s, const st_program *p, uint32_t backend, st_value_id v, const st_text *t,
                               setun_operand *o, setun_error *err)
{
    const st_value *value = &p->graph->value[v], *root = &p->graph->value[value->root];
    ST_TRY(st_session_operand(s, p, backend, v, -1, o, err));
    int64_t bytes = 0;
    if (root->kind == ST_STATE) {
        if (!st_is_cache(p->graph, value->root))
            return SETUN_DECLINED;
        bytes = setun_row_bytes(value->view.dtype, value->view.dim[2]);
    } else if (value->view.rank && value->view.dim[0] == SETUN_DIM_TOKENS) {
        o->shape.dim[0] = 1;
        bytes = root->kind == ST_TEMP ? setun_view_bytes(&o->shape) : 0;
        o->shape.dim[0] = t->n;
        /* Those of the longest text begin with those of any other. */
        if (root->kind == ST_INPUT && strcmp(root->name, "positions") != 0)
            return SETUN_DECLINED;
    } else if (root->kind == ST_TEMP) {
        return SETUN_DECLINED;
    }
    o->offset += t->first * bytes;
    return bytes % ST_ROW ? SETUN_DECLINED : SETUN_OK;
}

/* One step of the plan; t NULL: for all rows. */
static setun_status add_step(const setun_session *s, const st_program *p, st_runner *r, uint32_t planned, const st_text *t,
                             st_arena *arena, setun_error *err)
{
    st_node_id n = p->plan->step[planned].node;
    const st_node *node = &p->graph->node[n];
    uint32_t b = p->plan->step[planned].backend, i = r->n_run_step++;
    setun_step *step = &r->step[i];
    ST_TRY(st_step_make(p, n, arena, step, err));
    if (!s->m->backend[b]->backend_info.wants_code)
        step->code = NULL;
    for (uint32_t j = 0; j < step->n_in + step->n_out; j++) {
        int out = j >= step->n_in;
        st_value_id v = out ? node->out[j - step->n_in] : node->in[j];
        setun_operand *o = (setun_operand *)(out ? &step->out[j - step->n_in] : &step->in[j]);
        ST_TRY(t ? operand_of(s, p, b, v, t, o, err) : st_session_operand(s, p, b, v, -1, o, err));
    }
    if (r->n_seg && r->seg[r->n_seg - 1].backend == b) {
        r->seg[r->n_seg - 1].n++;
        return SETUN_OK;
    }
    if (r->n_seg == ST_MAX_SEGMENTS)
        return SETUN_DECLINED;
    r->seg[r->n_seg++] = (st_segment){.backend = b, .first = i, .n = 1};
    return SETUN_OK;
}

static setun_status make_runner(const setun_session *s, const st_program *p, st_runner *r, const st_text *text, int64_t n_text,
                                st_arena *arena, setun_error *err)
{
    int64_t most = 1;
    for (st_node_id n = 0; n < p->graph->n_node; n++)
        most += st_uses_state(p->graph, n) ? n_text : 1;
    r->step = st_arena_array(arena, most, sizeof *r->step);
    if (!r->step)
        return st_fail(err, SETUN_NO_MEMORY, "no memory for several texts");
    for (uint32_t i = 0; i < p->plan->n_step; i++) {
        st_node_id n = p->plan->step[i].node;
        if (p->kernel[n] && !p->kernel[n]->writes)
            continue; /* its result is its input's memory, as it is */
        int apart = st_uses_state(p->graph, n);
        for (int64_t t = 0; t < (apart ? n_text : 1); t++)
            ST_TRY(add_step(s, p, r, i, apart ? &text[t] : NULL, arena, err));
    }
    for (uint32_t i = 0; i < r->n_seg; i++) {
        st_segment *g = &r->seg[i];
        ST_TRY(st_session_api(s, g->backend)->program_new(s->context[g->backend], r->step + g->first, g->n, &g->program, err));
    }
    return SETUN_OK;
}

setun_status st_texts_run(setun_session *s, const st_text *text, int64_t n_text, int64_t n_out, const float **state,
                          setun_error *err)
{
    /* Only caches of models without logits have room behind them, and notes are taken per step of the session's own. */
    if (s->m->has_logits || s->note || s->n_peer)
        return SETUN_DECLINED;
    st_arena *arena = st_arena_new();
    st_runner own = s->run[ST_MANY], *r = arena ? st_arena_alloc(arena, sizeof *r) : NULL;
    int64_t n = 0;
    setun_status status = r ? make_runner(s, s->program[ST_MANY], r, text, n_text, arena, err)
                            : st_fail(err, SETUN_NO_MEMORY, "no memory for several texts");
    if (status == SETUN_OK) {
        for (int64_t t = 0; t < n_text; t++)
            for (int64_t i = 0; i < text[t].n; i++, n++) {
                s->tokens[n] = text[t].token[i];
                s->positions[n] = (int32_t)i;
            }
        memcpy(r->at, own.at, sizeof r->at); /* the plan is the same, so results are where they are */
        s->run[ST_MANY] = *r;
        status = st_session_run(s, ST_MANY, n, n_out, err);
        s->run[ST_MANY] = own;
        *state = (const float *)(void *)(s->temp_host + own.at[1]);
    }
    for (uint32_t i = 0; r && i < r->n_seg; i++)
        if (r->seg[i].program)
            st_session_api(s, r->seg[i].backend)->program_free(r->seg[i].program);
    st_arena_free(arena);
    return status;
}
