/* codegen/kir_verify.c -- is this a kernel?
 *
 * Two parts.  st_kir_check looks at one instruction: operand kinds, types, lanes, immediates.
 * The builder and the parser ask it as they go.  st_kir_verify asks it again for every
 * instruction and adds what only the whole can tell: matching stops, visibility by block,
 * totals, the grid.  A kernel that passes is safe to compile and to interpret, wherever it came
 * from; what is left to run time are addresses, divisors and the number of loop steps.
 *
 * Changes one thing only: inst[].match. */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "codegen/kir.h"

static const char *type_text(k_type t, char text[32])
{
    st_str s = { 0 };
    st_ktype_print(t, &s);
    size_t n = s.text ? s.len : 0;
    n = n < 31 ? n : 31;
    if (n)
        memcpy(text, s.text, n);
    text[n] = 0;
    st_str_free(&s);
    return text;
}

/* "kernel relu2: instruction 14, max.f32x32(f32x32, f32): operand b must be f32x32" */
static setun_status bad(const st_kir *k, uint32_t i, setun_error *err, const char *fmt, ...)
    SETUN_PRINTF(4, 5);
static setun_status bad(const st_kir *k, uint32_t i, setun_error *err, const char *fmt, ...)
{
    const st_inst *in = &k->inst[i];
    st_str s = { 0 };
    st_str_addf(&s, "kernel %s: instruction %u, %s", k->name, i, st_kir_op_name(in->op));
    if (in->type) {
        st_str_add(&s, ".");
        st_ktype_print(in->type, &s);
    }
    k_val v[3] = { in->a, in->b, in->c };
    uint32_t n = st_kir_op_operands(in->op);
    for (uint32_t o = 0; o < n; o++) {
        st_str_add(&s, o ? ", " : "(");
        st_ktype_print(v[o] < i ? k->inst[v[o]].type : 0, &s);
    }
    st_str_add(&s, n ? "): " : ": ");
    va_list ap;
    va_start(ap, fmt);
    st_str_vaddf(&s, fmt, ap);
    va_end(ap);
    setun_status status =
        st_fail(err, SETUN_BAD_ARG, "%s", s.text && !s.failed ? s.text : "a bad instruction");
    st_str_free(&s);
    if (i < k->n_inst) /* the whole is being checked; while it is built, the builder's caller knows the place */
        st_kir_blame(st_kir_origin(k, i), err);
    return status;
}

static int is_int(k_type t) { return !K_IS_PTR(t) && K_ELEM(t) >= K_I8 && K_ELEM(t) <= K_I64; }
static int is_bool(k_type t) { return !K_IS_PTR(t) && K_ELEM(t) == K_I1; }
static int is_float(k_type t) { return !K_IS_PTR(t) && K_ELEM(t) == K_F32; }
static int is_data(k_type t) { return !K_IS_PTR(t); } /* any valid type that is not a pointer */
static int is_number(k_type t) { return is_int(t) || is_float(t); }

static int is_type(k_type t)
{
    uint32_t elem = K_ELEM(t), lanes = K_LANES(t);
    if (elem < K_I1 || elem > K_F32 || (t & 0xf0u) || lanes < 1 || lanes > K_MAX_LANES)
        return 0;
    return !K_IS_PTR(t) || (lanes == 1 && elem != K_I1);
}

/* Requirements, each with its sentence.  They return from the function that uses them. */
#define WANT(cond, ...)                        \
    do {                                       \
        if (!(cond))                           \
            return bad(k, i, err, __VA_ARGS__); \
    } while (0)
#define WANT_TYPE(t, want, who)                                                    \
    do {                                                                           \
        char text_[32];                                                            \
        if ((t) != (want))                                                         \
            return bad(k, i, err, "%s must be %s", who, type_text(want, text_)); \
    } while (0)

#define I64 K_TYPE(K_I64, 1)

/* Operands exist, come earlier, give a value, and are variables exactly where variables are
 * meant. */
