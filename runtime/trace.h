/* runtime/trace.h -- what every step of a session computed: as hashes that outlive it, and while it is there. */
#ifndef ST_RUNTIME_TRACE_H
#define ST_RUNTIME_TRACE_H

#include "base/arena.h"
#include "setun/setun.h"

typedef struct st_trace_step {
    const char *op, *scope; /* "ternary_matmul", "blk.0.attn_q" */
    int64_t     columns;    /* of its first float result; 0: it has none, and no hash */
    uint64_t    hash;       /* of all its float results, token after token */
} st_trace_step;

/* Sees a step's result while it is there: what has memory of its own, no reshaped value and no cache. */
typedef void st_trace_see_fn(void *user, int64_t node, uint32_t port, const setun_view *v);

typedef struct st_trace {
    st_arena        *arena; /* the caller's; steps are in it */
    st_trace_see_fn *see;   /* the caller's; NULL: nobody looks, only hashes are made */
    void            *user;
    st_trace_step   *step;  /* in an order in which they can run */
    int64_t          n;
} st_trace;

/* The feeds that follow go into *t, which outlives the session or is left alone.  SETUN_DECLINED: a
 * backend does not show what it computes. */
setun_status st_trace_start(setun_session *s, st_trace *t, setun_error *err);

/* The number in "blk.0.attn_q"; -1: there is none. */
int64_t st_trace_layer(const char *scope);

typedef struct st_trace_difference {
    int64_t first;  /* the first step whose results differ, or that only one model has; -1: none */
    int     apart;  /* it is of the latter kind: nothing behind it was compared step by step */
    int64_t layer;  /* the first layer's number; -1: steps do not tell layers */
    int     layer_differs; /* what leaves that layer is not the same */
} st_trace_difference;

void st_trace_compare(const st_trace *a, const st_trace *b, st_trace_difference *d);

#endif
