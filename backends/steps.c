/* backends/steps.c -- copy, check and bind steps.  See steps.h.
 *
 * A step that does not match its operator's schema or that reaches outside its buffers is refused
 * when the program is made or bound, with its label; after that the inner loops need no checks. */
#include "backends/steps.h"

#include <string.h>

#include "base/error.h"
#include "base/str.h"

/* ---------------------------------------------------------------- init */

/* Bytes of a concrete view.  Sizes come from files, so every product is checked. */
static int view_bytes(const setun_view *v, int64_t *bytes)
{
    int64_t n = 1, last = v->rank ? v->dim[v->rank - 1] : 1, room;
    for (uint32_t i = 0; i + 1 < v->rank; i++)
        if (st_mul_i64(n, v->dim[i], &n))
            return -1;
    if (last < 0 || st_mul_i64(last, 8, &room) || st_add_i64(room, SETUN_T2_BLOCK, &room))
        return -1; /* 8 bytes is the widest element and a block fits the rest: so does the row */
    return st_mul_i64(n, setun_row_bytes(v->dtype, last), bytes);
}

static setun_status copy_operand(st_steps *s, st_bound *b, uint32_t at, const setun_operand *o,
                                 setun_error *err)
{
    setun_view *v = &b->view[at];
    uint32_t n_in = b->args.n_in;
    const char *io = at < n_in ? "input" : "output";
    unsigned number = at < n_in ? at : at - n_in;
    int64_t element = setun_align(o->shape.dtype);

    *v = o->shape;
    if (!o->buffer || o->offset < 0 || o->offset > o->buffer->bytes)
        return st_fail(err, SETUN_BAD_ARG, "%s %u has no buffer, or an offset outside it", io,
                       number);
    if (v->rank > SETUN_MAX_RANK || element == 0)
        return st_fail(err, SETUN_BAD_ARG,
                       "%s %u has rank %u and element type %u, which this backend does not know",
                       io, number, (unsigned)v->rank, (unsigned)v->dtype);
    for (uint32_t i = 1; i < v->rank; i++)
        if (v->dim[i] < 0)
            return st_fail(err, SETUN_BAD_SHAPE,
                           "%s %u has size %lld in dimension %u; only the first may be symbolic",
                           io, number, (long long)v->dim[i], (unsigned)i);
    v->data = o->buffer->data ? o->buffer->data + o->offset : NULL;
    if ((uintptr_t)v->data % (uintptr_t)element)
        return st_fail(err, SETUN_BAD_ARG, "%s %u is not aligned to its elements of %lld bytes", io,
                       number, (long long)element);
    b->dim0[at] = v->rank ? v->dim[0] : 1;
    b->room[at] = o->buffer->bytes - o->offset;
    if (b->dim0[at] < 0) {
        uint32_t symbol = (uint32_t)(-1 - b->dim0[at]);
        if (b->dim0[at] < -ST_MAX_SYMBOLS)
            return st_fail(err, SETUN_BAD_SHAPE, "%s %u has the unknown symbolic size %lld", io,
                           number, (long long)b->dim0[at]);
        if (symbol >= s->n_symbol)
            s->n_symbol = symbol + 1;
    }
    ((void **)b->launch.arg)[at] = v->data;
    return SETUN_OK;
}

static int is_slot(const st_bound *b, setun_slot at)
{
    uint32_t n = b->args.n_in + b->args.n_out;
    return at.arg >= 0 && (uint32_t)at.arg < n && at.dim >= 0 &&
           (uint32_t)at.dim < b->view[at.arg].rank;
}

