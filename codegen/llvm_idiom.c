/* codegen/llvm_idiom.c -- the instructions whose best code differs from machine to machine.
 *
 * Each has a generic lowering in plain IR that is exact everywhere, and better ones for targets
 * whose st_target row promises the instruction.  Vectors wider than a native piece are cut into
 * pieces of the widest width and put together again; cutting at register borders costs nothing.
 *
 * Target intrinsics are found by name at run time, so an LLVM without one is an error sentence and
 * not a link failure. */
#include <llvm-c/Core.h>

#include "base/error.h"
#include "codegen/llvm_priv.h"

#define MAX_PIECES 16 /* 256 lanes of one byte in registers of 16 */

static val bits_as(st_gen *g, val v, uint32_t elem, uint32_t lanes)
{
    return st_gen_cast(g, v, elem, lanes);
}
static val and_(st_gen *g, val a, val b) { return LLVMBuildAnd(g->b, a, b, ""); }
static val or_(st_gen *g, val a, val b) { return LLVMBuildOr(g->b, a, b, ""); }
static val add(st_gen *g, val a, val b) { return LLVMBuildAdd(g->b, a, b, ""); }
static val sub(st_gen *g, val a, val b) { return LLVMBuildSub(g->b, a, b, ""); }
static val pick(st_gen *g, val c, val a, val b) { return LLVMBuildSelect(g->b, c, a, b, ""); }

/* Shifts by a constant. */
static val shl(st_gen *g, val a, uint32_t elem, int64_t n)
{
    return LLVMBuildShl(g->b, a, st_gen_const(g, elem, st_gen_lanes(a), n), "");
}
static val lshr(st_gen *g, val a, uint32_t elem, int64_t n)
{
    return LLVMBuildLShr(g->b, a, st_gen_const(g, elem, st_gen_lanes(a), n), "");
}
static val ashr(st_gen *g, val a, uint32_t elem, int64_t n)
{
    return LLVMBuildAShr(g->b, a, st_gen_const(g, elem, st_gen_lanes(a), n), "");
}

static val concat_all(st_gen *g, val *part, uint32_t n)
{
    if (n == 1)
        return part[0];
    return st_gen_concat(g, concat_all(g, part, n / 2), concat_all(g, part + n / 2, n - n / 2));
}

/* Apply fn to pieces of at most width bytes (16 at least; shorter rests are padded with undefined
 * lanes).  b and c are bytes; a result lane, and a lane of a, stands for per of them. */
static val pieces(st_gen *g, st_gen_piece *fn, uint32_t width, uint32_t per, val a, val b, val c)
{
    val part[MAX_PIECES];
    uint32_t total = st_gen_lanes(b), n = 0;
    for (uint32_t at = 0; at < total;) {
        uint32_t w = width;
        while (w > 16 && w > total - at)
            w /= 2;
        part[n++] = fn(g, a ? st_gen_slice(g, a, at / per, w / per) : NULL,
                       st_gen_slice(g, b, at, w), c ? st_gen_slice(g, c, at, w) : NULL, w);
        at += w;
    }
    return st_gen_slice(g, concat_all(g, part, n), 0, total / per);
}

static const char *by_width(uint32_t bytes, const char *w16, const char *w32, const char *w64)
{
    return bytes == 64 ? w64 : bytes == 32 ? w32 : w16;
}

/* ---------------------------------------------------------------- dot products */

static val x86_maddubs(st_gen *g, val a, val u, val s, uint32_t bytes)
{
    val arg[2] = { u, s };
    (void)a;
    return st_gen_call(g,
                       by_width(bytes, "llvm.x86.ssse3.pmadd.ub.sw.128",
                                "llvm.x86.avx2.pmadd.ub.sw", "llvm.x86.avx512.pmaddubs.w.512"),
                       NULL, 0, arg, 2);
}

/* i32 sums of neighbouring products of i16. */
static val x86_maddwd(st_gen *g, val x, val y, uint32_t bytes)
{
    val arg[2] = { x, y };
    return st_gen_call(g, by_width(bytes, "llvm.x86.sse2.pmadd.wd", "llvm.x86.avx2.pmadd.wd",
                                   "llvm.x86.avx512.pmaddw.d.512"), NULL, 0, arg, 2);
}

