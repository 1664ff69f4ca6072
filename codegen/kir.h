/* codegen/kir.h -- a kernel: flat instructions, structured loops, printable, checkable,
 * runnable.
 *
 * Built through the table of setun/op.h (st_kir_new gives the setun_kernel that lower() fills),
 * read by the printer, the verifier, the interpreter and llvm.c.  Knows nothing of graphs.  The
 * words' meaning is kir.def; instruction 0 is unused, so that value 0 can mean "none". */
#ifndef ST_KIR_H
#define ST_KIR_H

#include "base/arena.h"
#include "base/str.h"
#include "codegen/target.h"
#include "setun/op.h"

typedef struct st_inst {
    uint32_t op;      /* K_... */
    k_type   type;    /* of the result; 0 when there is none */
    k_val    a, b, c;
    uint32_t match;   /* for, if, else: index of the matching else or stop, once verified */
    int64_t  imm;
} st_inst;

/* The line of a text that an instruction was made by; file NULL: of none. */
typedef struct st_origin {
    const char *file;
    int32_t     line;
} st_origin;

#define ST_MAX_ARGS 16
#define ST_MAX_SLOTS 16

typedef struct st_kir {
    setun_kernel head;     /* first, so that a setun_kernel is a st_kir */
    st_arena    *arena;    /* owns all; not the kernel's to free */
    const char  *name;     /* "ternary_matmul"; for symbols and messages */
    st_inst     *inst;     /* [0] unused */
    uint32_t     n_inst, cap_inst;
    int32_t     *mask;     /* side array of shuffle masks */
    uint32_t     n_mask, cap_mask;
    uint32_t     n_in, n_out;
    uint32_t     arg_dtype[ST_MAX_ARGS]; /* SETUN_..., for messages and checks */
    int64_t      arg_dim[ST_MAX_ARGS][SETUN_MAX_RANK];
    uint32_t     arg_rank[ST_MAX_ARGS];
    setun_slot   slot[ST_MAX_SLOTS]; /* run-time sizes in the order of launch->dim */
    uint32_t     n_slot;
    setun_grid   grid;
    int          has_grid;
    int64_t      scratch_bytes;
    const st_target *target; /* what info() answers from */
    int          failed;     /* sticky; why is in fault */
    setun_error  fault;
    st_origin   *origin;     /* [cap_origin], no part of the kernel's identity; NULL: no text made it */
    uint32_t     cap_origin;
    st_origin    now;        /* of what is made next */
    st_origin    grid_origin;
    int64_t      local_bytes; /* of all locals, each rounded up to 64 */
    int64_t      max_steps;  /* st_kir_eval stops a loop that runs longer; 0: ST_MAX_STEPS */
    const struct st_kir_code *code; /* what the interpreter runs; made by st_kir_verify */
} st_kir;

/* Limits of one kernel; exceeding one is a sentence, not a surprise. */
#define ST_MAX_INSTS 200000u
#define ST_MAX_MASK (1 << 20)               /* entries of all shuffle masks */
#define ST_MAX_LOCAL ((int64_t)1 << 20)     /* bytes */
#define ST_MAX_SCRATCH ((int64_t)64 << 20)  /* bytes */
#define ST_MAX_FRAME ((int64_t)64 << 20)    /* bytes of the interpreter's values */
#define ST_MAX_NESTING 64
#define ST_MAX_STEPS ((int64_t)1 << 31)     /* instructions executed by one st_kir_eval */

/* An empty kernel for these argument shapes; pass &k->head to lower(). */
setun_status st_kir_new(st_kir **k, const char *name, const setun_args *shape,
                        const st_target *target, st_arena *arena, setun_error *err);
/* lower(), then the sticky error, then the verifier.  SETUN_DECLINED passes through. */
setun_status st_kir_lower(st_kir **k, const setun_args *shape, const st_target *target,
                          st_arena *arena, setun_error *err);
/* Types, structure, visibility, operand kinds; sets inst[].match and prepares for the
 * interpreter. */
