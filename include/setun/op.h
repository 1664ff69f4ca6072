/* setun/op.h -- the operator descriptor and the kernel builder: all that an operator file needs.
 *
 * An operator is one file: a schema, a scalar meaning (eval), a faster claim about it (lower), and
 * cases on which `setun check` compares the two, bit for bit, under the interpreter, the JIT and
 * every backend.  A file in ops/, a plugin and a Lua script fill the same descriptor.
 *
 * The builder is a table of functions behind the setun_kernel, so an operator resolves no symbol
 * from its host.  Thread rule: infer, cost, fill and lower are [load]; eval is [any]. */
#ifndef SETUN_OP_H
#define SETUN_OP_H

#include <stdarg.h>
#include <stdio.h>

#include "setun/numerics.h"
#include "setun/types.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---------------------------------------------------------------- descriptor */

typedef struct setun_port {
    const char *name, *doc;
    /* Outputs only: 1 + index of the input whose memory the output shares (a cache that is updated
     * in place), or 0 for an output with memory of its own. */
    uint32_t shares, reserved;
} setun_port;

#define SETUN_ATTR_INT    1u
#define SETUN_ATTR_FLOAT  2u
#define SETUN_ATTR_STRING 3u

typedef struct setun_attr {
    const char *name, *doc;
    uint32_t    kind;     /* SETUN_ATTR_... */
    uint32_t    required; /* 1: no default */
    setun_value fallback;
} setun_attr;

/* A choice inside a kernel that changes its speed and never a bit of its results.  The host measures
 * the candidates on the machine at hand and tells lower() the fastest: see setun_knob_value.  Inputs may
 * hold anything while it measures, so only operators for which no content is wrong may have knobs. */
typedef struct setun_knob {
    const char    *name, *doc;
    const int64_t *value;   /* the candidates; the first is the default */
    uint32_t       n_value, reserved;
} setun_knob;

struct setun_op;

typedef struct setun_args {
    uint32_t               size;
    uint32_t               n_in, n_out, n_attr;
    const struct setun_op *op;   /* whose callback this is; a scripted operator finds itself here */
    setun_view            *in;   /* infer, cost, lower: data is NULL and dim[0] may be symbolic */
    setun_view            *out;  /* infer fills dtype, rank, dim; eval fills what data points to */
    const setun_value     *attr; /* one per schema row, in its order, defaults filled in */
    const int64_t         *knob; /* lower: a value per row of op->knob; NULL: the default of each */
} setun_args;

typedef struct setun_cost {
    double int_ops;   /* integer multiply-adds, ternary ones counted dense */
    double float_ops; /* float multiply-adds or single operations */
    double bytes;     /* read and written once each, weights included */
} setun_cost;

/* What one step really did, where its data decide: closed gates, a cache that is not full, a list. */
typedef struct setun_counted {
    uint32_t size, reserved;
    double   int_ops, float_ops, bytes; /* as in setun_cost, less what was skipped */
    double   rows, row_bytes;           /* rows that were picked from a matrix by a list, and bytes of each */
} setun_counted;

typedef struct setun_kernel setun_kernel;

typedef struct setun_op {
    uint32_t          size;    /* sizeof(setun_op); read with SETUN_HAS */
    uint32_t          version; /* raised when the meaning changes */
    const char       *name, *doc;
    const setun_port *in, *out;
    const setun_attr *attr;
    uint32_t          n_in, n_out, n_attr;
    uint32_t          reserved;
    /* Check inputs and attributes, fill out[].  Messages name the numbers; the caller adds where. */
    setun_status    (*infer)(setun_args *, setun_error *);
    /* The meaning, in scalar C, for concrete views.  May fail on data (an index out of range). */
    setun_status    (*eval)(const setun_args *, setun_error *);
    /* Build the kernel; SETUN_DECLINED if there is none for these shapes.  Optional. */
    setun_status    (*lower)(setun_kernel *, const setun_args *, setun_error *);
    void            (*cost)(const setun_args *, setun_cost *);       /* optional */
    /* Replace the default random contents of in[] (all views concrete) by valid ones.  Optional. */
    void            (*fill)(const setun_args *, uint64_t seed);
    /* NULL-terminated: "x:f32[3,256] w:f32[256] eps=0.001".  A dimension written n3 (or m3) is
     * compiled as symbolic tokens (outputs) and run with 3.  Required. */
    const char *const *cases;
    double            tolerance; /* 0: bit-exact against eval; otherwise largest relative difference */
    const setun_knob *knob;      /* optional */
    uint32_t          n_knob, reserved2;
    /* The account of a step that has just run, from its concrete views and their data; cost() is right
     * where this is missing.  Fields come zeroed but for size.  For measurements only.  Optional. */
    void            (*counted)(const setun_args *, setun_counted *);
} setun_op;