static setun_status check_operands(const st_kir *k, uint32_t i, setun_error *err)
{
    const st_inst *in = &k->inst[i];
    k_val v[3] = { in->a, in->b, in->c };
    for (uint32_t o = 0; o < st_kir_op_operands(in->op); o++) {
        char name = (char)('a' + o);
        WANT(v[o] != 0, "operand %c is missing", name);
        WANT(v[o] < i, "operand %c is %%%u, which does not exist yet", name, v[o]);
        const st_inst *from = &k->inst[v[o]];
        WANT(from->type != 0, "operand %c is %%%u, a %s, which has no value", name, v[o],
             st_kir_op_name(from->op));
        int wants_var = o == 0 && (in->op == K_get || in->op == K_set);
        if (wants_var)
            WANT(from->op == K_var, "operand a is %%%u, which is not a variable", v[o]);
        else
            WANT(from->op != K_var, "operand %c is %%%u, a variable; get it first", name, v[o]);
    }
    return SETUN_OK;
}

static setun_status check_memory(const st_kir *k, uint32_t i, setun_error *err)
{
    const st_inst *in = &k->inst[i];
    k_type t = in->type, a = k->inst[in->a].type, b = k->inst[in->b].type, c = k->inst[in->c].type;
    uint32_t n_arg = k->n_in + k->n_out;
    int64_t bytes = st_ktype_bits(K_ELEM(t)) / 8;
    switch (in->op) {
    case K_arg:
        WANT(K_IS_PTR(t), "the result is a pointer");
        WANT(in->imm >= 0 && in->imm < n_arg, "argument %lld of %u", (long long)in->imm, n_arg);
        break;
    case K_local:
        WANT(K_IS_PTR(t), "the result is a pointer");
        WANT(in->imm > 0 && in->imm <= ST_MAX_LOCAL / bytes,
             "%lld elements; a kernel may have 1 to %lld bytes "
             "of local memory",
             (long long)in->imm, (long long)ST_MAX_LOCAL);
        break;
    case K_scratch:
        WANT(K_IS_PTR(t), "the result is a pointer");
        WANT(in->imm >= 0 && in->imm <= k->scratch_bytes,
             "offset %lld is outside the kernel's %lld bytes of "
             "scratch",
             (long long)in->imm, (long long)k->scratch_bytes);
        WANT(in->imm % bytes == 0, "offset %lld is not aligned to the element", (long long)in->imm);
        break;
    case K_load:
        WANT(K_IS_PTR(a), "operand a must be a pointer");
        WANT_TYPE(b, I64, "operand b");
        WANT_TYPE(t, K_TYPE(K_ELEM(a), K_LANES(t)), "the result");
        break;
    case K_store:
        WANT(K_IS_PTR(a), "operand a must be a pointer");
        WANT_TYPE(b, I64, "operand b");
        WANT(is_data(c) && K_ELEM(c) == K_ELEM(a),
             "operand c must have the pointer's element type");
        break;
    case K_gather:
        WANT(K_IS_PTR(a), "operand a must be a pointer");
        WANT_TYPE(b, K_TYPE(K_I32, K_LANES(b)), "operand b");
        WANT_TYPE(t, K_TYPE(K_ELEM(a), K_LANES(b)), "the result");
        break;
    default: /* prefetch */
        WANT(K_IS_PTR(a), "operand a must be a pointer");
        WANT_TYPE(b, I64, "operand b");
        WANT(in->imm >= 0 && in->imm <= 3, "locality %lld is not 0 to 3", (long long)in->imm);
        break;
    }
    return SETUN_OK;
}

