/* codegen/kir_eval.c -- the kernel interpreter: what the words mean, executed.
 *
 * It is the judge of the compiler and the way to run without one, not a fast path: no code is
 * made. st_kir_prepare translates a verified kernel once, into steps that know where their
 * operands lie in a frame; running then is a loop over steps.  Lanewise work is in kir_lanes.c;
 * memory, variables and control flow are here.
 *
 *   frame:   | slots of values, reused when a value is dead | locals, each aligned to 64 | tiles |
 *
 * A pointer comes straight from arg, local or scratch, never from arithmetic, so it is a base
 * and a length in the frame, and every access is checked against that length.  In st_kir_run the
 * lengths of arguments are not known and count as endless. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "codegen/kir_lanes.h"

typedef struct pointer {
    uint8_t *base;
    int64_t  bytes;
} pointer;

struct st_kir_code {
    st_step *step;        /* as many as instructions; [0] unused */
    int64_t  tiles_at;    /* offset of the tiles in the frame; 0: the kernel has none */
    int64_t  frame_bytes; /* values, locals, tiles, and 64 so that it is never 0 */
};

#define I64 K_TYPE(K_I64, 1)

#define TILE_ROWS 16
#define TILE_ROW 64 /* bytes */
#define TILES_BYTES (8 * TILE_ROWS * TILE_ROW)

/* ---------------------------------------------------------------- translation */

/* Slots of 16 << class bytes.  A value of 256 lanes of 64 bits needs 2048. */
#define N_CLASS 8

typedef struct layout {
    const st_kir *k;
    uint32_t *last;  /* [v]: the instruction after which the value is dead */
    uint32_t *next;  /* [v]: list of values that die at one instruction */
    uint32_t *dying; /* [i]: head of that list */
    uint32_t *slot;  /* [v]: offset in the frame */
    uint32_t  free_head[N_CLASS]; /* slots to reuse, linked through the value that left them */
    int64_t   top;
} layout;

static uint32_t slot_class(const st_inst *in)
{
    uint32_t bytes = K_IS_PTR(in->type) ? (uint32_t)sizeof(pointer)
                                        : K_LANES(in->type) * st_lane_bytes(in->type);
    uint32_t c = 0;
    while ((16u << c) < bytes)
        c++;
    return c;
}

/* The last instruction at which each value is needed.  A use inside a block that the value is older
 * than counts as a use at the block's end: a loop comes back to it. */
static void find_last(layout *l)
{
    const st_kir *k = l->k;
    uint32_t stack[ST_MAX_NESTING + 1], depth = 0;
    stack[0] = 0;
    uint32_t *depth_of = l->dying; /* borrowed until the lists are made */
    for (uint32_t i = 1; i < k->n_inst; i++) {
        const st_inst *in = &k->inst[i];
        k_val v[3] = { in->a, in->b, in->c };
        l->last[i] = in->op == K_for ? in->match : i;
        for (uint32_t o = 0; o < st_kir_op_operands(in->op); o++) {
            uint32_t use = i, at = depth_of[v[o]];
            if (at < depth)
                use = k->inst[stack[at + 1]].match;
            else if (in->op == K_for)
                use = in->match; /* the bound is read again at each stop */
            if (use > l->last[v[o]])
                l->last[v[o]] = use;
        }
        if (in->op == K_for || in->op == K_if)
            stack[++depth] = i;
        else if (in->op == K_else)
            stack[depth] = i;
        else if (in->op == K_stop)
            depth--;
        depth_of[i] = depth;
    }
}

static void place(layout *l)
{
    const st_kir *k = l->k;
    memset(l->dying, 0, k->n_inst * sizeof *l->dying);
    for (uint32_t i = 1; i < k->n_inst; i++)
        if (k->inst[i].type) {
            l->next[i] = l->dying[l->last[i]];
            l->dying[l->last[i]] = i;
        }
    for (uint32_t i = 1; i < k->n_inst; i++) {
        /* The result is placed before the operands are released, so it never lies on one. */
        if (k->inst[i].type) {
            uint32_t c = slot_class(&k->inst[i]), from = l->free_head[c];
            if (from) {
                l->free_head[c] = l->next[from];
                l->slot[i] = l->slot[from];
            } else {
                l->slot[i] = (uint32_t)l->top;
                l->top += (int64_t)16 << c;
            }
        }
        for (uint32_t v = l->dying[i], after; v; v = after) {
            uint32_t c = slot_class(&k->inst[v]);
            after = l->next[v];
            l->next[v] = l->free_head[c];
            l->free_head[c] = v;
        }
    }
}

