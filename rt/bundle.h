/* rt/bundle.h -- a model in one file: the plan, kernels for one machine, weights as they lie in memory, text.
 *
 * `setun export` writes bundles and setun-rt runs them with nothing but the C library: whatever needs a script, a compiler
 * or a tokenizer's JSON was done when the bundle was made.  The file is mapped, and weights are used where they lie.
 *
 *     bytes  0..7    "SETUNRT1"                             sections, in this order, each from a multiple of 64 on:
 *            8..11   version of this layout
 *           12..15   number of sections                     META       which machine, sizes, tokens that end a text
 *           16..23   bytes of the file                      PLAN       buffers, kernels' launch data, steps
 *           24..31   checksum of bytes 0..23 and the table  KERNELS    images (codegen/image.h), one behind the other
 *           32..63   0                                      WEIGHTS    constants, in the byte order of the machine
 *           64..     the table: per section 32 bytes        TOKENIZER  as st_tokenizer_load reads it, or empty
 *                                                           TEMPLATE   as st_turns_load reads it, or empty
 *     a row of the table
 *            0..3    kind, ST_BUNDLE_...      4..7   0      8..15 offset     16..23 bytes     24..31 checksum
 *
 * Numbers are little-endian on every machine, except in KERNELS and WEIGHTS.  META and PLAN are numbers and texts as
 * base/bytes.h has them, in the order of the structs below.
 *
 * A section's checksum goes over it in pieces of 1 MiB (st_bundle_sum), so that weights need not lie in one piece of memory
 * when they are written.
 *
 * Checksums find damage.  They are no signature, and KERNELS is machine code: whoever runs a bundle trusts who made it, as
 * with any program.  The reader still checks every count, offset and size, so that a lying file is a sentence. */
#ifndef ST_RT_BUNDLE_H
#define ST_RT_BUNDLE_H

#include "base/arena.h"
#include "base/file.h"
#include "base/hash.h"
#include "codegen/image.h"
#include "codegen/target.h"
#include "setun/backend.h"

#define ST_BUNDLE_MAGIC   "SETUNRT1"
#define ST_BUNDLE_VERSION 1u
#define ST_BUNDLE_HEADER  64
#define ST_BUNDLE_ROW     32
#define ST_BUNDLE_ALIGN   64
#define ST_BUNDLE_PAGE    4096 /* where WEIGHTS starts */

enum { ST_BUNDLE_META, ST_BUNDLE_PLAN, ST_BUNDLE_KERNELS, ST_BUNDLE_WEIGHTS, ST_BUNDLE_TOKENIZER, ST_BUNDLE_TEMPLATE,
       ST_BUNDLE_N };

#define ST_BUNDLE_PIECE (1 << 20)
/* The checksum of pieces 0 .. i from that of those before; 0: there are none. */
static inline uint64_t st_bundle_sum(uint64_t before, const void *piece, int64_t n)
{
    return (before ^ st_checksum(piece, (size_t)n)) * 0x9e3779b97f4a7c15u;
}

/* Where a buffer comes from.  Buffer 0 is the temporary one. */
enum { ST_BUFFER_TEMP, ST_BUFFER_CONST, ST_BUFFER_STATE, ST_BUFFER_INPUT, ST_BUFFER_N };
enum { ST_RT_TOKENS, ST_RT_POSITIONS, ST_RT_OUTPUTS, ST_RT_N_INPUT };

/* One token with its logits, and up to n_batch tokens: sizes are constants in the kernels of the first. */
enum { ST_RT_ONE, ST_RT_MANY, ST_RT_N_PROGRAM };

#define ST_RT_MAX_END      16
#define ST_RT_MAX_ARGS     16
#define ST_RT_MAX_SLOTS    16
#define ST_RT_MAX_CTX      (1 << 20)

typedef struct st_rt_buffer {
    uint32_t kind;
    int64_t  at, bytes; /* at: of a constant in WEIGHTS */
} st_rt_buffer;

typedef struct st_rt_kernel {
    const char *name;  /* "ternary_matmul-0123456789abcdef" */
    int64_t     at, bytes; /* the image in KERNELS */
    setun_op    op;    /* what a backend asks of an operator: its name, and how many arguments it has */
    setun_code  code;  /* without fn */
    st_image    image;
} st_rt_kernel;

typedef struct st_rt_program {
    uint32_t    n;
    setun_step *step;    /* operands without buffers, code without functions */
    uint32_t   *buffer;  /* of every operand, in the order of the steps: inputs, then outputs */
    uint32_t   *kernel;  /* of every step */
    int64_t     logits;  /* where they are in the temporary buffer */
} st_rt_program;

typedef struct st_bundle {
    st_arena      *arena;
    st_map         map;
    const char    *path;
    const uint8_t *section[ST_BUNDLE_N];
    int64_t        bytes[ST_BUNDLE_N];
    /* META */
    const char    *name, *made_by; /* of the model's file; "0.1.0" */
    st_target      target;         /* triple, cpu, features, vlen: what st_isa_fits asks for */
    int64_t        n_ctx, n_batch, n_vocab;
    int32_t        end[ST_RT_MAX_END], n_end;
    /* PLAN */
    st_rt_buffer  *buffer;
    st_rt_kernel  *kernel;
    uint32_t       n_buffer, n_kernel, input[ST_RT_N_INPUT];
    st_rt_program  program[ST_RT_N_PROGRAM];
} st_bundle;

/* Map and check a bundle, all of its checksums included.  Nothing in it is executed, and it may be for another machine:
 * see st_bundle_fits.  After a failure nothing is left to close. */
setun_status st_bundle_open(st_bundle *b, const char *path, setun_error *err);
void         st_bundle_close(st_bundle *b);
/* Can this machine run it?  If not, the sentence says what it lacks. */
setun_status st_bundle_fits(const st_bundle *b, setun_error *err);
/* Of one that is open, as long as that is. */
struct setun_rt;
const st_bundle *st_rt_bundle(const struct setun_rt *rt);
/* Is this a file that begins as a bundle does? */
int          st_bundle_is(const char *path);

#endif
