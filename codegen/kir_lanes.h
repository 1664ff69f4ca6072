/* codegen/kir_lanes.h -- the interpreter's two halves: what kir_eval.c runs and kir_lanes.c
 * computes.
 *
 * A step is one instruction with everything resolved: where its operands lie in the frame, how
 * many lanes, which function computes it.  A slot of the frame starts at a multiple of 16 bytes
 * and has a power of two of them, at least 16, so functions may compute whole groups of 16
 * bytes: the lanes past the last are garbage that nobody reads. */
#ifndef ST_KIR_LANES_H
#define ST_KIR_LANES_H

#include "codegen/kir.h"

typedef struct st_step st_step;
typedef void st_lanes_fn(uint8_t *frame, const st_step *s);

struct st_step {
    st_lanes_fn *fn;      /* NULL: kir_eval.c itself does it, by op */
    uint32_t op, n; /* lanes of the result; of operand a for rsum, rmax; of operand c for store */
    uint32_t     d, a, b, c; /* offsets in the frame */
    uint32_t     bytes;   /* of one element, in memory or of the result */
    uint32_t     na;      /* lanes of operand a */
    uint32_t target; /* for, if, else: where to go on; stop of a for: the for; local: its bytes;
                      * load, store, gather: 1: elements are in the other byte order in memory */
    int64_t      imm;
    const int32_t *mask;
};

/* The function that computes op with result type t from an operand a of type ta; NULL if there is
 * none, which for a verified instruction means that kir_eval.c has it. */
st_lanes_fn *st_lanes_find(uint32_t op, k_type t, k_type ta);

/* Bytes of one lane in the frame: i1 takes a whole byte, 0 or 1. */
static inline uint32_t st_lane_bytes(k_type t)
{
    uint32_t bits = st_ktype_bits(t);
    return bits < 8 ? 1 : bits / 8;
}

#endif