static setun_status check_code(st_steps *s, const st_bound *b, const setun_code *c,
                               setun_error *err)
{
    if (c->size < sizeof *c || !c->fn || (c->n_slot && !c->slot))
        return st_fail(err, SETUN_BAD_ARG, "its kernel's description is incomplete");
    if (c->launch_abi != SETUN_LAUNCH_ABI)
        return st_fail(err, SETUN_UNKNOWN,
                       "its kernel was made for launch ABI %u, this backend calls ABI %u",
                       (unsigned)c->launch_abi, SETUN_LAUNCH_ABI);
    for (uint32_t i = 0; i < c->n_slot; i++)
        if (!is_slot(b, c->slot[i]))
            return st_fail(err, SETUN_BAD_ARG, "its kernel asks for dimension %d of argument %d",
                           (int)c->slot[i].dim, (int)c->slot[i].arg);
    for (int i = 0; i < 2; i++)
        if (c->grid.at[i].arg >= 0 && (!is_slot(b, c->grid.at[i]) || c->grid.granule[i] < 1))
            return st_fail(
                err, SETUN_BAD_ARG, "its kernel's grid has dimension %d of argument %d by %lld",
                (int)c->grid.at[i].dim, (int)c->grid.at[i].arg, (long long)c->grid.granule[i]);
    if (c->scratch_bytes < 0 || c->scratch_bytes > (int64_t)1 << 36)
        return st_fail(err, SETUN_BAD_ARG, "its kernel wants %lld bytes of scratch",
                       (long long)c->scratch_bytes);
    if (c->scratch_bytes > s->scratch_bytes)
        s->scratch_bytes = c->scratch_bytes;
    return SETUN_OK;
}

static setun_status copy_step(st_steps *s, st_bound *b, const setun_step *step, int with_code,
                              setun_error *err)
{
    const setun_op *op = step->op;
    uint32_t n = step->n_in + step->n_out;

    b->label = step->label ? step->label : op && op->name ? op->name : "a step without a name";
    if (!op || step->n_in != op->n_in || step->n_out != op->n_out || step->n_attr != op->n_attr)
        return st_fail(err, SETUN_BAD_ARG,
                       "%u inputs, %u outputs and %u attributes do not match the operator",
                       (unsigned)step->n_in, (unsigned)step->n_out, (unsigned)step->n_attr);
    setun_value *attr = st_arena_array(s->arena, step->n_attr, sizeof *attr);
    void **arg = st_arena_array(s->arena, n, sizeof *arg);
    b->view = st_arena_array(s->arena, n, sizeof *b->view);
    b->dim0 = st_arena_array(s->arena, 3 * (int64_t)n, sizeof *b->dim0);
    if (!attr || !arg || !b->view || !b->dim0)
        return st_fail(err, SETUN_NO_MEMORY, "no memory for a step");
    b->room = b->dim0 + n;
    b->bytes = b->room + n;
    if (step->n_attr)
        memcpy(attr, step->attr, step->n_attr * sizeof *attr);
    b->args.size = sizeof b->args;
    b->args.n_in = step->n_in;
    b->args.n_out = step->n_out;
    b->args.n_attr = step->n_attr;
    b->args.op = op;
    b->args.in = b->view;
    b->args.out = b->view + step->n_in;
    b->args.attr = attr;
    b->launch.arg = arg;
    for (uint32_t i = 0; i < n; i++)
        ST_TRY(
            copy_operand(s, b, i, i < step->n_in ? &step->in[i] : &step->out[i - step->n_in], err));
    if (with_code && step->code) {
        ST_TRY(check_code(s, b, step->code, err));
        b->code = step->code;
        b->launch.self = step->code->self;
        b->slot = st_arena_array(s->arena, step->code->n_slot, sizeof *b->slot);
        b->launch.dim = b->slot;
        if (!b->slot)
            return st_fail(err, SETUN_NO_MEMORY, "no memory for a step");
    } else if (!SETUN_HAS(setun_op, op, eval)) {
        return st_fail(err, SETUN_BAD_ARG, "there is neither a kernel nor an eval");
    }
    return SETUN_OK;
}