#define SETUN_MAX_KNOBS 8u

/* What lower() is to use for knob i. */
static inline int64_t setun_knob_value(const setun_args *a, uint32_t i)
{
    return SETUN_HAS(setun_args, a, knob) ? a->knob[i] : a->op->knob[i].value[0];
}

/* Every operator file defines one of these; the file name is the operator name. */
#define SETUN_OP(id) extern const setun_op setun_op_##id; const setun_op setun_op_##id

#define SETUN_LEN(array) ((uint32_t)(sizeof(array) / sizeof((array)[0])))

/* Fill err (may be NULL) with a formatted sentence and return code. */
SETUN_PRINTF(3, 4)
static inline setun_status setun_fail(setun_error *err, setun_status code, const char *fmt, ...)
{
    if (err) {
        va_list ap;
        va_start(ap, fmt);
        err->code = code;
        (void)vsnprintf(err->text, sizeof err->text, fmt, ap);
        va_end(ap);
    }
    return code;
}

/* ---------------------------------------------------------------- kernels */

/* The launch ABI: a promise of its own, because compiled objects are cached on disk. */
#define SETUN_LAUNCH_ABI 1u

typedef struct setun_launch {
    void *const   *arg;  /* inputs, then outputs; aligned to their element, buffers to 64 */
    const int64_t *dim;  /* run-time sizes, in the order the kernel asked for them */
    const void    *self; /* for kernels that are interpreted */
} setun_launch;
SETUN_STATIC_ASSERT(sizeof(setun_launch) <= 64, "launch state stays in one cache line");

typedef struct setun_tile {
    int64_t begin, end; /* units of the kernel's grid */
    void   *scratch;    /* 64-byte aligned, as many bytes as the kernel asked for, this worker's own */
} setun_tile;

/* One tile of one launch.  Reads its arguments, writes its tile, calls nothing outside itself. */
typedef void setun_kernel_fn(const setun_launch *launch, const setun_tile *tile);

/* A size that is read at run time: dimension dim of argument arg (inputs first, then outputs). */
typedef struct setun_slot {
    int32_t arg, dim;
} setun_slot;

/* Units of a kernel: the product over two factors of ceil(size of the dimension / granule).
 * Unit u stands for (u / n1, u % n1) where n1 is the second factor's count.  arg < 0: factor 1. */
typedef struct setun_grid {
    setun_slot at[2];
    int64_t    granule[2];
} setun_grid;

/* ---------------------------------------------------------------- builder
 *
 * A k_val names a value of the kernel under construction; 0 is no value.  Errors stick: after the
 * first one every call returns 0 and the host reports it, so lower() need not check. */

typedef uint32_t k_val;

/* Types: element and lanes.  Lanes are virtual: 32 x f32 is legal on every machine. */
typedef uint32_t k_type;
#define K_I1  1u
#define K_I8  2u
#define K_I16 3u
#define K_I32 4u
#define K_I64 5u
#define K_F32 6u
#define K_PTR 8u /* or-ed to the element a pointer points to */
#define K_TYPE(elem, lanes) ((k_type)(elem) | ((k_type)(lanes) << 8))
#define K_ELEM(type)  ((type) & 0x7u)
#define K_LANES(type) ((type) >> 8)
#define K_IS_PTR(type) (((type) & K_PTR) != 0)
#define K_MAX_LANES 256u

