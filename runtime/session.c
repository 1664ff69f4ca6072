/* runtime/session.c -- one conversation with a model: buffers, position, programs.
 *
 * Everything is allocated in setun_session_new.  A feed writes three small inputs (tokens, positions,
 * which rows of logits are wanted), runs one program per chunk and points at the logits.
 * A program is cut into runs of steps of one backend; all backends but the first see the first one's
 * memory through buffer_wrap, so values move without copies. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "runtime/head.h"
#include "runtime/session.h"
#include "setun/numerics.h"

/* A token's row of the embedding is some KB, but with it the system maps its neighbours, 64 KB or up to
 * 1 MB.  Beyond this the pages of an embedding that is also the head are let go, else sooner or later all of
 * it is resident; so are the fetched rows of the head. */
#define MAPPED_PER_ROW (1 << 20)
#define MOST_MAPPED (16 << 20)
#define MOST_FETCHED (8 << 20)

static const setun_backend_v1 *api(const setun_session *s, uint32_t b) { return st_session_api(s, b); }

/* Values that need a buffer of their own have names; both programs share them by name. */
int64_t st_session_buffer(const setun_session *s, const char *name)
{
    for (uint32_t i = 0; i < s->n_buffer; i++)
        if (strcmp(s->buffer_name[i], name) == 0)
            return i;
    return -1;
}

/* Give every other backend the memory that the first one has. */
static setun_status share(setun_session *s, setun_buffer *own, int64_t bytes, setun_buffer **other, setun_error *err)
{
    if (s->m->n_backend == 1)
        return SETUN_OK;
    void *host = api(s, 0)->buffer_map(own);
    if (!host)
        return st_fail(err, SETUN_UNKNOWN, "backend '%s' cannot share memory with '%s', and does not take every operator",
                       s->m->backend[0]->backend_info.name, s->m->backend[1]->backend_info.name);
    return api(s, 1)->buffer_wrap(s->context[1], host, bytes, other, err);
}

static setun_status no_memory(setun_error *err) { return st_fail(err, SETUN_NO_MEMORY, "no memory for a session"); }

/* The peers' own memory, one after the other under the state's name. */
static setun_status borrow_states(setun_session *s, const char *name, int64_t bytes, setun_error *err)
{
    for (int32_t i = 0; i < s->n_peer; i++) {
        setun_session *p = s->peer[i];
        void *host = api(p, 0)->buffer_map(p->buffer[0][st_session_buffer(p, name)]);
        if (!host)
            return st_fail(err, SETUN_UNKNOWN, "backend '%s' cannot share the memory of '%s' between sequences",
                           s->m->backend[0]->backend_info.name, name);
        uint32_t at = s->n_buffer++;
        s->buffer_name[at] = name;
        for (uint32_t b = 0; b < s->m->n_backend; b++)
            ST_TRY(api(s, b)->buffer_wrap(s->context[b], host, bytes, &s->buffer[b][at], err));
    }
    return SETUN_OK;
}

/* What the graphs of both sizes share is made once. */
static setun_status make_buffers_of(setun_session *s, const st_graph *g, setun_error *err)
{
    for (uint32_t v = 0; v < g->n_value; v++) {
        const st_value *value = &g->value[v];
        if (value->kind == ST_TEMP || st_session_buffer(s, value->name) >= 0)
            continue;
        setun_view view = value->view;
        if (view.rank && view.dim[0] < 0)
            view.dim[0] = view.dim[0] == SETUN_DIM_TOKENS ? s->n_tokens : s->n_outputs;
        int64_t bytes = setun_view_bytes(&view);
        uint32_t i = s->n_buffer;
        if (value->kind == ST_STATE && !s->m->has_logits && view.rank == 3) /* for views that begin later: texts.c */
            bytes += s->n_tokens * setun_row_bytes(view.dtype, view.dim[2]);
        if (value->kind == ST_STATE && s->n_peer) {
            ST_TRY(borrow_states(s, value->name, bytes, err));
            continue;
        }
        if (value->kind == ST_CONST && !view.data)
            return st_fail(err, SETUN_BAD_ARG, "constant '%s' has no data", value->name);
        if (s->rows && strcmp(value->name, ST_HEAD_ROWS) == 0)
            view.data = s->rows;
        if (value->kind == ST_CONST)
            ST_TRY(api(s, 0)->buffer_wrap(s->context[0], view.data, bytes, &s->buffer[0][i], err));
        else
            ST_TRY(api(s, 0)->buffer_new(s->context[0], bytes, &s->buffer[0][i], err));
        s->buffer_name[i] = value->name;
        s->n_buffer++;
        ST_TRY(share(s, s->buffer[0][i], bytes, &s->buffer[1][i], err));
    }
    return SETUN_OK;
}

