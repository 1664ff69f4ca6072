/* runtime/note.c -- what runs of a session did, noted down step by step: time, waiting, bytes, operations.
 *
 * Time is taken by the backend, with a barrier behind every step.  Work is counted by looking at a step
 * that has just run: its operator's own account (setun_op.counted where data decide, else cost) at the
 * sizes that it ran with.  Looking takes time, so when both are wanted one run of four is looked at and
 * the other three are timed.
 *
 *     a step's bytes = what it has from constants and the cache (counted as memory)
 *                    + its temporaries (which the step before has just written: mostly in caches)
 *
 * The second part is the sum of its temporaries' sizes, the first one the rest of the account. */
#include <string.h>

#include "base/error.h"
#include "runtime/session.h"

#define COUNT_EVERY 4

static const char *const class_names[SETUN_N_CLASS] = {"ternary", "head", "rows16", "other", "kv", "temporary", "code", "rest"};

const char *setun_class_name(int32_t c)
{
    return c >= 0 && c < SETUN_N_CLASS ? class_names[c] : NULL;
}

/* Whom a value's bytes belong to. */
int32_t st_class_of(const st_value *v)
{
    if (v->kind == ST_STATE)
        return SETUN_CLASS_KV;
    if (v->kind != ST_CONST)
        return SETUN_CLASS_TEMP;
    if (v->view.dtype == SETUN_T2 || (v->view.dtype == SETUN_U8 && strstr(v->name, ST_PACKED_NAME)))
        return SETUN_CLASS_TERNARY;
    if (v->view.dtype == SETUN_F16 || v->view.dtype == SETUN_BF16)
        return SETUN_CLASS_ROWS16;
    return strncmp(v->name, "head.", 5) == 0 ? SETUN_CLASS_HEAD : SETUN_CLASS_OTHER; /* names of runtime/head.c */
}

/* ---------------------------------------------------------------- counting */

static void count_work(const setun_session *s, int which, uint32_t i, const setun_args *a)
{
    const st_program *p = s->program[which];
    const st_runner *r = &s->run[which];
    st_node_id id = p->plan->step[r->of[i]].node;
    const st_node *node = &p->graph->node[id];
    st_tally *t = &r->tally[i];
    setun_counted c = {.size = sizeof c};
    const setun_view *view[2 * ST_MAX_PORTS];
    double temp = 0;
    int64_t most = 0;
    t->class_of = SETUN_CLASS_TEMP;
    if (SETUN_HAS(setun_op, a->op, counted)) {
        setun_args with = *a; /* the choices that its kernel was made with, which backends do not know */
        with.knob = p->kernel[id] ? p->kernel[id]->shape.knob : NULL;
        a->op->counted(&with, &c);
    } else if (SETUN_HAS(setun_op, a->op, cost)) {
        setun_cost whole = {0, 0, 0};
        a->op->cost(a, &whole);
        c.int_ops = whole.int_ops;
        c.float_ops = whole.float_ops;
        c.bytes = whole.bytes;
    }
    for (uint32_t j = 0; j < a->n_in + a->n_out; j++) {
        st_value_id v = j < a->n_in ? node->in[j] : node->out[j - a->n_in];
        const st_value *root = &p->graph->value[p->graph->value[v].root];
        view[j] = j < a->n_in ? &a->in[j] : &a->out[j - a->n_in];
        int64_t bytes = setun_view_bytes(view[j]);
        if (st_class_of(root) == SETUN_CLASS_TEMP) {
            temp += (double)bytes;
        } else if (bytes > most) { /* the largest one gives the step's class */
            most = bytes;
            t->class_of = st_class_of(root);
        }
    }
    /* Of a list only a part may have been used, so what was picked by it counts first. */
    if (t->class_of == SETUN_CLASS_TEMP)
        temp = c.bytes;
    else if (temp > c.bytes - c.rows * c.row_bytes)
        temp = c.bytes - c.rows * c.row_bytes;
    t->stored += c.bytes - temp;
    t->temp += temp;
    t->int_ops += c.int_ops;
    t->float_ops += c.float_ops;
    t->rows += c.rows;
    t->row_bytes += c.rows * c.row_bytes;
    if (p->kernel[id])
        t->units += (double)st_grid_units(&p->kernel[id]->code.grid, view);
}

static void observe(void *user, uint32_t step, const setun_args *a)
{
    const st_watch *w = user;
    uint32_t i = w->first + step;
    st_node_id node = w->s->program[w->which]->plan->step[w->s->run[w->which].of[i]].node;
    if (w->s->note & SETUN_NOTE_WORK)
        count_work(w->s, w->which, i, a);
    if (w->s->note & SETUN_NOTE_DENSITY)
        st_density_see(w->s, w->which, node, a);
    if (w->s->note & ST_NOTE_TRACE)
        st_trace_see(w->s, w->which, node, a);
}

/* ---------------------------------------------------------------- one run */

static int is_counting(const setun_session *s, const st_runner *r)
{
    return (s->note & (SETUN_NOTE_WORK | SETUN_NOTE_DENSITY | ST_NOTE_TRACE)) && (!(s->note & SETUN_NOTE_TIME) || r->n_run % COUNT_EVERY == 0);
}

