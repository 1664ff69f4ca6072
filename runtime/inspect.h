/* runtime/inspect.h -- what the files behind setun/inspect.h share among themselves. */
#ifndef ST_RUNTIME_INSPECT_H
#define ST_RUNTIME_INSPECT_H

#include "setun/inspect.h"

struct setun_tensor {
    setun_view view;   /* as it lies; dim 1 where the rank has none */
    setun_view scale;  /* of a ternary matrix; data NULL: it has none */
    int64_t    group;  /* columns that share a scale; 0: all */
    void      *copy;   /* what a step computed; NULL: a constant of the model */
};

/* Element c of row r, a row being the last dimension. */
double st_tensor_value(const setun_tensor *t, int64_t r, int64_t c);

#endif