static setun_status make_temp(setun_session *s, setun_error *err)
{
    int64_t bytes = ST_ROW;
    for (int i = 0; i < ST_N_PROGRAM; i++)
        if (s->program[i] && s->program[i]->plan->bytes + ST_ROW > bytes)
            bytes = s->program[i]->plan->bytes + ST_ROW;
    ST_TRY(api(s, 0)->buffer_new(s->context[0], bytes, &s->temp[0], err));
    ST_TRY(share(s, s->temp[0], bytes, &s->temp[1], err));
    s->temp_host = api(s, 0)->buffer_map(s->temp[0]);
    if (!s->temp_host)
        return st_fail(err, SETUN_UNKNOWN, "backend '%s' has no memory that the host can read", s->m->backend[0]->backend_info.name);
    if (!s->n_peer)
        return SETUN_OK;
    ST_TRY(api(s, 0)->buffer_new(s->context[0], s->n_peer * ST_ROW, &s->row_b[0], err));
    return share(s, s->row_b[0], s->n_peer * ST_ROW, &s->row_b[1], err);
}

static int64_t head_bytes(const setun_model *m)
{
    return m->n_vocab * m->stats.head_row_bytes;
}

/* Inputs of head_rescore. */
enum { FETCH_ID = 2, FETCH_COUNT };

static int reads_fetched(const st_node *node)
{
    return strcmp(node->op->name, "head_rescore") == 0;
}

/* Room for the longest list of an operator that reads fetched rows. */
static setun_status make_places(setun_session *s, setun_error *err)
{
    const st_graph *g = s->program[ST_MANY_TOP]->graph;
    int64_t most = 1;
    for (st_node_id n = 0; n < g->n_node; n++) {
        int64_t room = reads_fetched(&g->node[n]) ? g->value[g->node[n].in[FETCH_ID]].view.dim[1] : 0;
        most = room > most ? room : most;
    }
    int64_t bytes = (int64_t)sizeof(int32_t) * most * s->n_outputs;
    ST_TRY(api(s, 0)->buffer_new(s->context[0], bytes, &s->place_b[0], err));
    return share(s, s->place_b[0], bytes, &s->place_b[1], err);
}

static setun_status make_buffers(setun_session *s, setun_error *err)
{
    int64_t most = 1;
    for (int i = 0; i < ST_N_PROGRAM; i++)
        if (s->program[i])
            for (uint32_t v = 0; v < s->program[i]->graph->n_value; v++)
                most += s->program[i]->graph->value[v].kind == ST_STATE && s->n_peer ? s->n_peer : 1;
    for (int b = 0; b < 2; b++)
        s->buffer[b] = st_arena_array(s->arena, most, sizeof *s->buffer[b]);
    s->buffer_name = st_arena_array(s->arena, most, sizeof *s->buffer_name);
    if (!s->buffer[0] || !s->buffer[1] || !s->buffer_name)
        return no_memory(err);
    if (s->program[ST_MANY_TOP] && st_weights_has_rows(s->m->weights)) {
        s->place = st_arena_array(s->arena, s->m->n_vocab, sizeof *s->place);
        s->rows = s->place ? st_space_new(head_bytes(s->m)) : NULL;
        if (s->rows)
            ST_TRY(make_places(s, err));
    }
    for (int i = ST_MANY; i < ST_N_PROGRAM; i++) /* the graphs for many tokens have all that the others have */
        if (s->program[i])
            ST_TRY(make_buffers_of(s, s->program[i]->graph, err));
    ST_TRY(make_temp(s, err));
    int64_t top = st_session_buffer(s, ST_HEAD_TOP);
    s->n_top_b = top < 0 ? NULL : s->buffer[0][top];
    s->noise_b = top < 0 ? NULL : s->buffer[0][st_session_buffer(s, ST_HEAD_NOISE)];
    static const char *const names[3] = {"tokens", "positions", "outputs"};
    setun_buffer **to[3] = {&s->tokens_b, &s->positions_b, &s->outputs_b};
    int32_t **host[3] = {&s->tokens, &s->positions, &s->outputs};
    for (int i = 0; i < 3; i++) {
        *to[i] = s->buffer[0][st_session_buffer(s, names[i])];
        *host[i] = st_arena_array(s->arena, s->n_tokens + 1, sizeof(int32_t));
        if (!*host[i])
            return no_memory(err);
    }
    return SETUN_OK;
}

