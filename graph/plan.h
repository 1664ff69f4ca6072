/* graph/plan.h -- the order of nodes, where every temporary lives, and who runs what.
 *
 * Input: a verified graph whose sizes are bound or have an upper bound.  Output: steps and one
 * offset per temporary in one buffer.  Not here: kernels (runtime/load.c) and running (backends/).
 *
 * Values are placed in order of size, largest first, into the lowest gap that is free for their
 * whole life.  This is not optimal; it is short, and depends on nothing but the graph. */
#ifndef ST_PLAN_H
#define ST_PLAN_H

#include "graph/graph.h"

typedef struct st_place {
    int64_t  offset, bytes;  /* in the temporary buffer; bytes at the upper bound; 0 if not a temp */
    uint32_t first, last;    /* steps between which the value lives; outputs live to the end */
} st_place;

typedef struct st_step {
    st_node_id node;
    uint32_t   backend; /* index into the list given to st_plan_build */
} st_step;

typedef struct st_plan {
    const st_graph *graph;
    st_step        *step;
    st_place       *place;   /* one per value of the graph */
    uint32_t        n_step;
    int64_t         bytes;   /* of the temporary buffer; offsets are multiples of 64 */
    int64_t         sum_bytes; /* what it would be without reuse */
    int64_t         bound[SETUN_N_SYMBOLS];
} st_plan;

/* Who can run a node and at what cost in seconds; returns SETUN_OK or SETUN_DECLINED. */
typedef setun_status st_plan_cost(void *user, uint32_t backend, const st_graph *g, st_node_id n, double *cost);

/* bound[s]: the largest value of symbol s.  Every node goes to the cheapest backend that takes it;
 * a node that none takes is an error that names it.  cost NULL: everything on backend 0. */
setun_status st_plan_build(const st_graph *g, const int64_t bound[SETUN_N_SYMBOLS], uint32_t n_backend,
                           st_plan_cost *cost, void *user, st_arena *arena, st_plan **out, setun_error *err);
/* No two values that live at the same time overlap; every use is inside a life. */
setun_status st_plan_verify(const st_plan *p, setun_error *err);
void         st_plan_print(const st_plan *p, const char *const *backend_names, st_str *out);

#endif
