/* backends/steps.h -- the steps of a program, copied, checked and bound to host addresses.
 *
 * What backends in host memory share besides buffers.  Everything is allocated when the program is
 * made; binding to sizes only fills in numbers, and does nothing when the sizes are those of the
 * run before (every token of a decode). */
#ifndef ST_BACKENDS_STEPS_H
#define ST_BACKENDS_STEPS_H

#include "backends/hostmem.h"
#include "base/arena.h"

#define ST_MAX_SYMBOLS 16 /* a later host may know more symbols than this one */

typedef struct st_bound {
    setun_args        args;   /* for eval: concrete after st_steps_bind */
    setun_launch      launch; /* for code: the same addresses, and the sizes of its slots */
    const setun_code *code;   /* NULL: none, or none that this backend wants */
    const char       *label;
    int64_t           units;  /* of the grid, when there is code */
    int               ordered; /* must wait until every step before it is done */
    int32_t           turn;    /* how many are between it and the last one that must */
    setun_view       *view;   /* n_in + n_out; args.in and args.out point here */
    int64_t          *dim0;   /* as given, maybe symbolic */
    int64_t          *room;   /* bytes from the operand's address to the end of its buffer */
    int64_t          *bytes;  /* of each operand, when bound */
    int64_t          *slot;   /* launch.dim, writable */
} st_bound;

typedef struct st_steps {
    st_arena *arena;
    st_bound *step;
    uint32_t  n, n_symbol;
    int       is_bound;
    int64_t   size[ST_MAX_SYMBOLS]; /* of the last bind */
    int64_t   scratch_bytes;        /* most that any step's code wants */
} st_steps;

/* with_code: keep the kernels.  On failure nothing is left to free. */
setun_status st_steps_init(st_steps *s, const setun_step *step, uint32_t n, int with_code,
                           setun_error *err);
void         st_steps_fini(st_steps *s);
setun_status st_steps_bind(st_steps *s, const int64_t *size, uint32_t n_size, setun_error *err);

/* Run one step's eval; the error is prefixed with its label. */
setun_status st_steps_eval(const st_bound *b, setun_error *err);

/* A crude estimate for supports(): seconds on a core that runs compiled code, with symbolic sizes
 * taken as 1.  SETUN_DECLINED when the step cannot be run by eval either. */
setun_status st_steps_cost(const setun_step *step, double *seconds);

#endif