int st_uses_state(const st_graph *g, st_node_id n)
{
    const st_node *node = &g->node[n];
    int uses = 0;
    for (uint32_t i = 0; i < node->op->n_in; i++)
        uses |= g->value[g->value[node->in[i]].root].kind == ST_STATE;
    for (uint32_t i = 0; i < node->op->n_out; i++)
        uses |= g->value[g->value[node->out[i]].root].kind == ST_STATE;
    return uses;
}

setun_status st_session_operand(const setun_session *s, const st_program *p, uint32_t backend, st_value_id v, int64_t row,
                                setun_operand *o, setun_error *err)
{
    const st_value *value = &p->graph->value[v], *root = &p->graph->value[value->root];
    int many = row >= 0 && value->view.rank && value->view.dim[0] < 0;
    o->shape = value->view;
    o->shape.data = NULL;
    o->offset = root->kind == ST_TEMP ? p->plan->place[value->root].offset : 0;
    o->buffer = root->kind == ST_TEMP ? s->temp[backend] : NULL;
    if (!o->buffer)
        o->buffer = s->buffer[backend][st_session_buffer(s, root->name) + (root->kind == ST_STATE && row > 0 ? row : 0)];
    if (!many)
        return SETUN_OK;
    o->shape.dim[0] = 1;
    int64_t bytes = setun_view_bytes(&o->shape);
    if (root->kind == ST_INPUT) {
        if (strcmp(root->name, "positions"))
            return st_fail(err, SETUN_UNKNOWN, "the input '%s' of an operator with a state: sequences cannot decode together", root->name);
        o->buffer = s->row_b[backend];
        bytes = ST_ROW;
    }
    if (bytes % ST_ROW)
        return st_fail(err, SETUN_UNKNOWN, "rows of %lld bytes at an operator with a state: sequences decode together only "
                       "where they are multiples of %d", (long long)bytes, ST_ROW);
    o->offset += row * bytes;
    return SETUN_OK;
}

static setun_status add_step(setun_session *s, int which, uint32_t planned, int64_t row, setun_error *err)
{
    const st_program *p = s->program[which];
    st_runner *r = &s->run[which];
    st_node_id n = p->plan->step[planned].node;
    const st_node *node = &p->graph->node[n];
    uint32_t b = p->plan->step[planned].backend, i = r->n_run_step;
    setun_step *step = &r->step[i];
    r->of[r->n_run_step++] = planned;
    /* The graphs for one token have the same nodes. */
    ST_TRY(st_step_make(row < 0 ? p : &s->m->program[which == ST_MANY ? ST_ONE : ST_TOP], n, s->arena, step, err));
    if (!s->m->backend[b]->backend_info.wants_code)
        step->code = NULL;
    for (uint32_t j = 0; j < step->n_in; j++)
        ST_TRY(st_session_operand(s, p, b, node->in[j], row, (setun_operand *)&step->in[j], err));
    for (uint32_t j = 0; j < step->n_out; j++) {
        const st_value *out = &p->graph->value[node->out[j]];
        if (row >= 0 && p->graph->value[out->root].kind == ST_TEMP && (!out->view.rank || out->view.dim[0] >= 0))
            return st_fail(err, SETUN_UNKNOWN, "%s makes one value of all rows and a state: sequences cannot decode together", step->label);
        ST_TRY(st_session_operand(s, p, b, node->out[j], row, (setun_operand *)&step->out[j], err));
    }
    int fetch = s->rows && reads_fetched(node);
    int64_t listed = fetch ? step->in[FETCH_ID].offset : 0;
    if (fetch) {
        setun_operand *o = (setun_operand *)&step->in[FETCH_ID];
        o->buffer = s->place_b[b];
        o->offset = 0;
    }
    if (r->n_seg && r->seg[r->n_seg - 1].backend == b && !fetch) {
        r->seg[r->n_seg - 1].n++;
        return SETUN_OK;
    }
    if (r->n_seg == ST_MAX_SEGMENTS)
        return st_fail(err, SETUN_UNKNOWN, "backend '%s' leaves too many operators to others; more than %d changes",
                       s->m->backend[0]->backend_info.name, ST_MAX_SEGMENTS);
    r->seg[r->n_seg++] = (st_segment){b, i, 1, NULL, fetch ? step : NULL, listed, {s, which, i}};
    return SETUN_OK;
}

