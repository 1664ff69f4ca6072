/* codegen/llvm.c -- a verified kernel as LLVM IR, and that as an object file, assembly or text.
 *
 * Not here: instructions that need more than a line or two (llvm_idiom.c), the choice of features
 * (target.c), linking and loading (image_link.c, loader.c).
 *
 * Vectors of any number of lanes go to LLVM as they are; its legaliser cuts them into registers.
 * Variables are stack slots that SROA turns into values.  Loops are emitted with the test at the
 * bottom, so that loop-invariant code may move in front.  The passes are a short list without
 * vectoriser, unroller and instcombine: what a kernel's author wrote is the shape that runs, and
 * nothing in the list rewrites arithmetic.
 *
 * Floating point is strict because no instruction carries a fast-math flag: LLVM then neither
 * fuses, reassociates nor assumes anything about NaN and signed zeros. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <llvm-c/Analysis.h>
#include <llvm-c/Error.h>
#include <llvm-c/Transforms/PassBuilder.h>
#include <llvm/Config/llvm-config.h>

#include "base/clock.h"
#include "base/error.h"
#include "codegen/isa.h"
#include "codegen/llvm_priv.h"

/* An open block.  For a loop: a is its body, done what follows it.  For an if: a is the else branch
 * as long as there was none, done what follows both. */
typedef struct st_frame {
    uint32_t          op; /* K_for, K_if, K_else */
    LLVMBasicBlockRef a, done;
    val               index, bound;
    int64_t           step;
} st_frame;

/* Compile time grows faster than a kernel: at this many register operations it is about a minute,
 * ten thousand times that of an ordinary kernel. */
#define MAX_WORK 50000
/* Simple compiling takes about a quarter of that. */
#define MAX_SIMPLE_WORK (4 * MAX_WORK)

/* One row at a time, so that the clock can be looked at between them.  The simple way ends early:
 * what follows is slow for long kernels, and only makes them faster. */
#define SIMPLE_PASSES 1
static const char *const passes[] = { "function(sroa,early-cse)", "function(loop-mssa(licm))", "function(gvn)",
                                      "function(dse,simplifycfg)" };

/* ---------------------------------------------------------------- small helpers */

val st_gen_fail(st_gen *g, LLVMTypeRef type, const char *fmt, ...)
{
    if (g->status == SETUN_OK) {
        char text[256];
        va_list ap;
        va_start(ap, fmt);
        (void)vsnprintf(text, sizeof text, fmt, ap);
        va_end(ap);
        g->status = st_fail(&g->fault, SETUN_FAILED, "kernel %s: %s", g->k->name, text);
    }
    return LLVMGetUndef(type);
}

uint32_t st_gen_lanes(val v)
{
    LLVMTypeRef t = LLVMTypeOf(v);
    return LLVMGetTypeKind(t) == LLVMVectorTypeKind ? LLVMGetVectorSize(t) : 1;
}

LLVMTypeRef st_gen_type(st_gen *g, uint32_t elem, uint32_t lanes)
{
    return lanes == 1 ? g->elem[elem] : LLVMVectorType(g->elem[elem], lanes);
}

static LLVMTypeRef type_of(st_gen *g, k_type t)
{
    return K_IS_PTR(t) ? LLVMPointerTypeInContext(g->ctx, 0)
                       : st_gen_type(g, K_ELEM(t), K_LANES(t));
}

static val splat_const(val x, uint32_t lanes)
{
    val row[K_MAX_LANES];
    if (lanes == 1)
        return x;
    for (uint32_t i = 0; i < lanes; i++)
        row[i] = x;
    return LLVMConstVector(row, lanes);
}

/* An integer of that width from the low bits of x. */
static val int_const(LLVMTypeRef type, int64_t x)
{
    unsigned bits = LLVMGetIntTypeWidth(type);
    uint64_t u = (uint64_t)x;
    return LLVMConstInt(type, bits < 64 ? u & (((uint64_t)1 << bits) - 1) : u, 0);
}

val st_gen_const(st_gen *g, uint32_t elem, uint32_t lanes, int64_t x)
{
    if (elem != K_F32)
        return splat_const(int_const(g->elem[elem], x), lanes);
    /* Through the bits, which a double would not keep for every NaN. */
    return splat_const(LLVMConstBitCast(int_const(g->elem[K_I32], x), g->elem[K_F32]), lanes);
}

static val i32_const(st_gen *g, uint32_t x) { return LLVMConstInt(g->elem[K_I32], x, 0); }

/* Shuffles work on vectors only; a scalar is lane 0 of a vector of one. */
static val as_vector(st_gen *g, val v)
{
    if (LLVMGetTypeKind(LLVMTypeOf(v)) == LLVMVectorTypeKind)
        return v;
    return LLVMBuildInsertElement(g->b, LLVMGetPoison(LLVMVectorType(LLVMTypeOf(v), 1)), v,
                                  i32_const(g, 0), "");
}

val st_gen_shuffle(st_gen *g, val a, val b, const int32_t *lane, uint32_t lanes)
{
    uint32_t n = st_gen_lanes(a);
    if (lanes == 1) {
        uint32_t i = lane[0] < 0 ? 0 : (uint32_t)lane[0];
        val from = i < n || !b ? a : b;
        if (st_gen_lanes(from) == 1)
            return from;
        return LLVMBuildExtractElement(g->b, from, i32_const(g, i < n ? i : i - n), "");
    }
    val mask[K_MAX_LANES];
    for (uint32_t i = 0; i < lanes; i++)
        mask[i] = lane[i] < 0 ? LLVMGetPoison(g->elem[K_I32]) : i32_const(g, (uint32_t)lane[i]);
    val x = as_vector(g, a);
    return LLVMBuildShuffleVector(g->b, x, b ? as_vector(g, b) : LLVMGetPoison(LLVMTypeOf(x)),
                                  LLVMConstVector(mask, lanes), "");
}