setun_status st_steps_init(st_steps *s, const setun_step *step, uint32_t n, int with_code,
                           setun_error *err)
{
    memset(s, 0, sizeof *s);
    s->arena = st_arena_new();
    s->step = s->arena ? st_arena_array(s->arena, n, sizeof *s->step) : NULL;
    s->n = n;
    setun_status status = SETUN_OK;
    if (!s->step)
        status = st_fail(err, SETUN_NO_MEMORY, "no memory for a program of %u steps", (unsigned)n);
    /* A newer host has longer steps: the distance from one to the next is what the first one says.
     */
    uint32_t stride = n ? step->size : 0;
    for (uint32_t i = 0; i < n && status == SETUN_OK; i++) {
        const setun_step *from =
            (const setun_step *)(const void *)((const char *)step + (size_t)i * stride);
        if (stride < sizeof *step || stride % _Alignof(setun_step) || from->size != stride) {
            status = st_fail(err, SETUN_BAD_ARG,
                             "step %u says it has %u bytes; the first says %u and %u are known",
                             (unsigned)i, stride < sizeof *step ? stride : from->size, stride,
                             (unsigned)sizeof *step);
            break;
        }
        status = copy_step(s, &s->step[i], from, with_code, err);
        if (status != SETUN_OK)
            st_wrap(err, "%s", s->step[i].label);
    }
    if (status != SETUN_OK)
        st_steps_fini(s);
    return status;
}

void st_steps_fini(st_steps *s)
{
    st_arena_free(s->arena);
    memset(s, 0, sizeof *s);
}

/* ---------------------------------------------------------------- bind */

/* Units of a grid: the product over its two factors of ceil(size / granule). */
static int grid_units(const st_bound *b, int64_t *units)
{
    *units = 1;
    for (int i = 0; i < 2; i++) {
        const setun_grid *g = &b->code->grid;
        if (g->at[i].arg < 0)
            continue;
        int64_t size = b->view[g->at[i].arg].dim[g->at[i].dim];
        if (st_mul_i64(*units, size / g->granule[i] + (size % g->granule[i] != 0), units))
            return -1;
    }
    return 0;
}

static setun_status bind_step(st_bound *b, const int64_t *size, setun_error *err)
{
    uint32_t n = b->args.n_in + b->args.n_out;
    for (uint32_t i = 0; i < n; i++) {
        setun_view *v = &b->view[i];
        if (b->dim0[i] < 0)
            v->dim[0] = size[-1 - b->dim0[i]];
        if (view_bytes(v, &b->bytes[i]) || b->bytes[i] > b->room[i])
            return st_fail(
                err, SETUN_BAD_ARG,
                "%s: %s %u with %lld rows does not fit into the %lld bytes of its buffer", b->label,
                i < b->args.n_in ? "input" : "output", i < b->args.n_in ? i : i - b->args.n_in,
                (long long)(v->rank ? v->dim[0] : 1), (long long)b->room[i]);
    }
    if (b->code) {
        for (uint32_t i = 0; i < b->code->n_slot; i++)
            b->slot[i] = b->view[b->code->slot[i].arg].dim[b->code->slot[i].dim];
        if (grid_units(b, &b->units))
            return st_fail(err, SETUN_BAD_ARG, "%s: its kernel's grid is too large", b->label);
    }
    return SETUN_OK;
}

static int overlap(const st_bound *a, uint32_t i, const st_bound *b, uint32_t j)
{
    uintptr_t p = (uintptr_t)a->view[i].data, q = (uintptr_t)b->view[j].data;
    return a->bytes[i] && b->bytes[j] && p < q + (uintptr_t)b->bytes[j] &&
           q < p + (uintptr_t)a->bytes[i];
}

/* Does the later step read what the earlier one writes, or write what it reads or writes? */
static int depends(const st_bound *later, const st_bound *earlier)
{
    uint32_t n_l = later->args.n_in + later->args.n_out,
             n_e = earlier->args.n_in + earlier->args.n_out;
    for (uint32_t i = 0; i < n_l; i++)
        for (uint32_t j = i < later->args.n_in ? earlier->args.n_in : 0; j < n_e; j++)
            if (overlap(later, i, earlier, j))
                return 1;
    return 0;
}