static setun_status check_convert(const st_kir *k, uint32_t i, setun_error *err)
{
    const st_inst *in = &k->inst[i];
    k_type t = in->type, a = k->inst[in->a].type;
    uint32_t n = K_LANES(a), from = st_ktype_bits(a), to = st_ktype_bits(t);
    switch (in->op) {
    case K_sext: case K_zext:
        WANT(is_int(a) || is_bool(a), "operand a must be an integer");
        WANT(is_int(t) && K_LANES(t) == n && to > from,
             "the result must be a wider integer with %u lanes", n);
        break;
    case K_trunc:
        WANT(is_int(a), "operand a must be an integer");
        WANT((is_int(t) || is_bool(t)) && K_LANES(t) == n && to < from,
             "the result must be a narrower integer with %u lanes", n);
        break;
    case K_i2f:
        WANT_TYPE(a, K_TYPE(K_I32, n), "operand a");
        WANT_TYPE(t, K_TYPE(K_F32, n), "the result");
        break;
    case K_f2i:
        WANT_TYPE(a, K_TYPE(K_F32, n), "operand a");
        WANT_TYPE(t, K_TYPE(K_I32, n), "the result");
        break;
    case K_h2f:
        WANT_TYPE(a, K_TYPE(K_I16, n), "operand a");
        WANT_TYPE(t, K_TYPE(K_F32, n), "the result");
        break;
    case K_f2h:
        WANT_TYPE(a, K_TYPE(K_F32, n), "operand a");
        WANT_TYPE(t, K_TYPE(K_I16, n), "the result");
        break;
    default: /* cast */
        WANT(is_number(a) && is_number(t), "both types must be i8 to i64 or f32");
        WANT(from * n == to * K_LANES(t), "%u bits cannot become %u", from * n, to * K_LANES(t));
        break;
    }
    return SETUN_OK;
}

static setun_status check_lanes(const st_kir *k, uint32_t i, setun_error *err)
{
    const st_inst *in = &k->inst[i];
    k_type t = in->type, a = k->inst[in->a].type, b = k->inst[in->b].type;
    uint32_t n = K_LANES(a), elem = K_ELEM(a), lanes = K_LANES(t);
    WANT(is_data(a), "operand a must not be a pointer");
    switch (in->op) {
    case K_splat:
        WANT(n == 1, "operand a must be a scalar");
        WANT_TYPE(t, K_TYPE(elem, lanes), "the result");
        break;
    case K_extract:
        WANT(in->imm >= 0 && in->imm < n, "lane %lld of %u", (long long)in->imm, n);
        WANT_TYPE(t, K_TYPE(elem, 1), "the result");
        break;
    case K_slice:
        WANT(in->imm >= 0 && lanes <= n && in->imm <= (int64_t)(n - lanes),
             "%u lanes from %lld on, of %u", lanes, (long long)in->imm, n);
        WANT_TYPE(t, K_TYPE(elem, lanes), "the result");
        break;
    case K_concat:
        WANT_TYPE(b, K_TYPE(elem, K_LANES(b)), "operand b");
        WANT_TYPE(t, K_TYPE(elem, n + K_LANES(b)), "the result");
        break;
    case K_shuffle:
        WANT_TYPE(b, a, "operand b");
        WANT_TYPE(t, K_TYPE(elem, lanes), "the result");
        WANT(in->imm >= 0 && in->imm <= (int64_t)k->n_mask - (int64_t)lanes,
             "its mask is not in the side array");
        for (uint32_t l = 0; l < lanes; l++)
            WANT(k->mask[in->imm + l] >= 0 && k->mask[in->imm + l] < (int32_t)(2 * n),
                 "mask entry %u is %d; it picks one of %u lanes", l, k->mask[in->imm + l], 2 * n);
        break;
    default: /* rsum, rmax */
        WANT(is_number(a), "operand a must be i8 to i64 or f32");
        WANT((n & (n - 1)) == 0, "%u lanes are not a power of two", n);
        WANT_TYPE(t, K_TYPE(elem, 1), "the result");
        break;
    }
    return SETUN_OK;
}