val st_gen_slice(st_gen *g, val v, uint32_t first, uint32_t lanes)
{
    uint32_t n = st_gen_lanes(v);
    int32_t lane[K_MAX_LANES];
    if (first == 0 && lanes == n)
        return v;
    for (uint32_t i = 0; i < lanes; i++)
        lane[i] = first + i < n ? (int32_t)(first + i) : -1;
    return st_gen_shuffle(g, v, NULL, lane, lanes);
}

val st_gen_concat(st_gen *g, val a, val b)
{
    uint32_t na = st_gen_lanes(a), nb = st_gen_lanes(b), wide = na > nb ? na : nb;
    int32_t lane[K_MAX_LANES];
    /* Both sides of a shuffle have one type: the shorter is padded first. */
    val x = st_gen_slice(g, a, 0, wide), y = st_gen_slice(g, b, 0, wide);
    for (uint32_t i = 0; i < na + nb; i++)
        lane[i] = (int32_t)(i < na ? i : wide + i - na);
    return st_gen_shuffle(g, x, y, lane, na + nb);
}

val st_gen_splat(st_gen *g, val scalar, uint32_t lanes)
{
    int32_t lane[K_MAX_LANES] = { 0 };
    return lanes == 1 ? scalar : st_gen_shuffle(g, scalar, NULL, lane, lanes);
}

val st_gen_call(st_gen *g, const char *name, LLVMTypeRef *over, uint32_t n_over, val *arg,
                uint32_t n)
{
    unsigned id = LLVMLookupIntrinsicID(name, strlen(name));
    LLVMTypeRef want[8], none = g->elem[K_I32];
    if (!id)
        return st_gen_fail(g, none, "this LLVM has no intrinsic %s", name);
    val fn = LLVMGetIntrinsicDeclaration(g->mod, id, over, n_over);
    LLVMTypeRef type = LLVMIntrinsicGetType(g->ctx, id, over, n_over);
    if (LLVMCountParamTypes(type) != n || n > SETUN_LEN(want))
        return st_gen_fail(g, none, "intrinsic %s of this LLVM takes %u operands, not %u", name,
                           LLVMCountParamTypes(type), n);
    LLVMGetParamTypes(type, want);
    for (uint32_t i = 0; i < n; i++)
        if (LLVMTypeOf(arg[i]) != want[i])
            arg[i] = LLVMBuildBitCast(g->b, arg[i], want[i], "");
    return LLVMBuildCall2(g->b, type, fn, arg, n, "");
}

/* Lanes in groups of n the other way round. */
static val turn_groups(st_gen *g, val v, uint32_t n)
{
    int32_t lane[K_MAX_LANES];
    uint32_t lanes = st_gen_lanes(v);
    for (uint32_t i = 0; i < lanes; i++)
        lane[i] = (int32_t)(i / n * n + n - 1 - i % n);
    return st_gen_shuffle(g, v, NULL, lane, lanes);
}

/* On a big-endian target LLVM's bitcast puts the first of several narrow lanes into the high end of a wide
 * one.  With the narrow lanes of each wide one turned round, the first is the low end, as kir wants. */
val st_gen_cast(st_gen *g, val v, uint32_t elem, uint32_t lanes)
{
    LLVMTypeRef to = st_gen_type(g, elem, lanes);
    uint32_t from = st_gen_lanes(v);
    if (g->t->big_endian && from > lanes)
        v = turn_groups(g, v, from / lanes);
    v = LLVMBuildBitCast(g->b, v, to, "");
    return g->t->big_endian && lanes > from ? turn_groups(g, v, lanes / from) : v;
}

val st_gen_swap(st_gen *g, val v, uint32_t elem)
{
    LLVMTypeRef type = LLVMTypeOf(v);
    uint32_t as = elem == K_F32 ? K_I32 : elem, n = st_gen_lanes(v);
    if (as == K_I8)
        return v;
    LLVMTypeRef over = st_gen_type(g, as, n);
    v = LLVMBuildBitCast(g->b, v, over, "");
    return LLVMBuildBitCast(g->b, st_gen_call(g, "llvm.bswap", &over, 1, &v, 1), type, "");
}

/* ---------------------------------------------------------------- what is known about values */

/* Bytes are shifted in lanes of 16 or 32 bits, for the sake of x86, and what comes from a neighbour is
 * masked off.  Where it is by every user, a shift of bytes does as well: other ISAs have it, some need no
 * change of lane width for it, and on big-endian ones it saves turning the lanes round twice.  The shift
 * that a cast back to bytes wraps, or NULL. */
static const st_inst *byte_shift(const st_kir *k, const st_inst *in)
{
    const st_inst *shift = &k->inst[in->a], *wide;
    if (in->op != K_cast || K_ELEM(in->type) != K_I8 || (shift->op != K_shru && shift->op != K_shl) || shift->imm > 7)
        return NULL;
    wide = &k->inst[shift->a];
    return wide->op == K_cast && k->inst[wide->a].type == in->type ? shift : NULL;
}

static void find_masked(st_gen *g)
{
    const st_kir *k = g->k;
    for (uint32_t i = 1; i < k->n_inst; i++)
        g->masked[i] = byte_shift(k, &k->inst[i]) != NULL;
    for (uint32_t i = 1; i < k->n_inst; i++) {
        const st_inst *in = &k->inst[i];
        const k_val operand[3] = { in->a, in->b, in->c };
        for (uint32_t j = 0; j < st_kir_op_operands(in->op); j++) {
            const st_inst *x = &k->inst[operand[j]], *mask = &k->inst[operand[1 - (j & 1)]];
            if (!g->masked[operand[j]])
                continue;
            const st_inst *shift = byte_shift(k, x);
            uint32_t kept = shift->op == K_shru ? 255u >> shift->imm : 255u << shift->imm & 255u;
            if (in->op != K_and || mask->op != K_const || ((uint32_t)mask->imm & 255u & ~kept))
                g->masked[operand[j]] = 0;
        }
    }
}