/* Are elements that pointer p reaches in another byte order than the host's? */
static uint32_t is_turned(const st_kir *k, k_val p)
{
    return __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ && k->inst[p].op == K_arg && st_kir_arg_is_bytes(k, k->inst[p].imm);
}

static void translate(const layout *l, st_step *step, int64_t local_at)
{
    const st_kir *k = l->k;
    uint32_t open[ST_MAX_NESTING + 1], depth = 0;
    for (uint32_t i = 1; i < k->n_inst; i++) {
        const st_inst *in = &k->inst[i];
        st_step *s = &step[i];
        k_type ta = k->inst[in->a].type;
        s->op = in->op;
        s->d = in->type ? l->slot[i] : 0;
        s->a = l->slot[in->a];
        s->b = l->slot[in->b];
        s->c = l->slot[in->c];
        s->n = K_LANES(in->type);
        s->na = K_LANES(ta);
        s->bytes = st_lane_bytes(K_ELEM(in->type));
        s->imm = in->imm;
        s->fn = st_lanes_find(in->op, in->type, ta);
        switch (in->op) {
        case K_rsum: case K_rmax:
            s->n = s->na;
            break;
        case K_splat: case K_const: case K_iota: case K_get: case K_var: case K_cast: case K_opaque:
            break;
        case K_extract: case K_slice: case K_concat:
            break;
        case K_shuffle:
            s->mask = k->mask + in->imm;
            break;
        case K_load: case K_gather:
            s->target = is_turned(k, in->a);
            break;
        case K_store:
            s->n = K_LANES(k->inst[in->c].type);
            s->bytes = st_lane_bytes(K_ELEM(k->inst[in->c].type));
            s->target = is_turned(k, in->a);
            break;
        case K_set: /* a copy into the variable's slot */
            s->n = K_LANES(ta);
            s->bytes = st_lane_bytes(ta);
            s->d = s->a;
            s->a = s->b;
            s->fn = st_lanes_find(K_cast, ta, ta);
            break;
        case K_local:
            s->imm = local_at;
            s->target = (uint32_t)in->imm * s->bytes;
            local_at += (s->target + 63) / 64 * 64;
            break;
        case K_tile_load: case K_tile_store:
            s->bytes = st_lane_bytes(K_ELEM(ta));
            s->n = TILE_ROW / s->bytes;
            break;
        case K_for:
            open[depth++] = i;
            s->target = in->match + 1;
            break;
        case K_if: /* to the start of the other branch, or past the end */
            open[depth++] = i;
            s->target = in->match + 1;
            break;
        case K_else: /* reached at the end of the first branch */
            open[depth - 1] = i;
            s->target = in->match + 1;
            break;
        case K_stop:
            depth--;
            if (k->inst[open[depth]].op == K_for)
                s->target = open[depth];
            break;
        default:
            break;
        }
    }
}

setun_status st_kir_prepare(st_kir *k, setun_error *err)
{
    layout l;
    memset(&l, 0, sizeof l);
    l.k = k;
    k->code = NULL;
    uint32_t *space = calloc((size_t)k->n_inst * 4, sizeof *space);
    struct st_kir_code *code = st_arena_alloc(k->arena, (int64_t)sizeof *code);
    st_step *step = st_arena_array(k->arena, k->n_inst, (int64_t)sizeof *step);
    if (!space || !code || !step) {
        free(space);
        return st_fail(err, SETUN_NO_MEMORY, "kernel %s: no memory to prepare it", k->name);
    }
    l.last = space;
    l.next = space + k->n_inst;
    l.dying = space + 2 * (size_t)k->n_inst;
    l.slot = space + 3 * (size_t)k->n_inst;
    find_last(&l);
    place(&l);
    int64_t values = (l.top + 63) / 64 * 64;
    setun_status status = SETUN_OK;
    if (values > ST_MAX_FRAME) {
        status = st_fail(err, SETUN_FULL,
                         "kernel %s: its values take %lld bytes at once; the interpreter has %lld",
                         k->name, (long long)values, (long long)ST_MAX_FRAME);
    } else {
        translate(&l, step, values);
        code->step = step;
        code->frame_bytes = values + k->local_bytes + 64;
        for (uint32_t i = 1; i < k->n_inst && !code->tiles_at; i++)
            if (k->inst[i].op >= K_tile_zero) {
                code->tiles_at = values + k->local_bytes;
                code->frame_bytes += TILES_BYTES;
            }
        k->code = code;
    }
    free(space);
    return status;
}