static setun_status make_runner(setun_session *s, int which, setun_error *err)
{
    const st_program *p = s->program[which];
    const st_plan *plan = p->plan;
    st_runner *r = &s->run[which];
    int64_t most = 1;
    for (st_node_id n = 0; n < p->graph->n_node; n++)
        most += s->n_peer && st_uses_state(p->graph, n) ? s->n_peer : 1;
    r->step = st_arena_array(s->arena, most, sizeof *r->step);
    r->of = st_arena_array(s->arena, most, sizeof *r->of);
    if (!r->step || !r->of)
        return no_memory(err);
    for (uint32_t i = 0; i < plan->n_step; i++) {
        const st_kernel *kernel = p->kernel[plan->step[i].node];
        if (kernel && !kernel->writes)
            continue; /* its result is its input's memory, as it is */
        int peers = s->n_peer && st_uses_state(p->graph, plan->step[i].node);
        for (int64_t row = 0; row < (peers ? s->n_peer : 1); row++)
            ST_TRY(add_step(s, which, i, peers ? row : -1, err));
    }
    for (uint32_t i = 0; i < r->n_seg; i++) {
        st_segment *g = &r->seg[i];
        ST_TRY(api(s, g->backend)->program_new(s->context[g->backend], r->step + g->first, g->n, &g->program, err));
    }
    static const char *const results[2][3] = {{"logits", "embedding", NULL}, {"ids", "count", "values"}};
    for (int i = 0; i < 3 && results[which >= ST_TOP][i]; i++) {
        setun_operand o;
        if (which < ST_TOP && (i ? s->m->n_embedding == 0 : !s->m->has_logits))
            continue;
        ST_TRY(st_session_operand(s, p, 0, st_program_output(p, results[which >= ST_TOP][i]), -1, &o, err));
        if (o.buffer != s->temp[0])
            return st_fail(err, SETUN_BAD_SCRIPT, "%s: the output '%s' must be computed", s->m->script,
                           results[which >= ST_TOP][i]);
        r->at[i] = o.offset;
    }
    return SETUN_OK;
}

setun_status st_session_alloc(setun_session **out, const setun_model *m, int64_t n_tokens, int64_t n_outputs, setun_error *err)
{
    st_arena *arena = st_arena_new();
    setun_session *s = arena ? st_arena_alloc(arena, sizeof *s) : NULL;
    *out = s;
    if (!s) {
        st_arena_free(arena);
        return no_memory(err);
    }
    s->arena = arena;
    s->m = m;
    s->n_tokens = n_tokens;
    s->n_outputs = n_outputs;
    s->screen.n = m->n_vocab < 64 ? (int32_t)m->n_vocab : 64;
    return SETUN_OK;
}

setun_status st_session_build(setun_session *s, setun_error *err)
{
    const setun_model *m = s->m;
    for (uint32_t b = 0; b < m->n_backend; b++)
        ST_TRY(m->backend[b]->backend->context_new(m->backend[b]->self, m->engine->o.n_threads, &s->context[b], err));
    ST_TRY(make_buffers(s, err));
    for (int i = 0; i < ST_N_PROGRAM; i++)
        if (s->program[i])
            ST_TRY(make_runner(s, i, err));
    return SETUN_OK;
}