static val x86_dpbusd(st_gen *g, val acc, val u, val s, uint32_t bytes)
{
    val arg[3] = { acc, u, s };
    return st_gen_call(g,
                       by_width(bytes, "llvm.x86.avx512.vpdpbusd.128",
                                "llvm.x86.avx512.vpdpbusd.256", "llvm.x86.avx512.vpdpbusd.512"),
                       NULL, 0, arg, 3);
}

/* Even and odd bytes as i16 lanes, u's zero extended and s's sign extended. */
static void even_odd(st_gen *g, val u, val s, val u16[2], val s16[2])
{
    uint32_t n = st_gen_lanes(u) / 2;
    val x = bits_as(g, u, K_I16, n), y = bits_as(g, s, K_I16, n);
    u16[0] = and_(g, x, st_gen_const(g, K_I16, n, 255));
    u16[1] = lshr(g, x, K_I16, 8);
    s16[0] = ashr(g, shl(g, y, K_I16, 8), K_I16, 8);
    s16[1] = ashr(g, y, K_I16, 8);
}

static int is_x86(const st_gen *g) { return g->t->arch == ST_ARCH_X86; }

/* Sums of neighbouring lanes. */
static val pair_sums(st_gen *g, val v)
{
    int32_t lane[2][K_MAX_LANES / 2];
    uint32_t n = st_gen_lanes(v) / 2;
    for (uint32_t i = 0; i < n; i++) {
        lane[0][i] = (int32_t)(2 * i);
        lane[1][i] = lane[0][i] + 1;
    }
    return add(g, st_gen_shuffle(g, v, NULL, lane[0], n), st_gen_shuffle(g, v, NULL, lane[1], n));
}

/* u * s of every lane, which fits i16: 255 * -128 = -32640 and 255 * 127 = 32385.  u <= 127 is the same number
 * signed, and a product of two signed bytes is what most instruction sets widen at once. */
static val products(st_gen *g, val u, val s, uint32_t u_max)
{
    LLVMTypeRef wide = st_gen_type(g, K_I16, st_gen_lanes(u));
    u = u_max <= 127 ? LLVMBuildSExt(g->b, u, wide, "") : LLVMBuildZExt(g->b, u, wide, "");
    return LLVMBuildMul(g->b, u, LLVMBuildSExt(g->b, s, wide, ""), "");
}

val st_gen_dot2(st_gen *g, val acc, val u, val s, uint32_t u_max, val *unpaired)
{
    const st_gen_primitives *p = st_gen_primitives_of(g->t);
    uint32_t width = (uint32_t)g->t->dot2;
    if (is_x86(g) && width)
        return pieces(g, x86_maddubs, width, 2, NULL, u, s);
    if (p && p->dot2 && width && u_max <= 127)
        return pieces(g, p->dot2, width, 2, acc ? acc : st_gen_const(g, K_I16, st_gen_lanes(u) / 2, 0), u, s);
    if (!is_x86(g) && u_max <= 127) { /* 2 * 127 * 128 fits */
        *unpaired = products(g, u, s, u_max);
        return pair_sums(g, *unpaired);
    }
    /* Only the sum of two products may saturate. */
    val x[2], y[2], arg[2];
    even_odd(g, u, s, x, y);
    arg[0] = LLVMBuildMul(g->b, x[0], y[0], "");
    arg[1] = LLVMBuildMul(g->b, x[1], y[1], "");
    LLVMTypeRef over = LLVMTypeOf(arg[0]);
    return st_gen_call(g, "llvm.sadd.sat", &over, 1, arg, 2);
}

/* Sums of dot2s.  With an instruction that adds to its third operand, the addition is part of it.  Else, as
 * i16 wraps, the sum of pairs is the pairs of sums, modulo 2^16: products are added up as they are, and
 * paired once.  What that makes superfluous goes away as dead code. */
val st_gen_add_dot2(st_gen *g, const st_inst *in, val *unpaired)
{
    const st_gen_primitives *p = st_gen_primitives_of(g->t);
    const st_inst *dot = &g->k->inst[in->b];
    val ua = g->unpaired[in->a], ub = g->unpaired[in->b];
    if (ua && ub) {
        *unpaired = add(g, ua, ub);
        return pair_sums(g, *unpaired);
    }
    if (p && p->dot2 && g->t->dot2 && dot->op == K_dot2 && st_gen_u_max(g->k, dot->a) <= 127)
        return st_gen_dot2(g, g->v[in->a], g->v[dot->a], g->v[dot->b], 127, NULL);
    return NULL;
}