/* ---------------------------------------------------------------- running */

typedef struct machine {
    const st_kir *k;
    const setun_launch *l;
    const setun_tile *t;
    const int64_t *bytes; /* of each argument; NULL: endless */
    uint8_t *frame;
    uint8_t *scratch;
    int64_t max_steps;
    uint32_t at;          /* where it stopped */
    int64_t index;        /* of the access that failed, in elements */
} machine;

#define FAULT_NONE    0
#define FAULT_RANGE   1
#define FAULT_ALIGN   2
#define FAULT_DIVISOR 3
#define FAULT_STEPS   4
#define FAULT_INDEX   5 /* a loop's index passes the largest i64 */

static int64_t *i64_at(uint8_t *f, uint32_t offset) { return (int64_t *)(void *)(f + offset); }
static pointer *pointer_at(uint8_t *f, uint32_t offset) { return (pointer *)(void *)(f + offset); }

/* Elements [index, index + n) of p, or NULL. */
static uint8_t *reach(machine *m, const pointer *p, int64_t index, uint32_t n, uint32_t bytes)
{
    int64_t room = p->bytes / bytes - (int64_t)n;
    if (index < 0 || index > room) {
        m->index = index;
        return NULL;
    }
    return p->base + index * (int64_t)bytes;
}

static int make_pointer(machine *m, const st_step *s)
{
    pointer p;
    if (s->op == K_arg) {
        p.base = m->l->arg[s->imm];
        p.bytes = m->bytes ? m->bytes[s->imm] : INT64_MAX;
        if (m->bytes && (uintptr_t)p.base % s->bytes)
            return FAULT_ALIGN;
    } else if (s->op == K_local) {
        p.base = m->frame + s->imm;
        p.bytes = s->target;
    } else {
        p.base = m->scratch ? m->scratch + s->imm : NULL;
        p.bytes = m->scratch ? m->k->scratch_bytes - s->imm : 0;
    }
    *pointer_at(m->frame, s->d) = p;
    return FAULT_NONE;
}

/* Where the low bytes of a u64 begin that an element of so many bytes fills. */
static uint8_t *low_bytes(uint64_t *x, uint32_t bytes)
{
    int big_endian = __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__;
    return (uint8_t *)x + (big_endian ? sizeof *x - bytes : 0);
}

static int divide(uint8_t *f, const st_step *s)
{
    uint64_t a = 0, b = 0; /* zero extended */
    memcpy(low_bytes(&a, s->bytes), f + s->a, s->bytes);
    memcpy(low_bytes(&b, s->bytes), f + s->b, s->bytes);
    if (b == 0)
        return FAULT_DIVISOR;
    uint64_t r = s->op == K_udiv ? a / b : a % b;
    memcpy(f + s->d, low_bytes(&r, s->bytes), s->bytes);
    return FAULT_NONE;
}

/* Copy n elements, each with its bytes in the other order if `turned`. */
static void move(uint8_t *to, const uint8_t *from, uint32_t n, uint32_t bytes, uint32_t turned)
{
    size_t all = (size_t)n * bytes;
    if (!turned)
        memcpy(to, from, all);
    for (size_t i = 0; turned && i < all; i++)
        to[i] = from[i - i % bytes + bytes - 1 - i % bytes];
}

static int gather(machine *m, const st_step *s)
{
    uint8_t *f = m->frame;
    const pointer *p = pointer_at(f, s->a);
    const int32_t *index = (const int32_t *)(void *)(f + s->b);
    for (uint32_t i = 0; i < s->n; i++) {
        const uint8_t *from = reach(m, p, index[i], 1, s->bytes);
        if (!from)
            return FAULT_RANGE;
        move(f + s->d + (size_t)i * s->bytes, from, 1, s->bytes, s->target);
    }
    return FAULT_NONE;
}

static int32_t *tile_i32(uint8_t *tile) { return (int32_t *)(void *)tile; }

