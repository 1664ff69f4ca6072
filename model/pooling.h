/* model/pooling.h -- how the hidden states of a text's tokens become one vector. */
#ifndef ST_MODEL_POOLING_H
#define ST_MODEL_POOLING_H

#include "base/arena.h"
#include "setun/types.h"

typedef struct st_pooling {
    int32_t     kind; /* SETUN_POOL_... of setun.h; 0: the directory does not say */
    int32_t     raw;  /* 1: the vector is not normalised */
    const char *file; /* where it says so */
} st_pooling;

/* From modules.json (as sentence-transformers writes it) and the configuration of its pooling module; all
 * zeros if path has none.  What Setun does not compute is refused. */
setun_status st_pooling_read(st_pooling *p, const char *path, st_arena *arena, setun_error *err);
int32_t      st_pooling_find(const char *name); /* "last", "mean", "cls"; 0: not one of them, or NULL */
const char  *st_pooling_name(int32_t kind);

#endif