setun_status setun_session_new(setun_session **out, const setun_model *m, setun_error *err)
{
    setun_session *s;
    *out = NULL;
    ST_TRY(st_session_alloc(&s, m, m->n_batch, m->n_outputs, err));
    for (int i = 0; i < m->n_program; i++)
        s->program[i] = &m->program[i];
    setun_status status = st_session_build(s, err);
    if (status != SETUN_OK) {
        setun_session_free(s);
        return status;
    }
    *out = s;
    return SETUN_OK;
}

void setun_session_free(setun_session *s)
{
    if (!s)
        return;
    for (int i = 0; i < ST_N_PROGRAM; i++)
        for (uint32_t j = 0; j < s->run[i].n_seg; j++)
            if (s->run[i].seg[j].program)
                api(s, s->run[i].seg[j].backend)->program_free(s->run[i].seg[j].program);
    for (uint32_t b = s->m->n_backend; b-- > 0;) {
        if (!s->context[b])
            continue;
        for (uint32_t i = 0; s->buffer[b] && i <= s->n_buffer; i++)
            if (s->buffer[b][i])
                api(s, b)->buffer_free(s->buffer[b][i]);
        if (s->temp[b])
            api(s, b)->buffer_free(s->temp[b]);
        if (s->row_b[b])
            api(s, b)->buffer_free(s->row_b[b]);
        if (s->place_b[b])
            api(s, b)->buffer_free(s->place_b[b]);
        api(s, b)->context_free(s->context[b]);
    }
    st_space_free(s->rows, head_bytes(s->m));
    st_arena_free(s->arena);
}

int64_t setun_session_position(const setun_session *s) { return s->position; }

setun_status setun_session_rewind(setun_session *s, int64_t p, setun_error *err)
{
    if (p < 0 || p > s->position)
        return st_fail(err, SETUN_BAD_ARG, "cannot rewind to position %" PRId64 " of %" PRId64, p, s->position);
    s->position = p; /* later cache rows are never read before they are written again */
    return SETUN_OK;
}

#define COPY_BYTES 16384

static setun_status copy_part(setun_session *to, const setun_session *from, int64_t buffer, int64_t at, int64_t bytes,
                              setun_error *err)
{
    char part[COPY_BYTES];
    for (int64_t end = at + bytes; at < end; at += COPY_BYTES) {
        int64_t n = end - at < COPY_BYTES ? end - at : COPY_BYTES;
        ST_TRY(api(from, 0)->buffer_read(from->buffer[0][buffer], at, part, n, err));
        ST_TRY(api(to, 0)->buffer_write(to->buffer[0][buffer], at, part, n, err));
    }
    return SETUN_OK;
}

int st_is_cache(const st_graph *g, st_value_id state)
{
    int writers = 0, others = 0;
    for (st_node_id n = 0; n < g->n_node; n++)
        for (uint32_t o = 0; o < g->node[n].op->n_out; o++)
            if (g->value[g->node[n].out[o]].root == state) {
                writers++;
                others += strcmp(g->node[n].op->name, "kv_append") != 0;
            }
    return writers && !others && g->value[state].view.rank == 3;
}

/* Rows of a cache that no position has reached yet need not come along; any other state does whole. */
static setun_status copy_state(setun_session *to, const setun_session *from, const st_graph *g, st_value_id state,
                               setun_error *err)
{
    const setun_view *view = &g->value[state].view;
    int64_t at = st_session_buffer(to, g->value[state].name), all = setun_view_bytes(view);
    if (!st_is_cache(g, state))
        return copy_part(to, from, at, 0, all, err);
    int64_t head = all / view->dim[0], used = from->position * setun_row_bytes(view->dtype, view->dim[2]);
    for (int64_t h = 0; h < view->dim[0]; h++)
        ST_TRY(copy_part(to, from, at, h * head, used, err));
    return SETUN_OK;
}

setun_status setun_session_copy(setun_session *to, const setun_session *from, setun_error *err)
{
    const st_graph *g = from->program[ST_MANY]->graph;
    if (to->m != from->m)
        return st_fail(err, SETUN_BAD_ARG, "a session of another model cannot go on here");
    if (to == from)
        return SETUN_OK;
    to->position = 0;
    for (uint32_t v = 0; v < g->n_value; v++)
        if (g->value[v].kind == ST_STATE)
            ST_TRY(copy_state(to, from, g, v, err));
    to->position = from->position;
    to->screen = from->screen;
    memcpy(to->top_id, from->top_id, sizeof to->top_id);
    memcpy(to->top_logit, from->top_logit, sizeof to->top_logit);
    to->top = from->top;
    to->top.id = to->top_id;
    to->top.logit = to->top_logit;
    return SETUN_OK;
}