/* The largest p such that 2^p divides v, whatever run-time values are; wrapping keeps it. */
static uint32_t factor(const st_kir *k, k_val v, int depth)
{
    const st_inst *in = &k->inst[v];
    uint32_t a, b;
    if (depth == 0 || v == 0)
        return 0;
    switch (in->op) {
    case K_const:
        return in->imm ? (uint32_t)__builtin_ctzll((uint64_t)in->imm) : 63;
    case K_shl:
        a = factor(k, in->a, depth - 1) + (uint32_t)in->imm;
        return a < 63 ? a : 63;
    case K_mul:
        a = factor(k, in->a, depth - 1) + factor(k, in->b, depth - 1);
        return a < 63 ? a : 63;
    case K_add: case K_sub: case K_or: case K_xor:
        a = factor(k, in->a, depth - 1);
        b = factor(k, in->b, depth - 1);
        return a < b ? a : b;
    case K_and:
        a = factor(k, in->a, depth - 1);
        b = factor(k, in->b, depth - 1);
        return a > b ? a : b;
    case K_for:
        a = factor(k, in->a, depth - 1);
        b = (uint32_t)__builtin_ctzll((uint64_t)in->imm);
        return a < b ? a : b;
    default:
        return 0;
    }
}

/* No lane of the i8 value v, taken as unsigned, is above this. */
static uint32_t u_max(const st_kir *k, k_val v, int depth)
{
    const st_inst *in = &k->inst[v];
    uint32_t a, b;
    if (depth == 0 || K_ELEM(in->type) != K_I8)
        return 255;
    switch (in->op) {
    case K_const:
        return (uint32_t)in->imm & 255u;
    case K_and:
        a = u_max(k, in->a, depth - 1);
        b = u_max(k, in->b, depth - 1);
        return a < b ? a : b;
    case K_shru:
        return u_max(k, in->a, depth - 1) >> in->imm;
    case K_zext: /* only i1 is narrower */
        return 1;
    case K_slice: case K_splat: case K_extract: case K_opaque:
        return u_max(k, in->a, depth - 1);
    case K_concat: case K_shuffle:
        a = u_max(k, in->a, depth - 1);
        b = u_max(k, in->b, depth - 1);
        return a > b ? a : b;
    case K_select:
        a = u_max(k, in->b, depth - 1);
        b = u_max(k, in->c, depth - 1);
        return a > b ? a : b;
    default:
        return 255;
    }
}

uint32_t st_gen_u_max(const st_kir *k, k_val v) { return u_max(k, v, 8); }

/* ---------------------------------------------------------------- memory */

static uint32_t elem_bytes(uint32_t elem)
{
    static const uint32_t bytes[8] = { 0, 1, 1, 2, 4, 8, 4, 0 };
    return bytes[elem];
}

/* A field of the launch or tile struct, read once at the head of the function. */
static val field(st_gen *g, uint32_t param, size_t offset, LLVMTypeRef type)
{
    val at = LLVMConstInt(g->elem[K_I64], offset, 0);
    val p = LLVMBuildInBoundsGEP2(g->entry, g->elem[K_I8], LLVMGetParam(g->fn, param), &at, 1, "");
    return LLVMBuildLoad2(g->entry, type, p, "");
}

static val row_of(st_gen *g, size_t offset, LLVMTypeRef type, int64_t i)
{
    LLVMTypeRef ptr = LLVMPointerTypeInContext(g->ctx, 0);
    val at = LLVMConstInt(g->elem[K_I64], (uint64_t)i, 0);
    val p = LLVMBuildInBoundsGEP2(g->entry, type, field(g, 0, offset, ptr), &at, 1, "");
    return LLVMBuildLoad2(g->entry, type, p, "");
}

/* Scratch memory is the worker's own and no argument lies in it; LLVM cannot know that from two
 * pointers read from memory.  Arguments may share memory with each other (a cache updated in
 * place), so they are one scope. */
static void scopes(st_gen *g)
{
    LLVMMetadataRef domain, row[2], list;
    row[0] = LLVMMDStringInContext2(g->ctx, "setun", 5);
    domain = LLVMMDNodeInContext2(g->ctx, row, 1);
    for (int i = 0; i < 2; i++) {
        const char *name = i ? "scratch" : "arguments";
        row[0] = LLVMMDStringInContext2(g->ctx, name, strlen(name));
        row[1] = domain;
        list = LLVMMDNodeInContext2(g->ctx, row, 2);
        list = LLVMMDNodeInContext2(g->ctx, &list, 1);
        *(i ? &g->scope_scratch : &g->scope_args) = LLVMMetadataAsValue(g->ctx, list);
    }
    g->kind_scope = LLVMGetMDKindIDInContext(g->ctx, "alias.scope", 11);
    g->kind_noalias = LLVMGetMDKindIDInContext(g->ctx, "noalias", 7);
}

/* Tell LLVM what an access through pointer p touches. */
static void mark(st_gen *g, val access, k_val p)
{
    uint32_t op = g->k->inst[p].op;
    if (op != K_arg && op != K_scratch)
        return;
    LLVMSetMetadata(access, g->kind_scope, op == K_arg ? g->scope_args : g->scope_scratch);
    LLVMSetMetadata(access, g->kind_noalias, op == K_arg ? g->scope_scratch : g->scope_args);
}

