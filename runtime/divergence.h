/* runtime/divergence.h -- how far one row of logits is from another. */
#ifndef ST_RUNTIME_DIVERGENCE_H
#define ST_RUNTIME_DIVERGENCE_H

#include <stdint.h>

/* The sum of p ln(p / q) over all n tokens, in double and in order: 0 for equal bits.  *log_p: ln of the sum of the
 * exponentials of the first row; *same_top: is the most probable token the same one? */
double st_divergence(const float *p, const float *q, int64_t n, double *log_p, int *same_top);

#endif
