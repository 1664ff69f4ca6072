/* codegen/llvm_priv.h -- what llvm.c, llvm_idiom.c, llvm_door.c and target.c share.
 *
 * Only these files see llvm-c; together they are one shared object whose one door is
 * st_codegen_entry.  Nothing here is visible to the rest of Setun. */
#ifndef ST_LLVM_PRIV_H
#define ST_LLVM_PRIV_H

#include <llvm-c/Core.h>
#include <llvm-c/TargetMachine.h>

#include "codegen/codegen.h"

/* ---------------------------------------------------------------- target.c */

/* Fill LLVM's list of targets; once in a process. */
void         st_llvm_fill_targets(void);
setun_status st_llvm_host(const char *features, st_target *t, setun_error *err);
/* A target machine for t; the caller disposes of it.  simple: as in st_emit. */
setun_status st_llvm_machine(const st_target *t, uint32_t simple, LLVMTargetMachineRef *tm, setun_error *err);
/* A target by name; see st_codegen. */
setun_status st_llvm_target(const char *arch, const char *features, int32_t vlen, st_target *t, setun_error *err);

/* ---------------------------------------------------------------- llvm.c */

setun_status st_llvm_emit(const st_kir *k, const st_target *t, const char *symbol, const st_emit *how,
                          char **bytes, int64_t *n, setun_error *err);

/* ---------------------------------------------------------------- one kernel in translation */

typedef LLVMValueRef val;
typedef struct st_gen_lines st_gen_lines;

typedef struct st_gen {
    const st_kir    *k;
    const st_target *t;
    LLVMContextRef   ctx;
    LLVMModuleRef    mod;
    LLVMBuilderRef   b;       /* where the kernel has got to */
    LLVMBuilderRef entry; /* the first block: stack slots, and the launch's contents read once */
    LLVMTypeRef      elem[8]; /* by K_I1 ... K_F32 */
    uint8_t         *masked;  /* by instruction: nobody sees the bits that its shift takes from a neighbour */
    val             *v;       /* by instruction; of a variable its stack slot */
    val             *unpaired; /* by instruction: of a sum of dot2s the products; see st_gen_add_dot2 */
    st_gen_lines    *lines;   /* NULL: nobody asked */
    struct st_frame *frame;   /* open for and if blocks */
    uint32_t         depth;
    val              fn, arg[ST_MAX_ARGS], dim[ST_MAX_SLOTS], begin, end, scratch;
    val              tiles;   /* memory that stands for tiles where the target has none */
    val              scope_args, scope_scratch; /* alias scopes, see scopes() in llvm.c */
    unsigned         kind_scope, kind_noalias;
    int              avx, avx512;
    int              roundeven; /* an instruction rounds floats to integers, ties to even */
    setun_status     status;  /* sticky, as in the builder; why is in fault */
    setun_error      fault;
} st_gen;

/* No lane of the i8 value v, taken as unsigned, is above this. */
uint32_t    st_gen_u_max(const st_kir *k, k_val v);
/* Lanes of a translated value; a kir value of one lane is an LLVM scalar. */
uint32_t    st_gen_lanes(val v);
LLVMTypeRef st_gen_type(st_gen *g, uint32_t elem, uint32_t lanes);
/* x in every lane; for f32 its bits. */
val         st_gen_const(st_gen *g, uint32_t elem, uint32_t lanes, int64_t x);
/* Lanes first, first + 1, ... of v; lanes past its end are undefined. */
val         st_gen_slice(st_gen *g, val v, uint32_t first, uint32_t lanes);
val         st_gen_concat(st_gen *g, val a, val b);
/* lane[i] < 0 is an undefined lane; b may be NULL. */
val         st_gen_shuffle(st_gen *g, val a, val b, const int32_t *lane, uint32_t lanes);
val         st_gen_splat(st_gen *g, val scalar, uint32_t lanes);
/* An intrinsic by name.  Operands are reinterpreted to the types this LLVM wants: vpdpbusd's
 * changed from i32 to i8 vectors after LLVM 19. */