/* u <= 127: 2 * 127 * 128 = 32512 does not saturate, and pairs of such sums are exact in i32. */
static val x86_dot4_small(st_gen *g, val acc, val u, val s, uint32_t bytes)
{
    val pair = x86_maddubs(g, NULL, u, s, bytes);
    return add(g, acc, x86_maddwd(g, pair, st_gen_const(g, K_I16, bytes / 2, 1), bytes));
}

/* Any u: products of even bytes and of odd bytes, summed in pairs in i32. */
static val x86_dot4_any(st_gen *g, val acc, val u, val s, uint32_t bytes)
{
    val x[2], y[2];
    even_odd(g, u, s, x, y);
    acc = add(g, acc, x86_maddwd(g, x[0], y[0], bytes));
    return add(g, acc, x86_maddwd(g, x[1], y[1], bytes));
}

/* In plain vector code: widened products, whose pairs fit i16 where u <= 127. */
static val generic_dot4(st_gen *g, val acc, val u, val s, uint32_t u_max)
{
    val m = products(g, u, s, u_max);
    if (u_max <= 127)
        m = pair_sums(g, m);
    m = LLVMBuildSExt(g->b, m, st_gen_type(g, K_I32, st_gen_lanes(m)), "");
    while (st_gen_lanes(m) > st_gen_lanes(acc))
        m = pair_sums(g, m);
    return add(g, acc, m);
}

val st_gen_dot4(st_gen *g, val acc, val u, val s, uint32_t u_max)
{
    const st_target *t = g->t;
    const st_gen_primitives *p = st_gen_primitives_of(t);
    uint32_t width = (uint32_t)t->vector_bytes;
    if (is_x86(g)) {
        if (t->dot4)
            return pieces(g, x86_dpbusd, (uint32_t)t->dot4, 4, acc, u, s);
        if (t->dot2 && u_max <= 127)
            return pieces(g, x86_dot4_small, (uint32_t)t->dot2, 4, acc, u, s);
        return pieces(g, x86_dot4_any, width, 4, acc, u, s);
    }
    if (p && p->dot4_small && u_max <= 127)
        return pieces(g, p->dot4_small, width, 4, acc, u, s);
    if (p && p->dot4)
        return pieces(g, p->dot4, width, 4, acc, u, s);
    return generic_dot4(g, acc, u, s, u_max);
}

/* ---------------------------------------------------------------- bytes */

/* The table has 16 lanes; pshufb looks up inside each 16 bytes, so it is repeated. */
static val x86_pshufb(st_gen *g, val table, val index, val unused, uint32_t bytes)
{
    int32_t lane[64];
    (void)unused;
    for (uint32_t i = 0; i < bytes; i++)
        lane[i] = (int32_t)(i % 16);
    val arg[2] = { st_gen_shuffle(g, table, NULL, lane, bytes),
                   and_(g, index, st_gen_const(g, K_I8, bytes, 15)) };
    return st_gen_call(g, by_width(bytes, "llvm.x86.ssse3.pshuf.b.128", "llvm.x86.avx2.pshuf.b",
                                   "llvm.x86.avx512.pshuf.b.512"), NULL, 0, arg, 2);
}

/* Floats are looked up; entries of i32 take their way. */
static val x86_permute(st_gen *g, val table, val index)
{
    uint32_t n = st_gen_lanes(index), entries = st_gen_lanes(table);
    int32_t lane[16];
    for (uint32_t i = 0; i < n; i++)
        lane[i] = (int32_t)(i % entries);
    val arg[2] = { entries == n ? table : st_gen_shuffle(g, table, NULL, lane, n), index };
    return st_gen_call(g, entries == 16 ? "llvm.x86.avx512.permvar.sf.512" :
                       by_width(4 * n, "llvm.x86.avx.vpermilvar.ps", "llvm.x86.avx.vpermilvar.ps.256",
                                "llvm.x86.avx512.vpermilvar.ps.512"), NULL, 0, arg, 2);
}