/* Instruction numbers, in the order of codegen/kir.def; the launch ABI number covers them. */
enum {
    K_NONE,
    K_const, K_iota, K_arg, K_local, K_scratch, K_dim, K_begin, K_end,
    K_load, K_store, K_gather, K_prefetch,
    K_add, K_sub, K_mul, K_min, K_max,
    K_div, K_sqrt, K_rint, K_abs, K_neg,
    K_and, K_or, K_xor, K_shl, K_shru, K_shrs, K_udiv, K_urem,
    K_eq, K_lt, K_le, K_select,
    K_sext, K_zext, K_trunc, K_i2f, K_f2i, K_h2f, K_f2h, K_cast,
    K_splat, K_extract, K_slice, K_concat, K_shuffle, K_rsum, K_rmax,
    K_dot2, K_dot4, K_lut16, K_sign, K_opaque,
    K_var, K_get, K_set, K_for, K_if, K_else, K_stop,
    K_tile_zero, K_tile_load, K_tile_dot, K_tile_store,
    K_COUNT
};

/* What k_has and k_info can be asked. */
#define K_HAS_DOT2 1u /* a native dot2 */
#define K_HAS_DOT4 2u /* a native dot4 */
#define K_HAS_LUT16 3u
#define K_VECTOR_BYTES 4u /* widest useful register */
#define K_N_REGISTERS 5u  /* vector registers */
#define K_L1_BYTES 6u
#define K_L2_BYTES 7u
#define K_HAS_TILES 8u /* native tiles of 16 x 64 bytes */
#define K_HAS_LUT32 9u /* entries of a native lut16 in 32-bit lanes: 16, 4, or 0 */

typedef struct setun_builder {
    uint32_t size, abi;
    k_val  (*emit)(setun_kernel *, uint32_t op, k_type type, k_val a, k_val b, k_val c, int64_t imm);
    k_val  (*shuffle)(setun_kernel *, k_val a, k_val b, const int32_t *mask, uint32_t lanes);
    k_type (*type_of)(setun_kernel *, k_val v);
    /* Size of dimension d of argument arg: its constant, or with run_time != 0 (or a symbolic
     * dimension) a value read from the launch. */
    k_val  (*dim)(setun_kernel *, int32_t arg, int32_t d, int32_t run_time);
    void   (*grid)(setun_kernel *, const setun_grid *);
    int64_t (*scratch)(setun_kernel *, int64_t bytes); /* reserve; returns the byte offset */
    int64_t (*info)(setun_kernel *, uint32_t what);
    void   (*fail)(setun_kernel *, const char *why);
    const char *(*fault)(setun_kernel *); /* the sentence of the first error, or NULL */
    /* The instructions that follow come from this line of this text: for messages and dumps, never for what the
     * kernel computes or for its identity.  Copied.  For whoever makes kernels from a text of its own. */
    void   (*line)(setun_kernel *, const char *file, int32_t line);
} setun_builder;

/* The host's kernel begins with the table. */
struct setun_kernel {
    const setun_builder *b;
};

static inline k_val k_emit(setun_kernel *k, uint32_t op, k_type t, k_val a, k_val b, k_val c, int64_t imm)
{
    return k->b->emit(k, op, t, a, b, c, imm);
}
static inline k_type k_type_of(setun_kernel *k, k_val v) { return k->b->type_of(k, v); }
static inline int64_t k_info(setun_kernel *k, uint32_t what) { return k->b->info(k, what); }

