/* runtime/tune.h -- which of an operator's candidates is fastest here: measured once, then remembered.
 *
 * Operators offer knobs (setun/op.h).  At the first load of a large model on a machine the kernels that
 * matter are built with each candidate in turn and run over the model's own weights, on all threads, the
 * way a token does; the fastest is used, and kept in the cache directory (choices.h).  Every candidate
 * is checked against eval before it runs, so whatever is chosen, results are the same. */
#ifndef ST_RUNTIME_TUNE_H
#define ST_RUNTIME_TUNE_H

#include "base/str.h"
#include "runtime/model.h"

typedef struct st_tune st_tune;

setun_status st_tune_open(st_tune **t, st_engine *e, st_arena *arena, setun_error *err);
/* Set shape->knob to what is remembered or forced; NULL: defaults. */
setun_status st_tune_knobs(st_tune *t, setun_args *shape, setun_error *err);
/* Measure what is not known yet, if options and model ask for it, and exchange the kernels of all programs. */
setun_status st_tune_measure(st_tune *t, setun_model *m, st_pool *pool, setun_error *err);
/* What was chosen and how much faster that is: "ternary_matmul/1 i8[1,2560] ...: prefetch=8192 rows=2, +4.1 %".
 * Nothing where the defaults won. */
void st_tune_print(const st_tune *t, const char *before, const char *between, st_str *out);

#endif