/* In 32-bit lanes; vpermps reads the low 4 bits of an index, vpermilps the low 2. */
static val lut32(st_gen *g, val table, val index)
{
    uint32_t n = st_gen_lanes(index), m = 0, width = (uint32_t)g->t->vector_bytes / 4;
    LLVMTypeRef given = LLVMGetElementType(LLVMTypeOf(table));
    val part[K_MAX_LANES / 4];
    table = bits_as(g, table, K_F32, st_gen_lanes(table));
    for (uint32_t at = 0; at < n; m++) {
        uint32_t w = width;
        while (st_gen_lanes(table) == 4 && w > 4 && w > n - at)
            w /= 2;
        part[m] = x86_permute(g, table, st_gen_slice(g, index, at, w));
        at += w;
    }
    val r = st_gen_slice(g, concat_all(g, part, m), 0, n);
    return bits_as(g, r, given == g->elem[K_F32] ? K_F32 : K_I32, n);
}

val st_gen_lut16(st_gen *g, val table, val index)
{
    uint32_t n = st_gen_lanes(index), entries = st_gen_lanes(table);
    uint32_t elem = LLVMTypeOf(index) == st_gen_type(g, K_I8, n) ? K_I8 : K_I32;
    const st_gen_primitives *p = st_gen_primitives_of(g->t);
    if (elem == K_I32 && is_x86(g) && g->t->lut32 >= (int32_t)entries)
        return lut32(g, table, index);
    if (elem == K_I8 && g->t->lut16 && (is_x86(g) || (p && p->lut16))) {
        /* pieces() cuts its first operand as well; the table is handed on whole instead. */
        val part[MAX_PIECES];
        uint32_t m = 0;
        for (uint32_t at = 0; at < n;) {
            uint32_t w = (uint32_t)g->t->lut16;
            while (w > 16 && w > n - at)
                w /= 2;
            val i = st_gen_slice(g, index, at, w);
            part[m++] = is_x86(g) ? x86_pshufb(g, table, i, NULL, w)
                                  : p->lut16(g, table, and_(g, i, st_gen_const(g, K_I8, w, 15)), NULL, w);
            at += w;
        }
        return st_gen_slice(g, concat_all(g, part, m), 0, n);
    }
    /* Levels of choice between neighbours, by the index's bits from the lowest on. */
    val level[16];
    for (uint32_t i = 0; i < entries; i++)
        level[i] = st_gen_splat(g, st_gen_slice(g, table, i, 1), n);
    for (uint32_t bit = 0, left = entries / 2; left; bit++, left /= 2) {
        val is0 = LLVMBuildICmp(g->b, LLVMIntEQ, and_(g, index, st_gen_const(g, elem, n, 1 << bit)),
                                st_gen_const(g, elem, n, 0), "");
        for (uint32_t i = 0; i < left; i++)
            level[i] = pick(g, is0, level[2 * i], level[2 * i + 1]);
    }
    return level[0];
}

static val x86_psign(st_gen *g, val unused, val a, val b, uint32_t bytes)
{
    val arg[2] = { a, b };
    (void)unused;
    return st_gen_call(g,
                       by_width(bytes, "llvm.x86.ssse3.psign.b.128", "llvm.x86.avx2.psign.b", ""),
                       NULL, 0, arg, 2);
}

val st_gen_sign(st_gen *g, val a, val b)
{
    uint32_t n = st_gen_lanes(a);
    /* Where registers have 64 bytes, two masked operations beat cutting and joining. */
    if (is_x86(g) && g->t->sign && (g->t->vector_bytes <= g->t->sign || n <= (uint32_t)g->t->sign))
        return pieces(g, x86_psign, (uint32_t)g->t->sign, 1, NULL, a, b);
    const st_gen_primitives *p = st_gen_primitives_of(g->t);
    if (p && p->sign && g->t->sign)
        return pieces(g, p->sign, (uint32_t)g->t->sign, 1, NULL, a, b);
    val zero = st_gen_const(g, K_I8, n, 0);
    val r = pick(g, LLVMBuildICmp(g->b, LLVMIntEQ, b, zero, ""), zero, a);
    return pick(g, LLVMBuildICmp(g->b, LLVMIntSLT, b, zero, ""), sub(g, zero, a), r);
}

