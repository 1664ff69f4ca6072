/* codegen/kir.c -- the kernel builder: the functions behind the table of setun/op.h.
 *
 * Not here: what an instruction means (kir.def, kir_eval.c) and whether it is well-typed
 * (st_kir_check in kir_verify.c, asked after each instruction so that the first mistake is
 * reported where it happens).
 *
 * Errors stick: the first one is kept in the kernel, later calls return 0, and st_kir_lower
 * reports it.  Index arithmetic on i64 constants is folded while building, because operators
 * compute offsets from shapes and the text of a kernel should show the offset and not its
 * derivation.  The parser appends past the folding, so that text survives a round trip. */
#include "codegen/kir.h"

#include <string.h>

#include "base/error.h"
#include "base/hash.h"

/* The table and the numbers in setun/op.h are two lists of one thing; hold them together. */
enum {
    ROW_none,
#define X(name, n, result, text) ROW_##name,
#include "codegen/kir.def"
#undef X
    ROW_COUNT
};
#define X(name, n, result, text) \
    _Static_assert((int)ROW_##name == (int)K_##name, \
                   "kir.def and setun/op.h disagree about " #name);
#include "codegen/kir.def"
#undef X
_Static_assert((int)ROW_COUNT == (int)K_COUNT,
               "kir.def and setun/op.h list different instructions");

typedef struct op_row {
    const char *name;
    uint32_t    operands, result;
} op_row;

static const op_row rows[K_COUNT] = {
    { "none", 0, ST_RESULT_NONE },
#define X(name, n, result, text) { #name, n, ST_RESULT_##result },
#include "codegen/kir.def"
#undef X
};

const char *st_kir_op_name(uint32_t op) { return op < K_COUNT ? rows[op].name : "none"; }
uint32_t st_kir_op_operands(uint32_t op) { return op < K_COUNT ? rows[op].operands : 0; }
uint32_t st_kir_op_result(uint32_t op) { return op < K_COUNT ? rows[op].result : ST_RESULT_NONE; }

int st_kir_op_has_imm(uint32_t op)
{
    switch (op) {
    case K_const: case K_iota: case K_arg: case K_local: case K_scratch: case K_dim:
    case K_prefetch: case K_shl: case K_shru: case K_shrs: case K_extract: case K_slice:
    case K_shuffle: case K_for:
    case K_tile_zero: case K_tile_load: case K_tile_dot: case K_tile_store:
        return 1;
    default:
        return 0;
    }
}

uint32_t st_ktype_bits(k_type t)
{
    static const uint8_t bits[8] = { 0, 1, 8, 16, 32, 64, 32, 0 };
    return K_IS_PTR(t) ? 64 : bits[K_ELEM(t)];
}

const char *st_ktype_name(k_type t)
{
    static const char *const names[8] = { "none", "i1", "i8", "i16", "i32", "i64", "f32", "none" };
    return names[K_ELEM(t)];
}

void st_ktype_print(k_type t, st_str *out)
{
    st_str_addf(out, "%s%s", K_IS_PTR(t) ? "*" : "", st_ktype_name(t));
    if (K_LANES(t) != 1 && K_ELEM(t))
        st_str_addf(out, "x%u", (unsigned)K_LANES(t));
}

int64_t st_grid_units(const setun_grid *g, const setun_view *const *arg)
{
    int64_t units = 1;
    for (int i = 0; i < 2; i++) {
        if (g->at[i].arg < 0)
            continue;
        int64_t size = arg[g->at[i].arg]->dim[g->at[i].dim], granule = g->granule[i];
        if (size < 0 || granule <= 0 ||
            st_mul_i64(units, size / granule + (size % granule != 0), &units))
            return -1;
    }
    return units;
}

void st_target_generic(st_target *t)
{
    memset(t, 0, sizeof *t);
    memcpy(t->isa, "generic", 8);
    t->vector_bytes = 16;
    t->n_registers = 16;
    t->l1_bytes = 32 << 10;
    t->l2_bytes = 256 << 10;
}

/* ---------------------------------------------------------------- appending */

/* Double an array of the arena.  The old copy stays until the arena goes: at most as much again. */
static setun_status grow(st_kir *k, void **array, uint32_t *cap, uint32_t n, uint32_t want,
                         size_t size, setun_error *err)
{
    if (want <= *cap)
        return SETUN_OK;
    uint32_t to = *cap ? *cap : 64;
    while (to < want)
        to *= 2;
    void *p = st_arena_array(k->arena, (int64_t)to, (int64_t)size);
    if (!p)
        return st_fail(err, SETUN_NO_MEMORY, "kernel %s: no memory for its instructions", k->name);
    if (n)
        memcpy(p, *array, (size_t)n * size);
    *array = p;
    *cap = to;
    return SETUN_OK;
}

/* One spelling per constant: integers sign extended from their width, f32 bits zero extended.
 * Returns -1 if the number fits neither the signed nor the unsigned range of the element. */
static int canonical_imm(k_type t, int64_t *imm)
{
    uint32_t bits = st_ktype_bits(t);
    if (bits == 64 || bits == 0)
        return 0;
    if (*imm < -((int64_t)1 << (bits - 1)) || *imm >= (int64_t)1 << bits)
        return -1;
    uint64_t low = (uint64_t)*imm & (((uint64_t)1 << bits) - 1);
    uint64_t sign = (uint64_t)1 << (bits - 1);
    if (K_ELEM(t) == K_F32 || K_ELEM(t) == K_I1)
        *imm = (int64_t)low;
    else
        *imm = (int64_t)((low ^ sign) - sign);
    return 0;
}

setun_status st_kir_append(st_kir *k, const st_inst *in, k_val *v, setun_error *err)
{
    *v = 0;
    if (k->n_inst >= ST_MAX_INSTS)
        return st_fail(err, SETUN_FULL, "kernel %s has more than %u instructions", k->name,
                       ST_MAX_INSTS);
    void *array = k->inst;
    ST_TRY(grow(k, &array, &k->cap_inst, k->n_inst, k->n_inst + 1, sizeof *k->inst, err));
    k->inst = array;

    /* What an instruction does not use is 0, so that equal kernels have equal arrays. */
    st_inst *to = &k->inst[k->n_inst];
    uint32_t n = st_kir_op_operands(in->op);
    *to = *in;
    to->a = n > 0 ? in->a : 0;
    to->b = n > 1 ? in->b : 0;
    to->c = n > 2 ? in->c : 0;
    to->imm = st_kir_op_has_imm(in->op) ? in->imm : 0;
    to->match = 0;
    if (st_kir_op_result(in->op) == ST_RESULT_NONE)
        to->type = 0;
    if ((to->op == K_const || to->op == K_iota) && canonical_imm(to->type, &to->imm))
        return st_fail(err, SETUN_BAD_ARG,
                       "kernel %s: instruction %u, %s: %lld does not fit an element of "
                       "%u bits",
                       k->name, k->n_inst, st_kir_op_name(to->op), (long long)to->imm,
                       st_ktype_bits(to->type));
    ST_TRY(st_kir_check(k, k->n_inst, err));
    if (to->op == K_local) {
        /* The check bounds the product; 64 is the alignment that each local is promised. */
        int64_t bytes = to->imm * (int64_t)(st_ktype_bits(K_ELEM(to->type)) / 8);
        bytes = (bytes + 63) / 64 * 64;
        if (k->local_bytes + bytes > ST_MAX_LOCAL)
            return st_fail(err, SETUN_FULL,
                           "kernel %s: instruction %u, local: %lld bytes of local memory are "
                           "more than the %lld a kernel may have",
                           k->name, k->n_inst, (long long)(k->local_bytes + bytes),
                           (long long)ST_MAX_LOCAL);
        k->local_bytes += bytes;
    }
    k->code = NULL;
    *v = k->n_inst++;
    return SETUN_OK;
}

setun_status st_kir_add_mask(st_kir *k, const int32_t *mask, uint32_t n, int64_t *at,
                             setun_error *err)
{
    if (n == 0 || n > K_MAX_LANES)
        return st_fail(err, SETUN_BAD_ARG, "kernel %s: shuffle: a mask has 1 to %u lanes, not %u",
                       k->name, K_MAX_LANES, n);
    if (k->n_mask + n > ST_MAX_MASK)
        return st_fail(err, SETUN_FULL, "kernel %s: its shuffle masks have more than %d entries",
                       k->name, ST_MAX_MASK);
    void *array = k->mask;
    ST_TRY(grow(k, &array, &k->cap_mask, k->n_mask, k->n_mask + n, sizeof *k->mask, err));
    k->mask = array;
    memcpy(k->mask + k->n_mask, mask, n * sizeof *mask);
    *at = k->n_mask;
    k->n_mask += n;
    return SETUN_OK;
}

setun_status st_kir_add_slot(st_kir *k, int32_t arg, int32_t dim, int64_t *at, setun_error *err)
{
    uint32_t n_arg = k->n_in + k->n_out;
    if (arg < 0 || (uint32_t)arg >= n_arg)
        return st_fail(err, SETUN_BAD_ARG, "kernel %s: dim: argument %d of %u", k->name, arg,
                       n_arg);
    if (dim < 0 || (uint32_t)dim >= k->arg_rank[arg])
        return st_fail(err, SETUN_BAD_ARG,
                       "kernel %s: dim: dimension %d of argument %d, which has rank %u", k->name,
                       dim, arg, k->arg_rank[arg]);
    for (uint32_t i = 0; i < k->n_slot; i++)
        if (k->slot[i].arg == arg && k->slot[i].dim == dim) {
            *at = i;
            return SETUN_OK;
        }
    if (k->n_slot == ST_MAX_SLOTS)
        return st_fail(err, SETUN_FULL, "kernel %s: more than %d run-time sizes", k->name,
                       ST_MAX_SLOTS);
    k->slot[k->n_slot].arg = arg;
    k->slot[k->n_slot].dim = dim;
    *at = k->n_slot++;
    return SETUN_OK;
}

/* ---------------------------------------------------------------- lines of scripts */

void st_kir_blame(st_origin at, setun_error *err)
{
    if (at.file && err)
        st_wrap(err, "%s:%d", at.file, (int)at.line);
}

/* Value v is of the line at hand.  Without memory its line stays unknown, which no kernel needs. */
static void stamp(st_kir *k, k_val v)
{
    if (!k->now.file)
        return;
    if (!k->origin || k->cap_origin < k->cap_inst) {
        st_origin *to = st_arena_array(k->arena, k->cap_inst, (int64_t)sizeof *to);
        if (!to)
            return;
        memset(to, 0, k->cap_inst * sizeof *to);
        if (k->origin)
            memcpy(to, k->origin, k->cap_origin * sizeof *to);
        k->origin = to;
        k->cap_origin = k->cap_inst;
    }
    k->origin[v] = k->now;
}

static void line(setun_kernel *head, const char *file, int32_t number)
{
    st_kir *k = (st_kir *)(void *)head;
    if (!k->now.file || strcmp(k->now.file, file))
        k->now.file = st_arena_strdup(k->arena, file);
    k->now.line = number;
}

/* ---------------------------------------------------------------- the table */

static st_kir *kir(setun_kernel *k) { return (st_kir *)(void *)k; }

/* Is v an i64 scalar constant? */
static int is_const(const st_kir *k, k_val v, int64_t *value)
{
    const st_inst *in = &k->inst[v];
    if (in->op != K_const || in->type != K_TYPE(K_I64, 1))
        return 0;
    *value = in->imm;
    return 1;
}

/* Replace an i64 scalar instruction that was just appended by what it computes, if that is known:
 * returns the operand it equals, or its own value (now perhaps a const). */
static k_val fold(st_kir *k, k_val v)
{
    st_inst *in = &k->inst[v];
    if (in->type != K_TYPE(K_I64, 1) || st_kir_op_operands(in->op) != 2)
        return v;
    int64_t a = 0, b = 0, r;
    int ka = is_const(k, in->a, &a), kb = is_const(k, in->b, &b);
    k_val same = 0;
    if ((in->op == K_add || in->op == K_sub) && kb && b == 0)
        same = in->a;
    else if (in->op == K_add && ka && a == 0)
        same = in->b;
    else if ((in->op == K_mul || in->op == K_udiv) && kb && b == 1)
        same = in->a;
    else if (in->op == K_mul && ka && a == 1)
        same = in->b;
    if (same) {
        k->n_inst--;
        return same;
    }
    if (!ka || !kb)
        return v;
    uint64_t x = (uint64_t)a, y = (uint64_t)b; /* integers wrap */
    switch (in->op) {
    case K_add: r = (int64_t)(x + y); break;
    case K_sub: r = (int64_t)(x - y); break;
    case K_mul: r = (int64_t)(x * y); break;
    case K_min: r = a < b ? a : b; break;
    case K_max: r = a > b ? a : b; break;
    case K_udiv:
        if (y == 0)
            return v;
        r = (int64_t)(x / y);
        break;
    case K_urem:
        if (y == 0)
            return v;
        r = (int64_t)(x % y);
        break;
    default: return v;
    }
    in->op = K_const;
    in->a = in->b = 0;
    in->imm = r;
    return v;
}

static k_val emit(setun_kernel *head, uint32_t op, k_type type, k_val a, k_val b, k_val c,
                  int64_t imm)
{
    st_kir *k = kir(head);
    if (k->failed)
        return 0;
    st_inst in = { op, type, a, b, c, 0, imm };
    /* A scripted caller may leave out a type that follows from operand a. */
    if (type == 0 && a < k->n_inst) {
        uint32_t result = st_kir_op_result(op);
        if (result == ST_RESULT_SAME || op == K_var || op == K_get)
            in.type = k->inst[a].type;
        else if (result == ST_RESULT_MASK)
            in.type = K_TYPE(K_I1, K_LANES(k->inst[a].type));
    }
    k_val v;
    if (st_kir_append(k, &in, &v, &k->fault) != SETUN_OK) {
        k->failed = 1;
        return 0;
    }
    stamp(k, v);
    v = fold(k, v);
    return k->inst[v].type ? v : 0;
}

static k_val shuffle(setun_kernel *head, k_val a, k_val b, const int32_t *mask, uint32_t lanes)
{
    st_kir *k = kir(head);
    if (k->failed)
        return 0;
    int64_t at = 0;
    if (st_kir_add_mask(k, mask, lanes, &at, &k->fault) != SETUN_OK) {
        k->failed = 1;
        return 0;
    }
    uint32_t elem = a < k->n_inst ? K_ELEM(k->inst[a].type) : 0;
    return emit(head, K_shuffle, K_TYPE(elem, lanes), a, b, 0, at);
}

static k_type type_of(setun_kernel *head, k_val v)
{
    const st_kir *k = kir(head);
    return v < k->n_inst ? k->inst[v].type : 0;
}

static k_val dim(setun_kernel *head, int32_t arg, int32_t d, int32_t run_time)
{
    st_kir *k = kir(head);
    if (k->failed)
        return 0;
    if (!run_time && arg >= 0 && (uint32_t)arg < k->n_in + k->n_out && d >= 0 &&
        (uint32_t)d < k->arg_rank[arg] && k->arg_dim[arg][d] >= 0)
        return emit(head, K_const, K_TYPE(K_I64, 1), 0, 0, 0, k->arg_dim[arg][d]);
    int64_t at = 0;
    if (st_kir_add_slot(k, arg, d, &at, &k->fault) != SETUN_OK) {
        k->failed = 1;
        return 0;
    }
    return emit(head, K_dim, K_TYPE(K_I64, 1), 0, 0, 0, at);
}

static void grid(setun_kernel *head, const setun_grid *g)
{
    st_kir *k = kir(head);
    if (k->failed)
        return;
    if (k->has_grid) {
        k->failed = 1;
        (void)st_fail(&k->fault, SETUN_BAD_ARG, "kernel %s: its grid is set twice", k->name);
        return;
    }
    k->grid = *g;
    for (int f = 0; f < 2; f++)
        if (g->at[f].arg < 0) { /* one spelling for "no factor", as equal kernels print equally */
            k->grid.at[f].arg = -1;
            k->grid.at[f].dim = 0;
            k->grid.granule[f] = 1;
        }
    k->has_grid = 1;
    k->grid_origin = k->now;
}

static int64_t scratch(setun_kernel *head, int64_t bytes)
{
    st_kir *k = kir(head);
    if (k->failed)
        return 0;
    if (bytes < 0 || bytes > ST_MAX_SCRATCH - k->scratch_bytes) {
        k->failed = 1;
        (void)st_fail(&k->fault, SETUN_FULL,
                      "kernel %s: %lld bytes of scratch after %lld; a kernel may have "
                      "%lld",
                      k->name, (long long)bytes, (long long)k->scratch_bytes,
                      (long long)ST_MAX_SCRATCH);
        return 0;
    }
    int64_t at = k->scratch_bytes;
    k->scratch_bytes = (at + bytes + 63) / 64 * 64;
    return at;
}

static int64_t info(setun_kernel *head, uint32_t what)
{
    st_kir *k = kir(head);
    const st_target *t = k->target;
    switch (what) {
    case K_HAS_DOT2: return t->dot2;
    case K_HAS_DOT4: return t->dot4;
    case K_HAS_LUT16: return t->lut16;
    case K_VECTOR_BYTES: return t->vector_bytes;
    case K_N_REGISTERS: return t->n_registers;
    case K_L1_BYTES: return t->l1_bytes;
    case K_L2_BYTES: return t->l2_bytes;
    case K_HAS_TILES: return t->tiles;
    case K_HAS_LUT32: return t->lut32;
    default:
        if (!k->failed) {
            k->failed = 1;
            (void)st_fail(&k->fault, SETUN_UNKNOWN,
                          "kernel %s: info: this Setun does not know question %u", k->name, what);
        }
        return 0;
    }
}

static void fail(setun_kernel *head, const char *why)
{
    st_kir *k = kir(head);
    if (k->failed)
        return;
    k->failed = 1;
    (void)st_fail(&k->fault, SETUN_FAILED, "kernel %s: %s", k->name,
                  why ? why : "failed without a reason");
}

static const char *fault(setun_kernel *head)
{
    const st_kir *k = kir(head);
    return k->failed ? k->fault.text : NULL;
}

static const setun_builder table = { sizeof(setun_builder),
                                     SETUN_LAUNCH_ABI,
                                     emit,
                                     shuffle,
                                     type_of,
                                     dim,
                                     grid,
                                     scratch,
                                     info,
                                     fail,
                                     fault,
                                     line };

/* ---------------------------------------------------------------- making one */

/* The name goes into symbols and into the text form, where it is one word. */
static int is_name(const char *s)
{
    size_t n = 0;
    for (; s[n]; n++) {
        char c = s[n];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              c == '_' || c == '.' || c == '-'))
            return 0;
    }
    return n > 0 && n <= 96;
}