/* What is known of the alignment of pointer p at index: locals and scratch start at 64 bytes,
 * arguments promise one element only. */
static unsigned alignment(st_gen *g, k_val p, k_val index)
{
    const st_inst *in = &g->k->inst[p];
    uint32_t size = elem_bytes(K_ELEM(in->type)), base = 64;
    if (in->op != K_local && in->op != K_scratch)
        return size;
    uint64_t at = (uint64_t)(in->op == K_scratch ? in->imm : 0) | base;
    base = 1u << __builtin_ctzll(at);
    uint32_t shift = factor(g->k, index, 8);
    uint64_t step = shift > 6 ? 64 : (uint64_t)size << shift;
    step = step < base ? step : base;
    return (unsigned)(step > size ? step : size);
}

/* inbounds: an access outside its object has no meaning in kir, so the address is inside. */
static val address(st_gen *g, k_val p, val index)
{
    return LLVMBuildInBoundsGEP2(g->b, g->elem[K_ELEM(g->k->inst[p].type)], g->v[p], &index, 1, "");
}

/* An argument of bytes that is seen as wider elements is little-endian; on a big-endian target its elements
 * are turned round on their way. */
static val bytes_of_arg(st_gen *g, k_val p, val v)
{
    const st_inst *at = &g->k->inst[p];
    if (!g->t->big_endian || at->op != K_arg || !st_kir_arg_is_bytes(g->k, at->imm))
        return v;
    return st_gen_swap(g, v, K_ELEM(at->type));
}

static val gather(st_gen *g, const st_inst *in)
{
    LLVMTypeRef type = type_of(g, in->type);
    uint32_t lanes = K_LANES(in->type), elem = K_ELEM(in->type);
    /* An index is an i32 and never negative; extending it with its sign is what x86 gathers do. */
    val index = LLVMBuildSExt(g->b, g->v[in->b], st_gen_type(g, K_I64, lanes), "");
    val p = address(g, in->a, index), r;
    if (lanes == 1) {
        r = LLVMBuildLoad2(g->b, type, p, "");
        LLVMSetAlignment(r, elem_bytes(elem));
    } else {
        LLVMTypeRef over[2] = { type, LLVMTypeOf(p) };
        val all = st_gen_const(g, K_I1, lanes, 1), none = LLVMGetPoison(type);
        val arg[4] = { p, i32_const(g, elem_bytes(elem)), all, none };
        /* LLVM 22 takes the alignment as an attribute; without it, one byte. */
        val short_arg[3] = { p, all, none };
        int with = LLVM_VERSION_MAJOR < 22;
        r = st_gen_call(g, "llvm.masked.gather", over, 2, with ? arg : short_arg, with ? 4 : 3);
    }
    mark(g, r, in->a);
    return bytes_of_arg(g, in->a, r);
}

static val memory(st_gen *g, const st_inst *in)
{
    val r;
    switch (in->op) {
    case K_load:
        r = LLVMBuildLoad2(g->b, type_of(g, in->type), address(g, in->a, g->v[in->b]), "");
        LLVMSetAlignment(r, alignment(g, in->a, in->b));
        mark(g, r, in->a);
        return bytes_of_arg(g, in->a, r);
    case K_store:
        r = LLVMBuildStore(g->b, bytes_of_arg(g, in->a, g->v[in->c]), address(g, in->a, g->v[in->b]));
        LLVMSetAlignment(r, alignment(g, in->a, in->b));
        mark(g, r, in->a);
        return NULL;
    case K_gather:
        return gather(g, in);
    default: { /* prefetch: any address, so not inbounds */
        val p = LLVMBuildGEP2(g->b, g->elem[K_I8], g->v[in->a], &g->v[in->b], 1, "");
        LLVMTypeRef over = LLVMTypeOf(p);
        val arg[4] = { p, i32_const(g, 0), i32_const(g, (uint32_t)in->imm & 3u), i32_const(g, 1) };
        (void)st_gen_call(g, "llvm.prefetch", &over, 1, arg, 4);
        return NULL;
    }
    }
}

static val source(st_gen *g, const st_inst *in)
{
    LLVMTypeRef ptr = LLVMPointerTypeInContext(g->ctx, 0), i64 = g->elem[K_I64];
    uint32_t elem = K_ELEM(in->type), lanes = K_LANES(in->type);
    switch (in->op) {
    case K_const:
        return st_gen_const(g, elem, lanes, in->imm);
    case K_iota: {
        val row[K_MAX_LANES];
        for (uint32_t i = 0; i < lanes; i++)
            row[i] = int_const(g->elem[elem], (int64_t)((uint64_t)in->imm + i));
        return lanes == 1 ? row[0] : LLVMConstVector(row, lanes);
    }
    case K_arg:
        if (!g->arg[in->imm])
            g->arg[in->imm] = row_of(g, offsetof(setun_launch, arg), ptr, in->imm);
        return g->arg[in->imm];
    case K_dim:
        if (!g->dim[in->imm])
            g->dim[in->imm] = row_of(g, offsetof(setun_launch, dim), i64, in->imm);
        return g->dim[in->imm];
    case K_begin:
        if (!g->begin)
            g->begin = field(g, 1, offsetof(setun_tile, begin), i64);
        return g->begin;
    case K_end:
        if (!g->end)
            g->end = field(g, 1, offsetof(setun_tile, end), i64);
        return g->end;
    case K_scratch: {
        val at = int_const(i64, in->imm);
        if (!g->scratch)
            g->scratch = field(g, 1, offsetof(setun_tile, scratch), ptr);
        return LLVMBuildInBoundsGEP2(g->b, g->elem[K_I8], g->scratch, &at, 1, "");
    }
    default: { /* local */
        val r = LLVMBuildAlloca(g->entry, LLVMArrayType2(g->elem[elem], (uint64_t)in->imm), "");
        LLVMSetAlignment(r, 64);
        return r;
    }
    }
}