/* Constants.  k_i64 is what indices are made of. */
static inline k_val k_int(setun_kernel *k, k_type t, int64_t v) { return k_emit(k, K_const, t, 0, 0, 0, v); }
static inline k_val k_i64(setun_kernel *k, int64_t v) { return k_int(k, K_TYPE(K_I64, 1), v); }
static inline k_val k_f32v(setun_kernel *k, float v, uint32_t lanes)
{
    union { float f; uint32_t u; } bits;
    bits.f = v;
    return k_emit(k, K_const, K_TYPE(K_F32, lanes), 0, 0, 0, (int64_t)bits.u);
}
static inline k_val k_f32(setun_kernel *k, float v) { return k_f32v(k, v, 1); }
static inline k_val k_iota(setun_kernel *k, k_type t, int64_t first) { return k_emit(k, K_iota, t, 0, 0, 0, first); }

/* Arguments as pointers to elem; local and worker memory; sizes; the tile. */
static inline k_val k_arg(setun_kernel *k, int32_t arg, uint32_t elem)
{
    return k_emit(k, K_arg, K_TYPE(elem | K_PTR, 1), 0, 0, 0, arg);
}
static inline k_val k_local(setun_kernel *k, uint32_t elem, int64_t count)
{
    return k_emit(k, K_local, K_TYPE(elem | K_PTR, 1), 0, 0, 0, count);
}
static inline k_val k_scratch(setun_kernel *k, uint32_t elem, int64_t bytes)
{
    return k_emit(k, K_scratch, K_TYPE(elem | K_PTR, 1), 0, 0, 0, k->b->scratch(k, bytes));
}
static inline k_val k_dim(setun_kernel *k, int32_t arg, int32_t d) { return k->b->dim(k, arg, d, 0); }
static inline k_val k_dim_run(setun_kernel *k, int32_t arg, int32_t d) { return k->b->dim(k, arg, d, 1); }
static inline k_val k_begin(setun_kernel *k) { return k_emit(k, K_begin, K_TYPE(K_I64, 1), 0, 0, 0, 0); }
static inline k_val k_end(setun_kernel *k) { return k_emit(k, K_end, K_TYPE(K_I64, 1), 0, 0, 0, 0); }
static inline void k_grid2(setun_kernel *k, int32_t arg0, int32_t dim0, int64_t granule0,
                           int32_t arg1, int32_t dim1, int64_t granule1)
{
    setun_grid g;
    g.at[0].arg = arg0; g.at[0].dim = dim0; g.granule[0] = granule0;
    g.at[1].arg = arg1; g.at[1].dim = dim1; g.granule[1] = granule1;
    k->b->grid(k, &g);
}
static inline void k_grid(setun_kernel *k, int32_t arg, int32_t dim, int64_t granule)
{
    k_grid2(k, arg, dim, granule, -1, 0, 1);
}

/* Memory */
static inline k_val k_load(setun_kernel *k, k_val p, k_val index, uint32_t lanes)
{
    return k_emit(k, K_load, K_TYPE(K_ELEM(k_type_of(k, p)), lanes), p, index, 0, 0);
}
static inline void k_store(setun_kernel *k, k_val p, k_val index, k_val v) { (void)k_emit(k, K_store, 0, p, index, v, 0); }
static inline k_val k_gather(setun_kernel *k, k_val p, k_val indices)
{
    return k_emit(k, K_gather, K_TYPE(K_ELEM(k_type_of(k, p)), K_LANES(k_type_of(k, indices))), p, indices, 0, 0);
}
static inline void k_prefetch(setun_kernel *k, k_val p, k_val byte_offset, int64_t locality)
{
    (void)k_emit(k, K_prefetch, 0, p, byte_offset, 0, locality);
}

/* Lanewise */
#define K_UNARY(fn, OP) static inline k_val fn(setun_kernel *k, k_val a) \
    { return k_emit(k, OP, k_type_of(k, a), a, 0, 0, 0); }
#define K_BINARY(fn, OP) static inline k_val fn(setun_kernel *k, k_val a, k_val b) \
    { return k_emit(k, OP, k_type_of(k, a), a, b, 0, 0); }
#define K_COMPARE(fn, OP) static inline k_val fn(setun_kernel *k, k_val a, k_val b) \
    { return k_emit(k, OP, K_TYPE(K_I1, K_LANES(k_type_of(k, a))), a, b, 0, 0); }