/* ---------------------------------------------------------------- opaque */

/* An empty piece of assembly that claims to produce its output in the register of its input.  It is
 * declared free of side effects, so it moves and goes away like any pure instruction. */
static val asm_copy(st_gen *g, val a, const char *constraint)
{
    LLVMTypeRef type = LLVMTypeOf(a), fn = LLVMFunctionType(type, &type, 1, 0);
    val text = LLVMGetInlineAsm(fn, "", 0, constraint, 4, 0, 0, LLVMInlineAsmDialectATT, 0);
    val call = LLVMBuildCall2(g->b, fn, text, &a, 1, "");
    /* memory(none) and nounwind; the encoding of memory effects "none" is 0. */
    unsigned kind = LLVMGetEnumAttributeKindForName("memory", 6);
    LLVMAddCallSiteAttribute(call, (LLVMAttributeIndex)LLVMAttributeFunctionIndex,
                             LLVMCreateEnumAttribute(g->ctx, kind, 0));
    kind = LLVMGetEnumAttributeKindForName("nounwind", 8);
    LLVMAddCallSiteAttribute(call, (LLVMAttributeIndex)LLVMAttributeFunctionIndex,
                             LLVMCreateEnumAttribute(g->ctx, kind, 0));
    return call;
}

val st_gen_opaque(st_gen *g, val a, k_type type)
{
    static const uint32_t bytes[8] = { 0, 1, 1, 2, 4, 8, 4, 0 };
    uint32_t elem = K_ELEM(type), n = K_LANES(type), x86 = (uint32_t)is_x86(g);
    const st_gen_primitives *p = st_gen_primitives_of(g->t);
    LLVMTypeRef given = LLVMTypeOf(a);
    if (!x86 && (n == 1 ? elem == K_F32 && !(p && p->scalar_f32) : !(p && p->vector))) {
        /* No register class is known here: through memory, where volatile keeps it opaque. */
        val slot = LLVMBuildAlloca(g->entry, given, "");
        LLVMSetVolatile(LLVMBuildStore(g->b, a, slot), 1);
        val r = LLVMBuildLoad2(g->b, given, slot, "");
        LLVMSetVolatile(r, 1);
        return r;
    }
    if (n == 1 && elem != K_F32) { /* narrow integers live in 32-bit registers */
        val x = bytes[elem] < 4 ? LLVMBuildZExt(g->b, a, g->elem[K_I32], "") : a;
        x = asm_copy(g, x, "=r,0");
        return bytes[elem] < 4 ? LLVMBuildTrunc(g->b, x, given, "") : x;
    }
    const char *in_vector = !x86 ? p->vector : g->avx512 ? "=v,0" : "=x,0";
    if (n == 1)
        return asm_copy(g, a, x86 ? in_vector : p->scalar_f32);
    val part[K_MAX_LANES / 2]; /* i64 in registers of 16 bytes */
    uint32_t m = 0, widest = !x86 ? (uint32_t)g->t->vector_bytes : g->avx512 ? 64 : g->avx ? 32 : 16;
    for (uint32_t at = 0; at < n;) {
        uint32_t w = widest / bytes[elem];
        while (w * bytes[elem] > 16 && w > n - at)
            w /= 2;
        part[m++] = asm_copy(g, st_gen_slice(g, a, at, w), in_vector);
        at += w;
    }
    return st_gen_slice(g, concat_all(g, part, m), 0, n);
}

/* ---------------------------------------------------------------- floats */

val st_gen_max(st_gen *g, val a, val b, uint32_t elem)
{
    val above = elem == K_F32 ? LLVMBuildFCmp(g->b, LLVMRealOGT, a, b, "")
                              : LLVMBuildICmp(g->b, LLVMIntSGT, a, b, "");
    return pick(g, above, a, b);
}

/* The order of additions is part of the meaning; for integers it is not, but it is as good. */
val st_gen_reduce(st_gen *g, val a, uint32_t elem, int sum)
{
    for (uint32_t half = st_gen_lanes(a) / 2; half; half /= 2) {
        val low = st_gen_slice(g, a, 0, half), high = st_gen_slice(g, a, half, half);
        a = !sum            ? st_gen_max(g, low, high, elem)
            : elem == K_F32 ? LLVMBuildFAdd(g->b, low, high, "")
                            : add(g, low, high);
    }
    return a;
}