static void tile_dot(uint8_t *tile, int64_t imm)
{
    int32_t *c = tile_i32(tile + (imm & 7) * TILE_ROWS * TILE_ROW);
    const int8_t *a = (const int8_t *)tile + (imm >> 3 & 7) * TILE_ROWS * TILE_ROW;
    const uint8_t *b = tile + (imm >> 6 & 7) * TILE_ROWS * TILE_ROW;
    int flip = imm >> 9 ? 0x80 : 0; /* (b ^ 128) - 128 is the signed byte */
    for (int m = 0; m < 16; m++)
        for (int n = 0; n < 16; n++) {
            uint32_t sum = (uint32_t)c[16 * m + n];
            for (int i = 0; i < TILE_ROW; i++)
                sum += (uint32_t)(a[TILE_ROW * m + i] * ((b[i / 4 * TILE_ROW + 4 * n + i % 4] ^ flip) - flip));
            c[16 * m + n] = (int32_t)sum;
        }
}

/* Tiles are moved row by row, each row checked. */
static int tile_move(machine *m, const st_step *s, uint8_t *tile)
{
    tile += (s->imm & 7) * TILE_ROWS * TILE_ROW;
    for (int64_t r = 0, index = *i64_at(m->frame, s->b); r < TILE_ROWS; r++, index += s->imm >> 3) {
        uint8_t *at = reach(m, pointer_at(m->frame, s->a), index, s->n, s->bytes);
        if (!at)
            return FAULT_RANGE;
        if (s->op == K_tile_load)
            memcpy(tile + r * TILE_ROW, at, TILE_ROW);
        else
            memcpy(at, tile + r * TILE_ROW, TILE_ROW);
    }
    return FAULT_NONE;
}

/* Returns a FAULT_ code; m->at tells where. */
static int run(machine *m)
{
    uint8_t *f = m->frame;
    const st_step *step = m->k->code->step;
    uint32_t n = m->k->n_inst, pc = 1, i = 1;
    int64_t steps = 0;
    int fault = FAULT_NONE;
    while (pc < n && fault == FAULT_NONE) {
        const st_step *s = &step[i = pc++];
        if (s->fn) {
            s->fn(f, s);
            continue;
        }
        switch (s->op) {
        case K_arg: case K_local: case K_scratch:
            fault = make_pointer(m, s);
            break;
        case K_dim:
            *i64_at(f, s->d) = m->l->dim[s->imm];
            break;
        case K_begin:
            *i64_at(f, s->d) = m->t->begin;
            break;
        case K_end:
            *i64_at(f, s->d) = m->t->end;
            break;
        case K_load: {
            const uint8_t *from = reach(m, pointer_at(f, s->a), *i64_at(f, s->b), s->n, s->bytes);
            if (from)
                move(f + s->d, from, s->n, s->bytes, s->target);
            else
                fault = FAULT_RANGE;
            break;
        }
        case K_store: {
            uint8_t *to = reach(m, pointer_at(f, s->a), *i64_at(f, s->b), s->n, s->bytes);
            if (to)
                move(to, f + s->c, s->n, s->bytes, s->target);
            else
                fault = FAULT_RANGE;
            break;
        }
        case K_gather:
            fault = gather(m, s);
            break;
        case K_udiv: case K_urem:
            fault = divide(f, s);
            break;
        case K_for:
            *i64_at(f, s->d) = *i64_at(f, s->a);
            if (*i64_at(f, s->a) >= *i64_at(f, s->b))
                pc = s->target;
            break;
        case K_if:
            if (!f[s->a])
                pc = s->target;
            break;
        case K_else:
            pc = s->target;
            break;
        case K_stop: {
            if (!s->target)
                break;
            const st_step *loop = &step[s->target];
            int64_t next;
            steps += i - s->target;
            if (__builtin_add_overflow(*i64_at(f, loop->d), loop->imm, &next))
                fault = FAULT_INDEX;
            else if (next < *i64_at(f, loop->b)) {
                *i64_at(f, loop->d) = next;
                pc = s->target + 1;
                if (m->max_steps && steps > m->max_steps)
                    fault = FAULT_STEPS;
            }
            break;
        }
        case K_tile_zero:
            memset(f + m->k->code->tiles_at + s->imm * TILE_ROWS * TILE_ROW, 0, TILE_ROWS * TILE_ROW);
            break;
        case K_tile_load: case K_tile_store:
            fault = tile_move(m, s, f + m->k->code->tiles_at);
            break;
        case K_tile_dot:
            tile_dot(f + m->k->code->tiles_at, s->imm);
            break;
        default: /* prefetch: nothing to see */
            break;
        }
    }
    m->at = i;
    return fault;
}