static setun_status copy_arg(st_kir *k, uint32_t i, const setun_view *v, setun_error *err)
{
    if (v->rank > SETUN_MAX_RANK)
        return st_fail(err, SETUN_BAD_SHAPE, "kernel %s: argument %u has rank %u", k->name, i,
                       v->rank);
    if (v->dtype < SETUN_F32 || v->dtype > SETUN_Q6_K)
        return st_fail(err, SETUN_UNKNOWN, "kernel %s: argument %u has unknown element type %u",
                       k->name, i, v->dtype);
    k->arg_dtype[i] = v->dtype;
    k->arg_rank[i] = v->rank;
    for (uint32_t d = 0; d < SETUN_MAX_RANK; d++) {
        k->arg_dim[i][d] = d < v->rank ? v->dim[d] : 1;
        if (k->arg_dim[i][d] < -(int64_t)SETUN_N_SYMBOLS || (k->arg_dim[i][d] < 0 && d > 0))
            return st_fail(err, SETUN_BAD_SHAPE, "kernel %s: dimension %u of argument %u is %lld",
                           k->name, d, i, (long long)k->arg_dim[i][d]);
    }
    return SETUN_OK;
}

setun_status st_kir_new(st_kir **out, const char *name, const setun_args *shape,
                        const st_target *target, st_arena *arena, setun_error *err)
{
    *out = NULL;
    if (!name || !is_name(name))
        return st_fail(err, SETUN_BAD_ARG,
                       "a kernel's name is 1 to 96 letters, digits, '_', '.', '-', not "
                       "\"%.96s\"",
                       name ? name : "");
    if (shape->n_in > ST_MAX_ARGS || shape->n_out > ST_MAX_ARGS ||
        shape->n_in + shape->n_out > ST_MAX_ARGS)
        return st_fail(err, SETUN_FULL,
                       "kernel %s: %u inputs and %u outputs; it may have %d arguments", name,
                       shape->n_in, shape->n_out, ST_MAX_ARGS);
    st_kir *k = st_arena_alloc(arena, (int64_t)sizeof *k);
    char *own = st_arena_strdup(arena, name);
    st_inst *inst = st_arena_array(arena, 64, (int64_t)sizeof *inst);
    if (k && !target) {
        st_target *generic = st_arena_alloc(arena, (int64_t)sizeof *generic);
        if (generic)
            st_target_generic(generic);
        target = generic;
    }
    if (!k || !own || !inst || !target)
        return st_fail(err, SETUN_NO_MEMORY, "kernel %s: no memory", name);
    memset(k, 0, sizeof *k);
    memset(inst, 0, sizeof *inst);
    k->head.b = &table;
    k->arena = arena;
    k->name = own;
    k->inst = inst;
    k->cap_inst = 64;
    k->n_inst = 1;
    k->n_in = shape->n_in;
    k->n_out = shape->n_out;
    k->target = target;
    for (uint32_t i = 0; i < shape->n_in; i++)
        ST_TRY(copy_arg(k, i, &shape->in[i], err));
    for (uint32_t i = 0; i < shape->n_out; i++)
        ST_TRY(copy_arg(k, shape->n_in + i, &shape->out[i], err));
    *out = k;
    return SETUN_OK;
}

setun_status st_kir_lower(st_kir **out, const setun_args *shape, const st_target *target,
                          st_arena *arena, setun_error *err)
{
    *out = NULL;
    const setun_op *op = shape->op;
    if (!op || !SETUN_HAS(setun_op, op, lower))
        return SETUN_DECLINED;
    st_kir *k;
    ST_TRY(st_kir_new(&k, op->name, shape, target, arena, err));
    ST_TRY(op->lower(&k->head, shape, err));
    if (k->failed) {
        if (err)
            *err = k->fault;
        return k->fault.code;
    }
    ST_TRY(st_kir_verify(k, err));
    *out = k;
    return SETUN_OK;
}

uint64_t st_kir_hash(const st_kir *k)
{
    st_str text = { 0 };
    st_kir_print(k, &text);
    uint64_t h = text.failed ? 0 : st_hash(ST_HASH_INIT, text.text ? text.text : "", text.len);
    st_str_free(&text);
    return h;
}
