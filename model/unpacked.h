/* model/unpacked.h -- ternary matrices that a file holds as ordinary floats.  [any] */
#ifndef ST_MODEL_UNPACKED_H
#define ST_MODEL_UNPACKED_H

#include "model/gguf_model.h"
#include "model/weights.h"

/* The forms that are looked for, the coarsest first: weights of a row that share a scale, 0: all of them. */
#define ST_UNPACKED_FORMS {0, 256, 128, 64}
#define ST_UNPACKED_N_FORM 4

/* Scales of a row of cols weights. */
int64_t st_unpacked_scales(int32_t group, int64_t cols);

/* A matrix whose rows are looked at: as they lie in t, or if gguf is not NULL as tensor `index` of it gives them. */
typedef struct st_unpacked {
    const st_tensor     *t;
    const st_gguf_model *gguf;
    int64_t              index;
} st_unpacked;

/* Is every weight of the matrix exactly -s, 0 or +s, with one s for each group?  Sets *form, an index
 * into the forms; SETUN_DECLINED: it is an ordinary matrix. */
setun_status st_unpacked_find(const st_unpacked *in, int *form, setun_error *err);

/* The codes of such a matrix, rows of T2, and its scales; 0 for a group without any other weight. */
setun_status st_unpacked_convert(const st_unpacked *in, int32_t group, uint8_t *t2, float *scale, setun_error *err);

#endif
