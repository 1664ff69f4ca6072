/* runtime/head.h -- the screened head: see head.c. */
#ifndef ST_RUNTIME_HEAD_H
#define ST_RUNTIME_HEAD_H

#include "runtime/model.h"

#define ST_HEAD_CODE "head.codes"
#define ST_HEAD_FINE "head.fine"
#define ST_HEAD_BOUNDS "head.bounds"
#define ST_HEAD_ROWS "head.rows"    /* the full head; a session may put fetched rows in its place */
#define ST_HEAD_TOP "head.top"      /* input: how many are wanted */
#define ST_HEAD_NOISE "head.noise"  /* input: see ops/head_kernels.h */
#define ST_HEAD_MAX_COLUMNS 131072  /* of the operators' proofs */

/* After the script, before the packed weights are complete: make or find the short rows. */
setun_status st_head_prepare(setun_model *m, setun_error *err);
/* The graph that ends in "ids", "count" and "values", or NULL if the head cannot be screened. */
setun_status st_head_graph(setun_model *m, st_graph **out, setun_error *err);
/* How many logits the screen gets from n listed ones, among which everything is that it may want; 0: this does
 * not decide it, and all logits are needed. */
int32_t      st_head_answer(const setun_screen *screen, const float *value, const int32_t *id, int64_t n, float *best,
                            int32_t *best_id);
/* The k largest of n >= k values, largest first, of equals the earlier first; id NULL: 0, 1, ...
 * Returns whether all k are finite. */
int          st_head_best(const float *value, const int32_t *id, int64_t n, int64_t k, float *best, int32_t *best_id);

#endif
