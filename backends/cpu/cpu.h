/* backends/cpu/cpu.h -- what the two files of the cpu backend share. */
#ifndef ST_BACKENDS_CPU_CPU_H
#define ST_BACKENDS_CPU_CPU_H

#include <stdatomic.h>

#include "backends/steps.h"
#include "base/pool.h"
#include "setun/plugin.h"

#define MOST_REPORTED 64

/* On a line of its own, for several write it at once. */
typedef struct st_count {
    _Alignas(64) atomic_uint v;
} st_count;

struct setun_context {
    const setun_host *host;
    st_pool          *pool;
    int32_t           n_threads;
    uint32_t          n_reported; /* operators without a kernel that were already logged */
    const setun_op   *reported[MOST_REPORTED];
};

struct setun_program {
    setun_context *context;
    st_steps       steps;
    int64_t       *ns, *waits;   /* NULL: not asked for */
    st_count      *taken;        /* per step and worker: see run_shared */
    int64_t       *arrived;      /* when each worker came to a barrier; two sets, used in turn */
    setun_observe_fn *observe;   /* NULL: nobody looks */
    void          *observer;
    char          *scratch;      /* one piece per worker */
    int64_t        scratch_step; /* from one worker's to the next's */
};

/* run.c: one run on all workers. */
setun_status st_cpu_run(setun_program *p, const int64_t *size, uint32_t n_size, setun_error *err);

#endif
