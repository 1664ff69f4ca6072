/* codegen/llvm_isa.c -- primitives of the instruction sets besides x86, whose are in llvm_idiom.c.
 *
 * Each is one to six instructions for what kir calls dot2, dot4, lut16 and sign, where plain vector code
 * would take more; kir.def is the law for every lane.  What is not here is done in plain vector code, so a
 * new instruction set works without any of these, and gets faster with them. */
#include "codegen/isa.h"
#include "codegen/llvm_priv.h"

static val call2(st_gen *g, const char *name, val a, val b)
{
    val arg[2] = { a, b };
    return st_gen_call(g, name, NULL, 0, arg, 2);
}
static val call3(st_gen *g, const char *name, val a, val b, val c)
{
    val arg[3] = { a, b, c };
    return st_gen_call(g, name, NULL, 0, arg, 3);
}
static val add(st_gen *g, val a, val b) { return LLVMBuildAdd(g->b, a, b, ""); }
static val ones(st_gen *g, uint32_t n) { return st_gen_const(g, K_I16, n, 1); }

/* A table of 16 bytes in every 16 of a wider register. */
static val repeat(st_gen *g, val table, uint32_t bytes)
{
    int32_t lane[32];
    for (int32_t i = 0; i < 32; i++)
        lane[i] = i % 16;
    return bytes == 16 ? table : st_gen_shuffle(g, table, NULL, lane, bytes);
}

/* ---------------------------------------------------------------- AArch64 */

static val arm_over(st_gen *g, const char *name, LLVMTypeRef out, val a, val b)
{
    val arg[2] = { a, b };
    return st_gen_call(g, name, &out, 1, arg, 2);
}

/* smull, smull2, addp, sadalp: u <= 127 is the same number signed. */
static val neon_dot4_small(st_gen *g, val acc, val u, val s, uint32_t bytes)
{
    LLVMTypeRef i16 = st_gen_type(g, K_I16, 8);
    val half[2];
    (void)bytes;
    for (uint32_t h = 0; h < 2; h++)
        half[h] = arm_over(g, "llvm.aarch64.neon.smull", i16, st_gen_slice(g, u, 8 * h, 8), st_gen_slice(g, s, 8 * h, 8));
    val pairs = arm_over(g, "llvm.aarch64.neon.addp", i16, half[0], half[1]);
    LLVMTypeRef over[2] = { LLVMTypeOf(acc), LLVMTypeOf(pairs) };
    return add(g, acc, st_gen_call(g, "llvm.aarch64.neon.saddlp", over, 2, &pairs, 1));
}

static val arm_dot(st_gen *g, const char *name, val acc, val u, val s)
{
    val arg[3] = { acc, u, s };
    LLVMTypeRef over[2] = { LLVMTypeOf(acc), LLVMTypeOf(u) };
    return st_gen_call(g, name, over, 2, arg, 3);
}
static val arm_usdot(st_gen *g, val acc, val u, val s, uint32_t bytes)
{
    (void)bytes;
    return arm_dot(g, "llvm.aarch64.neon.usdot", acc, u, s);
}
static val arm_sdot(st_gen *g, val acc, val u, val s, uint32_t bytes)
{
    (void)bytes;
    return arm_dot(g, "llvm.aarch64.neon.sdot", acc, u, s);
}
/* Any u: u = (u & 127) + 128 * (u >> 7), two signed dot products; the shift is exact mod 2^32. */
static val arm_sdot_any(st_gen *g, val acc, val u, val s, uint32_t bytes)
{
    val seven = st_gen_const(g, K_I8, bytes, 7), low = st_gen_const(g, K_I8, bytes, 127);
    val high = arm_sdot(g, st_gen_const(g, K_I32, 4, 0), LLVMBuildLShr(g->b, u, seven, ""), s, bytes);
    acc = arm_sdot(g, acc, LLVMBuildAnd(g->b, u, low, ""), s, bytes);
    return add(g, acc, LLVMBuildShl(g->b, high, st_gen_const(g, K_I32, 4, 7), ""));
}

static val arm_tbl(st_gen *g, val table, val index, val none, uint32_t bytes)
{
    (void)none;
    (void)bytes;
    return arm_over(g, "llvm.aarch64.neon.tbl1", LLVMTypeOf(index), table, index);
}

/* ---------------------------------------------------------------- POWER */

/* One instruction for kir's dot4, whatever u is.  The four bytes of a word are summed, so that their order
 * in it, which the two kinds of POWER do not share, does not matter. */
static val power_dot4(st_gen *g, val acc, val u, val s, uint32_t bytes)
{
    (void)bytes;
    return call3(g, "llvm.ppc.altivec.vmsummbm", s, u, acc);
}

/* The instruction counts bytes from the left.  On a little-endian machine lane i is byte 15 - i, of the
 * table as of the result, so index i stands for 15 - i, which is i ^ 15. */
static val power_vperm(st_gen *g, val table, val index, val none, uint32_t bytes)
{
    (void)none;
    if (!g->t->big_endian)
        index = LLVMBuildXor(g->b, index, st_gen_const(g, K_I8, bytes, 15), "");
    return call3(g, "llvm.ppc.altivec.vperm", table, table, index);
}

/* ---------------------------------------------------------------- s390x */