static setun_status check_idiom(const st_kir *k, uint32_t i, setun_error *err)
{
    const st_inst *in = &k->inst[i];
    k_type t = in->type, a = k->inst[in->a].type, b = k->inst[in->b].type, c = k->inst[in->c].type;
    uint32_t n = K_LANES(t);
    switch (in->op) {
    case K_dot2:
        WANT_TYPE(t, K_TYPE(K_I16, n), "the result");
        WANT(n <= K_MAX_LANES / 2, "operands of %u lanes are more than %u", 2 * n, K_MAX_LANES);
        WANT_TYPE(a, K_TYPE(K_I8, 2 * n), "operand a");
        WANT_TYPE(b, K_TYPE(K_I8, 2 * n), "operand b");
        break;
    case K_dot4:
        WANT_TYPE(t, K_TYPE(K_I32, n), "the result");
        WANT(n <= K_MAX_LANES / 4, "operands of %u lanes are more than %u", 4 * n, K_MAX_LANES);
        WANT_TYPE(a, t, "operand a");
        WANT_TYPE(b, K_TYPE(K_I8, 4 * n), "operand b");
        WANT_TYPE(c, K_TYPE(K_I8, 4 * n), "operand c");
        break;
    case K_lut16:
        WANT(a == K_TYPE(K_I8, 16) || ((K_LANES(a) == 4 || K_LANES(a) == 16) && (K_ELEM(a) == K_I32 || K_ELEM(a) == K_F32)),
             "operand a must be 16 lanes of i8, or 4 or 16 of i32 or f32");
        WANT_TYPE(t, K_TYPE(K_ELEM(a), n), "the result");
        WANT_TYPE(b, K_TYPE(K_ELEM(a) == K_I8 ? K_I8 : K_I32, n), "operand b");
        break;
    default: /* sign */
        WANT_TYPE(t, K_TYPE(K_I8, n), "the result");
        WANT_TYPE(a, t, "operand a");
        WANT_TYPE(b, t, "operand b");
        break;
    }
    return SETUN_OK;
}

static setun_status check_tile(const st_kir *k, uint32_t i, setun_error *err)
{
    const st_inst *in = &k->inst[i];
    k_type a = k->inst[in->a].type, b = k->inst[in->b].type;
    int64_t imm = in->imm;
    if (in->op == K_tile_zero) {
        WANT(imm >= 0 && imm < 8, "tile %lld of 8", (long long)imm);
    } else if (in->op == K_tile_dot) {
        WANT(imm >= 0 && imm < 1024, "%lld does not name three tiles", (long long)imm);
        WANT((imm & 7) != (imm >> 3 & 7) && (imm & 7) != (imm >> 6 & 7) && (imm >> 3 & 7) != (imm >> 6 & 7),
             "its three tiles must differ");
    } else {
        WANT(K_IS_PTR(a) && K_ELEM(a) != K_F32, "operand a must be a pointer to integers");
        WANT_TYPE(b, I64, "operand b");
        WANT(imm >= 0 && imm >> 3 <= ST_MAX_SCRATCH, "a stride of %lld elements; at most %lld",
             (long long)(imm >> 3), (long long)ST_MAX_SCRATCH);
    }
    return SETUN_OK;
}