static val f32(st_gen *g, uint32_t n, uint32_t bits) { return st_gen_const(g, K_F32, n, bits); }
static val i32(st_gen *g, uint32_t n, uint32_t bits) { return st_gen_const(g, K_I32, n, bits); }
static val is_nan(st_gen *g, val a) { return LLVMBuildFCmp(g->b, LLVMRealUNO, a, a, ""); }

val st_gen_rint(st_gen *g, val a)
{
    LLVMTypeRef over = LLVMTypeOf(a);
    uint32_t n = st_gen_lanes(a);
    if (g->roundeven)
        return st_gen_call(g, "llvm.roundeven", &over, 1, &a, 1);
    /* Below 2^23 adding 2^23 rounds to an integer, ties to even; above, every float is one.  The
     * sign is put back for -0 and for what rounds to it.  NaN fails the comparison and is kept. */
    val two23 = f32(g, n, 0x4b000000u), bits = bits_as(g, a, K_I32, n);
    val size = LLVMBuildBitCast(g->b, and_(g, bits, i32(g, n, 0x7fffffffu)), over, "");
    val r = LLVMBuildFSub(g->b, LLVMBuildFAdd(g->b, size, two23, ""), two23, "");
    r = or_(g, bits_as(g, r, K_I32, n), and_(g, bits, i32(g, n, 0x80000000u)));
    return pick(g, LLVMBuildFCmp(g->b, LLVMRealOLT, size, two23, ""),
                LLVMBuildBitCast(g->b, r, over, ""), a);
}

/* Both conversions follow setun/numerics.h step by step where there is no instruction. */
val st_gen_h2f(st_gen *g, val a)
{
    uint32_t n = st_gen_lanes(a);
    LLVMTypeRef type = st_gen_type(g, K_F32, n), half = LLVMHalfTypeInContext(g->ctx);
    if (g->t->f16) {
        half = n == 1 ? half : LLVMVectorType(half, n);
        return LLVMBuildFPExt(g->b, LLVMBuildBitCast(g->b, a, half, ""), type, "");
    }
    val u = LLVMBuildZExt(g->b, a, st_gen_type(g, K_I32, n), "");
    val sign = shl(g, and_(g, u, i32(g, n, 0x8000u)), K_I32, 16);
    val e = and_(g, lshr(g, u, K_I32, 10), i32(g, n, 31)), m = and_(g, u, i32(g, n, 0x3ffu));
    val is0 = LLVMBuildICmp(g->b, LLVMIntEQ, e, i32(g, n, 0), "");
    val is31 = LLVMBuildICmp(g->b, LLVMIntEQ, e, i32(g, n, 31), "");
    val m0 = LLVMBuildICmp(g->b, LLVMIntEQ, m, i32(g, n, 0), "");
    val tiny = LLVMBuildFMul(g->b, LLVMBuildSIToFP(g->b, m, type, ""), f32(g, n, 0x33800000u),
                             ""); /* 2^-24 */
    val r = add(g, shl(g, and_(g, u, i32(g, n, 0x7fffu)), K_I32, 13), i32(g, n, 112u << 23));
    r = pick(g, is0, bits_as(g, tiny, K_I32, n), r);
    r = pick(g, is31, pick(g, m0, i32(g, n, 0x7f800000u), i32(g, n, 0x7fc00000u)), r);
    return LLVMBuildBitCast(g->b, or_(g, r, sign), type, "");
}