/* ---------------------------------------------------------------- lanewise */

static val binary(st_gen *g, const st_inst *in, LLVMOpcode on_int, LLVMOpcode on_float)
{
    return LLVMBuildBinOp(g->b, K_ELEM(in->type) == K_F32 ? on_float : on_int, g->v[in->a],
                          g->v[in->b], "");
}

static val shift(st_gen *g, const st_inst *in, LLVMOpcode op)
{
    return LLVMBuildBinOp(g->b, op, g->v[in->a],
                          st_gen_const(g, K_ELEM(in->type), K_LANES(in->type), in->imm), "");
}

static val compare(st_gen *g, const st_inst *in, LLVMIntPredicate on_int,
                   LLVMRealPredicate on_float)
{
    val a = g->v[in->a], b = g->v[in->b];
    return K_ELEM(g->k->inst[in->a].type) == K_F32 ? LLVMBuildFCmp(g->b, on_float, a, b, "")
                                                   : LLVMBuildICmp(g->b, on_int, a, b, "");
}

static val float_unary(st_gen *g, const char *name, val a)
{
    LLVMTypeRef over = LLVMTypeOf(a);
    return st_gen_call(g, name, &over, 1, &a, 1);
}

static val lanewise(st_gen *g, const st_inst *in)
{
    val a = g->v[in->a];
    switch (in->op) {
    case K_add: {
        val dots = K_ELEM(in->type) == K_I16 ? st_gen_add_dot2(g, in, &g->unpaired[in - g->k->inst]) : NULL;
        return dots ? dots : binary(g, in, LLVMAdd, LLVMFAdd);
    }
    case K_sub: return binary(g, in, LLVMSub, LLVMFSub);
    case K_mul: return binary(g, in, LLVMMul, LLVMFMul);
    case K_min:
        return LLVMBuildSelect(g->b, compare(g, in, LLVMIntSLT, LLVMRealOLT), a, g->v[in->b], "");
    case K_max:
        return st_gen_max(g, a, g->v[in->b], K_ELEM(in->type));
    case K_div: return LLVMBuildFDiv(g->b, a, g->v[in->b], "");
    case K_sqrt: return float_unary(g, "llvm.sqrt", a);
    case K_rint: return st_gen_rint(g, a);
    case K_abs: return float_unary(g, "llvm.fabs", a);
    case K_neg: return LLVMBuildFNeg(g->b, a, "");
    case K_and: return binary(g, in, LLVMAnd, LLVMAnd);
    case K_or: return binary(g, in, LLVMOr, LLVMOr);
    case K_xor: return binary(g, in, LLVMXor, LLVMXor);
    case K_shl: return shift(g, in, LLVMShl);
    case K_shru: return shift(g, in, LLVMLShr);
    case K_shrs: return shift(g, in, LLVMAShr);
    case K_udiv: return LLVMBuildUDiv(g->b, a, g->v[in->b], "");
    case K_urem: return LLVMBuildURem(g->b, a, g->v[in->b], "");
    case K_eq: return compare(g, in, LLVMIntEQ, LLVMRealOEQ);
    case K_lt: return compare(g, in, LLVMIntSLT, LLVMRealOLT);
    case K_le: return compare(g, in, LLVMIntSLE, LLVMRealOLE);
    default: return LLVMBuildSelect(g->b, a, g->v[in->b], g->v[in->c], "");
    }
}

static val cast(st_gen *g, const st_inst *in)
{
    if (g->masked[in - g->k->inst]) {
        const st_inst *shift = byte_shift(g->k, in);
        val x = g->v[g->k->inst[shift->a].a], by = st_gen_const(g, K_I8, K_LANES(in->type), shift->imm);
        return LLVMBuildBinOp(g->b, shift->op == K_shl ? LLVMShl : LLVMLShr, x, by, "");
    }
    return st_gen_cast(g, g->v[in->a], K_ELEM(in->type), K_LANES(in->type));
}

static val convert(st_gen *g, const st_inst *in)
{
    val a = g->v[in->a];
    LLVMTypeRef type = type_of(g, in->type);
    switch (in->op) {
    case K_sext: return LLVMBuildSExt(g->b, a, type, "");
    case K_zext: return LLVMBuildZExt(g->b, a, type, "");
    case K_trunc: return LLVMBuildTrunc(g->b, a, type, "");
    case K_i2f: return LLVMBuildSIToFP(g->b, a, type, "");
    case K_f2i: {
        LLVMTypeRef over[2] = { type, LLVMTypeOf(a) };
        return st_gen_call(g, "llvm.fptosi.sat", over, 2, &a, 1);
    }
    case K_h2f: return st_gen_h2f(g, a);
    case K_f2h: return st_gen_f2h(g, a);
    default: return cast(g, in);
    }
}

static val lanes(st_gen *g, const st_inst *in)
{
    val a = g->v[in->a];
    uint32_t n = K_LANES(in->type);
    switch (in->op) {
    case K_splat: return st_gen_splat(g, a, n);
    case K_extract: return st_gen_slice(g, a, (uint32_t)in->imm, 1);
    case K_slice: return st_gen_slice(g, a, (uint32_t)in->imm, n);
    case K_concat: return st_gen_concat(g, a, g->v[in->b]);
    case K_shuffle: return st_gen_shuffle(g, a, g->v[in->b], g->k->mask + in->imm, n);
    case K_rsum: return st_gen_reduce(g, a, K_ELEM(in->type), 1);
    default: return st_gen_reduce(g, a, K_ELEM(in->type), 0);
    }
}