/* Neighbours that touch different memory (query, key and value; gate and up) need no barrier
 * between them.  Steps since the last barrier form a group; a step that depends on any of them
 * starts a new one. */
static void find_order(st_steps *s)
{
    uint32_t group = 0;
    for (uint32_t i = 0; i < s->n; i++) {
        s->step[i].ordered = 0;
        for (uint32_t j = group; j < i && !s->step[i].ordered; j++)
            s->step[i].ordered = depends(&s->step[i], &s->step[j]);
        if (s->step[i].ordered)
            group = i;
        s->step[i].turn = (int32_t)(i - group);
    }
}

setun_status st_steps_bind(st_steps *s, const int64_t *size, uint32_t n_size, setun_error *err)
{
    if (s->n_symbol > n_size)
        return st_fail(err, SETUN_BAD_ARG, "the program has %u symbolic sizes, %u were given",
                       (unsigned)s->n_symbol, (unsigned)n_size);
    if (s->is_bound && (!s->n_symbol || !memcmp(s->size, size, s->n_symbol * sizeof *size)))
        return SETUN_OK;
    s->is_bound = 0;
    for (uint32_t i = 0; i < s->n_symbol; i++) {
        if (size[i] < 0)
            return st_fail(err, SETUN_BAD_ARG, "symbolic size %u is %lld", (unsigned)i,
                           (long long)size[i]);
        s->size[i] = size[i];
    }
    for (uint32_t i = 0; i < s->n; i++)
        ST_TRY(bind_step(&s->step[i], s->size, err));
    find_order(s);
    s->is_bound = 1;
    return SETUN_OK;
}

/* ---------------------------------------------------------------- eval, cost */

setun_status st_steps_eval(const st_bound *b, setun_error *err)
{
    setun_error e = { 0, "" };
    setun_status s = b->args.op->eval(&b->args, &e);
    if (s == SETUN_OK)
        return SETUN_OK;
    if (s > 0) /* eval has no one to decline to */
        s = SETUN_FAILED;
    e.text[sizeof e.text - 1] = 0;
    return st_fail(err, s, "%s: %s", b->label,
                   e.text[0] ? e.text : "its eval failed and did not say why");
}

#define INT_RATE 2e10   /* multiply-adds a second on one core, ternary ones counted dense */
#define FLOAT_RATE 4e9
#define BYTE_RATE 1e10
#define MOST_OPERANDS 32

setun_status st_steps_cost(const setun_step *step, double *seconds)
{
    setun_view view[MOST_OPERANDS];
    setun_cost cost = { 0, 0, 0 };
    const setun_op *op = step->op;
    uint32_t n = step->n_in + step->n_out;

    if (!op || !SETUN_HAS(setun_op, op, eval) || n > MOST_OPERANDS)
        return SETUN_DECLINED;
    for (uint32_t i = 0; i < n; i++) {
        view[i] = i < step->n_in ? step->in[i].shape : step->out[i - step->n_in].shape;
        view[i].data = NULL;
        if (view[i].rank > SETUN_MAX_RANK || !setun_row_bytes(view[i].dtype, 1))
            return SETUN_DECLINED; /* made by a newer host */
        if (view[i].rank && view[i].dim[0] < 0)
            view[i].dim[0] = 1;
        cost.bytes += (double)setun_view_bytes(&view[i]);
    }
    cost.float_ops = cost.bytes;
    if (SETUN_HAS(setun_op, op, cost)) {
        setun_args a = { sizeof a, step->n_in, step->n_out,       step->n_attr,
                         op,       view,       view + step->n_in, step->attr, NULL };
        memset(&cost, 0, sizeof cost);
        op->cost(&a, &cost);
    }
    double work = cost.int_ops / INT_RATE + cost.float_ops / FLOAT_RATE,
           traffic = cost.bytes / BYTE_RATE;
    *seconds = work > traffic ? work : traffic;
    return SETUN_OK;
}
