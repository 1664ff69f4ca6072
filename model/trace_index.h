/* model/trace_index.h -- trace.json: what is in a directory of traced tensors, in the order in which they were made. */
#ifndef ST_MODEL_TRACE_INDEX_H
#define ST_MODEL_TRACE_INDEX_H

#include "base/arena.h"
#include "base/str.h"
#include "setun/types.h"

#define ST_TRACE_INDEX "trace.json"
#define ST_TRACE_INDEX_LIMIT (8 << 20) /* bytes: longer ones are not read, and not written */

typedef struct st_trace_tensor {
    const char *name;  /* "blk.0.attn_q": letters, digits, '.', '-' and '_'; its file is <name>.npy */
    const char *op;    /* "ternary_matmul" */
    const char *where; /* "bitnet_b158.lua:22", or "" */
    const char *type;  /* "f32": what it was; the file says what it is there */
    int64_t     step;  /* place of its step in the program */
    uint32_t    rank;
    int64_t     dim[SETUN_MAX_RANK];
} st_trace_tensor;

typedef struct st_trace_index {
    const char      *model; /* its path */
    const int32_t   *token;
    int64_t          n_token;
    st_trace_tensor *tensor;
    int64_t          n;
} st_trace_index;

void         st_trace_index_print(const st_trace_index *x, st_str *out);
/* Everything comes from the arena.  Refuses two tensors of one name and names that are no plain file names. */
setun_status st_trace_index_open(st_trace_index *x, const char *path, st_arena *arena, setun_error *err);

#endif