int64_t st_kir_run_scratch(const st_kir *k)
{
    return (k->scratch_bytes + 63) / 64 * 64 + (k->code ? k->code->frame_bytes : 0);
}

void st_kir_run(const setun_launch *launch, const setun_tile *tile)
{
    const st_kir *k = launch->self;
    uint8_t *frame = (uint8_t *)tile->scratch + (k->scratch_bytes + 63) / 64 * 64;
    machine m = { k, launch, tile, NULL, frame, tile->scratch, 0, 0, 0 };
    /* The launch ABI has no way to say what went wrong, and compiled code would have crashed too;
     * going on would be silently wrong. */
    if (run(&m) != FAULT_NONE)
        __builtin_trap();
}

/* "argument 2" and its size, for messages. */
static setun_status describe(const machine *m, int fault, setun_error *err)
{
    const st_kir *k = m->k;
    const st_inst *in = &k->inst[m->at];
    const char *op = st_kir_op_name(in->op);
    if (fault == FAULT_DIVISOR)
        return st_fail(err, SETUN_FAILED, "kernel %s: instruction %u, %s: division by zero",
                       k->name, m->at, op);
    if (fault == FAULT_STEPS)
        return st_fail(err, SETUN_FAILED,
                       "kernel %s: instruction %u, %s: stopped after %lld steps; does the loop "
                       "end?",
                       k->name, m->at, op, (long long)m->max_steps);
    if (fault == FAULT_INDEX)
        return st_fail(err, SETUN_FAILED,
                       "kernel %s: instruction %u, %s: the loop's index overflows", k->name, m->at,
                       op);
    if (fault == FAULT_ALIGN)
        return st_fail(err, SETUN_FAILED,
                       "kernel %s: instruction %u, %s: argument %lld is not aligned to its "
                       "elements",
                       k->name, m->at, op, (long long)in->imm);
    const st_inst *from = &k->inst[in->a];
    const st_step *s = &k->code->step[m->at];
    const pointer *p = pointer_at(m->frame, s->a);
    char where[48];
    if (from->op == K_arg)
        (void)snprintf(where, sizeof where, "argument %lld", (long long)from->imm);
    else
        (void)snprintf(where, sizeof where, "the %s memory of %%%u", st_kir_op_name(from->op),
                       in->a);
    return st_fail(err, SETUN_FAILED,
                   "kernel %s: instruction %u, %s: %u elements from %lld on are outside %s, which "
                   "has %lld",
                   k->name, m->at, op, in->op == K_gather ? 1 : s->n, (long long)m->index, where,
                   (long long)(p->bytes / s->bytes));
}

setun_status st_kir_eval(const st_kir *k, const setun_launch *l, const int64_t *bytes,
                         const setun_tile *t, setun_error *err)
{
    if (!k->code)
        return st_fail(err, SETUN_BAD_ARG, "kernel %s: it has not been verified", k->name);
    machine m = {
        k, l, t, bytes, NULL, t->scratch, k->max_steps ? k->max_steps : ST_MAX_STEPS, 0, 0
    };
    uint8_t *own = NULL;
    m.frame = aligned_alloc(64, (size_t)k->code->frame_bytes);
    if (m.frame && k->scratch_bytes && !m.scratch) {
        own = aligned_alloc(64, (size_t)(k->scratch_bytes + 63) / 64 * 64);
        m.scratch = own;
    }
    setun_status status;
    if (!m.frame || (k->scratch_bytes && !m.scratch)) {
        status = st_fail(err, SETUN_NO_MEMORY, "kernel %s: no memory to run it", k->name);
    } else {
        /* Memory that starts undefined has a pattern, so that nobody comes to rely on zeros. */
        memset(m.frame, 0xa5, (size_t)k->code->frame_bytes);
        if (own)
            memset(own, 0xa5, (size_t)k->scratch_bytes);
        int fault = run(&m);
        status = fault == FAULT_NONE ? SETUN_OK : describe(&m, fault, err);
        if (fault != FAULT_NONE)
            st_kir_blame(st_kir_origin(k, m.at), err);
    }
    free(own);
    free(m.frame);
    return status;
}