/* What to tell each backend: to time, to show, or (neither) to do as always. */
static void tell(const setun_session *s, st_runner *r, int time, int show)
{
    for (uint32_t i = 0; i < r->n_seg; i++) {
        st_segment *g = &r->seg[i];
        const setun_backend_v1 *b = st_session_api(s, g->backend);
        if (SETUN_HAS(setun_backend_v1, b, program_times))
            b->program_times(g->program, time ? r->ns + g->first : NULL);
        if (SETUN_HAS(setun_backend_v1, b, program_waits))
            b->program_waits(g->program, time ? r->waits + g->first : NULL);
        if (SETUN_HAS(setun_backend_v1, b, program_observe))
            b->program_observe(g->program, show ? observe : NULL, &g->watch);
    }
}

void st_note_begin(setun_session *s, int which)
{
    st_runner *r = &s->run[which];
    int counting = is_counting(s, r);
    tell(s, r, !counting && (s->note & SETUN_NOTE_TIME), counting);
}

void st_note_end(setun_session *s, int which, int64_t n_token)
{
    st_runner *r = &s->run[which];
    int64_t rows = s->again ? 0 : n_token;
    if (is_counting(s, r)) {
        r->n_counted++;
        r->counted_rows += rows;
    } else {
        r->n_timed++;
        r->timed_rows += rows;
    }
    r->n_run++;
}

static setun_status can_note(const setun_session *s, uint32_t what, setun_error *err)
{
    if (what & ~(SETUN_NOTE_TIME | SETUN_NOTE_WORK | SETUN_NOTE_DENSITY))
        return st_fail(err, SETUN_BAD_ARG, "what to note is %u; the sum of 1, 2 and 4 is known", (unsigned)what);
    for (uint32_t i = 0; i < s->m->n_backend; i++) {
        const setun_backend_v1 *b = st_session_api(s, i);
        if ((what & SETUN_NOTE_TIME) && !SETUN_HAS(setun_backend_v1, b, program_times))
            return st_fail(err, SETUN_UNKNOWN, "backend '%s' does not time its steps", s->m->backend[i]->backend_info.name);
        if ((what & (SETUN_NOTE_WORK | SETUN_NOTE_DENSITY)) && !SETUN_HAS(setun_backend_v1, b, program_observe))
            return st_fail(err, SETUN_UNKNOWN, "backend '%s' does not show what its steps compute",
                           s->m->backend[i]->backend_info.name);
    }
    return SETUN_OK;
}

setun_status setun_session_note(setun_session *s, uint32_t what, setun_error *err)
{
    ST_TRY(can_note(s, what, err));
    s->note = 0;
    for (int i = 0; i < ST_N_PROGRAM; i++) {
        st_runner *r = &s->run[i];
        int64_t n = (int64_t)r->n_run_step + 1;
        tell(s, r, 0, 0);
        if (!what)
            continue; /* what was noted can still be read */
        if (!r->ns) {
            r->ns = st_arena_array(s->arena, n, sizeof *r->ns);
            r->waits = st_arena_array(s->arena, n, sizeof *r->waits);
            r->tally = st_arena_array(s->arena, n, sizeof *r->tally);
        }
        if (!r->ns || !r->waits || !r->tally)
            return st_fail(err, SETUN_NO_MEMORY, "no memory for notes");
        memset(r->ns, 0, (size_t)n * sizeof *r->ns);
        memset(r->waits, 0, (size_t)n * sizeof *r->waits);
        memset(r->tally, 0, (size_t)n * sizeof *r->tally);
        r->n_run = r->n_timed = r->n_counted = r->timed_rows = r->counted_rows = 0;
    }
    if (what & SETUN_NOTE_DENSITY)
        ST_TRY(st_density_start(s, err));
    s->note = what;
    return SETUN_OK;
}

void setun_session_work(const setun_session *s, int32_t decode, setun_work *out)
{
    setun_work w = {.size = out->size};
    for (int which = 0; which < ST_N_PROGRAM; which++) {
        const st_runner *r = &s->run[which];
        if ((which == ST_ONE || which == ST_TOP) != (decode != 0) || !r->tally)
            continue;
        w.n_token += r->counted_rows;
        for (uint32_t i = 0; i < r->n_run_step; i++) {
            w.bytes[r->tally[i].class_of] += r->tally[i].stored;
            w.bytes[SETUN_CLASS_TEMP] += r->tally[i].temp;
            w.ops[r->tally[i].class_of] += r->tally[i].int_ops + r->tally[i].float_ops;
            w.int_ops += r->tally[i].int_ops;
            w.float_ops += r->tally[i].float_ops;
        }
    }
    double n = w.n_token ? (double)w.n_token : 1;
    for (int c = 0; c < SETUN_N_CLASS; c++) {
        w.bytes[c] /= n;
        w.ops[c] /= n;
    }
    w.int_ops /= n;
    w.float_ops /= n;
    memcpy(out, &w, w.size < sizeof w ? w.size : sizeof w);
}