void setun_session_on_progress(setun_session *s, int (*fn)(void *, int64_t, int64_t), void *user)
{
    s->progress = fn;
    s->progress_user = user;
}

/* Bring in the rows whose ids a segment's operator lists for n_out tokens, one behind the other: rows that were read lately
 * are there already, memory that is used again costs no page faults, and the operator gets their places for ids. */
static setun_status fetch_rows(setun_session *s, const st_segment *g, int64_t n_out, setun_error *err)
{
    const int32_t *id = (const int32_t *)(void *)(s->temp_host + g->listed);
    const int32_t *count = (const int32_t *)(void *)(s->temp_host + g->fetch->in[FETCH_COUNT].offset);
    int32_t *place = api(s, 0)->buffer_map(s->place_b[0]);
    int64_t most = g->fetch->in[FETCH_ID].shape.dim[1], bytes = s->m->stats.head_row_bytes;
    for (int64_t t = 0; t < n_out; t++)
        for (int64_t j = 0; j < count[t]; j++) {
            int32_t r = id[t * most + j];
            if (!s->place[r]) {
                if (st_weights_row(s->m->weights, r, bytes, s->rows + s->n_fetched * bytes))
                    return st_fail(err, SETUN_IO, "%s: row %d of the head cannot be read any more", s->m->path, r);
                s->place[r] = ++s->n_fetched;
            }
            place[t * most + j] = s->place[r] - 1;
        }
    return SETUN_OK;
}

/* Between tokens rows make room for others; memory beyond what is kept for them is given back. */
static void let_go(setun_session *s)
{
    int64_t fetched = s->n_fetched * s->m->stats.head_row_bytes;
    if (s->mapped > MOST_MAPPED) {
        st_weights_let_go(s->m->weights, s->m->head_rows);
        s->mapped = 0;
    }
    if (fetched > MOST_FETCHED) {
        st_space_empty(s->rows + MOST_FETCHED, head_bytes(s->m) - MOST_FETCHED);
        memset(s->place, 0, (size_t)s->m->n_vocab * sizeof *s->place);
        s->n_fetched = 0;
    }
}

/* What the screened head looks for in each of n rows; the most that is wanted of one will do for all. */
static setun_status write_screens(setun_session *s, int64_t n, setun_error *err)
{
    int32_t most = 1;
    for (int64_t i = 0; i < n; i++) {
        const setun_screen *want = s->n_peer ? &s->peer[i]->screen : &s->screen;
        const uint32_t noise[4] = {want->key[0], want->key[1], setun_f32_bits(want->temp), setun_f32_bits(want->below)};
        most = want->n > most ? want->n : most;
        ST_TRY(api(s, 0)->buffer_write(s->noise_b, i * (int64_t)sizeof noise, noise, sizeof noise, err));
    }
    return api(s, 0)->buffer_write(s->n_top_b, 0, &most, sizeof most, err);
}

setun_status st_session_run(setun_session *s, int which, int64_t n, int64_t n_out, setun_error *err)
{
    st_runner *r = &s->run[which];
    const setun_backend_v1 *a = api(s, 0);
    ST_TRY(a->buffer_write(s->tokens_b, 0, s->tokens, 4 * n, err));
    ST_TRY(a->buffer_write(s->positions_b, 0, s->positions, 4 * n, err));
    for (int32_t i = 0; i < s->n_peer; i++)
        ST_TRY(a->buffer_write(s->row_b[0], i * ST_ROW, &s->positions[i], 4, err));
    if (n_out)
        ST_TRY(a->buffer_write(s->outputs_b, 0, s->outputs, 4 * n_out, err));
    if (which >= ST_TOP)
        ST_TRY(write_screens(s, n_out, err));
    const int64_t size[SETUN_N_SYMBOLS] = {n, n_out};
    if (s->note)
        st_note_begin(s, which);
    for (uint32_t i = 0; i < r->n_seg; i++) {
        const setun_backend_v1 *b = api(s, r->seg[i].backend);
        if (r->seg[i].fetch)
            ST_TRY(fetch_rows(s, &r->seg[i], n_out, err));
        ST_TRY(b->program_run(r->seg[i].program, size, SETUN_N_SYMBOLS, err));
        if (SETUN_HAS(setun_backend_v1, b, wait))
            ST_TRY(b->wait(s->context[r->seg[i].backend], err));
    }
    s->mapped += n * MAPPED_PER_ROW;
    if (s->note)
        st_note_end(s, which, n);
    return SETUN_OK;
}

