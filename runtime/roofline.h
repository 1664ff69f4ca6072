/* runtime/roofline.h -- which limit binds a group of steps, and why it is not faster: see roofline.c. */
#ifndef ST_RUNTIME_ROOFLINE_H
#define ST_RUNTIME_ROOFLINE_H

#include "setun/setun.h"

/* What was measured of the steps of one operator and shape, in one run of their program. */
typedef struct st_roof_work {
    int32_t n_thread;   /* threads of the session */
    int32_t has_kernel; /* 0: eval on one thread */
    double  steps;
    double  ns;         /* of all steps together */
    double  wait_ns;    /* threads waiting for the last of them, added up; below 0: unknown */
    double  stored;     /* bytes of constants and of the cache of keys and values */
    double  run_stored; /* the same of all steps of the run: if it fits into caches, so do these */
    double  temp;       /* bytes of temporaries */
    double  int_ops, float_ops;
    double  units;      /* a step's kernel is cut into; 0: unknown */
    double  rows, row_bytes; /* rows picked by a list, all steps together, and bytes of one */
} st_roof_work;

typedef struct st_roof {
    const char *limit;   /* "memory", "int8", "float", "barrier", "serial"; "unknown" without limits */
    double      share;   /* of that limit which is reached */
    double      floor_ns; /* what the limits alone would take */
    double      bytes;   /* that were taken to come from memory */
    char        why[200];
} st_roof;

/* limits may be NULL: then only what threads do can be judged. */
void st_roof_judge(const st_roof_work *w, const setun_limits *l, st_roof *out);

#endif