#define K_SHIFT(fn, OP) static inline k_val fn(setun_kernel *k, k_val a, int64_t n) \
    { return k_emit(k, OP, k_type_of(k, a), a, 0, 0, n); }
#define K_CONVERT(fn, OP, elem) static inline k_val fn(setun_kernel *k, k_val a) \
    { return k_emit(k, OP, K_TYPE(elem, K_LANES(k_type_of(k, a))), a, 0, 0, 0); }
K_BINARY(k_add, K_add) K_BINARY(k_sub, K_sub) K_BINARY(k_mul, K_mul) K_BINARY(k_min, K_min) K_BINARY(k_max, K_max)
K_BINARY(k_div, K_div) K_UNARY(k_sqrt, K_sqrt) K_UNARY(k_rint, K_rint) K_UNARY(k_abs, K_abs) K_UNARY(k_neg, K_neg)
K_BINARY(k_and, K_and) K_BINARY(k_or, K_or) K_BINARY(k_xor, K_xor)
K_SHIFT(k_shl, K_shl) K_SHIFT(k_shru, K_shru) K_SHIFT(k_shrs, K_shrs)
K_BINARY(k_udiv, K_udiv) K_BINARY(k_urem, K_urem)
K_COMPARE(k_eq, K_eq) K_COMPARE(k_lt, K_lt) K_COMPARE(k_le, K_le)
K_CONVERT(k_i2f, K_i2f, K_F32) K_CONVERT(k_f2i, K_f2i, K_I32)
K_CONVERT(k_h2f, K_h2f, K_F32) K_CONVERT(k_f2h, K_f2h, K_I16)
K_BINARY(k_sign, K_sign) K_UNARY(k_opaque, K_opaque)
static inline k_val k_select(setun_kernel *k, k_val mask, k_val a, k_val b)
{
    return k_emit(k, K_select, k_type_of(k, a), mask, a, b, 0);
}
static inline k_val k_sext(setun_kernel *k, k_val a, uint32_t elem)
{
    return k_emit(k, K_sext, K_TYPE(elem, K_LANES(k_type_of(k, a))), a, 0, 0, 0);
}
static inline k_val k_zext(setun_kernel *k, k_val a, uint32_t elem)
{
    return k_emit(k, K_zext, K_TYPE(elem, K_LANES(k_type_of(k, a))), a, 0, 0, 0);
}
static inline k_val k_trunc(setun_kernel *k, k_val a, uint32_t elem)
{
    return k_emit(k, K_trunc, K_TYPE(elem, K_LANES(k_type_of(k, a))), a, 0, 0, 0);
}
static inline k_val k_cast(setun_kernel *k, k_val a, k_type type) { return k_emit(k, K_cast, type, a, 0, 0, 0); }

/* Lanes */
static inline k_val k_splat(setun_kernel *k, k_val a, uint32_t lanes)
{
    return k_emit(k, K_splat, K_TYPE(K_ELEM(k_type_of(k, a)), lanes), a, 0, 0, 0);
}
static inline k_val k_extract(setun_kernel *k, k_val a, int64_t lane)
{
    return k_emit(k, K_extract, K_TYPE(K_ELEM(k_type_of(k, a)), 1), a, 0, 0, lane);
}
static inline k_val k_slice(setun_kernel *k, k_val a, int64_t first, uint32_t lanes)
{
    return k_emit(k, K_slice, K_TYPE(K_ELEM(k_type_of(k, a)), lanes), a, 0, 0, first);
}
static inline k_val k_concat(setun_kernel *k, k_val a, k_val b)
{
    k_type t = k_type_of(k, a);
    return k_emit(k, K_concat, K_TYPE(K_ELEM(t), K_LANES(t) + K_LANES(k_type_of(k, b))), a, b, 0, 0);
}
static inline k_val k_shuffle(setun_kernel *k, k_val a, k_val b, const int32_t *mask, uint32_t lanes)
{
    return k->b->shuffle(k, a, b, mask, lanes);
}
static inline k_val k_rsum(setun_kernel *k, k_val a)
{
    return k_emit(k, K_rsum, K_TYPE(K_ELEM(k_type_of(k, a)), 1), a, 0, 0, 0);
}
static inline k_val k_rmax(setun_kernel *k, k_val a)
{
    return k_emit(k, K_rmax, K_TYPE(K_ELEM(k_type_of(k, a)), 1), a, 0, 0, 0);
}