/* Signed products of the even bytes, and those of the odd added: 2 * 127 * 128 fits i16. */
static val z_dot2(st_gen *g, val acc, val u, val s, uint32_t bytes)
{
    (void)bytes;
    return call3(g, "llvm.s390.vmaob", u, s, call3(g, "llvm.s390.vmaeb", u, s, acc));
}
static val z_dot4_small(st_gen *g, val acc, val u, val s, uint32_t bytes)
{
    val pairs = call3(g, "llvm.s390.vmaob", u, s, call2(g, "llvm.s390.vmeb", u, s)), one = ones(g, bytes / 2);
    return call3(g, "llvm.s390.vmaoh", pairs, one, call3(g, "llvm.s390.vmaeh", pairs, one, acc));
}
static val z_vperm(st_gen *g, val table, val index, val none, uint32_t bytes)
{
    (void)none;
    (void)bytes;
    return call3(g, "llvm.s390.vperm", table, table, index);
}

/* ---------------------------------------------------------------- LoongArch */

static val loong(st_gen *g, const char *lsx, const char *lasx, val a, val b, uint32_t bytes)
{
    return call2(g, bytes == 32 ? lasx : lsx, a, b);
}

/* Products of unsigned and signed bytes, even and odd; u <= 127 keeps their sum in i16. */
static val loong_even(st_gen *g, val u, val s, uint32_t bytes)
{
    return loong(g, "llvm.loongarch.lsx.vmulwev.h.bu.b", "llvm.loongarch.lasx.xvmulwev.h.bu.b", u, s, bytes);
}
static val loong_add_odd(st_gen *g, val acc, val u, val s, uint32_t bytes)
{
    return call3(g, bytes == 32 ? "llvm.loongarch.lasx.xvmaddwod.h.bu.b" : "llvm.loongarch.lsx.vmaddwod.h.bu.b", acc, u, s);
}
static val loong_dot2(st_gen *g, val acc, val u, val s, uint32_t bytes)
{
    acc = call3(g, bytes == 32 ? "llvm.loongarch.lasx.xvmaddwev.h.bu.b" : "llvm.loongarch.lsx.vmaddwev.h.bu.b", acc, u, s);
    return loong_add_odd(g, acc, u, s, bytes);
}
/* Sums of neighbouring i16 as i32. */
static val loong_pairs(st_gen *g, val v, uint32_t bytes)
{
    return loong(g, "llvm.loongarch.lsx.vhaddw.w.h", "llvm.loongarch.lasx.xvhaddw.w.h", v, v, bytes);
}
static val loong_dot4_small(st_gen *g, val acc, val u, val s, uint32_t bytes)
{
    return add(g, acc, loong_pairs(g, loong_add_odd(g, loong_even(g, u, s, bytes), u, s, bytes), bytes));
}
/* Any u: even and odd products are kept apart until they are wide. */
static val loong_dot4(st_gen *g, val acc, val u, val s, uint32_t bytes)
{
    val odd = loong(g, "llvm.loongarch.lsx.vmulwod.h.bu.b", "llvm.loongarch.lasx.xvmulwod.h.bu.b", u, s, bytes);
    acc = add(g, acc, loong_pairs(g, loong_even(g, u, s, bytes), bytes));
    return add(g, acc, loong_pairs(g, odd, bytes));
}
static val loong_shuffle(st_gen *g, val table, val index, val none, uint32_t bytes)
{
    val both = repeat(g, table, bytes);
    (void)none;
    return call3(g, bytes == 32 ? "llvm.loongarch.lasx.xvshuf.b" : "llvm.loongarch.lsx.vshuf.b", both, both, index);
}
static val loong_sign(st_gen *g, val none, val a, val b, uint32_t bytes)
{
    (void)none;
    return loong(g, "llvm.loongarch.lsx.vsigncov.b", "llvm.loongarch.lasx.xvsigncov.b", b, a, bytes);
}

/* ---------------------------------------------------------------- which */

const st_gen_primitives *st_gen_primitives_of(const st_target *t)
{
    static const struct {
        const char       *needs;
        st_gen_primitives p;
    } rows[] = {
        { "i8mm", { ST_ARCH_ARM, NULL, arm_sdot, arm_usdot, arm_tbl, NULL, "=w,0", "=w,0" } },
        { "dotprod", { ST_ARCH_ARM, NULL, arm_sdot, arm_sdot_any, arm_tbl, NULL, "=w,0", "=w,0" } },
        { NULL, { ST_ARCH_ARM, NULL, neon_dot4_small, NULL, arm_tbl, NULL, "=w,0", "=w,0" } },
        { NULL, { ST_ARCH_POWER, NULL, NULL, power_dot4, power_vperm, NULL, "=v,0", "=f,0" } },
        { NULL, { ST_ARCH_Z, z_dot2, z_dot4_small, NULL, z_vperm, NULL, "=v,0", "=f,0" } },
        { "lsx", { ST_ARCH_LOONG, loong_dot2, loong_dot4_small, loong_dot4, loong_shuffle, loong_sign, "=f,0", "=f,0" } },
        { NULL, { ST_ARCH_LOONG, NULL, NULL, NULL, NULL, NULL, NULL, "=f,0" } },
        { NULL, { ST_ARCH_RISCV, NULL, NULL, NULL, NULL, NULL, NULL, "=f,0" } },
    };
    for (size_t i = 0; i < SETUN_LEN(rows); i++)
        if (rows[i].p.arch == t->arch && (!rows[i].needs || st_isa_has(t, rows[i].needs)))
            return &rows[i].p;
    return NULL;
}