static val idiom(st_gen *g, const st_inst *in)
{
    val a = g->v[in->a];
    switch (in->op) {
    case K_dot2: return st_gen_dot2(g, NULL, a, g->v[in->b], st_gen_u_max(g->k, in->a), &g->unpaired[in - g->k->inst]);
    case K_dot4: return st_gen_dot4(g, a, g->v[in->b], g->v[in->c], st_gen_u_max(g->k, in->b));
    case K_lut16: return st_gen_lut16(g, a, g->v[in->b]);
    case K_sign: return st_gen_sign(g, a, g->v[in->b]);
    default: return st_gen_opaque(g, a, in->type);
    }
}

/* ---------------------------------------------------------------- structure */

static LLVMBasicBlockRef block(st_gen *g)
{
    return LLVMAppendBasicBlockInContext(g->ctx, g->fn, "");
}

static val open_for(st_gen *g, const st_inst *in)
{
    st_frame *f = &g->frame[g->depth++];
    LLVMBasicBlockRef before = LLVMGetInsertBlock(g->b);
    val begin = g->v[in->a];
    *f = (st_frame){ K_for, block(g), block(g), NULL, g->v[in->b], in->imm };
    val enter = LLVMBuildICmp(g->b, LLVMIntSLT, begin, f->bound, "");
    (void)LLVMBuildCondBr(g->b, enter, f->a, f->done);
    LLVMPositionBuilderAtEnd(g->b, f->a);
    f->index = LLVMBuildPhi(g->b, g->elem[K_I64], "");
    LLVMAddIncoming(f->index, &begin, &before, 1);
    return f->index;
}

static void open_if(st_gen *g, const st_inst *in)
{
    LLVMBasicBlockRef then = block(g);
    st_frame *f = &g->frame[g->depth++];
    *f = (st_frame){ K_if, block(g), block(g), NULL, NULL, 0 };
    (void)LLVMBuildCondBr(g->b, g->v[in->a], then, f->a);
    LLVMPositionBuilderAtEnd(g->b, then);
}

static void turn_else(st_gen *g)
{
    st_frame *f = &g->frame[g->depth - 1];
    f->op = K_else;
    (void)LLVMBuildBr(g->b, f->done);
    LLVMPositionBuilderAtEnd(g->b, f->a);
}

static void close_block(st_gen *g)
{
    st_frame *f = &g->frame[--g->depth];
    if (f->op == K_for) {
        /* nsw: a loop compares true integers, so its index never gets to the wrap. */
        LLVMBasicBlockRef latch = LLVMGetInsertBlock(g->b);
        val next = LLVMBuildNSWAdd(g->b, f->index, int_const(g->elem[K_I64], f->step), "");
        val again = LLVMBuildICmp(g->b, LLVMIntSLT, next, f->bound, "");
        (void)LLVMBuildCondBr(g->b, again, f->a, f->done);
        LLVMAddIncoming(f->index, &next, &latch, 1);
    } else {
        (void)LLVMBuildBr(g->b, f->done);
        if (f->op == K_if) { /* an empty else */
            LLVMPositionBuilderAtEnd(g->b, f->a);
            (void)LLVMBuildBr(g->b, f->done);
        }
    }
    LLVMPositionBuilderAtEnd(g->b, f->done);
}

static val structure(st_gen *g, const st_inst *in)
{
    switch (in->op) {
    case K_var: {
        val slot = LLVMBuildAlloca(g->entry, type_of(g, in->type), "");
        (void)LLVMBuildStore(g->b, g->v[in->a], slot);
        return slot;
    }
    case K_get: return LLVMBuildLoad2(g->b, type_of(g, in->type), g->v[in->a], "");
    case K_set: (void)LLVMBuildStore(g->b, g->v[in->b], g->v[in->a]); return NULL;
    case K_for: return open_for(g, in);
    case K_if: open_if(g, in); return NULL;
    case K_else: turn_else(g); return NULL;
    default: close_block(g); return NULL;
    }
}

static val instruction(st_gen *g, const st_inst *in)
{
    /* Ranges of kir.def, in its order. */
    if (in->op < K_load) return source(g, in);
    if (in->op < K_add) return memory(g, in);
    if (in->op < K_sext) return lanewise(g, in);
    if (in->op < K_splat) return convert(g, in);
    if (in->op < K_dot2) return lanes(g, in);
    if (in->op < K_var) return idiom(g, in);
    if (in->op < K_tile_zero) return structure(g, in);
    int moves = in->op == K_tile_load || in->op == K_tile_store;
    st_gen_tile(g, in, moves ? address(g, in->a, g->v[in->b]) : NULL,
                moves ? (in->imm >> 3) * elem_bytes(K_ELEM(g->k->inst[in->a].type)) : 0);
    return NULL;
}

/* ---------------------------------------------------------------- a kernel */

static void attribute(st_gen *g, LLVMAttributeIndex at, const char *key, const char *text)
{
    unsigned kind = LLVMGetEnumAttributeKindForName(key, strlen(key));
    LLVMAttributeRef a = kind ? LLVMCreateEnumAttribute(g->ctx, kind, 0)
                              : LLVMCreateStringAttribute(g->ctx, key, (unsigned)strlen(key), text,
                                                          (unsigned)strlen(text));
    LLVMAddAttributeAtIndex(g->fn, at, a);
}