setun_status st_kir_check(const st_kir *k, uint32_t i, setun_error *err)
{
    const st_inst *in = &k->inst[i];
    if (in->op == K_NONE || in->op >= K_COUNT)
        return st_fail(err, SETUN_UNKNOWN, "kernel %s: instruction %u has unknown number %u",
                       k->name, i, in->op);
    ST_TRY(check_operands(k, i, err));
    k_type t = in->type, a = k->inst[in->a].type, b = k->inst[in->b].type, c = k->inst[in->c].type;
    uint32_t n = K_LANES(a);
    if (st_kir_op_result(in->op) == ST_RESULT_NONE)
        WANT(t == 0, "there is no result to have a type");
    else
        WANT(is_type(t), "the result needs a type of 1 to %u lanes (type number 0x%x)", K_MAX_LANES,
             t);

    switch (in->op) {
    case K_const:
        WANT(is_data(t), "a constant is not a pointer");
        break;
    case K_iota:
        WANT(is_int(t), "integers only");
        break;
    case K_dim:
        WANT_TYPE(t, I64, "the result");
        WANT(in->imm >= 0 && in->imm < k->n_slot, "run-time size %lld of %u", (long long)in->imm,
             k->n_slot);
        break;
    case K_begin: case K_end:
        WANT_TYPE(t, I64, "the result");
        break;
    case K_arg: case K_local: case K_scratch: case K_load: case K_store:
    case K_gather: case K_prefetch:
        return check_memory(k, i, err);

    case K_add: case K_sub: case K_mul: case K_min: case K_max:
        WANT(is_number(a), "operand a must be i8 to i64 or f32");
        WANT_TYPE(b, a, "operand b");
        WANT_TYPE(t, a, "the result");
        break;
    case K_div:
        WANT(is_float(a), "operand a must be f32");
        WANT_TYPE(b, a, "operand b");
        WANT_TYPE(t, a, "the result");
        break;
    case K_sqrt: case K_rint: case K_abs: case K_neg:
        WANT(is_float(a), "operand a must be f32");
        WANT_TYPE(t, a, "the result");
        break;
    case K_and: case K_or: case K_xor:
        WANT(is_int(a) || is_bool(a), "operand a must be an integer");
        WANT_TYPE(b, a, "operand b");
        WANT_TYPE(t, a, "the result");
        break;
    case K_shl: case K_shru: case K_shrs:
        WANT(is_int(a), "operand a must be i8 to i64");
        WANT_TYPE(t, a, "the result");
        WANT(in->imm >= 0 && in->imm < st_ktype_bits(a), "a shift by %lld of %u bits",
             (long long)in->imm, st_ktype_bits(a));
        break;
    case K_udiv: case K_urem:
        WANT(is_int(a) && n == 1, "operand a must be a scalar integer");
        WANT_TYPE(b, a, "operand b");
        WANT_TYPE(t, a, "the result");
        break;
    case K_eq: case K_lt: case K_le:
        WANT(is_number(a), "operand a must be i8 to i64 or f32");
        WANT_TYPE(b, a, "operand b");
        WANT_TYPE(t, K_TYPE(K_I1, n), "the result");
        break;
    case K_select:
        WANT(is_data(t), "the result must not be a pointer");
        WANT_TYPE(a, K_TYPE(K_I1, K_LANES(t)), "operand a");
        WANT_TYPE(b, t, "operand b");
        WANT_TYPE(c, t, "operand c");
        break;

    case K_sext: case K_zext: case K_trunc: case K_i2f: case K_f2i: case K_h2f:
    case K_f2h: case K_cast:
        WANT(is_data(a) && is_data(t), "pointers cannot be converted");
        return check_convert(k, i, err);
    case K_splat: case K_extract: case K_slice: case K_concat: case K_shuffle:
    case K_rsum: case K_rmax:
        return check_lanes(k, i, err);
    case K_dot2: case K_dot4: case K_lut16: case K_sign:
        return check_idiom(k, i, err);

    case K_opaque:
        WANT(is_number(a), "operand a must be i8 to i64 or f32");
        WANT_TYPE(t, a, "the result");
        break;
    case K_var: case K_get:
        WANT(is_data(t), "a variable does not hold a pointer");
        WANT_TYPE(t, a, "the result");
        break;
    case K_set:
        WANT_TYPE(b, a, "operand b");
        break;
    case K_for:
        WANT_TYPE(t, I64, "the result");
        WANT_TYPE(a, I64, "operand a");
        WANT_TYPE(b, I64, "operand b");
        WANT(in->imm > 0, "the step is %lld; it must be above 0", (long long)in->imm);
        break;
    case K_if:
        WANT_TYPE(a, K_TYPE(K_I1, 1), "operand a");
        break;
    case K_tile_zero: case K_tile_load: case K_tile_dot: case K_tile_store:
        return check_tile(k, i, err);
    default: /* else, stop: structure only */
        break;
    }
    return SETUN_OK;
}

/* ---------------------------------------------------------------- the whole */

static setun_status check_grid(const st_kir *k, setun_error *err)
{
    if (!k->has_grid)
        return st_fail(err, SETUN_BAD_ARG, "kernel %s: it has no grid", k->name);
    for (int f = 0; f < 2; f++) {
        const setun_slot *at = &k->grid.at[f];
        if (k->grid.granule[f] < 1)
            return st_fail(err, SETUN_BAD_ARG, "kernel %s: grid factor %d has granule %lld",
                           k->name, f, (long long)k->grid.granule[f]);
        if (at->arg < 0)
            continue;
        if ((uint32_t)at->arg >= k->n_in + k->n_out)
            return st_fail(err, SETUN_BAD_ARG, "kernel %s: grid factor %d is of argument %d of %u",
                           k->name, f, at->arg, k->n_in + k->n_out);
        if (at->dim < 0 || (uint32_t)at->dim >= k->arg_rank[at->arg])
            return st_fail(err, SETUN_BAD_ARG,
                           "kernel %s: grid factor %d is dimension %d of argument %d, which "
                           "has rank %u",
                           k->name, f, at->dim, at->arg, k->arg_rank[at->arg]);
    }
    return SETUN_OK;
}