setun_status st_session_chunk(setun_session *s, const int32_t *tokens, int64_t n, int64_t first, int64_t n_out, int which,
                              const float **logits, setun_error *err)
{
    for (int64_t i = 0; i < n; i++) {
        s->tokens[i] = tokens[i];
        s->positions[i] = (int32_t)(s->position + i);
    }
    for (int64_t i = 0; i < n_out; i++)
        s->outputs[i] = (int32_t)(first + i);
    ST_TRY(st_session_run(s, which, n, n_out, err));
    s->position += n;
    *logits = n_out && which < ST_TOP && s->m->has_logits ? (const float *)(void *)(s->temp_host + s->run[which].at[0]) : NULL;
    return SETUN_OK;
}

/* One chunk whose last n_out tokens give results. */
static setun_status run_chunk(setun_session *s, const int32_t *tokens, int64_t n, int64_t n_out, int which,
                              const float **logits, setun_error *err)
{
    return st_session_chunk(s, tokens, n, n - n_out, n_out, which, logits, err);
}

setun_status st_session_full(setun_session *s, int32_t token, const float **row, setun_error *err)
{
    return run_chunk(s, &token, 1, 1, ST_ONE, row, err);
}

int st_session_screened(setun_session *s, setun_session *from, int which, int64_t row)
{
    const st_program *p = from->program[which];
    const st_runner *r = &from->run[which];
    int64_t most = p->graph->value[st_program_output(p, "ids")].view.dim[1];
    const int32_t *id = (const int32_t *)(void *)(from->temp_host + r->at[0]) + row * most;
    int32_t count = ((const int32_t *)(void *)(from->temp_host + r->at[1]))[row];
    const float *value = (const float *)(void *)(from->temp_host + r->at[2]) + row * most;
    int32_t got = st_head_answer(&s->screen, value, id, count, s->top_logit, s->top_id);
    if (!got)
        return 0;
    s->top = (setun_top){(uint32_t)sizeof s->top, got, s->top_id, s->top_logit, count};
    from->mapped += from->rows ? 0 : (int64_t)count * MAPPED_PER_ROW;
    let_go(from); /* the results lie elsewhere */
    return 1;
}

void st_session_sorted(setun_session *s, const float *row)
{
    (void)st_head_best(row, NULL, s->m->n_vocab, s->screen.n, s->top_logit, s->top_id);
    s->top = (setun_top){(uint32_t)sizeof s->top, s->screen.n, s->top_id, s->top_logit, -1};
}

/* The last chunk of a feed that wants the largest logits.  Feeding it a second time, for the full row,
 * writes the same keys and values again. */
static setun_status run_top(setun_session *s, const int32_t *tokens, int64_t n, const float **logits, setun_error *err)
{
    int which = n == 1 ? ST_TOP : ST_MANY_TOP;
    if (s->program[which]) {
        ST_TRY(run_chunk(s, tokens, n, 1, which, logits, err));
        if (st_session_screened(s, s, which, 0))
            return SETUN_OK;
        s->position -= n;
        s->again = 1;
    }
    setun_status status = run_chunk(s, tokens, n, 1, n == 1 ? ST_ONE : ST_MANY, logits, err);
    s->again = 0;
    return status;
}