setun_status st_kir_verify(st_kir *k, setun_error *err);

/* The parts of the above that the builder and the parser share.  Check instruction i alone:
 * operand kinds, types, immediates; append one after that check (*v is its value); translate for
 * kir_eval.c. */
setun_status st_kir_check(const st_kir *k, uint32_t i, setun_error *err);
setun_status st_kir_append(st_kir *k, const st_inst *in, k_val *v, setun_error *err);
setun_status st_kir_prepare(st_kir *k, setun_error *err);
/* The place of n mask entries in the side array (copied), or of run-time size (arg, dim). */
setun_status st_kir_add_mask(st_kir *k, const int32_t *mask, uint32_t n, int64_t *at,
                             setun_error *err);
setun_status st_kir_add_slot(st_kir *k, int32_t arg, int32_t dim, int64_t *at, setun_error *err);

/* Where instruction i was made; file is NULL when that is not known. */
static inline st_origin st_kir_origin(const st_kir *k, uint32_t i)
{
    const st_origin none = { NULL, 0 };
    return i < k->n_inst && i < k->cap_origin ? k->origin[i] : none;
}
/* "rmsnorm_lua.lua:31: " in front of the message in err, for an instruction of a script. */
void         st_kir_blame(st_origin at, setun_error *err);

/* Text form, both ways; printing what was parsed gives the same bytes. */
void         st_kir_print(const st_kir *k, st_str *out);
/* The same with the scripts' lines as comments: behind the first instruction of each. */
void         st_kir_print_lines(const st_kir *k, st_str *out);
setun_status st_kir_parse(const char *text, const char *name, const st_target *target,
                          st_arena *arena, st_kir **out, setun_error *err);

/* Is argument i declared as bytes (also packed weights and blocks)?  Seen as wider elements it is
 * little-endian on every target. */
static inline int st_kir_arg_is_bytes(const st_kir *k, int64_t i)
{
    return k->arg_dtype[i] == SETUN_I8 || k->arg_dtype[i] >= SETUN_U8;
}

/* Hash of the printed form: the identity of a kernel in caches.  0: no memory for the text. */
uint64_t     st_kir_hash(const st_kir *k);

/* The interpreter, with the launch ABI: launch->self is a verified kernel.  An access outside an
 * argument is not checked here, as in compiled code; st_kir_eval checks.  What the launch ABI
 * cannot report (division by zero) ends the process rather than give wrong numbers.  The tile's
 * scratch has st_kir_run_scratch bytes: the kernel's own, then the interpreter's frame, so that
 * running allocates nothing. */
setun_kernel_fn st_kir_run;
int64_t         st_kir_run_scratch(const st_kir *k);
/* Run units [begin, end) with every memory access checked against bytes[] of each argument; a fault
 * (out of range, not aligned to its element, division by zero, too many steps) is a sentence.  With
 * t->scratch NULL it has scratch of its own; that and locals start filled with 0xa5.  [any] */
setun_status st_kir_eval(const st_kir *k, const setun_launch *l, const int64_t *bytes,
                         const setun_tile *t, setun_error *err);

/* Number of units of a grid for concrete argument views (inputs then outputs); -1 if a dimension is
 * symbolic or the product overflows. */
int64_t st_grid_units(const setun_grid *g, const setun_view *const *arg);

const char *st_kir_op_name(uint32_t op);
uint32_t    st_kir_op_operands(uint32_t op);
int         st_kir_op_has_imm(uint32_t op);   /* does imm mean something? */
uint32_t    st_kir_op_result(uint32_t op);    /* ST_RESULT_... */
#define ST_RESULT_NONE 0u
#define ST_RESULT_SAME 1u
#define ST_RESULT_TYPE 2u
#define ST_RESULT_MASK 3u
uint32_t    st_ktype_bits(k_type t);          /* of one element; pointers have 64 */
const char *st_ktype_name(k_type t);          /* of its elements: f32 */
void        st_ktype_print(k_type t, st_str *out); /* f32x32, i64, *i8 */

#endif