/* A block is named by the for, if or else that opens it; 0 is the kernel itself.  block[v] is
 * the block that contains value v (a loop's index is inside its loop), open[b] whether b is open
 * now. */
static setun_status check_structure(st_kir *k, uint32_t *block, uint8_t *open, setun_error *err)
{
    uint32_t stack[ST_MAX_NESTING + 1], depth = 0;
    stack[0] = 0;
    open[0] = 1;
    for (uint32_t i = 1; i < k->n_inst; i++) {
        st_inst *in = &k->inst[i];
        ST_TRY(st_kir_check(k, i, err));
        k_val v[3] = { in->a, in->b, in->c };
        for (uint32_t o = 0; o < st_kir_op_operands(in->op); o++)
            WANT(open[block[v[o]]], "operand %c is %%%u, which was made in a block that has ended",
                 (char)('a' + o), v[o]);
        uint32_t top = stack[depth], top_op = depth ? k->inst[top].op : K_NONE;
        in->match = 0;
        if (in->op == K_else) {
            WANT(top_op == K_if, "there is no open if");
            k->inst[top].match = i;
            open[top] = 0;
            stack[depth] = i;
        } else if (in->op == K_stop) {
            WANT(depth > 0, "there is no open for or if");
            k->inst[top].match = i;
            open[top] = 0;
            depth--;
        } else if (in->op == K_for || in->op == K_if) {
            WANT(depth < ST_MAX_NESTING, "more than %d blocks inside each other", ST_MAX_NESTING);
            stack[++depth] = i;
        }
        block[i] = stack[depth];
        open[stack[depth]] = 1;
    }
    if (depth) {
        uint32_t i = stack[depth];
        return bad(k, i, err, "it has no stop");
    }
    return SETUN_OK;
}

setun_status st_kir_verify(st_kir *k, setun_error *err)
{
    k->code = NULL;
    if (k->failed) {
        if (err)
            *err = k->fault;
        return k->fault.code;
    }
    if (k->n_in + k->n_out > ST_MAX_ARGS || k->n_slot > ST_MAX_SLOTS || k->n_inst < 1 ||
        k->n_inst > ST_MAX_INSTS || k->scratch_bytes < 0 || k->scratch_bytes > ST_MAX_SCRATCH)
        return st_fail(err, SETUN_BAD_ARG, "kernel %s: a count is outside its limit", k->name);
    if (check_grid(k, err) != SETUN_OK) {
        st_kir_blame(k->has_grid ? k->grid_origin : k->now, err);
        return SETUN_BAD_ARG;
    }
    for (uint32_t s = 0; s < k->n_slot; s++)
        if (k->slot[s].arg < 0 || (uint32_t)k->slot[s].arg >= k->n_in + k->n_out ||
            k->slot[s].dim < 0 || (uint32_t)k->slot[s].dim >= k->arg_rank[k->slot[s].arg])
            return st_fail(err, SETUN_BAD_ARG,
                           "kernel %s: run-time size %u is dimension %d of argument %d", k->name, s,
                           k->slot[s].dim, k->slot[s].arg);
    int64_t local = 0;
    for (uint32_t i = 1; i < k->n_inst; i++)
        if (k->inst[i].op == K_local && k->inst[i].imm >= 0 && k->inst[i].imm <= ST_MAX_LOCAL)
            local += (k->inst[i].imm * (int64_t)(st_ktype_bits(K_ELEM(k->inst[i].type)) / 8) + 63) /
                     64 * 64;
    if (local > ST_MAX_LOCAL)
        return st_fail(err, SETUN_FULL, "kernel %s: %lld bytes of local memory; it may have %lld",
                       k->name, (long long)local, (long long)ST_MAX_LOCAL);
    k->local_bytes = local;

    uint32_t *block = calloc(k->n_inst, sizeof *block);
    uint8_t *open = calloc(k->n_inst, 1);
    setun_status s = SETUN_NO_MEMORY;
    if (block && open)
        s = check_structure(k, block, open, err);
    else
        (void)st_fail(err, s, "kernel %s: no memory to check it", k->name);
    free(block);
    free(open);
    if (s == SETUN_OK)
        s = st_kir_prepare(k, err);
    return s;
}