setun_status setun_session_set_screen(setun_session *s, const setun_screen *screen, setun_error *err)
{
    setun_screen all = {(uint32_t)sizeof all, 0, 0, 0, {0, 0}};
    memcpy(&all, screen, screen->size < sizeof all ? screen->size : sizeof all);
    if (all.n < 1 || all.n > SETUN_MAX_TOP || all.n > s->m->n_vocab)
        return st_fail(err, SETUN_BAD_ARG, "%d largest logits wanted; 1 to %d of %" PRId64 " are possible", all.n, SETUN_MAX_TOP,
                       s->m->n_vocab);
    if (!(all.temp >= 0.0f && all.temp < INFINITY && all.below <= 0.0f) || (all.n > 1 && (all.temp > 0.0f || all.below < 0.0f)) ||
        (all.temp > 0.0f && all.below < 0.0f))
        return st_fail(err, SETUN_BAD_ARG, "a screen has a temperature (0 or more, finite) or a distance (0 or less), with n = 1, or "
                       "none of both; not %g, %g and %d", (double)all.temp, (double)all.below, all.n);
    s->screen = all;
    return SETUN_OK;
}

setun_status setun_session_set_top(setun_session *s, int32_t n, setun_error *err)
{
    return setun_session_set_screen(s, &(setun_screen){(uint32_t)sizeof(setun_screen), n, 0, 0, {0, 0}}, err);
}

void setun_session_top(const setun_session *s, setun_top *top)
{
    uint32_t size = top->size;
    memcpy(top, &s->top, size < sizeof s->top ? size : sizeof s->top);
    top->size = size;
}

setun_status st_session_predicts(const setun_session *s, setun_error *err)
{
    return s->m->has_logits ? SETUN_OK
                            : st_fail(err, SETUN_BAD_ARG, "%s makes embeddings of texts (setun embed); it predicts no tokens", s->m->path);
}

setun_status st_session_check(const setun_session *s, const int32_t *tokens, int64_t n, setun_error *err)
{
    const setun_model *m = s->m;
    if (n < 1)
        return st_fail(err, SETUN_BAD_ARG, "no tokens to feed");
    if (n > m->n_ctx - s->position)
        return st_fail(err, SETUN_FULL, "no room for %" PRId64 " tokens: the context holds %" PRId64 " positions and %" PRId64
                       " are taken", n, m->n_ctx, s->position);
    for (int64_t i = 0; i < n; i++)
        if (tokens[i] < 0 || tokens[i] >= m->n_vocab)
            return st_fail(err, SETUN_BAD_ARG, "token %d is outside the vocabulary of %" PRId64, tokens[i], m->n_vocab);
    return SETUN_OK;
}

setun_status setun_session_feed(setun_session *s, const int32_t *tokens, int64_t n, int32_t want, const float **logits,
                                setun_error *err)
{
    const setun_model *m = s->m;
    int64_t start = s->position;
    ST_TRY(st_session_check(s, tokens, n, err));
    if (want < SETUN_LOGITS_NONE || want > SETUN_LOGITS_TOP)
        return st_fail(err, SETUN_BAD_ARG, "want is %d; 0 to 3 are known", want);
    if (want != SETUN_LOGITS_NONE)
        ST_TRY(st_session_predicts(s, err));
    if (want == SETUN_LOGITS_ALL && (n > m->n_outputs || n > m->n_batch))
        return st_fail(err, SETUN_BAD_ARG, "logits of %" PRId64 " tokens wanted at once; this model was loaded for %" PRId64,
                       n, m->n_outputs < m->n_batch ? m->n_outputs : m->n_batch);
    const float *row = NULL;
    if (logits)
        *logits = NULL;
    for (int64_t done = 0; done < n;) {
        int64_t chunk = n - done < m->n_batch ? n - done : m->n_batch;
        int last = done + chunk == n;
        int64_t n_out = want == SETUN_LOGITS_ALL ? chunk : (want == SETUN_LOGITS_LAST || want == SETUN_LOGITS_TOP) && last;
        if (s->progress && s->progress(s->progress_user, done, n)) {
            s->position = start;
            return st_fail(err, SETUN_CANCELLED, "cancelled");
        }
        /* The one-token programs always make one row of logits; without any the other one runs. */
        setun_status status = last && want == SETUN_LOGITS_TOP ? run_top(s, tokens + done, chunk, &row, err)
                            : run_chunk(s, tokens + done, chunk, n_out, chunk == 1 && n_out == 1 ? ST_ONE : ST_MANY, &row, err);
        if (status != SETUN_OK) {
            s->position = start;
            return status;
        }
        done += chunk;
    }
    if (want == SETUN_LOGITS_TOP && row)
        st_session_sorted(s, row);
    if (logits)
        *logits = row;
    return SETUN_OK;
}