/* Idioms */
static inline k_val k_dot2(setun_kernel *k, k_val u8, k_val s8)
{
    return k_emit(k, K_dot2, K_TYPE(K_I16, K_LANES(k_type_of(k, u8)) / 2), u8, s8, 0, 0);
}
static inline k_val k_dot4(setun_kernel *k, k_val acc, k_val u8, k_val s8)
{
    return k_emit(k, K_dot4, k_type_of(k, acc), acc, u8, s8, 0);
}
static inline k_val k_lut16(setun_kernel *k, k_val table, k_val index)
{
    return k_emit(k, K_lut16, K_TYPE(K_ELEM(k_type_of(k, table)), K_LANES(k_type_of(k, index))), table, index, 0, 0);
}

/* Tiles, by number: rows of 64 bytes that lie stride elements apart in memory.  c += a . b */
static inline void k_tile_zero(setun_kernel *k, int64_t tile) { (void)k_emit(k, K_tile_zero, 0, 0, 0, 0, tile); }
static inline void k_tile_load(setun_kernel *k, int64_t tile, k_val p, k_val index, int64_t stride)
{
    (void)k_emit(k, K_tile_load, 0, p, index, 0, tile | stride << 3);
}
static inline void k_tile_dot(setun_kernel *k, int64_t c, int64_t a_s8, int64_t b_u8)
{
    (void)k_emit(k, K_tile_dot, 0, 0, 0, 0, c | a_s8 << 3 | b_u8 << 6);
}
static inline void k_tile_dot_s8(setun_kernel *k, int64_t c, int64_t a_s8, int64_t b_s8)
{
    (void)k_emit(k, K_tile_dot, 0, 0, 0, 0, c | a_s8 << 3 | b_s8 << 6 | 1 << 9);
}
static inline void k_tile_store(setun_kernel *k, int64_t tile, k_val p, k_val index, int64_t stride)
{
    (void)k_emit(k, K_tile_store, 0, p, index, 0, tile | stride << 3);
}

/* Variables and structure */
static inline k_val k_var(setun_kernel *k, k_val init) { return k_emit(k, K_var, k_type_of(k, init), init, 0, 0, 0); }
static inline k_val k_get(setun_kernel *k, k_val var) { return k_emit(k, K_get, k_type_of(k, var), var, 0, 0, 0); }
static inline void k_set(setun_kernel *k, k_val var, k_val v) { (void)k_emit(k, K_set, 0, var, v, 0, 0); }
static inline k_val k_for(setun_kernel *k, k_val begin, k_val end, int64_t step)
{
    return k_emit(k, K_for, K_TYPE(K_I64, 1), begin, end, 0, step);
}
static inline void k_if(setun_kernel *k, k_val cond) { (void)k_emit(k, K_if, 0, cond, 0, 0, 0); }
static inline void k_else(setun_kernel *k) { (void)k_emit(k, K_else, 0, 0, 0, 0, 0); }
static inline void k_stop(setun_kernel *k) { (void)k_emit(k, K_stop, 0, 0, 0, 0, 0); }

/* Index arithmetic in i64 with constants */
static inline k_val k_addi(setun_kernel *k, k_val a, int64_t n)
{
    return n ? k_add(k, a, k_int(k, k_type_of(k, a), n)) : a;
}
static inline k_val k_muli(setun_kernel *k, k_val a, int64_t n)
{
    return n == 1 ? a : k_mul(k, a, k_int(k, k_type_of(k, a), n));
}

#ifdef __cplusplus
}
#endif

#include "setun/op_help.h" /* what many operators share, built on the above */

#endif