val st_gen_call(st_gen *g, const char *name, LLVMTypeRef *over, uint32_t n_over, val *arg,
                uint32_t n);
/* The bits of v as lanes of another element, in little-endian order whatever the target's is. */
val         st_gen_cast(st_gen *g, val v, uint32_t elem, uint32_t lanes);
/* The bytes of each lane in the other order; elements of one byte have one. */
val         st_gen_swap(st_gen *g, val v, uint32_t elem);
/* Fail for good; returns a value of that type, so that translation can run on to its end. */
val         st_gen_fail(st_gen *g, LLVMTypeRef type, const char *fmt, ...) SETUN_PRINTF(3, 4);

/* ---------------------------------------------------------------- llvm_lines.c */

/* Once the function is there: remember which line of a script each instruction comes from.  Without it the
 * others do nothing. */
setun_status st_gen_lines_begin(st_gen *g, setun_error *err);
void         st_gen_lines_at(st_gen *g, uint32_t i);
void         st_gen_lines_end(st_gen *g);
void         st_gen_lines_free(st_gen *g);
/* text, as LLVM prints it, with those lines as comments. */
void         st_gen_lines_text(const st_gen *g, uint32_t what, const char *text, st_str *out);

/* ---------------------------------------------------------------- llvm_idiom.c */

/* u_max: no lane of u is above it, taken as unsigned. */
/* acc NULL, or where the target's primitive adds to it.  *unpaired: the products, where they are at hand. */
val st_gen_dot2(st_gen *g, val acc, val u, val s, uint32_t u_max, val *unpaired);
/* An addition of i16 that is one of dot2s; NULL: it is not. */
val st_gen_add_dot2(st_gen *g, const st_inst *in, val *unpaired);
val st_gen_dot4(st_gen *g, val acc, val u, val s, uint32_t u_max);
val st_gen_lut16(st_gen *g, val table, val index);
val st_gen_sign(st_gen *g, val a, val b);
/* A tile instruction; at is the address of a load or store, row_bytes what lies between its rows. */
void st_gen_tile(st_gen *g, const st_inst *in, val at, int64_t row_bytes);
/* Around the body of a kernel that uses tiles. */
void st_gen_tiles_begin(st_gen *g);
void st_gen_tiles_end(st_gen *g);
val st_gen_opaque(st_gen *g, val a, k_type type);
val st_gen_rint(st_gen *g, val a);
val st_gen_h2f(st_gen *g, val a);
val st_gen_f2h(st_gen *g, val a);
val st_gen_max(st_gen *g, val a, val b, uint32_t elem);
val st_gen_reduce(st_gen *g, val a, uint32_t elem, int sum);

/* ---------------------------------------------------------------- llvm_isa.c */

/* One native instruction, or a few: operands have bytes bytes each; a may be NULL, and so may c. */
typedef val st_gen_piece(st_gen *g, val a, val b, val c, uint32_t bytes);

/* What an architecture other than x86 does better than plain vector code.  A NULL is what it does not.
 * The target's row says how many bytes a piece may have. */
typedef struct st_gen_primitives {
    int32_t       arch;
    st_gen_piece *dot2;       /* acc a + that of b (u8, at most 127) and c (s8), which never saturates */
    st_gen_piece *dot4_small; /* acc a; b at most 127 */
    st_gen_piece *dot4;       /* any b */
    st_gen_piece *lut16;      /* table a of 16 bytes, indices b from 0 to 15 */
    st_gen_piece *sign;       /* of a (which is passed as b) by c */
    const char   *vector;     /* asm constraint of a register for bytes bytes; NULL: through memory */
    const char   *scalar_f32; /* of a float */
} st_gen_primitives;

const st_gen_primitives *st_gen_primitives_of(const st_target *t);

#endif