val st_gen_f2h(st_gen *g, val a)
{
    uint32_t n = st_gen_lanes(a);
    LLVMTypeRef type = st_gen_type(g, K_I16, n), half = LLVMHalfTypeInContext(g->ctx);
    if (g->t->f16) {
        half = n == 1 ? half : LLVMVectorType(half, n);
        val r = LLVMBuildBitCast(g->b, LLVMBuildFPTrunc(g->b, a, half, ""), type, "");
        val sign = and_(g, r, st_gen_const(g, K_I16, n, 0x8000));
        return pick(g, is_nan(g, a), or_(g, sign, st_gen_const(g, K_I16, n, 0x7e00)), r);
    }
    val u = bits_as(g, a, K_I32, n), size = and_(g, u, i32(g, n, 0x7fffffffu));
    val sign = and_(g, lshr(g, u, K_I32, 16), i32(g, n, 0x8000u));
    /* normal: rebias and round to even in integers; 1/2 is 0x3f000000 */
    val odd = and_(g, lshr(g, size, K_I32, 13), i32(g, n, 1));
    val r = add(g, add(g, size, i32(g, n, 0xfffu - 0x38000000u)), odd);
    r = lshr(g, r, K_I32, 13);
    val tiny = LLVMBuildFAdd(g->b, LLVMBuildBitCast(g->b, size, LLVMTypeOf(a), ""),
                             f32(g, n, 0x3f000000u), "");
    tiny = sub(g, bits_as(g, tiny, K_I32, n), i32(g, n, 0x3f000000u));
    r = pick(g, LLVMBuildICmp(g->b, LLVMIntULT, size, i32(g, n, 0x38800000u), ""), tiny, r);
    r = pick(g, LLVMBuildICmp(g->b, LLVMIntUGE, size, i32(g, n, 0x477ff000u), ""),
             i32(g, n, 0x7c00u), r);
    r = pick(g, LLVMBuildICmp(g->b, LLVMIntUGT, size, i32(g, n, 0x7f800000u), ""),
             i32(g, n, 0x7e00u), r);
    return LLVMBuildTrunc(g->b, or_(g, r, sign), type, "");
}

/* ---------------------------------------------------------------- tiles
 *
 * x86 with AMX: tile registers are named by immediate numbers, which are those of kir.  Their shape is
 * configured at the start of a kernel and they are released at its end, so that nothing of them has
 * to be kept while other code runs.  Elsewhere a tile is 1024 bytes of the stack. */

#define TILE_ROWS 16
#define TILE_ROW 64

static val i32_value(st_gen *g, uint64_t x) { return LLVMConstInt(g->elem[K_I32], x, 0); }
static val i64_value(st_gen *g, int64_t x) { return LLVMConstInt(g->elem[K_I64], (uint64_t)x, 1); }

static val byte_after(st_gen *g, val p, val offset)
{
    return LLVMBuildGEP2(g->b, g->elem[K_I8], p, &offset, 1, "");
}

void st_gen_tiles_begin(st_gen *g)
{
    if (!g->t->tiles) {
        g->tiles = LLVMBuildAlloca(g->entry, LLVMArrayType2(g->elem[K_I8], 8 * TILE_ROWS * TILE_ROW), "");
        LLVMSetAlignment(g->tiles, TILE_ROW);
        return;
    }
    /* Palette 1: byte 0 is 1; 16-bit row lengths from byte 16 on; numbers of rows from byte 48 on. */
    val byte[64];
    for (uint32_t i = 0; i < 64; i++)
        byte[i] = LLVMConstInt(g->elem[K_I8], i == 0 ? 1 : i >= 16 && i < 32 && i % 2 == 0 ? TILE_ROW :
                               i >= 48 && i < 56 ? TILE_ROWS : 0, 0);
    val shape = LLVMBuildAlloca(g->entry, LLVMArrayType2(g->elem[K_I8], 64), "");
    LLVMSetAlignment(shape, 64);
    LLVMSetAlignment(LLVMBuildStore(g->b, LLVMConstVector(byte, 64), shape), 64);
    (void)st_gen_call(g, "llvm.x86.ldtilecfg", NULL, 0, &shape, 1);
}

void st_gen_tiles_end(st_gen *g)
{
    if (g->t->tiles)
        (void)st_gen_call(g, "llvm.x86.tilerelease", NULL, 0, NULL, 0);
}

/* A loop over the 16 rows; body(row) is built between. */
static val rows_begin(st_gen *g, LLVMBasicBlockRef *loop)
{
    LLVMBasicBlockRef from = LLVMGetInsertBlock(g->b);
    val zero = i64_value(g, 0);
    *loop = LLVMAppendBasicBlockInContext(g->ctx, g->fn, "");
    (void)LLVMBuildBr(g->b, *loop);
    LLVMPositionBuilderAtEnd(g->b, *loop);
    val row = LLVMBuildPhi(g->b, g->elem[K_I64], "");
    LLVMAddIncoming(row, &zero, &from, 1);
    return row;
}

