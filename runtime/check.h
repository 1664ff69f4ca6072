/* runtime/check.h -- what checking operators and checking packings share. */
#ifndef ST_RUNTIME_CHECK_H
#define ST_RUNTIME_CHECK_H

#include "runtime/kernels.h"
#include "scripts/host.h"

typedef struct st_checker {
    st_engine      *e;
    st_kernels     *kernels;
    st_arena       *arena;
    setun_write_fn *out;
    void           *user;
    int64_t         failed; /* witnesses that disagreed */
} st_checker;

/* Text to whoever asked, who may want no more of it. */
setun_status st_check_say(st_checker *c, const char *text, setun_error *err);
/* The head of the table of operators. */
setun_status st_check_head(st_checker *c, setun_error *err);
/* All cases of an operator through all witnesses, and its row of the table. */
setun_status st_check_op(st_checker *c, const setun_op *op, setun_error *err);
/* What the packing is, a picture of its bits, tests of pack and unpack, and the row of packed_matmul with it. */
setun_status st_check_packing(st_checker *c, const st_script_packing *p, setun_error *err);

#endif