static void attributes(st_gen *g)
{
    const LLVMAttributeIndex fn = (LLVMAttributeIndex)LLVMAttributeFunctionIndex;
    attribute(g, fn, "nounwind", "");
    attribute(g, fn, "no-builtins", ""); /* no loop becomes a call of memset or memcpy */
    attribute(g, fn, "target-cpu", g->t->cpu);
    attribute(g, fn, "target-features", g->t->features);
    if (g->avx512) { /* several CPUs are tuned to shun 512 bits; kernels ask for them on purpose */
        attribute(g, fn, "prefer-vector-width", "512");
        attribute(g, fn, "min-legal-vector-width", "512");
    }
    /* The launch and the tile are only read, and nothing that a kernel writes lies in them. */
    for (uint32_t i = 1; i <= 2; i++) {
        attribute(g, i, "noalias", "");
        attribute(g, i, "readonly", "");
    }
}

static setun_status translate(st_gen *g, const char *symbol, uint32_t what, setun_error *err)
{
    LLVMTypeRef ptr = LLVMPointerTypeInContext(g->ctx, 0), param[2] = { ptr, ptr };
    g->fn = LLVMAddFunction(g->mod, symbol,
                            LLVMFunctionType(LLVMVoidTypeInContext(g->ctx), param, 2, 0));
    attributes(g);
    if (what & ST_EMIT_LINES)
        ST_TRY(st_gen_lines_begin(g, err));
    scopes(g);
    LLVMPositionBuilderAtEnd(g->entry, block(g));
    LLVMBasicBlockRef body = block(g);
    LLVMPositionBuilderAtEnd(g->b, body);
    int tiles = 0;
    for (uint32_t i = 1; i < g->k->n_inst; i++)
        tiles |= g->k->inst[i].op >= K_tile_zero;
    if (tiles)
        st_gen_tiles_begin(g);
    for (uint32_t i = 1; i < g->k->n_inst && g->status == SETUN_OK; i++) {
        st_gen_lines_at(g, i);
        g->v[i] = instruction(g, &g->k->inst[i]);
    }
    if (g->status != SETUN_OK) {
        if (err)
            *err = g->fault;
        return g->status;
    }
    if (tiles)
        st_gen_tiles_end(g);
    (void)LLVMBuildRetVoid(g->b);
    (void)LLVMBuildBr(g->entry, body);
    st_gen_lines_end(g);
    return SETUN_OK;
}

/* About how many machine instructions a kernel becomes. */
static int64_t work(const st_kir *k, const st_target *t)
{
    int64_t sum = 0;
    for (uint32_t i = 1; i < k->n_inst; i++) {
        const st_inst *in = &k->inst[i];
        k_type type = in->op == K_store ? k->inst[in->c].type : in->type;
        int64_t n = K_LANES(type);
        sum += in->op == K_gather ? n : 1 + n * elem_bytes(K_ELEM(type)) / t->vector_bytes;
    }
    return sum;
}

/* LLVM reports what goes wrong inside code generation here; by default it prints and exits. */
static void diagnose(LLVMDiagnosticInfoRef d, void *ctx)
{
    st_gen *g = ctx;
    if (LLVMGetDiagInfoSeverity(d) != LLVMDSError)
        return;
    char *text = LLVMGetDiagInfoDescription(d);
    (void)st_gen_fail(g, g->elem[K_I32], "LLVM: %s", text);
    LLVMDisposeMessage(text);
}

static setun_status take(const char *from, size_t n, char **bytes, int64_t *out, setun_error *err)
{
    *bytes = malloc(n + 1);
    if (!*bytes)
        return st_fail(err, SETUN_NO_MEMORY, "no memory for a compiled kernel of %zu bytes", n);
    memcpy(*bytes, from, n);
    (*bytes)[n] = 0; /* for the two text forms */
    *out = (int64_t)n;
    return SETUN_OK;
}

static setun_status optimise(st_gen *g, LLVMTargetMachineRef tm, const st_emit *how, setun_error *err)
{
    char *why = NULL;
    setun_status s = SETUN_OK;
    if (LLVMVerifyModule(g->mod, LLVMReturnStatusAction, &why))
        s = st_fail(err, SETUN_FAILED, "kernel %s: LLVM refuses its own form of it: %.300s",
                    g->k->name, why);
    LLVMDisposeMessage(why);
    if (s != SETUN_OK)
        return s;
    int64_t start = st_now_ns();
    size_t n = how->simple ? SIMPLE_PASSES : SETUN_LEN(passes);
    for (size_t i = 0; i < n && s == SETUN_OK; i++) {
        LLVMPassBuilderOptionsRef o = LLVMCreatePassBuilderOptions();
        LLVMErrorRef e = LLVMRunPasses(g->mod, passes[i], tm, o);
        LLVMDisposePassBuilderOptions(o);
        if (e) {
            char *text = LLVMGetErrorMessage(e);
            s = st_fail(err, SETUN_FAILED, "kernel %s: LLVM's passes: %s", g->k->name, text);
            LLVMDisposeErrorMessage(text);
        } else if (how->limit_ns && st_now_ns() - start > how->limit_ns) {
            s = st_fail(err, SETUN_FULL, "kernel %s: LLVM's passes took %.1f s, and %.1f are allowed", g->k->name,
                        1e-9 * (double)(st_now_ns() - start), 1e-9 * (double)how->limit_ns);
        }
    }
    return s;
}

/* take, or where lines were asked for the text with them in place of what debuggers read */
static setun_status take_text(const st_gen *g, uint32_t what, const char *text, size_t size, char **bytes, int64_t *n,
                              setun_error *err)
{
    st_str lines = {0};
    if (!g->lines)
        return take(text, size, bytes, n, err);
    st_gen_lines_text(g, what, text, &lines);
    setun_status s = lines.failed ? st_fail(err, SETUN_NO_MEMORY, "kernel %s: no memory to print it", g->k->name)
                                  : take(lines.text ? lines.text : "", lines.len, bytes, n, err);
    st_str_free(&lines);
    return s;
}