static void rows_end(st_gen *g, LLVMBasicBlockRef loop, val row)
{
    val next = LLVMBuildAdd(g->b, row, i64_value(g, 1), "");
    LLVMBasicBlockRef done = LLVMAppendBasicBlockInContext(g->ctx, g->fn, "");
    val again = LLVMBuildICmp(g->b, LLVMIntSLT, next, i64_value(g, TILE_ROWS), "");
    (void)LLVMBuildCondBr(g->b, again, loop, done);
    LLVMAddIncoming(row, &next, &loop, 1);
    LLVMPositionBuilderAtEnd(g->b, done);
}

static val tile_row(st_gen *g, int64_t tile, val row)
{
    val at = LLVMBuildMul(g->b, row, i64_value(g, TILE_ROW), "");
    return byte_after(g, g->tiles, LLVMBuildAdd(g->b, at, i64_value(g, tile * TILE_ROWS * TILE_ROW), ""));
}

static val load_row(st_gen *g, val p, uint32_t elem)
{
    val r = LLVMBuildLoad2(g->b, st_gen_type(g, elem, elem == K_I32 ? 16 : 64), p, "");
    LLVMSetAlignment(r, 1);
    return r;
}

static void tile_generic(st_gen *g, const st_inst *in, val at, int64_t row_bytes)
{
    LLVMBasicBlockRef loop;
    val row = rows_begin(g, &loop), mine = tile_row(g, in->imm & 7, row), v;
    if (in->op == K_tile_dot) {
        val a = load_row(g, tile_row(g, in->imm >> 3 & 7, row), K_I32);
        v = load_row(g, mine, K_I32);
        for (int64_t i = 0; i < TILE_ROWS; i++) {
            val four = st_gen_splat(g, LLVMBuildExtractElement(g->b, a, i32_value(g, (uint64_t)i), ""), 16);
            val b = load_row(g, tile_row(g, in->imm >> 6 & 7, i64_value(g, i)), K_I8), half = st_gen_const(g, K_I8, 64, 0x80);
            four = bits_as(g, four, K_I8, 64);
            if (in->imm >> 9) { /* a . b = a . (b + 128) - a . 128, and b + 128 is b with its top bit flipped */
                val less = st_gen_dot4(g, st_gen_const(g, K_I32, 16, 0), half, four, 128);
                v = LLVMBuildSub(g->b, v, less, "");
                b = LLVMBuildXor(g->b, b, half, "");
            }
            v = st_gen_dot4(g, v, b, four, 255);
        }
    } else {
        v = st_gen_const(g, K_I8, 64, 0);
        if (at)
            at = byte_after(g, at, LLVMBuildMul(g->b, row, i64_value(g, row_bytes), ""));
        if (at)
            v = load_row(g, in->op == K_tile_load ? at : mine, K_I8);
    }
    LLVMSetAlignment(LLVMBuildStore(g->b, v, in->op == K_tile_store ? at : mine), 1);
    rows_end(g, loop, row);
}

void st_gen_tile(st_gen *g, const st_inst *in, val at, int64_t row_bytes)
{
    val arg[3] = { LLVMConstInt(g->elem[K_I8], (uint64_t)in->imm & 7, 0), at, i64_value(g, row_bytes) };
    if (!g->t->tiles) {
        tile_generic(g, in, at, row_bytes);
    } else if (in->op == K_tile_dot) {
        arg[1] = LLVMConstInt(g->elem[K_I8], (uint64_t)in->imm >> 3 & 7, 0);
        arg[2] = LLVMConstInt(g->elem[K_I8], (uint64_t)in->imm >> 6 & 7, 0);
        (void)st_gen_call(g, in->imm >> 9 ? "llvm.x86.tdpbssd" : "llvm.x86.tdpbsud", NULL, 0, arg, 3);
    } else if (in->op == K_tile_zero) {
        (void)st_gen_call(g, "llvm.x86.tilezero", NULL, 0, arg, 1);
    } else {
        (void)st_gen_call(g, in->op == K_tile_load ? "llvm.x86.tileloadd64" : "llvm.x86.tilestored64",
                          NULL, 0, arg, 3);
    }
}