static setun_status output(st_gen *g, LLVMTargetMachineRef tm, uint32_t what, char **bytes, int64_t *n,
                           setun_error *err)
{
    if (what == ST_EMIT_IR) {
        char *text = LLVMPrintModuleToString(g->mod);
        setun_status s = take_text(g, what, text, strlen(text), bytes, n, err);
        LLVMDisposeMessage(text);
        return s;
    }
    LLVMMemoryBufferRef buffer;
    char *why = NULL;
    if (LLVMTargetMachineEmitToMemoryBuffer(
            tm, g->mod, what == ST_EMIT_ASM ? LLVMAssemblyFile : LLVMObjectFile, &why, &buffer)) {
        setun_status s =
            st_fail(err, SETUN_FAILED, "kernel %s: LLVM's code generation: %s", g->k->name, why);
        LLVMDisposeMessage(why);
        return s;
    }
    const char *start = LLVMGetBufferStart(buffer);
    size_t size = LLVMGetBufferSize(buffer);
    setun_status s = g->status;
    if (s != SETUN_OK && err)
        *err = g->fault;
    if (s == SETUN_OK)
        s = take_text(g, what, start, size, bytes, n, err);
    LLVMDisposeMemoryBuffer(buffer);
    return s;
}

static setun_status compile(st_gen *g, LLVMTargetMachineRef tm, const char *symbol, const st_emit *how,
                            char **bytes, int64_t *n, setun_error *err)
{
    LLVMSetTarget(g->mod, g->t->triple);
    LLVMSetSourceFileName(g->mod, "", 0);
    LLVMTargetDataRef layout = LLVMCreateTargetDataLayout(tm);
    LLVMSetModuleDataLayout(g->mod, layout);
    LLVMDisposeTargetData(layout);
    ST_TRY(translate(g, symbol, how->what, err));
    ST_TRY(optimise(g, tm, how, err));
    return output(g, tm, how->what & ~ST_EMIT_LINES, bytes, n, err);
}

setun_status st_llvm_emit(const st_kir *k, const st_target *t, const char *symbol, const st_emit *how,
                          char **bytes, int64_t *n, setun_error *err)
{
    *bytes = NULL;
    *n = 0;
    uint32_t form = how->what & ~ST_EMIT_LINES;
    if (form < ST_EMIT_OBJECT || form > ST_EMIT_IR || how->what == (ST_EMIT_OBJECT | ST_EMIT_LINES))
        return st_fail(err, SETUN_UNKNOWN,
                       "kernel %s: form %u is not one that a kernel is compiled to", k->name, how->what);
    int most = how->simple ? MAX_SIMPLE_WORK : MAX_WORK;
    if (work(k, t) > most)
        return st_fail(err, SETUN_FULL,
                       "kernel %s: its %u instructions are about %lld vector operations; %d can "
                       "be compiled",
                       k->name, k->n_inst, (long long)work(k, t), most);
    LLVMTargetMachineRef tm;
    ST_TRY(st_llvm_machine(t, how->simple, &tm, err));

    st_gen g = { .k = k, .t = t };
    uint32_t blocks = 1;
    for (uint32_t i = 1; i < k->n_inst; i++)
        blocks += k->inst[i].op == K_for || k->inst[i].op == K_if;
    g.v = calloc(k->n_inst, sizeof *g.v);
    g.frame = calloc(blocks, sizeof *g.frame);
    g.masked = calloc(k->n_inst, 1);
    g.unpaired = calloc(k->n_inst, sizeof *g.unpaired);
    setun_status s = SETUN_OK;
    if (!g.v || !g.frame || !g.masked || !g.unpaired)
        s = st_fail(err, SETUN_NO_MEMORY, "kernel %s: no memory for its translation", k->name);
    g.avx = t->arch == ST_ARCH_X86 && st_isa_has(t, "avx");
    g.avx512 = t->arch == ST_ARCH_X86 && t->vector_bytes == 64;
    g.roundeven = t->arch == ST_ARCH_ARM || (t->arch == ST_ARCH_X86 && st_isa_has(t, "sse4.1"));

    g.ctx = LLVMContextCreate(); /* one per call: contexts are what makes LLVM reentrant */
    LLVMContextSetDiagnosticHandler(g.ctx, diagnose, &g);
    g.mod = LLVMModuleCreateWithNameInContext("setun", g.ctx);
    g.b = LLVMCreateBuilderInContext(g.ctx);
    g.entry = LLVMCreateBuilderInContext(g.ctx);
    g.elem[K_I1] = LLVMInt1TypeInContext(g.ctx);
    g.elem[K_I8] = LLVMInt8TypeInContext(g.ctx);
    g.elem[K_I16] = LLVMInt16TypeInContext(g.ctx);
    g.elem[K_I32] = LLVMInt32TypeInContext(g.ctx);
    g.elem[K_I64] = LLVMInt64TypeInContext(g.ctx);
    g.elem[K_F32] = LLVMFloatTypeInContext(g.ctx);
    if (s == SETUN_OK && t->arch != ST_ARCH_X86)
        find_masked(&g);
    if (s == SETUN_OK)
        s = compile(&g, tm, symbol, how, bytes, n, err);
    st_gen_lines_free(&g);
    LLVMDisposeBuilder(g.b);
    LLVMDisposeBuilder(g.entry);
    LLVMDisposeModule(g.mod);
    LLVMContextDispose(g.ctx);
    LLVMDisposeTargetMachine(tm);
    free(g.v);
    free(g.frame);
    free(g.masked);
    free(g.unpaired);
    return s;
}
